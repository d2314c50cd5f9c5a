"""Every metric against a naive float64 reference, over any split into batches and processes."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from metric_reference import measured, problem, reference
from torch import Tensor

from seminmf_lightning.core.discovery import available
from seminmf_lightning.metrics import DictionaryMetric, Fitted, evaluation_values, meanings


def adversarial(kind: str) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    A, Z, D = problem(60, 5)
    A_hat = Z @ D
    if kind == "constant features":
        A[:, :3] = 1e4
        A_hat[:, :3] = 1e4
    elif kind == "all rows alike":
        A = A[:1].repeat(60, 1)
    elif kind == "offset":
        A, A_hat = A.double() + 1e4, A_hat.double() + 1e4
    elif kind == "offset codes":
        Z = Z.double() + 1e4
    elif kind == "float32 offset":
        A, A_hat = A + 1e4, A_hat + 1e4
    elif kind == "zero codes":
        Z, A_hat = torch.zeros_like(Z), torch.zeros_like(A)
    elif kind == "some zero codes":
        Z[10:30], Z[:, 2] = 0, 0
    elif kind == "constant codes":
        Z[:, 1], Z[:, 3] = 0.1, 7.0
    elif kind == "tiny codes":
        Z = Z * 1e-30
    elif kind == "single row":
        A, A_hat, Z = A[:1], A_hat[:1], Z[:1]
    elif kind == "single concept":
        Z, D = Z[:, :1], D[:1]
    elif kind == "zero atom":
        D[2] = 0
    else:
        assert kind == "plain"
    return A, A_hat, Z, D


KINDS = [
    "plain", "constant features", "all rows alike", "offset", "offset codes", "float32 offset", "zero codes",
    "some zero codes", "constant codes", "tiny codes", "single row", "single concept", "zero atom",
]  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_values_are_those_of_the_reference(kind: str) -> None:
    A, A_hat, Z, D = adversarial(kind)
    expected = reference(A.numpy(), A_hat.numpy(), Z.numpy(), D.numpy())
    for sizes in ([], [0, 1, 0], [1] * (len(A) - 1), [len(A), 0]):
        values = measured(A, A_hat, Z, D, sizes)
        for name, value in expected.items():
            if value is not None:
                assert values[name] == pytest.approx(value, rel=1e-6, abs=1e-7, nan_ok=True), name


@settings(max_examples=30)
@given(st.integers(1, 40), st.integers(1, 6), st.lists(st.integers(0, 7), max_size=5), st.integers(0, 99))
def test_any_split_into_batches_gives_the_same(rows: int, concepts: int, sizes: list[int], seed: int) -> None:
    A, Z, D = problem(rows, concepts, seed)
    kept = [size for index, size in enumerate(sizes) if sum(sizes[: index + 1]) <= rows]
    while sum(kept) > rows:
        kept.pop()
    one, split = (measured(A, Z @ D, Z, D, part) for part in ([], kept))
    for name, value in one.items():
        assert split[name] == pytest.approx(value, rel=1e-6, abs=1e-9, nan_ok=True), name


@pytest.mark.parametrize("name", list(available(DictionaryMetric)))
def test_each_metric_found_sums_over_processes_and_names_its_values(name: str) -> None:
    """As torchmetrics brings two processes together; a batch may be empty."""
    A, Z, D = problem(50, 5)
    fitted = Fitted(D, least_squares=True, other=D.flip(0))
    whole, first, second = (available(DictionaryMetric)[name](fitted) for _ in range(3))
    batches = zip(*(x.split([20, 0, 30]) for x in (A, Z @ D, Z)), strict=True)
    for metric, (rows, reconstructed, codes) in zip((first, first, second), batches, strict=True):
        batch = {"A": rows, "A_hat": reconstructed, "Z": codes}
        metric.update(**metric._filter_kwargs(**batch))
    batch = {"A": A, "A_hat": Z @ D, "Z": Z}
    whole.update(**whole._filter_kwargs(**batch))
    first.merge_state(second)
    one, two = whole.compute(), first.compute()
    assert list(one) == list(two) == [value.name for value in whole.values]
    for value in whole.values:
        assert two[value.name] == pytest.approx(one[value.name], rel=1e-9)
        assert isinstance(one[value.name], list) == value.per_concept
        assert value.meaning and "\n" not in value.meaning
        format(0.5, value.format)


def test_names_are_unique_and_all_are_compared_with_a_reference() -> None:
    names = [value.name for value in evaluation_values()]
    assert len(set(names)) == len(names)
    A, Z, D = problem(20, 3)
    compared = set(reference(A.numpy(), A.numpy(), Z.numpy(), D.numpy()))
    of_dictionaries = {"collinearity_max", "collinearity_mean", "hungarian_distance", "matched_share"}
    assert {value.name for value in evaluation_values()} - {"objective"} <= compared | of_dictionaries
    assert set(meanings()) == set(names) - {"density", "energy"}


def test_a_metric_that_somebody_adds_is_evaluated(monkeypatch: pytest.MonkeyPatch) -> None:
    from seminmf_lightning.metrics import Value, dictionary_metrics

    class LargestCode(DictionaryMetric):
        values = (Value("largest_code", "largest |code|"),)
        largest: Tensor

        def __init__(self, fitted: Fitted) -> None:
            super().__init__(fitted)
            self.add_state("largest", torch.zeros(()), dist_reduce_fx="max")

        def update(self, Z: Tensor) -> None:
            self.largest = torch.maximum(self.largest, Z.abs().max())

        def compute(self) -> dict[str, float]:
            return {"largest_code": float(self.largest)}

    found = {name: kind for name, kind in available(DictionaryMetric).items() if kind is not LargestCode}
    found["largest_code"] = LargestCode
    monkeypatch.setattr("seminmf_lightning.metrics.available", lambda base: found)
    A, Z, D = problem(20, 3)
    metrics = dictionary_metrics(Fitted(D))
    metrics.update(A=A, A_hat=A, Z=Z)
    assert metrics.compute()["largest_code"] == float(Z.abs().max())
    assert meanings()["largest_code"] == "largest |code|"
