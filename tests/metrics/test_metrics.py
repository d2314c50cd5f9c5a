"""Figures against naive float64 references, over any split into batches, in one process and two, and the
script around them."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from commands import ROOT
from hydra import compose, initialize_config_dir
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import DictConfig
from safetensors.torch import load_file
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from seminmf_lightning import SemiNMF
from seminmf_lightning.core.normalize import Normalizer
from seminmf_lightning.core.similarity import (
    collinearity,
    cosines,
    hungarian_distance,
    match_atoms,
    matched_share,
)
from seminmf_lightning.dictionary_file import save_dictionary
from seminmf_lightning.metrics import Fitted, ReconstructionMetrics, code_correlation, dictionary_metrics, variation

TWO = ("trainer=ddp", "trainer.devices=2", "trainer.accelerator=cpu")


def reference(
    A: np.ndarray, A_hat: np.ndarray, Z: np.ndarray, D: np.ndarray
) -> dict[str, float | list[float]]:
    """The definitions, two passes each, in float64."""
    A, A_hat, Z, D = (np.asarray(x, dtype=np.float64) for x in (A, A_hat, Z, D))
    n, k = Z.shape
    residual, total = np.square(A - A_hat).sum(), np.square(A - A.mean(axis=0)).sum()
    hoyer = [
        (math.sqrt(k) - np.abs(z).sum() / math.sqrt(np.square(z).sum())) / (math.sqrt(k) - 1)
        for z in Z
        if k > 1 and z.any()
    ]
    parts = np.array([np.square(np.outer(Z[:, j], D[j])).sum() for j in range(k)])
    found = []
    for j in range(k):
        for other in range(j):
            x, y = Z[:, j] - Z[:, j].mean(), Z[:, other] - Z[:, other].mean()
            if np.ptp(Z[:, j]) > 0 and np.ptp(Z[:, other]) > 0:
                found.append(abs((x * y).sum()) / math.sqrt(np.square(x).sum() * np.square(y).sum()))
    bound = np.square(np.linalg.svd(A, compute_uv=False)[k:]).sum()
    best = np.square(A - A @ np.linalg.pinv(D) @ D).sum()
    return {
        "reconstruction_loss": residual / A.size,
        "r2": 1 - residual / total if total > 0 else float(residual == 0),
        "relative_l2": math.sqrt(residual / np.square(A).sum()),
        "l0": np.count_nonzero(Z) / n,
        "dead_fraction": np.mean([not Z[:, j].any() for j in range(k)]),
        "hoyer": np.mean(hoyer) if hoyer else math.nan,
        "density": [np.count_nonzero(Z[:, j]) / n for j in range(k)],
        "energy": (parts / parts.sum() if parts.sum() > 0 else parts).tolist(),
        "code_correlation_max": max(found, default=math.nan),
        "code_correlation_mean": np.mean(found) if found else math.nan,
        "optimality_gap": best / bound - 1 if bound > 1e-12 * np.square(A).sum() else None,
    }


def measured(
    A: Tensor, A_hat: Tensor, Z: Tensor, D: Tensor, sizes: list[int]
) -> dict[str, float | list[float]]:
    """The streamed figures, in batches of these sizes, then the rest."""
    of_run = ReconstructionMetrics(*D.shape, l1_penalty=0.0)
    metrics = dictionary_metrics(Fitted(D, least_squares=True))
    sizes = [*sizes, len(A) - sum(sizes)]
    for rows, reconstructed, codes in zip(A.split(sizes), A_hat.split(sizes), Z.split(sizes), strict=True):
        of_run.update(rows, reconstructed, codes)
        metrics.update(A=rows, A_hat=reconstructed, Z=codes)
    return of_run.compute() | metrics.compute()


def problem(rows: int, concepts: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """A (n, 9), sparse signed Z (n, k), nonnegative D (k, 9)."""
    generator = torch.Generator().manual_seed(seed)
    Z = torch.randn(rows, concepts, generator=generator) * (
        torch.rand(rows, concepts, generator=generator) < 0.4
    )
    D = torch.rand(concepts, 9, generator=generator)
    return Z @ D + 0.3 * torch.randn(rows, 9, generator=generator), Z, D


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
    "plain", "constant features", "all rows alike", "offset", "offset codes", "float32 offset", "zero codes", "some zero codes",
    "constant codes", "tiny codes", "single row", "single concept", "zero atom",
]  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_figures_are_those_of_the_reference(kind: str) -> None:
    A, A_hat, Z, D = adversarial(kind)
    expected = reference(A.numpy(), A_hat.numpy(), Z.numpy(), D.numpy())
    for sizes in ([], [0, 1, 0], [1] * (len(A) - 1), [len(A), 0]):
        figures = measured(A, A_hat, Z, D, sizes)
        for name, value in expected.items():
            if value is not None:
                assert figures[name] == pytest.approx(value, rel=1e-6, abs=1e-7, nan_ok=True), name


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 40), st.integers(1, 6), st.lists(st.integers(0, 7), max_size=5), st.integers(0, 99))
def test_any_split_into_batches_gives_the_same(rows: int, concepts: int, sizes: list[int], seed: int) -> None:
    A, Z, D = problem(rows, concepts, seed)
    kept = [size for index, size in enumerate(sizes) if sum(sizes[: index + 1]) <= rows]
    while sum(kept) > rows:
        kept.pop()
    one, split = (measured(A, Z @ D, Z, D, part) for part in ([], kept))
    for name, value in one.items():
        assert split[name] == pytest.approx(value, rel=1e-6, abs=1e-9, nan_ok=True), name


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


@settings(deadline=None, max_examples=60)
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


# --- dictionaries alone
# ----------------------------------------------------------------------------------------------


def test_collinearity_is_that_of_all_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("seminmf_lightning.core.similarity.BLOCK_ATOMS", 3)
    D = problem(1, 8)[2]
    D[5] = 0
    unit = D.double() / D.double().norm(dim=1, keepdim=True).clamp(min=1e-300)
    pairs = (unit @ unit.T).numpy()[np.triu_indices(8, 1)]
    assert collinearity(D) == pytest.approx((pairs.max(), pairs.mean()))
    D[4] = 3 * D[1]
    assert collinearity(D).max == pytest.approx(1.0)
    assert all(math.isnan(value) for value in collinearity(D[:1]))
    assert collinearity(torch.eye(4)) == (0.0, 0.0)


def test_distance_sees_neither_order_nor_norms() -> None:
    D = problem(1, 7)[2]
    order = torch.randperm(7, generator=torch.Generator().manual_seed(1))
    other = D[order] * torch.rand(7, 1).add(0.1)
    assert hungarian_distance(D, other) == pytest.approx(0.0, abs=1e-7)
    assert matched_share(D, other) == 1.0
    assert (order.numpy()[match_atoms(D, other).second] == np.arange(7)).all()


def test_zero_atoms_count_one_and_do_not_crash() -> None:
    D = torch.eye(4)
    D[2] = 0
    assert hungarian_distance(D, D) == 0.25
    assert matched_share(D, D) == 0.75
    assert hungarian_distance(torch.zeros(3, 4), torch.zeros(3, 4)) == 1.0
    assert matched_share(torch.zeros(3, 4), D) == 0.0


def test_of_dictionaries_of_two_sizes_the_smaller_is_matched() -> None:
    D = torch.eye(6)
    assert hungarian_distance(D[:2], D) == hungarian_distance(D, D[:2]) == 0.0
    assert matched_share(D[:2], D) == matched_share(D, D[:2]) == 1.0
    assert hungarian_distance(D[:3], D[2:]) == pytest.approx(2 / 3)
    assert matched_share(D[:3], D[2:]) == pytest.approx(1 / 3)


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 6), st.integers(1, 6), st.integers(0, 99))
def test_matching_is_the_best_there_is(first: int, second: int, seed: int) -> None:
    D1, D2 = problem(1, first, seed)[2], problem(1, second, seed + 100)[2]
    cost = np.array(
        [
            [1 - a @ b / (np.linalg.norm(a) * np.linalg.norm(b)) for b in D2.double().numpy()]
            for a in D1.double().numpy()
        ]
    )
    assert hungarian_distance(D1, D2) == pytest.approx(cost[linear_sum_assignment(cost)].mean(), abs=1e-12)


def test_dictionaries_that_cannot_be_compared_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\(2, 3\) and \(2, 4\)"):
        cosines(torch.ones(2, 3), torch.ones(2, 4))
    with pytest.raises(ValueError, match="NaN or Inf"):
        hungarian_distance(torch.full((2, 3), math.nan), torch.ones(2, 3))
    with pytest.raises(TypeError, match="cosine"):
        matched_share(torch.ones(2, 3), torch.ones(2, 3), cosine="high")  # type: ignore[arg-type]


# --- the script
# ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    generator = torch.Generator().manual_seed(0)
    path = tmp_path_factory.mktemp("data") / "rows.npy"
    low_rank = torch.randn(600, 6, generator=generator) @ torch.randn(6, 24, generator=generator)
    np.save(path, (low_rank + 0.3 * torch.randn(600, 24, generator=generator) + 2).numpy())
    return path


@pytest.fixture(scope="module")
def trained(rows: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from seminmf_lightning.cli import train

    run = tmp_path_factory.mktemp("runs") / "run"
    data = ["data=npy", f"data.path={rows}", "data.val_fraction=0.2"]
    train.train(
        composed(
            "train", *data, "nb_concepts=8", "seed=3", "normalize=center", f"run_dir={run}", "logger=none"
        )
    )
    return run


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    """A finished run of its own for each test."""
    return Path(shutil.copytree(trained, tmp_path / "run"))


def composed(name: str, *overrides: str) -> DictConfig:
    with initialize_config_dir(str(ROOT / "configs"), version_base="1.3"):
        return compose(name, overrides=["trainer=cpu", *overrides])


def evaluated(run: Path, rows: Path, *overrides: str) -> dict[str, Any]:
    """The file that the script writes, which holds what it returns."""
    from seminmf_lightning.cli import evaluate

    figures = evaluate.main(
        composed("evaluate", f"run={run}", "data=npy", f"data.path={rows}", *overrides)
    )
    assert json.loads((run / "evaluation.json").read_text()) == figures
    return figures


def test_evaluation_of_a_run(run: Path, rows: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = evaluated(run, rows, f"against={run}")
    model, A = SemiNMF.load(run), torch.from_numpy(np.load(rows))
    Z, D = model.encode(A), model.get_dictionary()
    exported = load_file(run / "dictionary.safetensors")
    mean, scale = exported["mean"], exported["scale"]
    A_hat = Z.double() @ D.double() * scale + mean
    seen = (A.double() - mean) / scale
    expected = reference(A.numpy(), A_hat.numpy(), Z.numpy(), D.numpy()) | {
        "optimality_gap": reference(seen.numpy(), A.numpy(), Z.numpy(), D.numpy())["optimality_gap"],
        "collinearity_max": collinearity(D).max,
        "collinearity_mean": collinearity(D).mean,
        "hungarian_distance": 0.0,
        "matched_share": 1.0,
        "rows": 600,
    }
    for name, value in expected.items():
        assert one[name] == pytest.approx(value, rel=1e-5, abs=1e-6), name
    shown = capsys.readouterr().out
    assert "relative_l2" in shown
    assert "evaluation.json" in shown


# 599 rows of 600 leave one, and one process of two with none.
@pytest.mark.slow
def test_two_processes_evaluate_as_one(script, run: Path, rows: Path) -> None:
    one = evaluated(run, rows)
    script(
        "evaluate",
        f"run={run}",
        "data=npy",
        f"data.path={rows}",
        "overwrite=true",
        "data.batch_size=599",
        *TWO,
    )
    two = json.loads((run / "evaluation.json").read_text())
    assert list(one) == list(two)
    for name in set(one) - {"run", "against", "split", "seconds"}:
        assert two[name] == pytest.approx(one[name], rel=1e-6, abs=1e-9), name


def test_held_out_rows_are_those_of_the_run(run: Path, rows: Path) -> None:
    figures = evaluated(run, rows, "split=held_out", "data.val_fraction=0.2")
    of_run = json.loads((run / "metrics.json").read_text())
    assert figures["rows"] == 120
    for name in ("reconstruction_loss", "objective", "r2", "l0", "dead_fraction"):
        assert figures[name] == pytest.approx(of_run[name], rel=1e-5), name
    with pytest.warns(UserWarning, match=r"data.val_fraction=0.1 here, 0.2 in the run"):
        evaluated(run, rows, "split=held_out", "overwrite=true")


def test_rows_that_are_skipped_are_not_measured(run: Path, rows: Path, tmp_path: Path) -> None:
    A = np.load(rows)
    A[[3, 500], 5] = np.nan
    np.save(tmp_path / "bad.npy", A)
    np.save(tmp_path / "good.npy", np.delete(A, [3, 500], axis=0))
    good = evaluated(run, tmp_path / "good.npy")
    with pytest.warns(UserWarning, match="row 3: feature 5 is nan"):
        skipped = evaluated(run, tmp_path / "bad.npy", "data.on_bad_rows=skip", "overwrite=true")
    for name in set(good) - {"run", "against", "split", "seconds"}:
        assert skipped[name] == pytest.approx(good[name], rel=1e-9), name
    assert skipped["rows"] == 598


def test_codes_of_another_encoder_have_no_gap(run: Path, rows: Path) -> None:
    figures = evaluated(run, rows, "encoder=omp", "encoder.nonzeros=2")
    assert figures["optimality_gap"] is None
    assert figures["l0"] == 2.0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("run={folder}",), "a finished run directory holds dictionary.safetensors"),
        (("data.path={folder}/wide.npy",), r"wide.npy: rows of 7 features, but .*run has 24"),
        (("against={folder}/narrow.safetensors",), r"narrow.safetensors has 5 features, but .*run has 24"),
        (("split=test",), "split must be one of all, held_out"),
        (("split=held_out", "data.val_fraction=0"), "use split=all"),
        ((), "evaluation.json exists.*overwrite=true"),
    ],
)
def test_mistakes_are_explained(
    run: Path, rows: Path, tmp_path: Path, options: tuple[str, ...], words: str
) -> None:
    np.save(tmp_path / "wide.npy", np.ones((5, 7), dtype=np.float32))
    save_dictionary(tmp_path / "narrow.safetensors", torch.ones(2, 5), Normalizer(), {}, ())
    if not options:
        (run / "evaluation.json").write_text("{}")
    with pytest.raises((ValueError, FileNotFoundError, FileExistsError), match=words):
        evaluated(run, rows, *(option.format(folder=tmp_path) for option in options))
    assert not options or not (run / "evaluation.json").exists()
