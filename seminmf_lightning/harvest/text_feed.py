"""Tokenise texts and cut them into windows."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import numpy as np
import torch
from torch import nn

from seminmf_lightning.harvest.adapters import Feed, Item
from seminmf_lightning.harvest.inputs import Unreadable
from seminmf_lightning.harvest.inputs.base import digest_of

CHUNK = 2**18
"""Characters tokenised at once: a tokenizer needs 170 bytes of memory per character."""
OVERLAP = 2**12
"""Characters that two chunks share; their tokens agree except close to the borders."""
AGREEING = 8
"""Successive tokens that must be equal where two chunks are joined."""


class TextFeed(Feed):
    """Cuts texts into windows of at most ``max_length`` tokens, special ones included.

    Args:
        tokenizer: a fast tokenizer of transformers.
        max_length: tokens per window.
    """

    pool = 32

    def __init__(self, tokenizer: Any, max_length: int) -> None:
        self.tokenizer, self.max_length = tokenizer, max_length
        self.padding = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else 0
        added = getattr(tokenizer, "added_tokens_decoder", {})
        self.special = {number: str(token) for number, token in added.items() if token.special}

    def items(self, example: int, content: str) -> list[Item]:
        try:
            content.encode()
        except UnicodeEncodeError as error:
            raise Unreadable(
                f"an unpaired surrogate at character {error.start}, which is not valid text"
            ) from error
        if len(content) > CHUNK:
            return self._long(example, content)
        windows = self.tokenizer(
            content, truncation=True, max_length=self.max_length, return_overflowing_tokens=True,
            return_offsets_mapping=True, return_special_tokens_mask=True, return_attention_mask=False,
            return_token_type_ids=False, verbose=False,
        )  # fmt: skip
        columns = windows["input_ids"], windows["special_tokens_mask"], windows["offset_mapping"]
        return [
            self._item(
                example, number, content, np.array(ids), np.array(special, dtype=bool), np.array(spans)
            )
            for number, (ids, special, spans) in enumerate(zip(*columns, strict=True))
            if len(ids)
        ]

    def _item(
        self, example: int, window: int, content: str, ids: np.ndarray, special: np.ndarray, spans: np.ndarray
    ) -> Item:
        """Make one window; a special token that is spelled out in the text counts as special too."""
        for at in np.flatnonzero(np.isin(ids, list(self.special)) & ~special):
            start, stop = spans[at]
            # Unknown words also have the id of a special token, but not its text.
            special[at] = content[start:stop].strip() == self.special[int(ids[at])].strip()
        return Item(
            example, window, {"input_ids": torch.from_numpy(ids.astype(np.int64))}, torch.from_numpy(special),
            torch.from_numpy(spans.astype(np.int32).reshape(-1, 2)),
        )  # fmt: skip

    def _long(self, example: int, content: str) -> list[Item]:
        """Return the windows of a long text, tokenised in chunks; they equal those of the whole text."""
        template = self.items(0, "a")[0]  # what the tokenizer adds around each window
        assert template.special is not None
        added = template.special.numpy()
        first, last = int((~added).argmax()), int((~added[::-1]).argmax())
        around = template.inputs["input_ids"].numpy()
        before, after = around[:first], around[len(around) - last :]
        ids, spans = self._tokens(content)
        each, items = max(1, self.max_length - first - last), []
        no_spans = np.zeros((first, 2), dtype=spans.dtype), np.zeros((last, 2), dtype=spans.dtype)
        for window, start in enumerate(range(0, max(1, len(ids)), each)):
            part = slice(start, start + each)
            tokens = np.concatenate([before, ids[part], after])
            special = np.ones(len(tokens), dtype=bool)
            special[first : len(tokens) - last] = False
            all_spans = np.concatenate([no_spans[0], spans[part], no_spans[1]])
            if len(tokens):
                items.append(self._item(example, window, content, tokens, special, all_spans))
        return items

    def _tokens(self, content: str) -> tuple[np.ndarray, np.ndarray]:
        """Return all tokens (t,) of a long text and their spans (t, 2), from overlapping chunks."""
        ids, spans = self._chunk(content, 0)
        parts, start = [], 0
        while start + CHUNK < len(content):
            start += CHUNK - OVERLAP
            next_ids, next_spans = self._chunk(content, start)
            end, begin = _join(ids, spans, next_ids, next_spans)
            parts.append((ids[:end], spans[:end]))
            ids, spans = next_ids[begin:], next_spans[begin:]
        parts.append((ids, spans))
        return np.concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts])

    def _chunk(self, content: str, start: int) -> tuple[np.ndarray, np.ndarray]:
        tokens = self.tokenizer(
            content[start : start + CHUNK], add_special_tokens=False, return_offsets_mapping=True,
            return_attention_mask=False, return_token_type_ids=False, verbose=False,
        )  # fmt: skip
        spans = np.array(tokens["offset_mapping"], dtype=np.int32).reshape(-1, 2)
        return np.array(tokens["input_ids"], dtype=np.int32), spans + np.int32(start)

    def call(self, network: nn.Module, items: list[Item], device: torch.device) -> None:
        ids = [item.inputs["input_ids"] for item in items]
        batch = nn.utils.rnn.pad_sequence(ids, batch_first=True, padding_value=self.padding).to(device)
        lengths = torch.tensor([len(one) for one in ids], device=device)
        mask = torch.arange(batch.shape[1], device=device)[None, :] < lengths[:, None]
        network(input_ids=batch, attention_mask=mask.long())

    def record(self, content: str) -> dict[str, Any]:
        return {"text": content}


def tokenizer_digest(tokenizer: Any) -> str:
    """Return a short digest of everything that decides which tokens a text becomes."""
    content = json.loads(tokenizer.backend_tokenizer.to_str())
    content.update(truncation=None, padding=None)  # which every call sets
    return digest_of([json.dumps(content, sort_keys=True)])


def _join(
    ids: np.ndarray, spans: np.ndarray, next_ids: np.ndarray, next_spans: np.ndarray
) -> tuple[int, int]:
    """Return where the first chunk ends and where the next one starts: at a token in both of them."""
    if not len(next_ids):
        return len(ids), 0
    if not len(ids):
        return 0, 0
    shared = int((next_spans[:, 0] < spans[-1, 1]).sum())
    at = {key: number for number, key in enumerate(_keys(next_ids[:shared], next_spans[:shared]))}
    first = int(np.searchsorted(spans[:, 0], next_spans[0, 0]))
    run, middle = 0, (len(ids) - first) // 2
    for number, key in enumerate(_keys(ids[first:], spans[first:]), first):
        same = at.get(key)
        run = run + 1 if same is not None else 0
        if same is not None and run >= AGREEING and number - first >= middle:
            return number, same
    # The chunks never agree: end the first where its text ends.
    return len(ids), int(np.searchsorted(next_spans[:, 0], spans[-1, 1]))


def _keys(ids: np.ndarray, spans: np.ndarray) -> list[tuple[int, ...]]:
    """Return a key per token: its span, its number, and which of the equal bytes of one character it is."""
    seen: Counter[tuple[int, ...]] = Counter()
    keys: list[tuple[int, ...]] = []
    for start, stop, token in np.column_stack([spans, ids]).tolist():
        keys.append((start, stop, token, seen[start, stop, token]))
        seen[start, stop, token] += 1
    return keys
