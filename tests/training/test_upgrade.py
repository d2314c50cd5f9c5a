"""Sums of sparse runs of version 0.1.0, which kept no rows since the last update."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from seminmf_lightning.io.untrusted import Refused
from seminmf_lightning.training.checkpoints import upgrade


def old_checkpoint(rows: float) -> dict[str, Any]:
    pending = {"rows": torch.tensor(rows), "gram": torch.zeros(2, 2), "cross": torch.zeros(2, 3)}
    learner = {"pending": pending, "rows_seen": 5120}
    return {
        "file": "last.ckpt", "state_dict": {"dictionary": torch.ones(2, 3)}, "learner": learner,
        "loops": {"fit_loop": {"state_dict": {}}},
    }  # fmt: skip


def test_between_two_epochs_the_sums_are_converted() -> None:
    checkpoint = old_checkpoint(0.0)
    upgrade(checkpoint, 10)
    learner = checkpoint["learner"]
    assert set(learner["pending"]) == {"rows"}
    assert learner["rows"].shape == (0, 3)
    assert (learner["_asked"], learner["_waiting"]) == (10, 0)


def test_between_two_updates_it_is_refused_by_name() -> None:
    with pytest.raises(Refused, match=r"last\.ckpt: .*between two updates .*end of an epoch"):
        upgrade(old_checkpoint(64.0), 10)
