"""The scripts as a user runs them: one process, two, killed, resumed, swept."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse
import torch
from commands import ROOT, TWO, kill_after_first_checkpoint
from safetensors import safe_open
from safetensors.torch import load_file
from scipy.optimize import linear_sum_assignment
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from seminmf_lightning.data import PlantedRows
from seminmf_lightning.explain.runs import read_run

TAGS = {"train/reconstruction_loss", "val/reconstruction_loss", "val/r2", "val/l0", "val/dead_fraction"}
KEYS = {
    "reconstruction_loss",
    "objective",
    "r2",
    "l0",
    "dead_fraction",
    "optimality_gap",
    "rows_seen",
    "seconds",
}


def dictionary(run: Path) -> torch.Tensor:
    return load_file(run / "dictionary.safetensors")["D"]


@pytest.mark.parametrize("penalty", [0, pytest.param(0.1, marks=pytest.mark.slow)])
def test_a_run_directory_holds_what_it_should(script, npy: Path, tmp_path: Path, penalty: float) -> None:
    run = tmp_path / "run"
    done = script(
        "train",
        "data=npy",
        f"data.path={npy}",
        "nb_concepts=8",
        f"l1_penalty={penalty}",
        f"hydra.run.dir={run}",
    )
    metrics = json.loads((run / "metrics.json").read_text())
    assert set(metrics) == KEYS
    assert (metrics["optimality_gap"] is None) == (penalty > 0)
    assert (run / "checkpoints" / "last.ckpt").is_file()
    assert (run / ".hydra" / "config.yaml").is_file()
    assert "scripts/report.py run=" in done.stdout
    found: set[str] = set()
    for file in (run / "tensorboard").glob("events*"):
        events = EventAccumulator(str(file), size_guidance={"scalars": 0})
        events.Reload()
        found |= set(events.Tags()["scalars"]) | set(events.Tags()["histograms"])
    assert found >= TAGS | {"val/codes", "val/atom_norms"} | (
        {"train/optimality_gap"} if penalty == 0 else set()
    )
    D = dictionary(run)
    assert (D >= 0).all()
    assert penalty == 0 or (D.norm(dim=1) <= 1).all()

    script("encode", f"run={run}")
    tensors = load_file(run / "dictionary.safetensors")
    codes = np.load(run / "codes.npy") if penalty == 0 else scipy.sparse.load_npz(run / "codes.npz").toarray()
    A = np.load(npy)
    error = np.square(codes @ D.numpy() * float(tensors["scale"]) - A).sum() / np.square(A - A.mean(0)).sum()
    assert 1 - error > 0.3

    found_before = read_run(run)
    again = script(
        "train", "data=npy", f"data.path={npy}", "nb_concepts=9", f"hydra.run.dir={run}", check=False
    )
    assert again.returncode != 0
    assert "holds a run already" in again.stderr
    assert read_run(run) == found_before  # not a trace of the refused command
    assert found_before.settings["nb_concepts"] == 8 and found_before.settings["solver"] == "hals"
    assert set(found_before.overridden) >= {"nb_concepts", "data.path", "l1_penalty"}


# 600 rows, 540 to train on: 539 leave one row, 1 process of two with none, and 77 one odd row a batch and an
# odd tail.
@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        ("solver=hals",),
        ("solver=pgd", "l1_penalty=0.1", "data.batch_size=77"),
        ("l1_penalty=0.1", "data.batch_size=539"),
        ("l1_penalty=0.1", "nb_concepts=150", "solver.shard=atoms", "data.batch_size=77"),
    ],
)
def test_two_processes_give_the_dictionary_of_one(
    script, npy: Path, tmp_path: Path, options: tuple[str, ...]
) -> None:
    common = ("data=npy", f"data.path={npy}", "nb_concepts=8", "trainer.max_epochs=4", *options)
    script("train", *common, f"hydra.run.dir={tmp_path}/one", "trainer=cpu")
    each = ("+callbacks.each._target_=every_rank.SaveEveryRank", f"+callbacks.each.folder={tmp_path}")
    script(
        "train",
        *common,
        f"hydra.run.dir={tmp_path}/two",
        *TWO,
        *each,
        PYTHONPATH=str(ROOT / "tests" / "helpers"),
    )
    assert torch.equal(*(torch.load(tmp_path / f"rank{rank}.pt") for rank in (0, 1)))
    assert (dictionary(tmp_path / "one") - dictionary(tmp_path / "two")).abs().max() < 1e-6
    one, two = (json.loads((tmp_path / name / "metrics.json").read_text()) for name in ("one", "two"))
    assert one["rows_seen"] == two["rows_seen"]
    assert one["r2"] == pytest.approx(two["r2"], abs=1e-5)


@pytest.mark.slow
def test_sweep_under_ddp_has_one_directory(script, npy: Path, tmp_path: Path) -> None:
    script(
        "train", "-m", "solver=pgd,hals", "l1_penalty=0,0.1", "data=npy", f"data.path={npy}", "nb_concepts=4",
        "trainer.max_epochs=2", f"hydra.sweep.dir={tmp_path}/sweep", *TWO,
    )  # fmt: skip
    assert len(list((tmp_path / "sweep").glob("*/metrics.json"))) == 4


@pytest.mark.slow
@pytest.mark.parametrize(
    ("penalty", "processes", "options"),
    [
        (0, 1, ()), (0.05, 1, ()), (0, 2, ()), (0.05, 2, ()),
        (0.05, 2, ("nb_concepts=150", "solver.shard=atoms")),
    ],
)  # fmt: skip
def test_killed_and_resumed_is_bitwise_the_undisturbed_run(
    script, tmp_path: Path, penalty: float, processes: int, options: tuple[str, ...]
) -> None:
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(12_000, 8, generator=generator) @ torch.randn(8, 48, generator=generator)
    np.save(tmp_path / "rows.npy", rows.numpy())
    common = [
        "data=npy", f"data.path={tmp_path}/rows.npy", "nb_concepts=16", f"l1_penalty={penalty}",
        "trainer.max_epochs=2",
        f"data.batch_size={8 * processes}", "tol=0", "solver.max_iter=50", "solver.update_every=2",
        "callbacks.checkpoint_time.seconds=0.3",
        "trainer.enable_progress_bar=false", *(TWO if processes == 2 else ()), *options,
    ]  # fmt: skip
    script("train", *common, f"hydra.run.dir={tmp_path}/whole")
    run = tmp_path / "killed"
    last = run / "checkpoints" / "last.ckpt"
    kill_after_first_checkpoint(common, run)
    position = torch.load(last, weights_only=True)["batch"]
    assert 0 < position < 1350 // processes  # within the first epoch
    script("train", *common, f"hydra.run.dir={run}", f"ckpt_path={last}")
    assert torch.equal(dictionary(run), dictionary(tmp_path / "whole"))


@pytest.mark.slow
def test_target_l0_is_met_and_other_encoders_take_the_run_up(script, npy: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    script(
        "train",
        "data=npy",
        f"data.path={npy}",
        "nb_concepts=16",
        "solver=pgd",
        "target_l0=4",
        f"hydra.run.dir={run}",
    )
    assert json.loads((run / "metrics.json").read_text())["l0"] == pytest.approx(4, rel=0.05)
    with safe_open(run / "dictionary.safetensors", framework="pt") as file:
        config = json.loads(file.metadata()["config"])
    assert config["target_l0"] == 4
    assert config["l1_penalty"] > 0
    A, D, scale = (
        np.load(npy),
        dictionary(run).numpy(),
        float(load_file(run / "dictionary.safetensors")["scale"]),
    )
    errors = {}
    four = "encoder.nonzeros=4"
    for options in (
        (),
        ("encoder=lasso", "encoder.refit=true"),
        ("encoder=threshold", four),
        ("encoder=omp", four),
    ):
        output = tmp_path / f"{len(errors)}.npz"
        script("encode", f"run={run}", "data=npy", f"data.path={npy}", f"output={output}", *options)
        codes = scipy.sparse.load_npz(output).toarray()
        errors[options] = np.square(A - scale * codes @ D).sum()
    plain, refit, threshold, omp = errors.values()
    assert refit < plain
    assert threshold < plain
    assert (codes != 0).sum(axis=1).max() == 4
    assert omp < plain


@pytest.mark.slow
def test_planted_atoms_are_found(script, tmp_path: Path) -> None:
    script("train", "experiment=planted", f"hydra.run.dir={tmp_path}/run")
    D, planted = dictionary(tmp_path / "run"), PlantedRows().planted()[2]
    cosine = torch.nn.functional.normalize(D) @ planted.T
    rows, columns = linear_sum_assignment(-cosine.numpy())
    assert 1 - float(cosine[rows, columns].mean()) < 0.05


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("solver=adam",), "adam"),
        (("solver.foo=1",), "foo"),
        (("nb_concept=3",), "nb_concept"),
        (("nb_concepts=many",), "nb_concepts"),
        (("nb_concepts=0",), "nb_concepts must be at least 1"),
        (("nb_concepts=700",), "nb_concepts=700 is more than"),
        (("l1_penalty=-1", "solver=pgd"), "l1_penalty must be at least 0"),
        (("l1_penalty=nan", "solver=pgd"), "l1_penalty"),
        (("l1_penalty=0.1", "solver=mu"), "solver=hals or solver=ksvd or solver=pgd"),
        (("nonnegative=atoms",), "nonnegative must be one of dictionary, codes, both, none; got 'atoms'"),
        (("nonnegative=none", "solver=mu"), "nonnegative=none: use solver=hals or solver=ksvd or solver=pgd"),
        (("nonnegative=codes", "statistics=second_moment"), "use statistics=codes or statistics=auto"),
        (("nonnegative=both", "normalize=center"), "or nonnegative=codes"),
        (("nonnegative=both", "nb_concepts=4"), "of 12,960 entries are negative"),
        (("data.path=/nowhere/*.npy",), "matches no file"),
        (("ckpt_path=/nowhere/last.ckpt",), "is not a file"),
        (("trainer.limit_val_batches=0",), "trainer.limit_val_batches=0: the metrics of a run"),
    ],
)
def test_mistakes_are_explained(
    command,
    capsys: pytest.CaptureFixture[str],
    npy: Path,
    tmp_path: Path,
    options: tuple[str, ...],
    words: str,
) -> None:
    data = () if "data.path" in options[0] else (f"data.path={npy}",)
    with pytest.raises(SystemExit) as ended:
        command("train", "data=npy", *data, *options, f"hydra.run.dir={tmp_path}/run")
    assert ended.value.code == 1
    error = capsys.readouterr().err
    assert words in error
    assert "Traceback" not in error
    if (tmp_path / "run").exists():  # rows were read: then it is a failed run, with its settings
        found = read_run(tmp_path / "run")
        assert found.status == "failed" and "data" in found.overridden
        late = ("700 is more than", "matches no file", "limit_val_batches", "are negative")
        assert any(part in words for part in late)


@pytest.mark.slow
def test_a_checkpoint_of_another_shape_is_refused(script, npy: Path, tmp_path: Path) -> None:
    script("train", "data=npy", f"data.path={npy}", "nb_concepts=4", f"hydra.run.dir={tmp_path}/run")
    checkpoint = tmp_path / "run" / "checkpoints" / "last.ckpt"
    done = script(
        "train", "data=npy", f"data.path={npy}", "nb_concepts=5", f"ckpt_path={checkpoint}",
        f"hydra.run.dir={tmp_path}/other", check=False,
    )  # fmt: skip
    assert "4 concepts x 24 features" in done.stderr
