"""Training on rows straight from a network: every row once per epoch, resumable."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_networks as tiny
import torch
from harvests import CPU, all_rows, job, text_recipe

from seminmf_lightning.data import HarvestDataModule
from seminmf_lightning.data.live import LiveStream


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    file = tmp_path / "corpus.jsonl"
    file.write_text("".join(json.dumps({"text": text}) + "\n" for text in tiny.texts(40)))
    return file


@pytest.fixture
def bert(tmp_path: Path) -> Path:
    pytest.importorskip("transformers")
    return tiny.bert(tmp_path / "bert")


def live(bert: Path, corpus: Path, **options: Any) -> HarvestDataModule:
    settings = {"layers": "encoder.layer.1", "network_batch_size": 4, "sample_rows": 200} | options
    return HarvestDataModule(
        {"name": "transformers", "path": str(bert)}, {"name": "text", "path": str(corpus)}, **settings
    )


@pytest.mark.parametrize("buffer_mb", [0.02, 1.0])
def test_live_batches_hold_every_training_row_once_in_a_new_order_each_pass(
    bert: Path, corpus: Path, buffer_mb: float
) -> None:
    data = live(bert, corpus, buffer_mb=buffer_mb, batch_size=64)
    whole = all_rows(text_recipe(bert, corpus).harvester(CPU))["encoder.layer.1"]
    data.setup()
    data.sample()
    loader = data.train_dataloader()
    assert len(loader.windows) == 1 if buffer_mb == 1.0 else len(loader.windows) > 3
    trained = data.train_examples.rows(np.arange(len(data.train_examples)))
    expected = whole.values[torch.from_numpy(np.isin(whole.origin["example"], trained))]
    epochs = [torch.cat([batch[0] for batch in loader]) for _ in range(2)]
    for actual in epochs:
        assert actual.shape == expected.shape
        by_sum, sorted_rows = actual[actual.sum(1).argsort()], expected[expected.sum(1).argsort()]
        assert torch.allclose(by_sum.sum(1), sorted_rows.sum(1), atol=1e-4)
    assert not torch.equal(*epochs)


@pytest.mark.parametrize("epoch", [0, 1])
def test_live_batches_resume_where_they_were(bert: Path, corpus: Path, epoch: int) -> None:
    def loader() -> LiveStream:
        data = live(bert, corpus, buffer_mb=0.02, batch_size=64)
        data.setup()
        data.sample()
        return data.train_dataloader()

    undisturbed = loader()
    for _ in range(epoch + 1):
        whole = list(undisturbed)
    resumed = loader()
    state = resumed.state_dict() | {"epoch": epoch, "batch": 7}
    with pytest.raises(ValueError, match="as many processes"):
        loader().load_state_dict(state | {"world": 2})
    resumed.load_state_dict(state)
    rest = list(resumed)
    assert len(rest) == len(whole) - 7
    assert all(
        torch.equal(a, b) for x, y in zip(whole[7:], rest, strict=True) for a, b in zip(x, y, strict=True)
    )


@pytest.mark.slow
def test_live_training_equals_training_from_disk(script, bert: Path, corpus: Path, tmp_path: Path) -> None:
    assert job(text_recipe(bert, corpus), tmp_path / "store").run() is not None
    common = ("nb_concepts=8", "l1_penalty=0")
    script("train", *common, "data=shards", f"data.path={tmp_path}/store", f"hydra.run.dir={tmp_path}/disk")
    online = (
        "data=harvest", f"data.model.path={bert}", f"data.inputs.path={corpus}",
        "data.layers=[encoder.layer.1]",
        "data.buffer_mb=0.05",
    )  # fmt: skip
    script("train", *common, *online, f"hydra.run.dir={tmp_path}/live")
    two = ("trainer=ddp", "trainer.devices=2", "trainer.accelerator=cpu")
    script("train", *common, *online, *two, f"hydra.run.dir={tmp_path}/two")
    disk, live_metrics, both = (
        json.loads((tmp_path / name / "metrics.json").read_text()) for name in ("disk", "live", "two")
    )
    assert disk["rows_seen"] == live_metrics["rows_seen"] == both["rows_seen"]
    assert live_metrics["r2"] == pytest.approx(disk["r2"], abs=0.01)
    assert both["r2"] == pytest.approx(disk["r2"], abs=0.01)
    endless = ("l1_penalty=0.05", "nb_concepts=8", "trainer.max_epochs=-1", "trainer.max_steps=60", *online)
    script("train", *endless, f"hydra.run.dir={tmp_path}/endless", "data.batch_size=128")
    done = script("encode", f"run={tmp_path}/live", *online, check=False)
    assert "use data=shards" in done.stderr
