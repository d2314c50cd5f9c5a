"""A dictionary attached to small networks, against hooks written by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from attached import IDS, D, K, hooks, learned, small_model
from torch import Tensor, nn

from seminmf_lightning import attach

# four patches, and a class token
IMAGES = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
PLACES = [
    ("llama", "model.layers.0", D), ("llama", "model.layers.1.mlp.down_proj:input", 24),
    ("gpt2", "transformer.h.0", D), ("gpt2", "transformer.h.1.mlp", D),
    ("minilm", "encoder.layer.2", 384), ("minilm", "encoder.layer.2.output.dense:input", 1536),
    ("vit", "layernorm", D), ("timm", "blocks.0", D), ("timm", "blocks.1.mlp.fc2:input", 4 * D),
]  # fmt: skip


@pytest.mark.parametrize(("name", "layer", "width"), PLACES)
def test_replaced_activations_are_those_of_a_hook_by_hand(name: str, layer: str, width: int) -> None:
    model, dictionary = small_model(name), learned(width)

    def output() -> Tensor:
        out = model(IMAGES if name in ("vit", "timm") else IDS)
        return out if isinstance(out, Tensor) else out[0]

    module = model.get_submodule(layer.removesuffix(":input"))
    seen: list[Tensor] = []

    def rebuilt(x: Tensor) -> Tensor:
        seen.append(x)
        return dictionary.decode(dictionary.encode(x.reshape(-1, width))).reshape(x.shape)

    def after(module: nn.Module, args: Any, out: Any) -> Any:
        return (rebuilt(out[0]), *out[1:]) if isinstance(out, tuple) else rebuilt(out)

    def before(module: nn.Module, args: Any) -> Any:
        return (rebuilt(args[0]), *args[1:])

    by_hand = (
        module.register_forward_pre_hook(before) if ":" in layer else module.register_forward_hook(after)
    )
    with torch.no_grad():
        expected = output()
        by_hand.remove()
        untouched = output()
        with attach(model, layer, dictionary, replace=True) as concepts:
            found = output()
        with attach(model, layer, dictionary, replace=True, error=True):
            kept = output()
        with attach(model, layer, dictionary) as reading:
            read = output()
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-6)
    assert (expected - untouched).abs().max() > 1e-3
    assert torch.equal(kept, untouched)
    assert torch.equal(read, untouched)
    codes = dictionary.encode(seen[0].reshape(-1, width)).reshape(2, 5, K)
    assert torch.equal(reading.codes, concepts.codes)
    torch.testing.assert_close(reading.codes, codes)
    assert hooks(model) == 0


@pytest.mark.parametrize("signs", ["dictionary", "codes", "none"])
def test_edits_change_what_they_name_by_the_atoms_they_name(signs: str) -> None:
    dictionary, layer = learned(nonnegative=signs), nn.Identity()
    network, A = nn.Sequential(layer, nn.Identity()), 3 * torch.randn(2, 4, D) + 1
    atoms = dictionary.normalizer.scale * dictionary.get_dictionary()
    mask = torch.tensor([[True, False, False, True], [False, False, True, False]])
    with attach(network, "0", dictionary) as concepts:
        assert torch.equal(network(A), A)
        Z = concepts.codes
        concepts.steer({3: 2.5, 7: -1.0}, tokens=slice(1, 3))
        torch.testing.assert_close((network(A) - A)[:, 1:3], (2.5 * atoms[3] - atoms[7]).expand(2, 2, D))
        assert torch.equal(network(A)[:, [0, 3]], A[:, [0, 3]])
        concepts.clear().steer({3: 2.5}, tokens=mask)
        torch.testing.assert_close(network(A) - A, 2.5 * mask[..., None] * atoms[3])
        concepts.clear().steer({3: 1.0}, tokens=[-1]).steer({3: -1.0}, tokens=[3])
        torch.testing.assert_close(network(A), A)
        concepts.clear().clamp({5: 2.0})
        torch.testing.assert_close(network(A) - A, (2 - Z[..., 5:6]) * atoms[5], atol=1e-5, rtol=1e-5)
        concepts.clear().ablate(range(K))
        rest = A - dictionary.decode(Z.reshape(-1, K)).reshape(A.shape)
        offset = dictionary.decode(torch.zeros(1, K))
        torch.testing.assert_close(network(A), rest + offset, atol=1e-4, rtol=1e-4)
        assert torch.equal(concepts.codes, Z)  # codes are those before edits
        assert torch.equal(concepts.clear() and network(A), A)
    with attach(network, "0", dictionary, replace=True) as concepts:
        torch.testing.assert_close(concepts.ablate(range(K)) and network(A), offset.expand(A.shape))


def test_edits_apply_in_their_order() -> None:
    dictionary, network, A = learned(), nn.Sequential(nn.Identity()), torch.randn(1, 3, D)
    with attach(network, "0", dictionary, replace=True) as concepts:
        concepts.steer({1: 5.0}).ablate([1]).steer({1: 1.0})
        wanted = concepts.clear().clamp({1: 1.0}) and network(A)
        torch.testing.assert_close(concepts.clear().steer({1: 5.0}).clamp({1: 1.0}) and network(A), wanted)


def test_nothing_remains_after_an_exception_in_the_body_or_in_the_network() -> None:
    model, dictionary = small_model("gpt2"), learned()
    before = model(IDS)[0]
    with pytest.raises(KeyError), attach(model, "transformer.h.0", dictionary, replace=True):
        raise KeyError("the body")
    with pytest.raises(IndexError), attach(model, "transformer.h.0", dictionary, replace=True):
        model(torch.tensor([[99]]))
    wide = learned(24)
    with (
        pytest.raises(
            ValueError, match=r"h\.0 has activations \(2, 5, 16\), 16 features wide, but .* has 24"
        ),
        attach(model, "transformer.h.0", wide),
    ):
        model(IDS)
    assert hooks(model) == 0
    assert torch.equal(model(IDS)[0], before)


def test_gradients_reach_codes_strengths_and_what_comes_before() -> None:
    dictionary = learned()
    network, x = nn.Sequential(nn.Linear(5, D), nn.Identity()), torch.randn(2, 3, 5)
    strength, weight = torch.tensor(2.0, requires_grad=True), torch.randn(D)
    atoms = dictionary.normalizer.scale * dictionary.get_dictionary()
    with attach(network, "0", dictionary) as concepts:
        concepts.steer({4: strength}, tokens=slice(0, 2))
        (network(x) @ weight).sum().backward()
    torch.testing.assert_close(strength.grad, 4 * atoms[4] @ weight)
    torch.testing.assert_close(concepts.codes.grad, (atoms @ weight).expand(2, 3, K))
    assert network[0].weight.grad.abs().sum() > 0
    network.zero_grad()
    with attach(network, "0", dictionary, replace=True) as concepts:
        (network(x) @ weight).sum().backward()
    torch.testing.assert_close(concepts.codes.grad, (atoms @ weight).expand(2, 3, K))
    assert network[0].weight.grad is None or not network[0].weight.grad.any()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_activations_keep_their_type_and_codes_have_the_precision_of_float32(dtype: torch.dtype) -> None:
    dictionary, network, A = learned(), nn.Sequential(nn.Identity()), torch.randn(2, 3, D).to(dtype)
    with attach(network, "0", dictionary, replace=True) as concepts, torch.autocast("cpu", torch.bfloat16):
        replaced = network(A)
    rows = A.reshape(-1, D).double() if dtype == torch.float64 else A.reshape(-1, D).float()
    assert replaced.dtype == dtype
    assert concepts.codes.dtype == rows.dtype
    torch.testing.assert_close(concepts.codes.reshape(-1, K), dictionary.encode(rows))


def test_maps_of_channels_and_in_place_modules_and_second_calls() -> None:
    tiny = pytest.importorskip("tiny_networks")
    network, images, dictionary = tiny.convolutions(), torch.randn(2, 3, 24, 24), learned(8)
    kept: list[Tensor] = []
    with network.second.register_forward_hook(lambda m, a, output: kept.append(output.clone())):
        network(images)
    rows = kept[0].movedim(1, -1)
    with attach(network, "second", dictionary, replace=True) as concepts:  # relu overwrites its output
        changed = network(images)
    torch.testing.assert_close(concepts.codes.reshape(-1, K), dictionary.encode(rows.reshape(-1, 8)))
    image = dictionary.decode(concepts.codes.detach().reshape(-1, K)).reshape(rows.shape).movedim(-1, 1)
    torch.testing.assert_close(changed, network.head(image.relu().mean(dim=(2, 3))))
    with attach(network, "relu@1", dictionary) as concepts:
        network(images)
    torch.testing.assert_close(concepts.codes.reshape(-1, K), dictionary.encode(rows.relu().reshape(-1, 8)))
