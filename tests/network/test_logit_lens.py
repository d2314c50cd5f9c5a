"""What concepts promote, against logits computed by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from seminmf_lightning.harvest.layers import Layer
from seminmf_lightning.network.hooks import find_layer
from seminmf_lightning.network.logit_lens import Head, find_head, lens_texts, logit_lens

transformers = pytest.importorskip("transformers")
D, HIDDEN, WORDS = 16, 24, 19
IDS = torch.tensor([[1, 2, 3, 4]])
PIXELS = torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def spread(model: nn.Module) -> nn.Module:
    """Give norms and biases values that matter."""
    torch.manual_seed(1)
    with torch.no_grad():
        for name, one in model.named_parameters():
            if one.ndim == 1:
                one.add_(torch.randn_like(one) * (0.5 if "weight" in name else 1.0))
    return model.eval()


def llama() -> nn.Module:
    torch.manual_seed(0)
    return spread(transformers.LlamaForCausalLM(transformers.LlamaConfig(
        vocab_size=WORDS, hidden_size=D, intermediate_size=HIDDEN, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, max_position_embeddings=32,
    )))  # fmt: skip


def gpt2() -> nn.Module:
    torch.manual_seed(0)
    return spread(transformers.GPT2LMHeadModel(transformers.GPT2Config(
        vocab_size=WORDS, n_embd=D, n_inner=HIDDEN, n_layer=2, n_head=2, n_positions=32,
    )))  # fmt: skip


def vit() -> nn.Module:
    torch.manual_seed(0)
    return spread(transformers.ViTForImageClassification(transformers.ViTConfig(
        hidden_size=D, intermediate_size=HIDDEN, num_hidden_layers=2, num_attention_heads=2, image_size=16,
        patch_size=8, num_labels=7,
    )))  # fmt: skip


def layer_norm(V: Tensor, gamma: Tensor) -> Tensor:
    centred = V - V.mean(dim=1, keepdim=True)
    return gamma * centred / centred.square().mean(dim=1, keepdim=True).sqrt()


def rms_norm(V: Tensor, gamma: Tensor) -> Tensor:
    return gamma * V / V.square().mean(dim=1, keepdim=True).sqrt()


def logits_by_hand(model: Any, layer: str, atoms: Tensor) -> Tensor:
    """Logits of atoms; those of an MLP's hidden layer pass its second map first."""
    if layer.startswith("model"):
        V = atoms @ model.model.layers[1].mlp.down_proj.weight.T if ":" in layer else atoms
        return rms_norm(V, model.model.norm.weight) @ model.lm_head.weight.T
    if layer.startswith("transformer"):
        V = atoms @ model.transformer.h[1].mlp.c_proj.weight if ":" in layer else atoms
        return layer_norm(V, model.transformer.ln_f.weight) @ model.lm_head.weight.T
    return layer_norm(atoms, model.vit.layernorm.weight) @ model.classifier.weight.T


CASES = [
    (llama, "model.layers.0", D), (llama, "model.layers.1.mlp.down_proj:input", HIDDEN),
    (llama, "model.layers.0.mlp", D), (llama, "model.layers.1", D),
    (gpt2, "transformer.h.0", D), (gpt2, "transformer.h.1.mlp.c_proj:input", HIDDEN),
    (vit, "vit.layers.0", D),
]  # fmt: skip


@pytest.mark.parametrize(("make", "layer", "width"), CASES)
def test_promoted_are_the_largest_logits_by_hand(make: Any, layer: str, width: int) -> None:
    model = make()
    atoms = torch.randn(30, width, generator=torch.Generator().manual_seed(2))
    call = (lambda: model(pixel_values=PIXELS)) if make is vit else (lambda: model(input_ids=IDS))
    head = find_head(model, find_layer(model, layer), call)
    lens = logit_lens(3 * atoms, head, top=3)
    logits = logits_by_hand(model, layer, atoms)
    assert torch.equal(lens.promotes, logits.topk(3).indices)
    assert torch.equal(lens.suppresses, logits.topk(3, largest=False).indices)
    assert sum(len(one._forward_hooks) for one in model.modules()) == 0


