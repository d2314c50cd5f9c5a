"""What the commands print fits the terminal."""

from __future__ import annotations

import pytest
from lightning import Trainer
from rich.console import Console

from seminmf_lightning.cli import build


@pytest.mark.parametrize("width", [40, 60, 100])
def test_metrics_keep_their_names_and_numbers_at_any_width(
    width: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(build, "console", Console(width=width))
    build.show_metrics([("reconstruction_loss", "0.123456", "mean squared error per element")], "metrics")
    printed = capsys.readouterr().out
    assert "reconstruction_loss" in printed and "0.123456" in printed and "…" not in printed
    assert max(map(len, printed.splitlines())) <= width


def test_validation_every_zeroth_epoch_is_refused() -> None:
    trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, check_val_every_n_epoch=0)
    with pytest.raises(ValueError, match="check_val_every_n_epoch must be at least 1, got 0"):
        build.refuse_without_validation(trainer)
