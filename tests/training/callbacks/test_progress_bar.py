"""The bar fits the terminal, whatever it shows, and nothing is written into it."""

from __future__ import annotations

import math
import re
import sys
from pathlib import Path

import pytest
from commands import ROOT
from hypothesis import given
from hypothesis import strategies as st
from terminal import painted_lines, run_in_terminal

from seminmf_lightning.training.callbacks.progress_bar import ProgressBar, described

METRICS = {"loss": 0.0123456, "gap": 1.5e-7, "l0": 7.93, "penalty": 0.0831, "rows/s": 11350.4}
PROGRAM = """
import warnings, lightning, torch
from seminmf_lightning import ActivationDataModule, SemiNMFModule
from seminmf_lightning.training.callbacks.progress_bar import ProgressBar
from seminmf_lightning.training.preemption import TimedCheckpoint

class Talks(lightning.Callback):
    def on_train_batch_end(self, trainer, *rest):
        if rest[-1] == 3:
            warnings.warn("a warning of more than one line in a terminal, whether it has 80 columns or 100")
            lightning.pytorch.utilities.rank_zero_info("a message of the log")

torch.manual_seed(0)
module = SemiNMFModule(8, RECIPE)
data = ActivationDataModule(torch.randn(12_000, 64), batch_size=64)
trainer = lightning.Trainer(
    accelerator="cpu", max_epochs=2, logger=False, log_every_n_steps=5, enable_model_summary=False,
    callbacks=[ProgressBar(), TimedCheckpoint("CHECKPOINT", seconds=0.1), Talks()],
)
trainer.fit(module, data)
trainer.validate(module, data, verbose=False)
print("the end")
"""


@given(
    st.integers(20, 200), st.integers(0, 10**6), st.one_of(st.integers(1, 10**6), st.just(math.inf)),
    st.dictionaries(st.sampled_from(list(METRICS)), st.floats(allow_nan=False), max_size=5),
)  # fmt: skip
def test_the_line_fits_any_terminal(width: int, done: int, total: float, metrics: dict[str, float]) -> None:
    bar = ProgressBar()
    bar.show("epoch 10/1000", min(done, total), total)
    assert len(bar.line(width, metrics, seconds=10_000)) <= width


def test_numbers_read_as_people_write_them() -> None:
    assert list(map(described, METRICS.items())) == [
        "loss 0.01235", "gap 1.5e-07", "l0 7.93", "penalty 0.0831", "11,350 rows/s",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("columns", "recipe", "shown"),
    [
        (80, "target_l0=3", ("l0", "penalty")),
        pytest.param(
            100, "tol=0, solver={'name': 'hals', 'max_iter': 600}", ("gap",), marks=pytest.mark.slow
        ),
    ],
)
def test_the_bar_in_a_terminal(columns: int, recipe: str, shown: tuple[str, ...], tmp_path: Path) -> None:
    program = PROGRAM.replace("RECIPE", recipe).replace("CHECKPOINT", str(tmp_path / "last.ckpt"))
    status, output = run_in_terminal(
        [sys.executable, "-c", program], columns, tmp_path, {"PYTHONPATH": str(ROOT)}
    )
    assert status == 0, output[-3000:]
    lines = painted_lines(output)
    bars = [line for line in lines if re.match(r"(epoch \d|solver steps|validation)", line)]
    assert len(bars) > 3
    assert max(map(len, bars)) < columns
    assert all(re.search(r"\d+(/[\d,]+)? \d+:\d\d", line) for line in bars)  # nothing is written into one
    for name in shown:
        assert any(f"{name} " in line for line in bars)
    if columns == 100:  # in 80 they may not fit
        assert any(re.search(r"\d rows/s", line) for line in bars), bars
    assert "weights_only" not in output
    assert [line for line in lines if "a message of the log" in line] == ["a message of the log"] * (
        2 if "l0" in shown else 1
    )
    assert lines[-1] == "the end"
