"""Change codes of chosen concepts at chosen tokens.

Legend:  Z (batch, tokens, k) codes, or with any leading axes
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Real

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

    def __post_init__(self) -> None:
        given = self.tokens
        mask = isinstance(given, Tensor) and given.dtype == torch.bool
        if not (mask or isinstance(given, slice | Sequence | None)):
            kind = f"a tensor of {given.dtype}" if isinstance(given, Tensor) else type(given).__name__
            raise TypeError(
                f"tokens must be positions, such as [0, 2] or slice(0, 3), or a boolean mask, got {kind}; "
                "positions.tolist(), or mask.bool()"
            )
        if isinstance(given, Sequence) and not given:
            raise ValueError("tokens=[] names no position; leave it out for all")

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
    if not isinstance(concepts, Iterable):
        raise TypeError(f"concepts must be a list of numbers, such as [3], got {type(concepts).__name__}")
    numbers = list(dict.fromkeys(whole_number("a concept", one, 0) for one in concepts))
    if too_large := [one for one in numbers if one >= k]:
        raise ValueError(
            f"there is no concept {too_large[0]}: the dictionary has {k:,}, numbered 0 to {k - 1}"
        )
    if not numbers:
        raise ValueError("no concept was given; ablate([3]), clamp({17: 2.0}) or steer({17: 4.0})")
    return numbers


def checked_strengths(strengths: Mapping[int, Strength], k: int) -> dict[int, Strength]:
    """Return strengths by the number of the concept.

    Raises:
        TypeError, ValueError: see :func:`concept_numbers`; a strength that is no finite number of float32.

    >>> checked_strengths({1: float("nan")}, 4)
    Traceback (most recent call last):
    ValueError: the strength of concept 1 must be finite in float32, got nan
    """
    if not isinstance(strengths, Mapping):
        raise TypeError(f"give strengths by concept, such as {{17: 4.0}}, got {type(strengths).__name__}")
    numbers = concept_numbers(strengths, k)
    for concept, value in strengths.items():
        if isinstance(value, Tensor):
            number, kind = not value.is_complex() and value.dtype != torch.bool, f"a tensor of {value.dtype}"
        else:
            number, kind = isinstance(value, Real) and not isinstance(value, bool), repr(value)
        if not number:
            raise TypeError(f"the strength of concept {concept} must be a number or a tensor, got {kind}")
        given = torch.as_tensor(value if isinstance(value, Tensor) else float(value)).detach()
        if not given.isfinite().all():
            raise ValueError(f"the strength of concept {concept} must be finite in float32, got {value}")
    return dict(zip(numbers, strengths.values(), strict=True))


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
