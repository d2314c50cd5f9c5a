"""k-sparse probing: pool codes over tokens, select concepts, fit a logistic regression, score by AUC.

Gurnee et al., "Finding neurons in a haystack: case studies with sparse probing", TMLR 2023; for sparse
autoencoders Kantamneni et al., "Are sparse autoencoders useful?", ICML 2025.

Legend:  Z (t, k) codes of the tokens of n texts   X (n, k) pooled features   y (n,) labels, bool
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from scipy.special import expit
from scipy.stats import rankdata

POOLS = ("max", "mean")
NEWTON_STEPS, GRADIENT = 50, 1e-8
"""Most steps of the regression, and its largest gradient per row at the end; it takes about seven steps."""
FREE = 1e-10
"""Penalty of the intercept: next to none, so that the system is regular even where classes are separated."""


def pooled(Z: np.ndarray, counts: np.ndarray) -> dict[str, np.ndarray]:
    """Return one row per text: ``max``, the code of largest size with its sign, and ``mean``.

    ``counts`` (n,) are the tokens of each text, one text after the other; a text without tokens gets zeros.

    >>> pooled(np.array([[1.0], [-3.0], [2.0]]), np.array([2, 0, 1]))["max"].tolist()
    [[-3.0], [0.0], [2.0]]
    """
    full = np.flatnonzero(counts)
    starts = (np.cumsum(counts) - counts)[full]
    result = {pool: np.zeros((len(counts), Z.shape[1]), dtype=np.float32) for pool in POOLS}
    if len(full):
        high, low = np.maximum.reduceat(Z, starts, axis=0), np.minimum.reduceat(Z, starts, axis=0)
        result["max"][full] = np.where(high >= -low, high, low)
        result["mean"][full] = np.add.reduceat(Z, starts, axis=0) / counts[full, None]
    return result


def mean_difference(X: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return ``mean(X | y) - mean(X | not y)`` (k,): the published rule takes the largest absolute values."""
    return X[y].mean(axis=0) - X[~y].mean(axis=0)


def welch_t(X: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return Welch's t of each feature (k,): the mean difference in units of its standard error, 0 for 0 / 0.

    Unlike the mean difference it does not prefer features of large scale.

    >>> X = np.array([[0.0], [1.0], [4.0], [5.0]])
    >>> welch_t(X, np.array([False, False, True, True])).round(4).tolist()
    [5.6569]
    """
    error = np.sqrt(X[y].var(axis=0, ddof=1) / y.sum() + X[~y].var(axis=0, ddof=1) / (~y).sum())
    difference = mean_difference(X, y)
    return np.divide(difference, error, out=np.zeros_like(difference), where=error > 0)


RULES: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {"diff": mean_difference, "t": welch_t}


def auc(scores: np.ndarray, y: np.ndarray) -> float:
    """Return the area under the ROC curve by ranks (Mann & Whitney, 1947); ties count one half.

    >>> auc(np.array([0.1, 0.4, 0.35, 0.8]), np.array([False, False, True, True]))
    0.75
    """
    positive = int(y.sum())
    ranks = rankdata(scores)[y].sum() - positive * (positive + 1) / 2
    return float(ranks / (positive * (len(y) - positive)))


def logistic_scores(X: np.ndarray, y: np.ndarray, X_test: np.ndarray, c: float) -> np.ndarray:
    """Return the decision values of X_test by the logistic regression of y on standardised X.

    Newton's method for
    ``min_w,b  1/2 ||w||^2 + c sum_i log(1 + exp(-s_i (x_i w + b)))``, s_i = +-1, as in scikit-learn, whose
    overhead is ten times the work of a probe of a few features.
    """
    mean, spread = X.mean(axis=0), X.std(axis=0)
    spread = np.where(spread > 0, spread, 1.0)
    V = np.column_stack([np.ones(len(X)), (X - mean) / spread])
    ridge = np.full(V.shape[1], 1 / c)
    ridge[0] = FREE
    sign = np.where(y, 1.0, -1.0)

    def objective(w: np.ndarray) -> float:
        return float(np.logaddexp(0, -sign * (V @ w)).sum() + 0.5 * (ridge * w * w).sum())

    w = np.zeros(V.shape[1])
    for _ in range(NEWTON_STEPS):
        p = expit(V @ w)
        gradient = V.T @ (p - y) + ridge * w
        if np.abs(gradient).max() <= GRADIENT * len(y):
            break
        step = np.linalg.solve((V.T * (p * (1 - p))) @ V + np.diag(ridge), gradient)
        while objective(w - step) > objective(w) and np.abs(step).max() > FREE:
            step = step / 2  # far from the minimum a full step may overshoot
        w = w - step
    scores: np.ndarray = np.column_stack([np.ones(len(X_test)), (X_test - mean) / spread]) @ w
    return scores


def folds_of(y: np.ndarray, folds: int, seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return training and test rows of each stratified fold: each class is dealt out evenly at random.

    >>> y = np.array([True] * 4 + [False] * 2)
    >>> [int(y[test].sum()) for _, test in folds_of(y, 2, seed=0)]
    [2, 2]
    """
    generator, fold = np.random.default_rng(seed), np.empty(len(y), dtype=np.int64)
    for label in (False, True):
        of_class = generator.permutation(np.flatnonzero(y == label))
        fold[of_class] = np.arange(len(of_class)) % folds
    return [(np.flatnonzero(fold != one), np.flatnonzero(fold == one)) for one in range(folds)]


def name_of(best: int, pool: str, rule: str) -> str:
    """Return the name of one value of a line.

    >>> name_of(5, "max", "diff")
    'auc_5_max_diff'
    """
    return f"auc_{best}_{pool}_{rule}"


def probe(
    features: dict[str, np.ndarray], y: np.ndarray, folds: Sequence[tuple[np.ndarray, np.ndarray]],
    best: Sequence[int], c: float, *, dense: bool,
) -> dict[str, float]:  # fmt: skip
    """Return the AUC, mean over folds, for each number of features, pooling and rule, by name.

    Rules select on the training rows of each fold.  ``dense`` takes all features, whatever ``best`` says.
    """
    sums: dict[str, float] = {}
    for pool, X in features.items():
        for train, test in folds:
            X_train, X_test = X[train].astype(np.float64), X[test].astype(np.float64)
            whole = auc(logistic_scores(X_train, y[train], X_test, c), y[test]) if dense else None
            for rule, statistic in RULES.items():
                order = np.argsort(-np.abs(statistic(X_train, y[train])), kind="stable")
                for m in best:
                    at, value = order[:m], whole
                    if value is None:
                        value = auc(logistic_scores(X_train[:, at], y[train], X_test[:, at], c), y[test])
                    sums[name_of(m, pool, rule)] = sums.get(name_of(m, pool, rule), 0.0) + value
    return {name: total / len(folds) for name, total in sums.items()}
