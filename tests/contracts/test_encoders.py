"""The contract of every encoder, found by its file, with free and with nonnegative codes: codes of a row
depend on the row and the dictionary alone."""

from __future__ import annotations

import dataclasses
from collections import Counter

import pytest
import torch
import yaml
from commands import ROOT
from hypothesis import given, settings
from hypothesis import strategies as st
from small_problems import DEFECTS, rows_and_atoms

from seminmf_lightning.core.discovery import available, build, spec_of
from seminmf_lightning.encoders import Encoder, Penalised

PENALTY = 0.1
ENCODERS = available(Encoder)
KINDS = [
    pytest.param(f"{name} >= 0" if nonnegative else name, id=f"{name}-nonnegative" if nonnegative else name)
    for name, kind in ENCODERS.items()
    for nonnegative in (False, True)
    if kind.supports_nonnegative or not nonnegative
]
pytestmark = [pytest.mark.usefixtures("both_backends"), pytest.mark.parametrize("name", KINDS)]


def default(name: str) -> Encoder:
    """Return the encoder ``name``, nonnegative if ``name >= 0``, with a penalty if it takes one."""
    plain, _, nonnegative = name.partition(" >= ")
    penalty = {"l1_penalty": PENALTY} if issubclass(ENCODERS[plain], Penalised) else {}
    return build(Encoder, {"name": plain, "nonnegative": bool(nonnegative)} | penalty)


def penalty_of(encoder: Encoder) -> float:
    return PENALTY if isinstance(encoder, Penalised) else 0.0


def test_settings_survive_a_file_and_are_those_of_the_yaml(name: str) -> None:
    encoder = default(name)
    assert build(Encoder, spec_of(encoder)) == encoder
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(encoder, next(iter(spec_of(encoder)), "x"), 1)
    config = yaml.safe_load((ROOT / "configs" / "encoder" / f"{spec_of(encoder)['name']}.yaml").read_text())
    assert spec_of(build(Encoder, {**spec_of(encoder), **config})) == spec_of(encoder)
    assert set(config) == set(spec_of(encoder)) - {"l1_penalty", "nonnegative"}


def test_declarations(name: str) -> None:
    encoder = default(name)
    assert encoder.sparse in (True, False)
    purposes = Counter(kind.default_for for kind in ENCODERS.values() if kind.default_for)
    assert purposes == {"penalised": 1, "unpenalised": 1}
    assert type(encoder.with_limits(50, 1e-3)) is type(encoder)
    if isinstance(encoder, Penalised):
        assert spec_of(encoder.with_penalty(0.25)) == spec_of(encoder) | {"l1_penalty": 0.25}


@given(st.integers(0, 1000), st.sampled_from([(20, 24), (24, 24), (60, 24)]), st.sampled_from(DEFECTS))
@settings(max_examples=12)
def test_codes_are_finite_and_better_than_none(
    name: str, seed: int, shape: tuple[int, int], defect: str
) -> None:
    encoder = default(name)
    A, D = rows_and_atoms(seed, *shape, defect, nonnegative=seed % 2 == 0)
    A[0] = 0
    given_A, given_D = A.clone(), D.clone()
    penalty = penalty_of(encoder)
    for encode in (encoder.precise(D), encoder.training(D, encoder.calibrate(D, A))):
        Z = encode(A)
        assert Z.shape == (len(A), shape[0]) and Z.dtype == A.dtype
        assert Z.isfinite().all()
        assert (Z[0] == 0).all()
        assert not encoder.nonnegative or (Z >= 0).all()
        objective = 0.5 * (A - Z @ D).square().sum(dim=1) + penalty * Z.abs().sum(dim=1)
        assert (objective <= 0.5 * A.square().sum(dim=1) + 1e-9).all()
        assert not encoder.sparse or (Z == 0).any()
    assert torch.equal(A, given_A) and torch.equal(D, given_D)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_codes_of_a_row_do_not_depend_on_its_batch(name: str, dtype: torch.dtype) -> None:
    encoder = default(name)
    A, D = (x.to(dtype) for x in rows_and_atoms(6, 40, 24))
    effort = encoder.calibrate(D, A)
    assert all(isinstance(value, int | float) for value in effort)
    for encode in (encoder.precise(D, effort), encoder.training(D, effort)):
        assert torch.allclose(torch.cat([encode(rows) for rows in A.split(7)]), encode(A), atol=1e-6)
        assert encode(A[:0]).shape == (0, 40)
        assert torch.equal(encode(A), encode(A))


def test_rows_made_of_one_atom_are_found(name: str) -> None:
    encoder = default(name)
    D = torch.eye(24, dtype=torch.float64)
    sign = 1 if encoder.nonnegative else -1
    Z = encoder.precise(D)(sign * 3 * D)
    expected = sign * (3 - penalty_of(encoder)) * torch.eye(24, dtype=torch.float64)
    assert torch.allclose(Z, expected, atol=1e-3)


def test_float32_codes_are_close_to_float64_codes(name: str) -> None:
    encoder = default(name)
    A, D = rows_and_atoms(2, 20, 24)
    double, single = encoder.precise(D)(A), encoder.precise(D.float())(A.float())
    error = (A - double @ D).square().sum(), (A - single.double() @ D).square().sum()
    assert torch.isclose(*error, rtol=1e-2)
