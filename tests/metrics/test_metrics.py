"""Metrics on rows with known answers: offsets, outliers, nothing at all."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from metric_reference import measured, problem, reference
from torch import Tensor

from seminmf_lightning.core.normalize import Normalizer
from seminmf_lightning.metrics import (
    Fitted,
    ReconstructionMetrics,
    code_correlation,
    dictionary_metrics,
    variation,
)


def test_predicting_the_feature_means_scores_zero_and_codes_that_cancel_live() -> None:
    A = torch.randn(500, 6) + torch.arange(6) * 100.0
    Z = torch.tensor([[1.0, 0.0], [-1.0, 0.0]]).repeat(250, 1)
    figures = measured(A, A.mean(dim=0).expand_as(A), Z, torch.ones(2, 6), [77])
    assert abs(figures["r2"]) < 1e-6  # type: ignore[arg-type]
    assert figures["dead_fraction"] == 0.5
    assert figures["density"] == [1.0, 0.0]
    assert figures["energy"] == [1.0, 0.0]
    assert figures["l0"] == 1.0  # a count
    assert figures["hoyer"] == pytest.approx(1.0)
    assert math.isnan(figures["code_correlation_max"])  # type: ignore[arg-type]


def r2_of(A: Tensor, A_hat: Tensor, parts: list[int]) -> float:
    """Over batches of these sizes, as many metrics as processes (two), brought together as torchmetrics
    does."""
    metrics = [ReconstructionMetrics(1, A.shape[1], l1_penalty=0.1) for _ in range(2)]
    for number, (rows, reconstructed) in enumerate(zip(A.split(parts), A_hat.split(parts), strict=True)):
        metrics[number % 2].update(rows, reconstructed, torch.ones(len(rows), 1))
    metrics[0].merge_state(metrics[1])
    return metrics[0].compute()["r2"]


@settings(max_examples=60)
@given(st.sampled_from([0.0, 1e4, -1e9]), st.lists(st.integers(0, 30), max_size=5), st.integers(0, 99))
def test_r2_does_not_depend_on_where_the_rows_lie(offset: float, sizes: list[int], seed: int) -> None:
    A, Z, D = (x.double() for x in problem(sum(sizes) + 20, 3, seed))
    A, A_hat = A + offset, Z @ D + offset  # as float64 has them, so is the reference
    expected = reference(*(x.numpy() for x in (A, A_hat, Z, D)))["r2"]
    assert r2_of(A, A_hat, [*sizes, 20]) == pytest.approx(expected, rel=1e-6, abs=1e-9)
    assert abs(r2_of(A, A.mean(dim=0).expand_as(A), [*sizes, 20])) < 1e-6


def test_one_row_far_from_the_others_does_not_hide_them() -> None:
    A = torch.randn(400, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    A[0] = 1e9
    rest = A.clone()
    rest[1:] = 0
    assert r2_of(A[1:], rest[1:], [199, 200]) == pytest.approx(0.0, abs=0.01)
    assert r2_of(A, A, [1, 399]) == 1.0
    part = variation.merged(
        torch.stack([variation.of_rows(A[:1]), variation.of_rows(A[1:200]), variation.of_rows(A[200:])])
    )
    whole = float((A - A.mean(dim=0)).square().sum())
    assert variation.variation(part)[0] == pytest.approx(whole, rel=1e-12)


@pytest.mark.filterwarnings("ignore:The ``compute`` method of metric")
def test_of_no_rows_and_of_rows_that_do_not_vary() -> None:
    empty = ReconstructionMetrics(2, 3, l1_penalty=0.1)
    assert all(math.isnan(value) for value in empty.compute().values())
    empty.update(torch.zeros(0, 3), torch.zeros(0, 3), torch.zeros(0, 2))
    assert all(math.isnan(value) for value in empty.compute().values())
    A = torch.full((37, 3), 0.1, dtype=torch.float64) * torch.tensor([1.0, 1e9, -1e-9])
    assert r2_of(A, A, [7, 30]) == 1.0
    assert r2_of(A, 0 * A, [7, 30]) == 0.0


def test_of_many_concepts_some_are_correlated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(code_correlation, "MOST_CONCEPTS", 3)
    Z = problem(80, 9)[1]
    metric = code_correlation.CodeCorrelation(Fitted(torch.ones(9, 9)))
    metric.update(Z)
    assert metric.gram.shape == (3, 3)
    expected = np.abs(np.corrcoef(Z[:, [0, 4, 8]].double().T.numpy()))[np.triu_indices(3, 1)]
    assert metric.compute()["code_correlation_max"] == pytest.approx(expected.max())
    assert metric.compute()["code_correlation_mean"] == pytest.approx(expected.mean())


def test_gap_is_of_rows_as_the_dictionary_sees_them(signed: Tensor) -> None:
    A = signed + 50.0
    normalizer = Normalizer.fit(A, "center")
    D = torch.rand(6, 24)
    found = dictionary_metrics(Fitted(D, normalizer, least_squares=True))
    found.update(A=A, A_hat=A, Z=torch.zeros(600, 6))
    seen = normalizer.apply(A.double()).numpy()
    gap = reference(seen, seen, np.zeros((600, 6)), D.numpy())["optimality_gap"]
    assert found.compute()["optimality_gap"] == pytest.approx(gap, rel=1e-6)
