"""The dictionary file: written and read back, files of the release before, and mistakes with paths."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from seminmf_lightning import SemiNMF, SemiNMFModule
from seminmf_lightning.core.normalize import Normalizer
from seminmf_lightning.dictionary_file import load_dictionary, save_dictionary

OLD = Path(__file__).parent / "files" / "saved_by_0.1.0"


@pytest.fixture
def old_rows() -> np.ndarray:
    return np.load(OLD / "rows.npy")


@pytest.mark.parametrize(
    ("file", "codes"),
    [(f"{run}/dictionary.safetensors", f"{run}/codes.npy") for run in ("sparse", "dense", "omp")]
    + [("estimator.safetensors", "estimator_codes.npy")],
)
def test_dictionaries_of_the_last_release_give_the_same_codes(
    file: str, codes: str, old_rows: np.ndarray
) -> None:
    expected = np.load(OLD / codes)
    model = SemiNMF.load(OLD / file)
    assert model.recipe.nonnegative == "dictionary"  # the file does not say: it had no such key
    Z = model.encode(old_rows).numpy()
    assert np.allclose(Z, expected, atol=1e-6)
    assert ((Z != 0) == (expected != 0)).all()


@pytest.mark.parametrize("run", ["sparse", "dense", "omp"])
def test_checkpoints_of_the_last_release_give_the_same_codes(run: str, old_rows: np.ndarray) -> None:
    module = SemiNMFModule.load_from_checkpoint(
        OLD / run / "last.ckpt", map_location="cpu", weights_only=True
    )
    expected = np.load(OLD / run / "codes.npy")
    assert np.allclose(module.eval().encode(torch.from_numpy(old_rows)).numpy(), expected, atol=1e-6)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    D, mean = torch.rand(3, 5), torch.rand(5, dtype=torch.float64)
    config = {"nb_concepts": 3, "l1_penalty": 0.5, "target_l0": 2.0, "normalize": "center", "note": "kept"}
    save_dictionary(tmp_path / "d.safetensors", D, Normalizer(2.5, mean), config, (2.0, 8))
    saved = load_dictionary(tmp_path / "d.safetensors")
    assert torch.equal(saved.D, D)
    assert saved.normalizer.scale == 2.5
    assert torch.equal(saved.normalizer.mean, mean)  # type: ignore[arg-type]
    assert saved.config == config
    assert saved.effort == (2.0, 8)
    assert saved.settings["l1_penalty"] == saved.settings["encoder"]["l1_penalty"] == 0.5
    assert not {"target_l0", "note"} & set(saved.settings)
    assert json.loads(json.dumps(saved.settings)) == saved.settings


def test_a_run_folder_stands_for_its_dictionary(tmp_path: Path) -> None:
    save_dictionary(
        tmp_path / "dictionary.safetensors", torch.ones(1, 2), Normalizer(), {"nb_concepts": 1}, ()
    )
    assert torch.equal(load_dictionary(tmp_path).D, torch.ones(1, 2))


def test_wrong_paths_and_numbers_are_explained(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no such file; give a finished run directory"):
        load_dictionary(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="no dictionary here, found nothing"):
        load_dictionary(tmp_path)
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "last.ckpt").touch()
    with pytest.raises(FileNotFoundError, match=r"finish the run with ckpt_path=.*last\.ckpt"):
        load_dictionary(tmp_path)
    file = tmp_path / "d.safetensors"
    for D, normalizer, config, words in (
        (-torch.ones(1, 2), Normalizer(), {}, "D must be finite and nonnegative .*; 2 of its numbers"),
        (torch.ones(1, 2), Normalizer(float("inf")), {}, "scale must be above 0 and finite"),
        (torch.ones(1, 2), Normalizer(1.0, torch.ones(2)), {"normalize": "scale"}, "centres nothing"),
        (
            torch.ones(1, 2),
            Normalizer(),
            {"nb_concepts": 4},
            "D has 1 atoms, but its config says nb_concepts=4",
        ),
        (torch.ones(1, 2), Normalizer(), {"tol": "small"}, "settings that this version knows"),
    ):
        save_dictionary(file, D, normalizer, config, ())
        with pytest.raises(ValueError, match=words):
            load_dictionary(file)
