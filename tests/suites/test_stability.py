"""Seeds of a sweep, compared and merged."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from run_folders import METRICS, write_run

from seminmf_lightning.core.normalize import Normalizer
from seminmf_lightning.data.sources.synthetic import PlantedRows
from seminmf_lightning.dictionary_file import save_dictionary
from seminmf_lightning.estimator import SemiNMF
from seminmf_lightning.suites import Context
from seminmf_lightning.suites.stability import SeedStability

SOURCE = {
    "name": "synthetic", "rows": 600, "features": 12, "concepts": 6, "nonzeros": 2, "noise": 0.0,
    "nonnegative": "codes",
}  # fmt: skip
TRUTH = PlantedRows(**{key: value for key, value in SOURCE.items() if key != "name"}).planted()[2]  # type: ignore[arg-type]


def sweep(folder: Path, dictionaries: list[torch.Tensor], data: dict[str, object] = SOURCE) -> Path:
    for seed, D in enumerate(dictionaries):
        path = folder / str(seed)
        write_run(path, f"seed={seed}", metrics=json.dumps(METRICS), seed=seed, nb_concepts=len(D))
        settings = {"nonnegative": "codes", "l1_penalty": 0.02, "nb_concepts": len(D), "data": data}
        save_dictionary(path / "dictionary.safetensors", D, Normalizer(1.0), settings, ())
    return folder


def noisy(seed: int, noise: float = 0.04, atoms: torch.Tensor = TRUTH) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    D = atoms[torch.randperm(len(atoms), generator=generator)]
    D = D + noise * torch.randn(D.shape, generator=generator)
    return D / D.norm(dim=1, keepdim=True)


def test_seeds_are_compared_with_their_null(tmp_path: Path) -> None:
    result = SeedStability().run(Context(sweep(tmp_path, [noisy(seed) for seed in range(3)])))
    (line,) = result.lines
    found = {name: one.value for name, one in line.values.items()}
    assert line.name == "3 seeds"
    assert found["share"] == found["share_raw"] == 1
    assert found["stability"] == pytest.approx(found["cosine"] - found["null_cosine"])
    assert found["stability_raw"] == pytest.approx(found["cosine_raw"] - found["null_cosine_raw"])
    assert "r2" not in result.columns


def test_a_consensus_is_written_and_better_than_one_seed(tmp_path: Path) -> None:
    runs = sweep(tmp_path / "sweep", [noisy(seed, 0.06) for seed in range(4)])
    where = tmp_path / "merged"
    result = SeedStability(consensus=str(where)).run(Context(runs))
    found = {line.name: {name: one.value for name, one in line.values.items()} for line in result.lines}
    assert found["consensus"]["atoms"] == 6
    assert found["consensus"]["r2"] > found["runs, mean"]["r2"] + 0.002
    assert found["consensus"]["r2"] > found["first run, as many, the most used"]["r2"]
    assert found["consensus"]["l0"] == pytest.approx(found["runs, mean"]["l0"], rel=0.05)
    assert found["consensus of half the seeds, twice"]["cosine"] > found["4 seeds"]["cosine"]
    assert result.details["seeds_per_atom"] == [4] * 6

    model = SemiNMF.load(where)
    D = model.get_dictionary()
    assert torch.allclose(D.norm(dim=1), torch.ones(6), atol=1e-6)
    assert (model.encode(torch.rand(3, 12)) >= 0).all()
    truth = (TRUTH @ D.T).max(dim=1).values.mean()
    assert truth > max(float((TRUTH @ noisy(seed, 0.06).T).max(dim=1).values.mean()) for seed in range(4))
    with pytest.raises(FileExistsError, match=r"suite\.stability\.overwrite=true"):
        SeedStability(consensus=str(where))
    SeedStability(consensus=str(where), overwrite=True)


def test_signs_are_kept(tmp_path: Path) -> None:
    atoms = [noisy(seed, 0.01, torch.eye(6, 12)).clamp(min=0) for seed in range(2)]
    folder = sweep(tmp_path / "sweep", atoms)
    for seed, D in enumerate(atoms):
        settings = {"l1_penalty": 0.02, "nb_concepts": 6, "data": SOURCE}
        save_dictionary(folder / str(seed) / "dictionary.safetensors", D, Normalizer(1.0), settings, ())
    result = SeedStability(consensus=str(tmp_path / "merged")).run(Context(folder))
    assert (SemiNMF.load(tmp_path / "merged").get_dictionary() >= 0).all()
    assert any("takes 4 seeds" in note for note in result.notes)


def test_runs_that_cannot_be_compared_are_named(tmp_path: Path) -> None:
    ours = sweep(tmp_path / "ours", [noisy(0), noisy(1)])
    other = sweep(tmp_path / "other", [noisy(2), noisy(3)], SOURCE | {"data_seed": 7})
    with pytest.raises(ValueError, match=r"other/0 .* data\.data_seed=7, .*ours/0 on data\.data_seed=None"):
        SeedStability(runs=str(other)).run(Context(ours))  # type: ignore[arg-type]
    batched = sweep(tmp_path / "batched", [noisy(2)], SOURCE | {"batch_size": 64})  # the same rows
    assert SeedStability(runs=[str(batched)]).run(Context(ours)).lines
    with pytest.raises(ValueError, match="of 1 runs no two finished ones differ in the seed alone"):
        SeedStability().run(Context(ours / "0"))
    wider = sweep(tmp_path / "wider", [noisy(0, atoms=torch.eye(5, 12)), noisy(1, atoms=torch.eye(5, 12))])
    with pytest.raises(ValueError, match=r"merges seeds of one setting, and .* has 2"):
        SeedStability(runs=[str(wider)], consensus=str(tmp_path / "merged")).run(Context(ours))
