"""Find how many tokens a network takes at once, whatever its architecture calls that setting."""

from __future__ import annotations

from typing import Any

from torch import nn

SENTINEL = 10**9
"""Larger numbers mean "no limit": tokenizers without one say 1e30."""
KEYS = ("max_position_embeddings", "n_positions", "max_seq_len", "max_sequence_length")


def window_limit(tokenizer: Any, network: nn.Module) -> int | None:
    """Return the largest number of tokens per window, special ones included; None if there is no limit.

    It is the smaller of the limits of the tokenizer and of the configuration, minus the position embeddings
    that the network reserves: RoBERTa starts to count after its padding index.  Zero, negative and huge
    numbers mean no limit, as in XLNet and in tokenizers without a limit.
    """
    config = getattr(network, "config", None)
    if config is not None and hasattr(config, "get_text_config"):
        config = config.get_text_config()
    configured = min(filter(None, (_limit(getattr(config, key, None)) for key in KEYS)), default=None)
    if configured is not None:
        tables = (
            module for name, module in network.named_modules()
            if isinstance(module, nn.Embedding) and "position" in name.rpartition(".")[2]
            and module.num_embeddings == configured and module.padding_idx is not None
        )  # fmt: skip
        configured -= max((int(table.padding_idx or 0) + 1 for table in tables), default=0)
    limits = configured, _limit(getattr(tokenizer, "model_max_length", None))
    return min(filter(None, limits), default=None)


def _limit(value: Any) -> int | None:
    return int(value) if isinstance(value, int | float) and 0 < value < SENTINEL else None
