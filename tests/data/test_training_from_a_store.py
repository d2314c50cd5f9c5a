"""Training from an object store gives the dictionary that training from a folder gives."""

from __future__ import annotations

import json
import os
import time
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from bounded import bounded
from commands import ROOT, TWO
from s3_server import S3
from safetensors.torch import load_file, save_file


@pytest.fixture(scope="module")
def shards(server: S3, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """20,000 signed rows of 32 features in float16, on disk; each test uploads them."""
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(20_000, 6, generator=generator) @ torch.randn(6, 32, generator=generator)
    rows = (rows + 0.3 * torch.randn(20_000, 32, generator=generator)).half()
    folder = tmp_path_factory.mktemp("shards")
    for index, part in enumerate(rows.split(6000)):
        save_file({"activations": part.clone()}, folder / f"{index}.safetensors")
    return folder


def upload(s3: S3, shards: Path) -> None:
    for file in shards.iterdir():
        s3.put(f"acts/{file.name}", file.read_bytes())


def common(penalty: float, path: str) -> list[str]:
    return [
        "data=object_store", f"data.path={path}", "data.chunk_mb=0.125", "data.shuffle_mb=0.5",
        "data.val_fraction=0", "data.sample_rows=1000", "nb_concepts=8", f"l1_penalty={penalty}",
        "trainer.max_epochs=2", "logger=none", "trainer.enable_progress_bar=false",
    ]  # fmt: skip


def trained(tmp_path: Path, name: str, *overrides: str) -> torch.Tensor:
    """D of a run in this process."""
    from hydra import compose, initialize_config_dir

    from seminmf_lightning.cli import train

    os.environ["SEMINMF_RUN_ID"] = "test"
    with initialize_config_dir(str(ROOT / "configs"), version_base="1.3"):
        cfg = compose("train", overrides=[*overrides, f"run_dir={tmp_path}/{name}", "trainer=cpu"])
    train.train(cfg)
    return load_file(tmp_path / name / "dictionary.safetensors")["D"]


@pytest.mark.parametrize("penalty", [0, pytest.param(0.05, marks=pytest.mark.slow)])
def test_training_from_s3_is_training_from_a_folder(
    s3: S3, shards: Path, tmp_path: Path, penalty: float
) -> None:
    upload(s3, shards)
    s3_options = [*common(penalty, "s3://rows/acts"), f"data.storage.endpoint_url={s3.endpoint}"]
    local = trained(tmp_path, "local", *common(penalty, str(shards)), f"data.cache_dir={tmp_path}/cache0")
    assert torch.equal(trained(tmp_path, "s3", *s3_options, f"data.cache_dir={tmp_path}/cache1"), local)
    with s3.failing(0.05), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        failing = trained(tmp_path, "failing", *s3_options, f"data.cache_dir={tmp_path}/cache2")
    assert s3.failed > 0
    assert torch.equal(failing, local)


@pytest.mark.slow
@pytest.mark.parametrize("penalty", [0.05, 0])
def test_two_processes_share_the_objects(
    script: Any, s3: S3, shards: Path, tmp_path: Path, penalty: float
) -> None:
    upload(s3, shards)
    options = [*common(penalty, "s3://rows/acts"), f"data.storage.endpoint_url={s3.endpoint}"]
    one = trained(tmp_path, "one", *options, f"data.cache_dir={tmp_path}/cache1")
    s3.reset()
    each = ("+callbacks.each._target_=every_rank.SaveEveryRank", f"+callbacks.each.folder={tmp_path}")
    script(
        "train", *options, f"data.cache_dir={tmp_path}/cache2", f"hydra.run.dir={tmp_path}/two", *TWO, *each,
        PYTHONPATH=f"{ROOT / 'tests/helpers'}:{ROOT}",
    )  # fmt: skip
    assert torch.equal(*(torch.load(tmp_path / f"rank{rank}.pt") for rank in (0, 1)))
    assert (load_file(tmp_path / "two" / "dictionary.safetensors")["D"] - one).abs().max() < 1e-6
    headers = [get for get in s3.gets if get.start == 0]
    fetched = s3.bytes - sum(get.stop for get in headers)
    assert len(headers) == 2 * 4
    # Every row once in two epochs, the sample by both processes.
    assert 20_000 * 64 < fetched < (20_000 + 2 * 1100) * 64


def test_all_rows_are_seen_as_by_other_sources(s3: S3, shards: Path, tmp_path: Path) -> None:
    upload(s3, shards)
    options = [*common(0, "s3://rows/acts"), "data.sample_rows=20000", f"data.cache_dir={tmp_path}/cache"]
    ours = trained(tmp_path, "ours", *options, f"data.storage.endpoint_url={s3.endpoint}")
    mapped = [one for one in common(0, str(shards)) if "_mb=" not in one and one != "data=object_store"]
    other = trained(tmp_path, "other", "data=safetensors", *mapped, "data.sample_rows=20000")
    assert (ours - other).abs().max() < 1e-6


@pytest.mark.slow
@pytest.mark.parametrize("penalty", [0, 0.1])
def test_two_million_rows(s3: S3, tmp_path: Path, capsys: pytest.CaptureFixture[str], penalty: float) -> None:
    """200,000 rows of 384 in float16, or 2,000,000 with SEMINMF_FULL=1: S3 equals the local folder, and what
    it costs."""
    rows = bounded(2_000_000, 200_000)
    mixing = torch.randn(32, 384, generator=torch.Generator().manual_seed(0))
    (tmp_path / "acts").mkdir()
    for index in range(10):
        generator = torch.Generator().manual_seed(index + 1)
        part = torch.randn(rows // 10, 32, generator=generator) @ mixing + torch.randn(
            rows // 10, 384, generator=generator
        )
        save_file({"activations": part.half()}, tmp_path / "acts" / f"{index}.safetensors")
    upload(s3, tmp_path / "acts")
    metrics, dictionaries = {}, {}
    folder, bucket = (
        f"data.path={tmp_path}/acts",
        ("data.path=s3://rows/acts", f"data.storage.endpoint_url={s3.endpoint}"),
    )
    for name, options in (
        ("mapped", ("data=safetensors", folder)), ("local", ("data=object_store", folder)),
        ("s3", ("data=object_store", *bucket)), ("failing", ("data=object_store", *bucket)),
    ):  # fmt: skip
        cache = () if name == "mapped" else (f"data.cache_dir={tmp_path}/cache-{name}", "data.cache_gb=0.6")
        s3.reset()
        began = time.monotonic()
        with s3.failing(0.05 if name == "failing" else 0.0), warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            more = (
                "nb_concepts=64",
                f"l1_penalty={penalty}",
                "trainer.max_epochs=1",
                "logger=none",
                "~callbacks.progress",
            )
            dictionaries[name] = trained(tmp_path, name, *options, *cache, *more)
        metrics[name] = json.loads((tmp_path / name / "metrics.json").read_text()) | {
            "seconds": round(time.monotonic() - began, 1), "gets": len(s3.gets),
            "failed": s3.failed, "bytes": s3.bytes,
        }  # fmt: skip
    with capsys.disabled():
        for name, row in metrics.items():
            print(f"\n{rows:,} rows, l1_penalty={penalty}, {name}: {row}")
    assert metrics["failing"]["failed"] > 0
    assert torch.equal(dictionaries["s3"], dictionaries["local"])
    assert torch.equal(dictionaries["failing"], dictionaries["local"])
    assert metrics["s3"]["r2"] == pytest.approx(metrics["mapped"]["r2"], abs=0.01)


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("data.path='https://host/a.npy?sig=hush'", r"data.path: the query of https://host/a.npy?... may be"),
        pytest.param(
            "+data.storage.client_kwargs.aws_secret_access_key=hush",
            "data.storage.client_kwargs.aws_secret_access_key looks like a secret", marks=pytest.mark.slow,
        ),
    ],
)  # fmt: skip
def test_a_refused_secret_is_in_no_file_of_the_run(
    script: Any, tmp_path: Path, setting: str, words: str
) -> None:
    run = tmp_path / "run"
    path = () if setting.startswith("data.path") else ("data.path=s3://rows/acts",)
    done = script("train", "data=object_store", *path, setting, f"hydra.run.dir={run}", check=False)
    assert words in done.stderr and done.returncode
    assert not any(b"hush" in file.read_bytes() for file in run.rglob("*") if file.is_file())
