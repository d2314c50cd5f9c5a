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
    places = [(one["text"], *_fired(one)) for one in examples]
    pieces = [(piece(*place), place) for place in places]
    pieces = [(token, place) for token, place in pieces if token]
    counts = Counter(token.lower() for token, _ in pieces)
    written = {token.lower(): token for token, _ in reversed(pieces)}  # as in the strongest example
    ordered = counts.most_common(WORDS)
    if not ordered:
        return ""
    leading, count = ordered[0]
    if count < LEADING * len(pieces) or count < 2:
        return ", ".join(written[token] for token, _ in ordered)
    own = [place for token, place in pieces if token.lower() == leading]
    before = _common(re.findall(r"(?:^|\W)(\w+)\s*$", text[:start]) for text, start, _ in own)
    after = _common(re.findall(r"^\s*(\w+)", text[stop:]) for text, _, stop in own)
    before, after = before * (leading[0] != "-"), after * (leading[-1] != "-")  # not the rest of its own word
    label = " ".join(part for part in (before if not after else "", written[leading], after) if part)
    return ", ".join([label, *(written[token] for token, times in ordered[1:] if times > 1)])


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
