"""Which factor of ``A ~ Z D`` is nonnegative: the one object that solvers, encoders and initialisations ask.

| ``nonnegative`` | D | Z | also known as |
|---|---|---|---|
| ``dictionary`` | >= 0 | free | semi-NMF: Ding, Li & Jordan, TPAMI 32(1), 2010, with G = D^T, F = Z |
| ``codes`` | free | >= 0 | semi-NMF of A^T; what sparse autoencoders and overcomplete's ``SemiNMF`` learn |
| ``both`` | >= 0 | >= 0 | NMF: Lee & Seung, Nature 401, 1999 |
| ``none`` | free | free | dictionary learning; without a penalty, principal components |

Legend:  A (n, d) rows   Z (n, k) codes   D (k, d) dictionary
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from seminmf_lightning.core.checks import one_of
from seminmf_lightning.core.linalg import into_unit_ball


@dataclass(frozen=True)
class Constraint:
    """Signs of the two factors.

    >>> CONSTRAINTS["codes"].project_atoms(torch.tensor([[-3.0, 4.0]]), bounded=True).round(decimals=1)
    tensor([[-0.6000,  0.8000]])
    """

    name: str
    nonnegative_atoms: bool
    nonnegative_codes: bool

    def __str__(self) -> str:
        """Return the constraint in words: ``D >= 0, Z free in sign``."""
        kept = [
            name for name, signed in (("D", self.nonnegative_atoms), ("Z", self.nonnegative_codes)) if signed
        ]
        free = [name for name in ("D", "Z") if name not in kept]
        return ", ".join(
            [f"{name} >= 0" for name in kept] + ([f"{' and '.join(free)} free in sign"] if free else [])
        )

    @property
    def is_semi_nmf(self) -> bool:
        """Whether D alone is nonnegative, as in the published method: a row gives an atom for each sign."""
        return self.nonnegative_atoms and not self.nonnegative_codes

    @property
    def is_nmf(self) -> bool:
        """Whether both factors are nonnegative, and so all that they can represent."""
        return self.nonnegative_atoms and self.nonnegative_codes

    @property
    def sign_is_free(self) -> bool:
        """Whether an atom and its negative are the same concept: ``z D_j = (-z) (-D_j)``."""
        return not self.nonnegative_atoms and not self.nonnegative_codes

    def project_atoms(self, D: Tensor, bounded: bool) -> Tensor:
        """Return the nearest dictionary of the right signs and, if ``bounded``, with ``||D_j||_2 <= 1``."""
        D = D.clamp(min=0) if self.nonnegative_atoms else D
        return into_unit_ball(D) if bounded else D

    def forbidden(self, D: Tensor) -> Tensor:
        """Return a mask of the entries of D that are not finite or have the wrong sign."""
        return ~D.isfinite() | (D < 0) if self.nonnegative_atoms else ~D.isfinite()

    def directions(self, rows: Tensor) -> Tensor:
        """Return for each row (m, d) the atom, up to its length, with which one code explains most of it.

        The row itself; if atoms are nonnegative its positive part, or its negative part where that is longer
        and codes may be negative.

        >>> CONSTRAINTS["dictionary"].directions(torch.tensor([[1.0, -2.0]]))
        tensor([[0., 2.]])
        """
        if not self.nonnegative_atoms:
            return rows
        positive, negative = rows.clamp(min=0), (-rows).clamp(min=0)
        if self.nonnegative_codes:
            return positive
        larger = positive.norm(dim=1) >= negative.norm(dim=1)
        return torch.where(larger[:, None], positive, negative)

    def random_atoms(self, k: int, d: int, generator: torch.Generator) -> Tensor:
        """Return atoms (k, d) in float64: entries uniform in (0, 1] if nonnegative, else standard normal."""
        if self.nonnegative_atoms:
            return 1 - torch.rand(k, d, generator=generator, dtype=torch.float64)
        return torch.randn(k, d, generator=generator, dtype=torch.float64)

    def check_rows(self, A: Tensor) -> None:
        """Raise a ValueError if rows ``A`` are negative where a product of nonnegative factors cannot be."""
        if not self.is_nmf or not A.numel() or A.min() >= 0:
            return
        negative = A < 0
        raise ValueError(
            f"nonnegative={self.name} fits nonnegative rows only, and {int(negative.sum()):,} of "
            f"{A.numel():,} entries are negative (the least is {float(A.min()):.3g}, in "
            f"{int(negative.any(dim=1).sum()):,} of {len(A):,} rows): use nonnegative=codes for atoms free "
            "in sign, nonnegative=dictionary for codes free in sign, or rows after a ReLU"
        )


CONSTRAINTS = {
    name: Constraint(name, atoms, codes)
    for name, atoms, codes in (
        ("dictionary", True, False),
        ("codes", False, True),
        ("both", True, True),
        ("none", False, False),
    )
}
"""Every constraint by its name."""


def constraint(name: str) -> Constraint:
    """Return the constraint of that name.

    Raises:
        ValueError: there is none; the four are listed.
    """
    one_of("nonnegative", name, tuple(CONSTRAINTS))
    return CONSTRAINTS[name]
