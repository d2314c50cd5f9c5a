"""Training with each choice of signs: planted concepts are found, and contradictions are refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from seminmf_lightning import SemiNMF
from seminmf_lightning.core.constraints import CONSTRAINTS
from seminmf_lightning.core.objective import eckart_young_bound
from seminmf_lightning.core.similarity import match_atoms
from seminmf_lightning.learners import Recipe

every_sign = pytest.mark.parametrize("signs", CONSTRAINTS)


def planted(signs: str, n: int = 3000, k: int = 40, d: int = 24) -> tuple[torch.Tensor, torch.Tensor]:
    """Return rows of 3 of k unit atoms each, with little noise, and the atoms."""
    constraint, generator = CONSTRAINTS[signs], torch.Generator().manual_seed(0)
    D = torch.randn(k, d, generator=generator) * (torch.rand(k, d, generator=generator) < 0.4)
    D = torch.nn.functional.normalize(D.abs() if constraint.nonnegative_atoms else D, dim=1)
    Z = torch.zeros(n, k)
    chosen = torch.rand(n, k, generator=generator).topk(3, dim=1).indices
    values = 1 + torch.rand(n, 3, generator=generator)
    if not constraint.nonnegative_codes:
        values = values * torch.randn(n, 3, generator=generator).sign()
    A = Z.scatter_(1, chosen, values) @ D + 0.005 * torch.randn(n, d, generator=generator)
    return A.clamp(min=0) if constraint.is_nmf else A, D


@every_sign
@pytest.mark.parametrize("solver", ["hals", "pgd"])
def test_planted_atoms_are_found(signs: str, solver: str) -> None:
    A, D = planted(signs)
    model = SemiNMF(40, solver, l1_penalty=0.05, nonnegative=signs)
    Z, learned = model.fit(A, max_iter=30)
    constraint = CONSTRAINTS[signs]
    assert not constraint.forbidden(learned).any()
    assert not constraint.nonnegative_codes or (Z >= 0).all()
    cosine = match_atoms(D, learned, sign_is_free=constraint.sign_is_free).cosine
    assert (cosine > 0.98).mean() >= 0.75 and cosine.mean() > 0.95
    assert torch.equal(model.encode(A), Z)


@every_sign
@pytest.mark.parametrize("solver", [None, "mu", "hals", "pgd"])
def test_without_a_penalty_rows_are_fitted(signs: str, solver: str | None) -> None:
    A, _ = planted(signs)
    if solver == "mu" and signs == "none":
        with pytest.raises(
            ValueError, match="solver=mu cannot keep the signs of nonnegative=none: use solver=hals"
        ):
            Recipe(nonnegative=signs, solver=solver)
        return
    Z, D = SemiNMF(12, solver, nonnegative=signs, normalize="none").fit(A, max_iter=30)
    constraint = CONSTRAINTS[signs]
    assert not constraint.forbidden(D).any() and (not constraint.nonnegative_codes or (Z >= 0).all())
    least = float(eckart_young_bound((A.T @ A).double(), 12))
    assert float((A - Z @ D).square().sum()) <= max(20 * least, 0.05 * float(A.square().sum()))
    if constraint.nonnegative_codes:
        assert torch.allclose(D.norm(dim=1)[D.norm(dim=1) > 0], torch.ones(()), atol=1e-5)


def test_neither_sign_without_a_penalty_is_principal_components() -> None:
    A, _ = planted("none")
    model = SemiNMF(5, nonnegative="none")
    Z, D = model.fit(A)
    error = float((A.double() - Z.double() @ D.double()).square().sum())
    assert error == pytest.approx(float(eckart_young_bound(A.double().T @ A.double(), 5)), rel=1e-6)
    components = torch.linalg.svd(A.double()).Vh[:5]
    assert match_atoms(components, D, sign_is_free=True).cosine.min() > 1 - 1e-6


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"nonnegative": "neither"}, "one of dictionary, codes, both, none; got 'neither'"),
        ({"nonnegative": "codes", "statistics": "second_moment"}, "depend on each row: use statistics=codes"),
        ({"nonnegative": "both", "normalize": "center"}, "normalize=center makes rows negative"),
        ({"nonnegative": "codes", "solver": "mu", "l1_penalty": 0.1}, "cannot keep the atoms bounded"),
        (
            {"nonnegative": "codes", "encoder": {"name": "omp", "nonnegative": False}},
            "encoder.nonnegative=False contradicts nonnegative=codes",
        ),
    ],
)
def test_contradictions_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Recipe(**settings)


def test_negative_rows_are_refused_by_nmf_and_negative_codes_by_a_strict_decode() -> None:
    A, _ = planted("codes")
    with pytest.raises(ValueError, match="nonnegative=both fits nonnegative rows only"):
        SemiNMF(4, nonnegative="both").fit(A)
    model = SemiNMF(4, l1_penalty=0.1, nonnegative="codes")
    Z, _ = model.fit(A, max_iter=2)
    assert model.decode(Z, strict=True).shape == A.shape
    assert model.decode(-Z).shape == A.shape
    with pytest.raises(ValueError, match=r"codes are negative.*strict=False decodes them"):
        model.decode(-Z, strict=True)


@every_sign
def test_a_file_keeps_the_signs(signs: str, tmp_path: Any) -> None:
    A, _ = planted(signs, n=300)
    model = SemiNMF(6, l1_penalty=0.1, nonnegative=signs)
    Z, _ = model.fit(A, max_iter=2)
    model.save(tmp_path / "d.safetensors")
    loaded = SemiNMF.load(tmp_path / "d.safetensors")
    assert loaded.recipe.nonnegative == signs
    assert torch.equal(loaded.encode(A), Z)


def test_dead_atoms_are_replaced_by_what_the_signs_allow() -> None:
    for signs, constraint in CONSTRAINTS.items():
        A, _ = planted(signs)
        model = SemiNMF(12, l1_penalty=0.05, nonnegative=signs, init="random", seed=3)
        _, D = model.fit(torch.cat([A] * 4), max_iter=4)
        assert not constraint.forbidden(D).any() and (D.norm(dim=1) > 0).all()
