"""What a run directory keeps of a run that fails or is resumed."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pytest
import torch
from commands import ROOT
from hydra import compose, initialize_config_dir
from run_folders import write_run

from seminmf_lightning.core.normalize import Normalizer
from seminmf_lightning.dictionary_file import save_dictionary


def test_an_unknown_optimized_metric_is_refused_before_training(npy: Path, tmp_path: Path) -> None:
    from seminmf_lightning.cli import train

    overrides = ["data=npy", f"data.path={npy}", "optimized_metric=[r2,loss]", f"run_dir={tmp_path}/run"]
    with initialize_config_dir(str(ROOT / "configs"), version_base="1.3"):
        cfg = compose("train", overrides=overrides)
    with pytest.raises(
        ValueError, match=r"optimized_metric must be one of reconstruction_loss, .* got 'loss'"
    ):
        train.train(cfg)


def test_a_failure_is_kept_until_the_run_is_resumed(tmp_path: Path) -> None:
    from seminmf_lightning.cli import run_directory

    error = tmp_path / "run" / "error.txt"
    with pytest.raises(ValueError, match="no rows"), run_directory.failure_kept(error):
        raise ValueError("no rows")
    assert error.read_text() == "ValueError: no rows\n"
    with run_directory.failure_kept(error):
        assert not error.exists()
    assert not error.exists()


@pytest.mark.parametrize(
    ("outcome", "changed", "left"),
    [
        (None, True, {"dictionary.safetensors", "metrics.json", ".hydra"}),
        (ValueError, False, {"dictionary.safetensors", "metrics.json", ".hydra"}),
        (ValueError, True, {"dictionary.safetensors", ".hydra", "metrics.json.previous", ".hydra.previous"}),
        (SystemExit, False, {"dictionary.safetensors", ".hydra", "metrics.json.previous", ".hydra.previous"}),
    ],
)
def test_a_finished_run_that_resumes(
    tmp_path: Path, outcome: type[BaseException] | None, changed: bool, left: set[str]
) -> None:
    """It stays unchanged if the attempt fails early; else its old results stay until there are new ones."""
    from seminmf_lightning.cli.run_directory import finished_run_kept

    run = write_run(tmp_path / "run", "seed=1", metrics='{"old": 1}', D=torch.eye(2))
    with suppress(ValueError, SystemExit), finished_run_kept(run):
        assert not (run / "metrics.json").exists()
        write_run(run, "seed=2")
        if changed:
            save_dictionary(run / "dictionary.safetensors", torch.eye(2), Normalizer(2.0), {}, ())
        if outcome is not None:
            raise outcome
        (run / "metrics.json").write_text('{"new": 1}')
    assert {path.name for path in run.iterdir()} == left
    unchanged = outcome is ValueError and not changed
    assert ("seed=1" in (run / ".hydra" / "overrides.yaml").read_text()) == unchanged
    if "metrics.json" in left:
        assert ("old" in (run / "metrics.json").read_text()) == unchanged
    with finished_run_kept(run):  # the resume succeeds
        pass
    assert not list(run.glob("*.previous"))
