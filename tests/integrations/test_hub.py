"""Dictionaries as folders for the Hugging Face Hub, and run directories.  No network: the Hub is a folder
here."""

from __future__ import annotations

import importlib
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("huggingface_hub", minversion="1.0", reason="the extra hub is not installed")
from huggingface_hub import HfApi, hub_mixin

from seminmf_lightning.integrations import hub
from seminmf_lightning.integrations.hub import HubSemiNMF
from seminmf_lightning.metrics import MEANINGS

METRICS = {
    "reconstruction_loss": 0.03125,
    "r2": 0.75,
    "l0": 3.5,
    "dead_fraction": 0.125,
    "optimality_gap": None,
}
KINDS = [
    {"solver": "hals"}, {"solver": "hals", "normalize": "center"}, {"solver": "pgd", "l1_penalty": 0.1},
    {"solver": "hals", "target_l0": 3.0}, {"solver": "hals", "encoder": {"name": "omp", "nonzeros": 3}},
    {"nonnegative": "codes"}, {"nonnegative": "both", "l1_penalty": 0.1},
    {"nonnegative": "none", "l1_penalty": 0.1},
]  # fmt: skip


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_a_folder_gives_equal_codes(kind: dict, signed: torch.Tensor, tmp_path: Path) -> None:
    model = HubSemiNMF(8, **kind)
    signs = model.recipe.constraint
    signed = signed.abs() if signs.is_nmf else signed
    Z, D = model.fit(signed, max_iter=5)
    model.save_pretrained(tmp_path / "m")
    assert {file.name for file in (tmp_path / "m").iterdir()} == {
        "dictionary.safetensors",
        "config.json",
        "README.md",
    }
    config = json.loads((tmp_path / "m" / "config.json").read_text())
    assert config["nb_concepts"] == 8
    again = HubSemiNMF.from_pretrained(tmp_path / "m")
    assert again.metrics is None
    assert torch.equal(again.get_dictionary(), D)
    assert torch.equal(again.encode(signed), Z)
    assert torch.equal(again.decode(Z), model.decode(Z))
    again.save_pretrained(tmp_path / "n")
    assert torch.equal(HubSemiNMF.from_pretrained(str(tmp_path / "n")).encode(signed), Z)
    card = (tmp_path / "m" / "README.md").read_text()
    assert "None was measured." in card
    assert ("||D_j||_2 <= 1" in card) == model.recipe.bounded
    assert again.recipe.constraint == signs and f"with {signs}: " in card
    assert ("minimise over D >= 0 " in card) == signs.nonnegative_atoms
    assert ("min_{z >= 0}" in card) == signs.nonnegative_codes


def test_a_folder_saved_again_has_a_new_card_unless_somebody_edited_it(
    signed: torch.Tensor, tmp_path: Path
) -> None:
    model, card = HubSemiNMF(8, solver="hals"), tmp_path / "m" / "README.md"
    model.fit(signed, max_iter=5)
    model.save_pretrained(tmp_path / "m")
    model.metrics = METRICS
    model.save_pretrained(tmp_path / "m")
    assert f"| r2 | {METRICS['r2']:.6g} |" in card.read_text()
    card.write_text(edited := card.read_text().replace("## Metrics", "## Metrics of ours"))
    model.metrics = None
    model.save_pretrained(tmp_path / "m")
    assert card.read_text() == edited
    card.unlink()
    model.metrics = {"r2": float("nan"), "l0": float("inf"), "objective": 1.0}
    model.save_pretrained(tmp_path / "m")
    assert json.loads((tmp_path / "m" / "metrics.json").read_text()) == {
        "r2": None,
        "l0": None,
        "objective": 1.0,
    }
    assert HubSemiNMF.from_pretrained(tmp_path / "m").metrics == {"r2": None, "l0": None, "objective": 1.0}
    model.metrics = {"r2": object()}
    # The mixin writes config.json.
    files = [file for file in (tmp_path / "m").iterdir() if file.name != "config.json"]
    before = {file.name: file.read_bytes() for file in files}
    with pytest.raises(TypeError, match="not JSON serializable"):
        model.save_pretrained(tmp_path / "m")
    assert before.items() <= {file.name: file.read_bytes() for file in (tmp_path / "m").iterdir()}.items()