def test_blocks_of_atoms_and_half_precision_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    model, atoms = llama(), torch.randn(30, D)
    head = find_head(model, Layer("model.layers.0"), lambda: model(input_ids=IDS))
    whole = logit_lens(atoms, head)
    assert whole.promotes.shape == (30, 10)
    monkeypatch.setattr("seminmf_lightning.network.logit_lens.LOGITS_AT_ONCE", 4 * WORDS)
    assert torch.equal(logit_lens(atoms, head).promotes, whole.promotes)
    rounded = model.bfloat16()
    head = find_head(rounded, Layer("model.layers.0"), lambda: rounded(input_ids=IDS))
    logits = rms_norm(atoms, rounded.model.norm.weight.float()) @ rounded.lm_head.weight.float().T  # type: ignore[union-attr, operator]
    assert torch.equal(logit_lens(atoms, head, top=1).promotes[:, 0], logits.argmax(dim=1))
    assert rounded.lm_head.weight.dtype == torch.bfloat16  # type: ignore[union-attr]


def test_a_classifier_of_pooled_maps_is_read_at_its_last_maps_alone() -> None:
    torch.manual_seed(0)
    body = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU())
    network = nn.Sequential(body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(), nn.Linear(8, 5)).eval()
    atoms = torch.randn(6, 8)
    for layer in ("0", "0.3", "4:input"):
        head = find_head(network, find_layer(network, layer), lambda: network(PIXELS))
        assert head == Head(network[4])
    assert torch.equal(logit_lens(atoms, head, 2).promotes, (atoms @ network[4].weight.T).topk(2).indices)
    for layer in ("0.0", "0.1", "0.2"):
        with pytest.raises(ValueError, match=r"'0\.3', a ReLU, lies between the layer and the head"):
            find_head(network, Layer(layer), lambda: network(PIXELS))


def test_what_no_direction_passes_is_refused_by_name() -> None:
    config = transformers.BertConfig(
        vocab_size=WORDS, hidden_size=D, intermediate_size=HIDDEN, num_hidden_layers=2, num_attention_heads=2
    )
    cases = [
        (transformers.BertForSequenceClassification, r"'bert\.pooler\.activation', a Tanh, lies between"),
        (transformers.BertForMaskedLM, r"'cls\.predictions\.transform\.transform_act_fn', a GELU\w*, lies"),
    ]
    for kind, message in cases:
        model = kind(config).eval()
        with pytest.raises(ValueError, match=message):
            find_head(model, Layer("bert.encoder.layer.0"), lambda: model(input_ids=IDS))  # noqa: B023
    encoder = transformers.BertModel(config).eval()
    with pytest.raises(ValueError, match="BertModel has no head: neither an unembedding nor a classifier"):
        find_head(encoder, Layer("encoder.layer.0"), lambda: encoder(input_ids=IDS))
    model = llama()
    with pytest.raises(ValueError, match="atoms of 9 features, but the head takes 16"):
        logit_lens(torch.randn(2, 9), find_head(model, Layer("model.layers.0"), lambda: model(input_ids=IDS)))
    with pytest.raises(ValueError, match=r"act_fn:input is the input of a SiLU\w*, not of a linear"):
        find_head(model, find_layer(model, "model.layers.0.mlp.act_fn:input"), lambda: model(input_ids=IDS))
    model.lm_head.weight.data.fill_(torch.nan)  # type: ignore[union-attr, operator]
    with pytest.raises(ValueError, match="the checkpoint lacks the weights of 'lm_head'"):
        find_head(model, Layer("model.layers.0"), lambda: model(input_ids=IDS))


def test_texts_of_a_lens() -> None:
    lens = logit_lens(torch.eye(2), Head(nn.Linear(2, 2, bias=False).requires_grad_(False)), top=1)
    first = lens_texts(lens, "ab".__getitem__)[0]
    assert sorted(first["promotes"] + first["suppresses"]) == ["a", "b"]


def test_a_dead_atom_promotes_nothing() -> None:
    D = torch.tensor([[0.0, 0.0], [1.0, 0.0]])
    dead, alive = lens_texts(logit_lens(D, Head(nn.Linear(2, 3)), top=2), "abc".__getitem__)
    assert dead == {"promotes": [], "suppresses": []}
    assert len(alive["promotes"]) == len(alive["suppresses"]) == 2
