"""Name concepts without a language model: by the tokens they fire on, or the images' common group."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

WORDS = 3
"""Most tokens, or images, in a label."""
LEADING = 0.5
"""Least share of the examples that a token, or a group of images, must have to stand for all."""
NEIGHBOUR = 2 / 3
"""Least share of a leading token's examples that have the same word beside it, for the label to say so."""
WHITE, WHITE_SHOWN = {"\n": "\u23ce", "\t": "\u21e5"}, 4
"""Signs for white space, and most of them in a label; another one is drawn as an open box."""

Example = Mapping[str, Any]


def automatic_labels(concepts: Mapping[int, Sequence[Example]]) -> dict[int, str]:
    """Return labels of concepts, from the page's examples of their stronger sign, strongest first.

    Concepts whose examples are neither tokens nor images have none.
    """
    every = {group_of(one) for examples in concepts.values() for one in examples if "image" in one}
    labels = {}
    for concept, examples in concepts.items():
        tokens = [one for one in examples if "tokens" in one]
        images = [one for one in examples if "image" in one]
        label = label_of_tokens(tokens) if tokens else label_of_images(images, len(every) > 1)
        if label:
            labels[concept] = label
    return labels


def label_of_tokens(examples: Sequence[Example]) -> str:
    """Return the token of most examples with a word that is always beside it, else the strongest tokens.

    >>> label_of_tokens([{"text": "The cat sat. ", "tokens": [[4, 7, 127, 1]]},
    ...                  {"text": "A cat sat.", "tokens": [[2, 5, 127, 1]]}])
    'cat sat'
    >>> label_of_tokens([{"text": "co-routines", "tokens": [[9, 11, 127, 1]]}])
    '-es'
    """
    pieces = _pieces(examples)
    written = {token.lower(): token for token, _ in reversed(pieces)}  # as in the strongest example
    tokens, leads = _named(pieces)
    if not leads:
        return ", ".join(written[token] for token in tokens)
    leading, *others = tokens
    own = [place for token, place in pieces if token.lower() == leading]
    before = _common(re.findall(r"(?:^|\W)(\w+)\s*$", text[:start]) for text, start, _ in own)
    after = _common(re.findall(r"^\s*(\w+)", text[stop:]) for text, _, stop in own)
    before, after = before * (leading[0] != "-"), after * (leading[-1] != "-")  # not the rest of its own word
    label = " ".join(part for part in (before if not after else "", written[leading], after) if part)
    return ", ".join([label, *(written[token] for token in others)])


def tokens_of(examples: Sequence[Example]) -> list[str]:
    """Return the tokens that the label of these examples names, in lower case; none of images.

    >>> tokens_of([{"text": "The cat sat.", "tokens": [[4, 7, 127, 1]]}])
    ['cat']
    """
    return _named(_pieces([one for one in examples if "tokens" in one]))[0]


def _pieces(examples: Sequence[Example]) -> list[tuple[str, tuple[str, int, int]]]:
    """Return each token as it is written, and its text, start and stop."""
    places = [(one["text"], *_fired(one)) for one in examples]
    pieces = [(piece(*place), place) for place in places]
    return [(token, place) for token, place in pieces if token]


def _named(pieces: Sequence[tuple[str, tuple[str, int, int]]]) -> tuple[list[str], bool]:
    """Return the tokens of a label in lower case, and whether the first stands for most of the examples."""
    ordered = Counter(token.lower() for token, _ in pieces).most_common(WORDS)
    leads = bool(ordered) and ordered[0][1] >= max(LEADING * len(pieces), 2)
    return [token for at, (token, times) in enumerate(ordered) if not (leads and at) or times > 1], leads


def piece(text: str, start: int, stop: int) -> str:
    """Return the token ``text[start:stop]`` on one line, with hyphens where it is a part of a word.

    Tokens of many language models begin with the space before their word.  White space alone is drawn.

    >>> piece("recoded", 2, 5), piece("a word", 1, 6), piece("a  \\n", 1, 4)
    ('-cod-', 'word', '\u2423\u2423\u23ce')
    """
    given = text[start:stop]
    token = " ".join(given.split())
    if not token:
        return "".join(WHITE.get(one, "\u2423") for one in given[:WHITE_SHOWN])
    if given[0].isalnum() and start and text[start - 1].isalnum():
        token = f"-{token}"
    if given[-1].isalnum() and text[stop : stop + 1].isalnum():
        token = f"{token}-"
    return token


def label_of_images(examples: Sequence[Example], several_groups: bool) -> str:
    """Return the group of most images; otherwise the names of the strongest.

    >>> label_of_images([{"name": "dogs/1.png"}, {"name": "dogs/2.png"}], several_groups=True)
    'dogs'
    >>> label_of_images([{"name": "dogs/1.png: patch [0:8, 0:8] of 64 x 64 pixels"}], several_groups=False)
    '1'
    """
    groups = Counter(group_of(one) for one in examples)
    if several_groups and groups:
        group, count = groups.most_common(1)[0]
        if group and count >= LEADING * len(examples):
            return group
    return ", ".join(list(dict.fromkeys(map(_stem, examples)))[:WORDS])


def group_of(example: Example) -> str:
    """Return the folder of an image, or what precedes the part of it that was cut out.

    >>> group_of({"name": "photos/dogs/1.png: patch [0:8, 0:8] of 64 x 64 pixels"})
    'dogs'
    >>> group_of({"name": "gravel[0:170, 340:510]: patch [0:8, 0:8] of 64 x 64 pixels"})
    'gravel'
    """
    name = example["name"].partition(": ")[0]
    parts = re.split(r"[\\/]", name)
    return parts[-2] if len(parts) > 1 else name.partition("[")[0]


def _stem(example: Example) -> str:
    name = re.split(r"[\\/]", example["name"].partition(": ")[0])[-1]
    return re.sub(r"\.\w{2,4}$", "", name.partition("[")[0])


def _fired(example: Example) -> tuple[int, int]:
    return next(((start, stop) for start, stop, _, here in example["tokens"] if here), (0, 0))


def _common(words: Iterable[list[str]]) -> str:
    """Return the word that most of the lists begin with, or nothing."""
    every = [one[0] if one else "" for one in words]
    word, count = Counter(every).most_common(1)[0]
    return word if count >= NEIGHBOUR * len(every) and len(every) > 1 else ""
