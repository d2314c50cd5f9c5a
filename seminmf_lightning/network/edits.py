"""Change codes of chosen concepts at chosen tokens.

Legend:  Z (batch, tokens, k) codes, or with any leading axes
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from seminmf_lightning.core.checks import whole_number

Strength = float | Tensor
"""A number, or a tensor that broadcasts to the leading axes of the codes."""
Tokens = slice | Sequence[int] | Tensor | None
"""Positions on the second axis, or a boolean mask that broadcasts to the leading axes; None: all."""


@dataclass(frozen=True)
class Edit:
    """``z_j <- value``, or ``z_j <- z_j + value``, for some concepts j at some tokens."""

    values: Mapping[int, Strength]
    adds: bool = False
    tokens: Tokens = None

    def apply(self, Z: Tensor) -> Tensor:
        """Return changed codes; Z is left alone, and gradients reach it and the values.

        >>> Edit({1: 2.0}, adds=True, tokens=slice(0, 1)).apply(torch.ones(1, 2, 2))
        tensor([[[1., 3.],
                 [1., 1.]]])
        """
        index = torch.tensor(list(self.values), device=Z.device)
        old = Z.index_select(-1, index)
        strengths = [_broadcast("a strength", value, Z) for value in self.values.values()]
        new = torch.stack(strengths, dim=-1)
        new = old + new if self.adds else new
        if self.tokens is not None:
            new = torch.where(token_mask(self.tokens, Z)[..., None], new, old)
        return Z.index_copy(-1, index, new)


def concept_numbers(concepts: Iterable[int], k: int) -> list[int]:
    """Return the numbers of concepts, each once.

    Raises:
        TypeError, ValueError: one that is no number in 0..k-1, or there is none.

    >>> concept_numbers([3, 5], 4)
    Traceback (most recent call last):
    ValueError: there is no concept 5: the dictionary has 4, numbered 0 to 3
    """
    numbers = list(dict.fromkeys(whole_number("a concept", one, 0) for one in concepts))
    if too_large := [one for one in numbers if one >= k]:
        raise ValueError(
            f"there is no concept {too_large[0]}: the dictionary has {k:,}, numbered 0 to {k - 1}"
        )
    if not numbers:
        raise ValueError("no concept was given; ablate([3]), clamp({17: 2.0}) or steer({17: 4.0})")
    return numbers


def token_mask(tokens: Tokens, Z: Tensor) -> Tensor:
    """Return a boolean mask of the leading axes of Z (..., k).

    Raises:
        TypeError, ValueError: positions of codes that have no axis of tokens, or a mask of another shape.
    """
    if isinstance(tokens, Tensor) and tokens.dtype == torch.bool:
        return _broadcast("tokens, a mask", tokens, Z)
    if Z.ndim != 3:
        raise ValueError(
            f"tokens={tokens!r} are positions in a sequence, but the codes have the shape {tuple(Z.shape)}; "
            f"give a boolean mask of {tuple(Z.shape[:-1])}"
        )
    if not isinstance(tokens, slice):
        tokens = [whole_number("a token", one, -Z.shape[1]) for one in tokens or ()]
        if outside := [one for one in tokens if one >= Z.shape[1]]:
            raise ValueError(f"there is no token {outside[0]}: this pass has {Z.shape[1]}")
    mask = torch.zeros(Z.shape[1], dtype=torch.bool, device=Z.device)
    mask[tokens] = True
    return mask.expand(Z.shape[:-1])


def _broadcast(name: str, value: Strength, Z: Tensor) -> Tensor:
    """Return a number or tensor with the leading shape of Z, on its device; masks stay boolean."""
    given = torch.as_tensor(value, device=Z.device)
    given = given if given.dtype == torch.bool else given.to(Z.dtype)
    try:
        return given.expand(Z.shape[:-1])
    except RuntimeError as error:
        raise ValueError(
            f"{name} of the shape {tuple(given.shape)} does not fit codes {tuple(Z.shape)}: it must "
            f"broadcast to {tuple(Z.shape[:-1])}; with a cache, a pass sees only the new tokens"
        ) from error
