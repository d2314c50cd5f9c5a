"""The window limit is the largest number of tokens that the network really takes."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from seminmf_lightning.harvest.window_limit import window_limit

UNLIMITED = SimpleNamespace(model_max_length=int(1e30))
SIZES = {
    "vocab_size": 20,
    "hidden_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 8,
}
ARCHITECTURES: dict[str, tuple[dict[str, Any], int | None]] = {
    "Bert": (SIZES | {"max_position_embeddings": 33}, 33),
    "Roberta": (SIZES | {"max_position_embeddings": 35, "pad_token_id": 1}, 33),
    "XLMRoberta": (SIZES | {"max_position_embeddings": 35, "pad_token_id": 3}, 31),
    "MPNet": (SIZES | {"max_position_embeddings": 19}, 17),
    "GPT2": ({"vocab_size": 20, "n_embd": 8, "n_layer": 1, "n_head": 2, "n_positions": 31}, 31),
    "OPT": (
        {"vocab_size": 20, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "ffn_dim": 8,
         "max_position_embeddings": 29, "word_embed_proj_dim": 8}, 29,
    ),
    "Llama": (SIZES | {"max_position_embeddings": 40}, 40),
    "DebertaV2": (SIZES | {"max_position_embeddings": 30}, 30),
    "DistilBert": (
        {"vocab_size": 20, "dim": 8, "n_layers": 1, "n_heads": 2, "hidden_dim": 8,
         "max_position_embeddings": 27}, 27,
    ),
    "Mpt": ({"vocab_size": 20, "d_model": 8, "n_layers": 1, "n_heads": 2, "max_seq_len": 37}, 37),
    "T5Encoder": (
        {"vocab_size": 20, "d_model": 8, "num_layers": 1, "num_heads": 2, "d_kv": 4, "d_ff": 8}, None,
    ),
    "XLNet": ({"vocab_size": 20, "d_model": 8, "n_layer": 1, "n_head": 2, "d_inner": 8}, None),
    "Bloom": ({"vocab_size": 20, "hidden_size": 8, "n_layer": 1, "n_head": 2}, None),
}  # fmt: skip
EXTRAPOLATES = ("Llama",)
"""Architectures that compute beyond what they were trained for."""


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_limit_is_taken_and_one_more_token_is_not(name: str) -> None:
    transformers = pytest.importorskip("transformers")
    settings, expected = ARCHITECTURES[name]
    config = getattr(transformers, f"{name.removesuffix('Encoder')}Config")(**settings)
    network = getattr(transformers, f"{name}Model")(config).eval()
    assert window_limit(UNLIMITED, network) == expected
    with torch.no_grad():
        network(input_ids=torch.full((1, expected or 300), 5))
        if expected is not None and name not in EXTRAPOLATES:
            with pytest.raises((IndexError, RuntimeError)):
                network(input_ids=torch.full((1, expected + 1), 5))


def test_the_text_part_of_a_network_counts_and_the_tokenizer_may_say_less() -> None:
    transformers = pytest.importorskip("transformers")
    sizes = {key: value for key, value in SIZES.items() if key != "vocab_size"}
    vision = sizes | {"image_size": 16, "patch_size": 8}  # a table of 5 positions for its patches
    config = transformers.CLIPConfig(
        text_config=SIZES | {"max_position_embeddings": 23}, vision_config=vision
    )
    network = transformers.CLIPModel(config)
    assert window_limit(UNLIMITED, network) == 23
    assert window_limit(SimpleNamespace(model_max_length=11), network) == 11
    assert window_limit(SimpleNamespace(model_max_length=-1), torch.nn.Linear(1, 1)) is None
