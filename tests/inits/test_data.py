"""Rows of the data as atoms."""

from __future__ import annotations

import torch

from seminmf_lightning.core.constraints import CONSTRAINTS
from seminmf_lightning.inits.data import Data


def start(A: torch.Tensor, k: int, *, positive: bool = False) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return Data().start(A, k, generator, constraint=CONSTRAINTS["dictionary"], positive=positive)


def test_atoms_are_parts_of_rows(signed: torch.Tensor) -> None:
    parts = torch.cat([signed.clamp(min=0), (-signed).clamp(min=0)]).double()
    cosines = start(signed, 10) @ (parts / parts.norm(dim=1, keepdim=True)).T
    assert torch.allclose(cosines.max(dim=1).values, torch.ones(10, dtype=torch.float64))


def test_a_row_that_serves_twice_is_changed() -> None:
    D = start(torch.tensor([[1.0, 2.0, 3.0]]), 4)
    assert len(D.unique(dim=0)) == 4


def test_no_entry_is_zero_where_that_is_asked_for(signed: torch.Tensor) -> None:
    assert (start(signed, 10) == 0).any()
    assert (start(signed, 10, positive=True) > 0).all()
