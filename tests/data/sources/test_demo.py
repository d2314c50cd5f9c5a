"""The demo is a harvest in the cache: its rows know their photograph and patch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from seminmf_lightning.data import DemoRows
from seminmf_lightning.data.sources import demo
from seminmf_lightning.explain import origins_of

pytest.importorskip("efficientnet_lite_pytorch")


@pytest.fixture
def rows() -> DemoRows:
    rows = DemoRows()
    rows.prepare()
    return rows


def test_a_row_is_a_patch_of_a_photograph(rows: DemoRows) -> None:
    assert (len(rows), rows.features) == (7203, 1280)
    groups = rows.open_groups()
    assert np.array_equal(groups, np.repeat(np.arange(147), 49))
    assert rows.where(49 * 2 + 8).endswith("row 106 (astronaut[0:170, 340:510])")
    origins = origins_of(rows, budget=10**6)
    shown = origins.show(106, range(106, 107), np.array([5]))
    assert shown["name"].startswith("astronaut[0:170, 340:510]: patch [24:49, 24:49]")
    assert tuple(shown["at"]) == (1, 1)
    assert "image" in shown


def test_a_whole_cache_is_not_harvested_again(rows: DemoRows, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "HarvestJob", None)
    rows.prepare()
    assert len(rows.open()[0].rows) == 7203


def test_a_failed_harvest_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: object) -> None:
        folder = Path(self.store.folder)  # type: ignore[attr-defined]
        folder.mkdir()
        (folder / "shard").write_text("half")
        raise OSError("disk full")

    monkeypatch.setattr(demo.HarvestJob, "run", full)
    with pytest.raises(OSError, match="disk full"):
        DemoRows(str(tmp_path)).prepare()
    assert not list(tmp_path.iterdir())


def test_another_process_may_be_faster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def late(self: object) -> None:
        store = Path(self.store.folder)  # type: ignore[attr-defined]
        for folder in (store, tmp_path / "efficientnet_lite0_head"):
            folder.mkdir()
            (folder / "manifest.json").touch()

    monkeypatch.setattr(demo.HarvestJob, "run", late)
    DemoRows(str(tmp_path)).prepare()
    assert [file.name for file in tmp_path.iterdir()] == ["efficientnet_lite0_head"]
