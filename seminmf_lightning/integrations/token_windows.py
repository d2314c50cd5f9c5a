"""The tokens that rows of a harvest of texts come from, in the windows that the network saw.

A store keeps texts and places, not token numbers: texts are tokenised again, by the tokenizer that the
manifest names, whose digest must be the same.

Legend:  n rows   B windows   S tokens of the longest window
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from seminmf_lightning.harvest.adapters import Item
from seminmf_lightning.harvest.manifest import MANIFEST
from seminmf_lightning.harvest.models.transformers import TransformersModel
from seminmf_lightning.harvest.store import Store
from seminmf_lightning.harvest.text_feed import TextFeed, tokenizer_digest
from seminmf_lightning.io.schema import conform
from seminmf_lightning.io.untrusted import Refused

MODEL = {"library": str, "path": str, "preprocessing": {"max_length": int, "digest": str}}


@dataclass(frozen=True)
class TokenWindows:
    """Windows of tokens, and the place of each row in them."""

    tokens: np.ndarray
    """(B, S) token numbers, padded."""
    lengths: np.ndarray
    """(B,) tokens of each window."""
    window: np.ndarray
    """(n,) window of each row; it never falls."""
    position: np.ndarray
    """(n,) token of each row in its window."""
    texts: list[str]
    """The text that each window is cut from."""
    spans: list[np.ndarray]
    """(t, 2) characters of each token in its text; empty for special tokens."""
    tokenizer: Any

    def rows_of(self, window: int) -> range:
        """Return the rows of a window.

        >>> one = np.zeros((2, 1), dtype=int)
        >>> TokenWindows(one, one[0], np.array([0, 0, 1]), np.array([0, 1, 0]), [], [], None).rows_of(0)
        range(0, 2)
        """
        start, stop = (np.searchsorted(self.window, window, side=side) for side in ("left", "right"))
        return range(int(start), int(stop))

    def strings(self, window: int) -> list[str]:
        """Return the tokens of a window as they stand in the text, each with the white space before it."""
        ids = self.tokens[window, : self.lengths[window]].tolist()
        special, end, strings = self.tokenizer.convert_ids_to_tokens(ids), None, []
        for (start, stop), name in zip(self.spans[window].tolist(), special, strict=True):
            if start == stop:
                strings.append(name)
                continue
            # Several tokens may share one character, such as the bytes of an emoji: the later ones are empty.
            before = start if end is None else min(end, stop)
            strings.append(self.texts[window][before:stop])
            end = stop
        return strings


def token_windows(folder: str, layer: str) -> TokenWindows:
    """Read the windows of a layer of a finished harvest.

    Raises:
        ValueError: rows are not tokens of a model of transformers, or its tokenizer is another one by now.
    """
    store = Store(folder)
    path, manifest = store.folder / MANIFEST, store.manifest()
    assert manifest is not None
    feed = _feed(path, manifest["settings"])
    tokens: list[np.ndarray] = []
    texts: list[str] = []
    spans: list[np.ndarray] = []
    windows, positions = [], []
    for record in manifest["layers"][layer]["shards"]:
        columns = {name: column.numpy() for name, column in store.columns(layer, record["shard"]).items()}
        examples, first = store.examples(record["shard"]), record["examples"][0]
        if not len(columns["example"]):
            continue
        if columns["position"].min() < 0:
            raise Refused(f"{path}: rows are means over tokens, not tokens")
        keys = np.stack([columns["example"], columns["window"]], axis=1)
        new = np.append(True, (keys[1:] != keys[:-1]).any(axis=1))
        windows.append(len(tokens) + np.cumsum(new) - 1)
        positions.append(columns["position"].astype(np.int64))
        last, items = -1, dict[int, Item]()
        for example, window in keys[new].tolist():
            text = examples[example - first].get("text", "")
            if example != last:
                last, items = example, {item.window: item for item in feed.items(example, text)}
            tokens.append(items[window].inputs["input_ids"].numpy())
            spans.append(np.asarray(items[window].spans))
            texts.append(text)
    lengths = np.array([len(one) for one in tokens])
    padded = np.full((len(tokens), lengths.max()), feed.padding, dtype=np.int64)
    for number, one in enumerate(tokens):
        padded[number, : len(one)] = one
    window, position = np.concatenate(windows), np.concatenate(positions)
    if (position >= lengths[window]).any():
        raise Refused(f"{path}: rows lie outside their windows; harvest again")
    return TokenWindows(padded, lengths, window, position, texts, spans, feed.tokenizer)


def _feed(path: Path, settings: Mapping[str, Any]) -> TextFeed:
    """Return what tokenised the texts of a harvest."""
    model = settings["model"]
    if model.get("library") != "transformers" or "max_length" not in model.get("preprocessing", {}):
        raise Refused(
            f"{path}: rows of {model.get('library')} are not tokens; this format needs a harvest of texts by "
            "transformers"
        )
    conform(path, model, MODEL, "settings.model")
    tokenizer = TransformersModel(model["path"], revision=model.get("revision")).tokenizer()
    if (digest := tokenizer_digest(tokenizer)) != model["preprocessing"]["digest"]:
        raise Refused(
            f"{path}: the tokenizer of {model['path']} was {model['preprocessing']['digest']} when it was "
            f"harvested, and is {digest} now; harvest again"
        )
    return TextFeed(tokenizer, model["preprocessing"]["max_length"])
