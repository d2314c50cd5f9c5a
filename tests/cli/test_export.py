"""The command ``export``: files of each format read back without the tools that they are for."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from seminmf_lightning import SemiNMF
from seminmf_lightning.sae_file import read_sae


def a_run(folder: Path, A: torch.Tensor, **settings: object) -> Path:
    model = SemiNMF(**({"nb_concepts": 8, "l1_penalty": 0.1, "normalize": "center"} | settings))  # type: ignore[arg-type]
    model.fit(A, max_iter=3)
    model.save(folder / "run" / "dictionary.safetensors")
    return folder / "run"


@pytest.mark.parametrize("nonnegative", ["dictionary", "codes"])
def test_saelens_holds_the_run_with_its_units_folded_in(
    nonnegative: str, command, npy: Path, signed: torch.Tensor, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    run = a_run(tmp_path, signed, nonnegative=nonnegative)
    command("export", f"run={run}", "format=saelens", "data=npy", f"data.path={npy}", "device=cpu")
    folder, model = run / "saelens", SemiNMF.load(run)
    m = 8 if nonnegative == "codes" else 16
    settings = json.loads((folder / "cfg.json").read_text())
    assert settings["architecture"] == "jumprelu" and settings["d_sae"] == m and settings["d_in"] == 24
    weights = load_file(folder / "sae_weights.safetensors")
    assert set(weights) == {"W_enc", "b_enc", "W_dec", "b_dec", "threshold"}
    Z = model.encode(signed)
    F = Z if m == 8 else torch.cat([Z.clamp(min=0), (-Z).clamp(min=0)], dim=1)
    assert torch.allclose(F @ weights["W_dec"] + weights["b_dec"], model.decode(Z), atol=1e-4)
    exact = load_file(folder / "exact" / "sae_weights.safetensors")
    assert torch.equal(exact["W_dec"], weights["W_dec"]) and torch.equal(exact["D"], model.D)
    # What is printed is what the files hold; the encoder is nearer the codes than none.
    shown = capsys.readouterr().out
    fitted = read_sae(folder).encode(signed)
    assert (fitted - F).square().sum() < 0.6 * F.square().sum()
    assert "exact codes     R2 0." in shown and "fitted encoder  R2 0." in shown
    assert str(folder) in shown


def test_an_output_that_exists_is_kept_unless_it_may_be_overwritten(
    command, npy: Path, signed: torch.Tensor, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = a_run(tmp_path, signed, nonnegative="codes")
    arguments = [f"run={run}", "format=saelens", "data=npy", f"data.path={npy}", f"output={tmp_path}/out"]
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    with pytest.raises(SystemExit):
        command("export", *arguments)
    assert "out exists; choose another folder with output=..., or replace it with overwrite=true" in (
        capsys.readouterr().err
    )
    assert (tmp_path / "out" / "mine.txt").read_text() == "mine"
    command("export", *arguments, "overwrite=true")
    assert (tmp_path / "out" / "cfg.json").is_file()
    assert (tmp_path / "out.previous" / "mine.txt").read_text() == "mine"
    assert not list(tmp_path.glob("*.partial"))


def test_rows_of_another_width_leave_nothing(
    command, npy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = a_run(tmp_path, torch.rand(50, 9))
    with pytest.raises(SystemExit):
        command("export", f"run={run}", "data=npy", f"data.path={npy}")
    assert f"rows of 24 features, but {run} has 9" in capsys.readouterr().err
    assert [path.name for path in run.iterdir()] == ["dictionary.safetensors"]


def test_rows_that_none_were_held_out_of_are_not_called_others(
    command, npy: Path, signed: torch.Tensor, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = a_run(tmp_path, signed)
    rows = (f"run={run}", "format=saelens", "data=npy", f"data.path={npy}", "device=cpu", "overwrite=true")
    command("export", *rows)
    assert " others:" in capsys.readouterr().out
    command("export", *rows, "data.val_fraction=0")
    shown = capsys.readouterr().out
    assert " others:" not in shown and "of the same, because data.val_fraction=0 holds out none" in shown


def test_an_export_with_a_dead_concept_is_taken_back(
    command, npy: Path, signed: torch.Tensor, tmp_path: Path
) -> None:
    D = torch.cat([torch.rand(7, 24, generator=torch.Generator().manual_seed(0)), torch.zeros(1, 24)])
    model = SemiNMF.from_dictionary(D, nonnegative="codes", encoder={"name": "omp", "nonzeros": 3})
    model.save(tmp_path / "run" / "dictionary.safetensors")
    command("export", f"run={tmp_path}/run", "format=saelens", "data=npy", f"data.path={npy}", "device=cpu")
    folder = tmp_path / "run" / "saelens"
    sae = read_sae(folder)
    assert sae.threshold is not None and sae.threshold[7] == torch.inf
    F = sae.encode(signed)
    assert F.isfinite().all() and not F[:, 7].any() and F.any()
    wanted = model.decode(model.encode(signed))
    for one in (folder, folder / "exact"):
        again = SemiNMF.from_sae(one, nonzeros=3)
        assert torch.allclose(again.decode(again.encode(signed)), wanted, atol=1e-4)
