"""YAML files written for version 0.1.0 still find their callbacks."""

from __future__ import annotations

import pytest
from hydra.utils import get_class
from omegaconf import OmegaConf

from seminmf_lightning.cli.build import build_each
from seminmf_lightning.training.callbacks import RENAMED
from seminmf_lightning.training.preemption import TimedCheckpoint


@pytest.mark.parametrize("before", list(RENAMED))
def test_an_old_name_stands_for_a_class(before: str) -> None:
    assert get_class(RENAMED[before]).__module__ in RENAMED[before]


def test_an_old_target_is_built_with_a_warning_that_names_the_new_one() -> None:
    node = {
        "_target_": "seminmf_lightning.timed_checkpoint.TimedCheckpoint",
        "path": "last.ckpt",
        "seconds": 7,
    }
    with pytest.warns(UserWarning, match=r"is now seminmf_lightning\.training\.preemption\.TimedCheckpoint"):
        (callback,) = build_each(OmegaConf.create({"checkpoint_time": node}))
    assert isinstance(callback, TimedCheckpoint) and callback.seconds == 7
