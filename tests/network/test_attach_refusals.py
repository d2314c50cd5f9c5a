"""What cannot be attached or edited is refused by name, and nothing is silently another pass's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from attached import IDS, D, K, hooks, learned, small_model
from torch import Tensor, nn

from seminmf_lightning import SemiNMF, attach


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
