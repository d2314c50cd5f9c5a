"""One dictionary step on the atoms that recur."""

from __future__ import annotations

import pytest
import torch

from seminmf_lightning.core.normalize import Normalizer
from seminmf_lightning.dictionary_file import SavedDictionary
from seminmf_lightning.learners import Recipe
from seminmf_lightning.suites.consensus import gain, halves, most_used, refitted


def problem() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    D = torch.eye(3, 6)
    Z = torch.rand(400, 3, generator=generator) * (torch.rand(400, 3, generator=generator) < 0.5)
    return Z * torch.tensor([3.0, 1.0, 2.0]), D


@pytest.mark.parametrize("solver", ["hals", "ksvd"])
def test_a_step_moves_atoms_towards_the_rows_and_leaves_unused_ones(solver: str) -> None:
    Z, D = problem()
    rows = Z @ D
    away = D + 0.2 * torch.tensor([[0, 1, 0, 1, 0, 0], [0, 0, 1, 0, 1, 0], [1, 0, 0, 1, 0, 0.0]])
    start = torch.cat([away / away.norm(dim=1, keepdim=True), torch.eye(6)[5:]])
    recipe = Recipe(nb_concepts=4, l1_penalty=0.01, nonnegative="codes", solver=solver)
    found = refitted(start, rows, recipe)
    assert ((found * torch.cat([D, start[3:]])).sum(dim=1)[:3] > (start[:3] * D).sum(dim=1)).all()
    assert torch.allclose(found[3], start[3])  # no row has it
    assert torch.allclose(found.norm(dim=1), torch.ones(4), atol=1e-6)


def test_the_most_used_atoms_explain_most() -> None:
    Z, D = problem()
    settings = Recipe(nb_concepts=3, l1_penalty=0.01, nonnegative="codes").plain()
    settings.pop("target_l0")
    saved = SavedDictionary(D, Normalizer(), {}, settings, ())
    assert torch.equal(most_used(saved, Z @ D, 2), D[[0, 2]])
    lines = dict(gain([saved, saved], {"two": D[:2]}, Z @ D))
    assert lines["runs, mean"]["r2"] > lines["two"]["r2"] > 0
    assert lines["runs, mean"]["atoms"] == 3


def test_halves_need_four_seeds() -> None:
    D = torch.eye(40)
    assert halves([D] * 3, False, 0.9) is None
    found = halves([D[:20], D[10:30]] * 2, False, 0.9)  # alternate seeds agree; the halves share ten
    assert found is not None and found.share == 0.5