def test_evaluate_agrees_with_a_naive_reference(signed: torch.Tensor) -> None:
    model = HubSemiNMF(8, solver="pgd", l1_penalty=0.1, normalize="center")
    model.fit(signed * 7, max_iter=5)
    A = signed[:100] * 7
    Z, A_hat = model.encode(A), model.decode(model.encode(A))
    error = (A - A_hat).double().square()
    naive = {
        "reconstruction_loss": float(error.mean()),
        "r2": 1 - float(error.sum() / (A - A.mean(0)).double().square().sum()),
        "l0": float((Z != 0).double().sum(1).mean()),
        "dead_fraction": float((Z == 0).all(0).double().mean()),
        "objective": float(0.5 * error.sum() / model.normalizer.scale**2 + 0.1 * Z.double().abs().sum())
        / 100,
    }
    assert model.evaluate(A) == pytest.approx(naive, rel=1e-4)
    loader = torch.utils.data.DataLoader(A, batch_size=33)
    assert model.evaluate(loader) == pytest.approx(naive, rel=1e-4)
    with pytest.raises(ValueError, match="23 features"):
        model.evaluate(A[:, :23])


@pytest.mark.parametrize(
    "options",
    [("solver=hals",), ("l1_penalty=0.1",), ("target_l0=4",), ("encoder=omp", "encoder.nonzeros=3")],
    ids=str,
)
def test_a_run_directory_becomes_a_model(
    options: tuple[str, ...], npy: Path, signed: torch.Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from commands import ROOT
    from hydra import compose, initialize_config_dir

    from seminmf_lightning import SemiNMF, SemiNMFModule
    from seminmf_lightning.cli import train
    from seminmf_lightning.cli.build import plain

    run = tmp_path / "run"
    monkeypatch.setenv("SEMINMF_RUN_ID", "test")
    overrides = [
        "data=npy",
        f"data.path={npy}",
        "nb_concepts=8",
        "logger=none",
        "trainer.max_epochs=3",
        *options,
    ]
    with initialize_config_dir(str(ROOT / "configs"), version_base="1.3"):
        cfg = compose("train", overrides=[*overrides, f"run_dir={run}", "normalize=center", "trainer=cpu"])
    train.train(cfg)
    metrics = json.loads((run / "metrics.json").read_text())
    assert set(metrics) - {"l1_penalty"} == set(MEANINGS)  # the penalty if target_l0 tuned it

    module = SemiNMFModule.from_run(run)
    codes = module.eval().encode(signed)
    for source in (run, run / "dictionary.safetensors"):
        model = SemiNMF.load(source)
        assert model.encoder == module.recipe.encoder
        assert model.recipe.l1_penalty == module.recipe.l1_penalty
        # The module's dictionary is float64 if l1_penalty=0.
        assert torch.allclose(model.encode(signed), codes, atol=1e-4)
        assert torch.allclose(model.decode(model.encode(signed)), module.decode(codes), atol=1e-4)
    if plain(cfg)["target_l0"]:
        assert model.recipe.l1_penalty > 0

    model = HubSemiNMF.load(run)
    assert model.metrics == metrics
    model.save_pretrained(tmp_path / "m")
    assert str(tmp_path) not in "".join(
        path.read_bytes().decode("latin-1") for path in (tmp_path / "m").iterdir()
    )
    again = HubSemiNMF.from_pretrained(tmp_path / "m")
    assert again.metrics == metrics
    assert torch.equal(again.encode(signed), model.encode(signed))
    assert f"| r2 | {metrics['r2']:.6g} |" in (tmp_path / "m" / "README.md").read_text()
    assert torch.equal(SemiNMF.load(tmp_path / "m").encode(signed), model.encode(signed))

    with pytest.raises(FileExistsError, match="run directory"):
        model.save_pretrained(run)


def test_the_hub_receives_and_gives_a_folder(
    signed: torch.Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    remote = tmp_path / "remote"

    def upload_folder(self: HfApi, *, folder_path: Path, **options: Any) -> str:
        shutil.copytree(folder_path, remote)
        return "url"

    def snapshot(repo_id: str, *, allow_patterns: list[str], revision: str | None, **options: Any) -> str:
        assert (repo_id, revision) == ("me/concepts", "v1")
        shutil.copytree(remote, tmp_path / "cache", ignore=lambda _, names: set(names) - set(allow_patterns))
        return str(tmp_path / "cache")

    monkeypatch.setattr(
        HfApi, "create_repo", lambda self, repo_id, **options: type("Repo", (), {"repo_id": repo_id})
    )
    monkeypatch.setattr(HfApi, "upload_folder", upload_folder)
    monkeypatch.setattr(hub_mixin, "hf_hub_download", lambda *, filename, **options: str(remote / filename))
    monkeypatch.setattr(hub, "snapshot_download", snapshot)
    model = HubSemiNMF(4, solver="pgd", l1_penalty=0.1)
    Z, _ = model.fit(signed, max_iter=2)
    model.metrics = model.evaluate(signed)
    model.push_to_hub("me/concepts", model_card_kwargs={"rows": "signed rows"})
    assert {file.name for file in remote.iterdir()} == {
        "dictionary.safetensors",
        "config.json",
        "metrics.json",
        "README.md",
    }
    again = HubSemiNMF.from_pretrained("me/concepts", revision="v1")
    assert torch.equal(again.encode(signed), Z)
    assert again.metrics == model.metrics


def test_mistakes_are_explained(signed: torch.Tensor, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="fit"):
        HubSemiNMF(2).save_pretrained(tmp_path / "nothing")
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    with pytest.raises(
        FileNotFoundError, match=r"run: no dictionary here, found checkpoints; .*dictionary\.safetensors"
    ):
        HubSemiNMF.load(tmp_path / "run")
    (tmp_path / "run" / "checkpoints" / "last.ckpt").touch()
    with pytest.raises(FileNotFoundError, match=r"finish the run with ckpt_path=.*last\.ckpt"):
        HubSemiNMF.from_pretrained(tmp_path / "run")
    with pytest.raises(FileNotFoundError, match="no such file"):
        HubSemiNMF.load(tmp_path / "absent")
    np.save(tmp_path / "a.npy", np.ones(3))
    with pytest.raises(ValueError, match=r"a\.npy: not a whole \.safetensors file"):
        HubSemiNMF.load(tmp_path / "a.npy")

    model = HubSemiNMF(2, solver="hals")
    model.fit(signed, max_iter=1)
    model.save_pretrained(tmp_path / "m")
    for options in ({"nb_concepts": 3}, {"devices": "cpu"}):
        with pytest.raises(TypeError, match=next(iter(options))):
            HubSemiNMF.from_pretrained(tmp_path / "m", **options)
    for content, words in (("{", "not JSON"), ("[1]", "found list")):
        (tmp_path / "m" / "metrics.json").write_text(content)
        with pytest.raises(ValueError, match=rf"metrics\.json: .*{words}"):
            HubSemiNMF.load(tmp_path / "m")


def test_without_the_extra_the_message_has_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    monkeypatch.delitem(sys.modules, "seminmf_lightning.integrations.hub")
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'seminmf-lightning\[hub\]'"):
        importlib.import_module("seminmf_lightning.integrations.hub")


@pytest.mark.parametrize(
    "content", [b"{", b"[1]", b'"text"', b"\xff\xfe{}", b"", b'{"nb_concepts": 3, "device": "cuda:7"}']
)
def test_no_config_of_a_download_decides_anything(
    content: bytes, signed: torch.Tensor, tmp_path: Path
) -> None:
    """``dictionary.safetensors`` holds the settings, and the caller says where to compute."""
    model = HubSemiNMF(4, solver="hals")
    Z, _ = model.fit(signed, max_iter=2)
    model.save_pretrained(tmp_path / "m")
    (tmp_path / "m" / "config.json").write_bytes(content)
    again = HubSemiNMF.from_pretrained(tmp_path / "m")
    assert again.device.type == again.get_dictionary().device.type == "cpu"
    assert torch.equal(again.encode(signed), Z)
    assert HubSemiNMF.from_pretrained(tmp_path / "m", device="meta").device.type == "meta"
