"""Which factor is nonnegative: projections, directions, words, and rows that cannot be represented."""

from __future__ import annotations

import pytest
import torch

from seminmf_lightning.core.constraints import CONSTRAINTS, Constraint, constraint

every_constraint = pytest.mark.parametrize("signs", CONSTRAINTS.values(), ids=list(CONSTRAINTS))


@every_constraint
@pytest.mark.parametrize("bounded", [False, True])
def test_projection_is_the_nearest_allowed_dictionary(signs: Constraint, bounded: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    D = torch.randn(40, 5, generator=generator, dtype=torch.float64)
    projected = signs.project_atoms(D, bounded)
    assert not signs.forbidden(projected).any()
    assert not bounded or (projected.norm(dim=1) <= 1).all()
    for _ in range(50):  # no other allowed dictionary is nearer
        other = signs.project_atoms(
            projected + 0.1 * torch.randn(40, 5, generator=generator).double(), bounded
        )
        assert ((D - projected).norm(dim=1) <= (D - other).norm(dim=1) + 1e-9).all()


@every_constraint
def test_a_direction_explains_most_of_its_row(signs: Constraint) -> None:
    rows = torch.randn(30, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    D = signs.directions(rows)
    assert not signs.forbidden(D).any()

    def explained(atoms: torch.Tensor) -> torch.Tensor:
        product = (rows * atoms).sum(dim=1)
        product = product.clamp(min=0) if signs.nonnegative_codes else product
        return product.square() / atoms.square().sum(dim=1).clamp(min=1e-12)

    for part in (rows.clamp(min=0), (-rows).clamp(min=0)) if signs.nonnegative_atoms else (rows,):
        assert (explained(D) >= explained(part) - 1e-9).all()


def test_words_and_unknown_names() -> None:
    words = {name: str(signs) for name, signs in CONSTRAINTS.items()}
    assert words == {
        "dictionary": "D >= 0, Z free in sign",
        "codes": "Z >= 0, D free in sign",
        "both": "D >= 0, Z >= 0",
        "none": "D and Z free in sign",
    }
    with pytest.raises(
        ValueError, match="one of dictionary, codes, both, none; got 'code'; did you mean 'codes'"
    ):
        constraint("code")


def test_nmf_refuses_negative_rows_with_a_count() -> None:
    A = torch.tensor([[1.0, -2.0], [0.5, -0.5], [1.0, 1.0]])
    with pytest.raises(ValueError, match=r"2 of 6 entries .* least is -2, in 2 of 3 rows.*nonnegative=codes"):
        CONSTRAINTS["both"].check_rows(A)
    for name in ("dictionary", "codes", "none"):
        CONSTRAINTS[name].check_rows(A)
