"""What the commands print fits the terminal."""

from __future__ import annotations

import pytest
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
