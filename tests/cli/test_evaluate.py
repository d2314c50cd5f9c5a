"""evaluate: every metric of a finished run on given rows."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from commands import ROOT
from hydra import compose, initialize_config_dir
from metric_reference import reference
from omegaconf import DictConfig
from safetensors.torch import load_file

from seminmf_lightning import SemiNMF
from seminmf_lightning.core.constraints import CONSTRAINTS
from seminmf_lightning.core.normalize import Normalizer
from seminmf_lightning.core.similarity import collinearity, match_atoms
from seminmf_lightning.dictionary_file import save_dictionary

TWO = ("trainer=ddp", "trainer.devices=2", "trainer.accelerator=cpu")


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

    metrics = evaluate.main(composed("evaluate", f"run={run}", "data=npy", f"data.path={rows}", *overrides))
    assert json.loads((run / "evaluation.json").read_text()) == metrics
    return metrics


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
    metrics = evaluated(run, rows, "split=held_out", "data.val_fraction=0.2")
    of_run = json.loads((run / "metrics.json").read_text())
    assert metrics["rows"] == 120
    for name in ("reconstruction_loss", "objective", "r2", "l0", "dead_fraction"):
        assert metrics[name] == pytest.approx(of_run[name], rel=1e-5), name
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
    metrics = evaluated(run, rows, "encoder=omp", "encoder.nonzeros=2")
    assert metrics["optimality_gap"] is None
    assert metrics["l0"] == 2.0


@pytest.mark.parametrize(
    ("signs", "share"), [("dictionary", 0.0), ("codes", 1.0), ("both", 0.0), ("none", 1.0)]
)
def test_a_dictionary_of_other_signs_is_matched_by_what_a_sign_means(
    run: Path, rows: Path, tmp_path: Path, signs: str, share: float
) -> None:
    D = load_file(run / "dictionary.safetensors")["D"]
    free = not CONSTRAINTS[signs].nonnegative_atoms
    other = -D if free else D.roll(1, dims=1)  # rolled atoms are unlike any
    config = {"nonnegative": signs, "solver": "hals"}
    save_dictionary(tmp_path / "other.safetensors", other, Normalizer(), config, ())
    options = f"against={tmp_path}/other.safetensors"
    if signs == "dictionary":
        metrics = evaluated(run, rows, options)
    else:
        with pytest.warns(UserWarning, match=f"the other dictionary nonnegative={signs}: atoms are matched"):
            metrics = evaluated(run, rows, options)
    expected = match_atoms(D, other, sign_is_free=free)
    assert metrics["hungarian_distance"] == pytest.approx(1 - expected.cosine.mean(), abs=1e-6)
    assert (metrics["matched_share"] == 1) == (share == 1)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("run={folder}",), "a finished run directory holds dictionary.safetensors"),
        (("data.path={folder}/wide.npy",), r"wide.npy: rows of 7 features, but .*run has 24"),
        (("against={folder}/narrow.safetensors",), r"narrow.safetensors has 5 features, but .*run has 24"),
        (("split=test",), "split must be one of all, held_out"),
        (("split=held_out", "data.val_fraction=0"), "use split=all"),
    ],
)
def test_mistakes_are_explained(
    run: Path, rows: Path, tmp_path: Path, options: tuple[str, ...], words: str
) -> None:
    np.save(tmp_path / "wide.npy", np.ones((5, 7), dtype=np.float32))
    save_dictionary(tmp_path / "narrow.safetensors", torch.ones(2, 5), Normalizer(), {}, ())
    with pytest.raises((ValueError, FileNotFoundError, FileExistsError), match=words):
        evaluated(run, rows, *(option.format(folder=tmp_path) for option in options))
    assert not (run / "evaluation.json").exists()
