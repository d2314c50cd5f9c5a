"""Texts through a tokenizer, in windows."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from seminmf_lightning.harvest.adapters import Feed, Item


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

    def items(self, example: int, content: str) -> list[Item]:
        windows = self.tokenizer(
            content, truncation=True, max_length=self.max_length, return_overflowing_tokens=True,
            return_offsets_mapping=True, return_special_tokens_mask=True, return_attention_mask=False,
            return_token_type_ids=False, verbose=False,
        )  # fmt: skip
        columns = windows["input_ids"], windows["special_tokens_mask"], windows["offset_mapping"]
        return [
            Item(
                example, number, {"input_ids": torch.tensor(ids)}, torch.tensor(special, dtype=torch.bool),
                torch.tensor(spans, dtype=torch.int32),
            )
            for number, (ids, special, spans) in enumerate(zip(*columns, strict=True)) if len(ids)
        ]  # fmt: skip

    def call(self, network: nn.Module, items: list[Item], device: torch.device) -> None:
        ids = [item.inputs["input_ids"] for item in items]
        batch = nn.utils.rnn.pad_sequence(ids, batch_first=True, padding_value=self.padding).to(device)
        lengths = torch.tensor([len(one) for one in ids], device=device)
        mask = torch.arange(batch.shape[1], device=device)[None, :] < lengths[:, None]
        network(input_ids=batch, attention_mask=mask.long())

    def record(self, content: str) -> dict[str, Any]:
        return {"text": content}
