"""Each statistic against a naive reference, scipy or scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import ttest_ind

from seminmf_lightning.suites.probing import statistics

LABELS = st.lists(st.booleans(), min_size=4, max_size=40).filter(lambda y: 2 <= sum(y) <= len(y) - 2)


@given(LABELS, st.integers(1, 4), st.integers(0, 99))
def test_auc_is_that_of_scikit_learn_with_ties_too(labels: list[bool], levels: int, seed: int) -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    y = np.array(labels)
    scores = np.random.default_rng(seed).integers(0, levels + 1, len(y)).astype(float)
    assert statistics.auc(scores, y) == pytest.approx(metrics.roc_auc_score(y, scores), abs=1e-12)
    pairs = [(a > b) + 0.5 * (a == b) for a in scores[y] for b in scores[~y]]
    assert statistics.auc(scores, y) == pytest.approx(np.mean(pairs), abs=1e-12)


@given(LABELS, st.integers(1, 5), st.integers(0, 99))
def test_selection_statistics(labels: list[bool], k: int, seed: int) -> None:
    y, X = np.array(labels), np.random.default_rng(seed).normal(size=(len(labels), k))
    difference = [X[y, j].sum() / y.sum() - X[~y, j].sum() / (~y).sum() for j in range(k)]
    assert statistics.mean_difference(X, y) == pytest.approx(difference)
    assert statistics.welch_t(X, y) == pytest.approx(ttest_ind(X[y], X[~y], equal_var=False).statistic)


def test_a_feature_that_never_varies_has_t_zero() -> None:
    y = np.array([True, True, False, False])
    assert statistics.welch_t(np.full((4, 2), 3.0), y).tolist() == [0.0, 0.0]


@given(st.lists(st.integers(0, 4), min_size=1, max_size=8), st.integers(0, 99))
def test_pooling(counts: list[int], seed: int) -> None:
    Z = np.random.default_rng(seed).normal(size=(sum(counts), 3)).astype(np.float32)
    found = statistics.pooled(Z, np.array(counts))
    start = 0
    for text, count in enumerate(counts):
        rows = Z[start : start + count]
        for j in range(3):
            largest = max(rows[:, j], key=abs) if count else 0.0
            assert found["max"][text, j] == largest
            assert found["mean"][text, j] == pytest.approx(rows[:, j].mean() if count else 0.0, abs=1e-6)
        start += count


@pytest.mark.parametrize(("n", "m", "c"), [(60, 1, 1.0), (200, 16, 1.0), (100, 150, 1.0), (50, 2, 100.0)])
@pytest.mark.parametrize("separable", [False, True])
def test_the_regression_is_that_of_scikit_learn(n: int, m: int, c: float, separable: bool) -> None:
    linear = pytest.importorskip("sklearn.linear_model")
    generator = np.random.default_rng(n + m)
    X, X_test = 3 + 5 * generator.normal(size=(n, m)), 3 + 5 * generator.normal(size=(20, m))
    y = X[:, 0] + (0 if separable else 5 * generator.normal(size=n)) > 4
    standard = [(part - X.mean(axis=0)) / X.std(axis=0) for part in (X, X_test)]
    model = linear.LogisticRegression(C=c, tol=1e-9, max_iter=10_000).fit(standard[0], y)
    expected = model.decision_function(standard[1])
    assert statistics.logistic_scores(X, y, X_test, c) == pytest.approx(expected, rel=1e-3, abs=1e-3)


@given(LABELS, st.integers(2, 4), st.integers(0, 9))
def test_folds_hold_every_row_once_and_the_classes_evenly(labels: list[bool], folds: int, seed: int) -> None:
    y = np.array(labels)
    found = statistics.folds_of(y, folds, seed)
    assert sorted(np.concatenate([test for _, test in found]).tolist()) == list(range(len(y)))
    for train, test in found:
        assert sorted([*train, *test]) == list(range(len(y)))
        for label in (False, True):
            assert abs((y[test] == label).sum() - (y == label).sum() / folds) < 1


def test_a_probe_selects_on_training_rows_alone_and_averages_over_folds() -> None:
    linear, metrics = pytest.importorskip("sklearn.linear_model"), pytest.importorskip("sklearn.metrics")
    generator = np.random.default_rng(0)
    y = generator.random(120) < 0.5
    X = generator.normal(size=(120, 40)) * np.geomspace(1, 30, 40)
    X[:, :4] += y[:, None]
    folds = statistics.folds_of(y, 3, 0)
    found = statistics.probe({"max": X, "mean": -X}, y, folds, (1, 5), 1.0, dense=False)
    assert set(found) == {
        f"auc_{m}_{pool}_{r}" for m in (1, 5) for pool in ("max", "mean") for r in ("diff", "t")
    }
    for m in (1, 5):
        scores = []
        for train, test in folds:
            size = abs(ttest_ind(X[train][y[train]], X[train][~y[train]], equal_var=False).statistic)
            best = np.argsort(-size)[:m]
            mean, spread = X[train][:, best].mean(axis=0), X[train][:, best].std(axis=0)
            model = linear.LogisticRegression(tol=1e-9).fit((X[train][:, best] - mean) / spread, y[train])
            decided = model.decision_function((X[test][:, best] - mean) / spread)
            scores.append(metrics.roc_auc_score(y[test], decided))
        assert found[f"auc_{m}_max_t"] == pytest.approx(np.mean(scores), abs=1e-9)
    assert found["auc_5_max_t"] == pytest.approx(found["auc_5_mean_t"])  # a sign changes nothing
    assert found["auc_5_max_t"] > found["auc_5_max_diff"]  # which prefers features of large scale
    dense = statistics.probe({"max": X}, y, folds, (1, 5), 1.0, dense=True)
    assert len(set(dense.values())) == 1
