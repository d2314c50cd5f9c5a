"""The suite that knows the answer."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from seminmf_lightning import SemiNMF
from seminmf_lightning.suites import Context, Result
from seminmf_lightning.suites.planted.compositional import Compositional
from seminmf_lightning.suites.planted.hierarchical import Hierarchical
from seminmf_lightning.suites.recovery import Recovery

SMALL = {"latents": 60, "samples": 400, "nonzeros": 4, "epochs": 5}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    model = SemiNMF(nb_concepts=4, l1_penalty=0.1, solver="pgd", normalize="center")
    model.fit(torch.rand(50, 6, generator=torch.Generator().manual_seed(0)), max_iter=2)
    model.save(tmp_path / "dictionary.safetensors")
    return tmp_path


def values(result: Result) -> dict[str, dict[str, float]]:
    return {line.name: {name: one.value for name, one in line.values.items()} for line in result.lines}


def test_the_oracle_wins_and_nulls_lose(run: Path) -> None:
    result = Recovery(**SMALL, seeds=2).run(Context(run))  # type: ignore[arg-type]
    found = values(result)
    trained, oracle = found["trained"], found["oracle: true features"]
    for null in ("null: random atoms", "null: data rows"):
        for name in ("mcc", "mcc_shifted", "atom_mcc", "f1", "explained_variance"):
            assert found[null][name] < oracle[name]
    for name in ("atom_mcc", "explained_variance"):
        assert found["null: random atoms"][name] < trained[name] < oracle[name]
    assert oracle["mcc"] > 0.6 and oracle["atom_mcc"] == pytest.approx(1) and oracle["uniqueness"] == 1
    assert all(one["l0"] == pytest.approx(4, rel=0.1) for one in found.values())
    assert result.lines[0].values["mcc"].error is not None  # over two seeds
    again = values(Recovery(**SMALL, seeds=2).run(Context(run)))  # type: ignore[arg-type]
    assert again["trained"] | {"seconds": 0} == trained | {"seconds": 0}


def test_hierarchical_features_have_no_shifted_rows(run: Path) -> None:
    suite = Recovery(problem="hierarchical", samples=1000, nb_concepts=32, epochs=2, seeds=1, fresh=600)
    result = suite.run(Context(run))
    assert set(result.columns) == {"atom_mcc", "f1", "uniqueness", "explained_variance", "l0", "seconds"}
    found = values(result)
    assert found["null: random atoms"]["f1"] < found["trained"]["f1"] < found["oracle: true features"]["f1"]
    assert result.details["recipe"]["nb_concepts"] == 32


@pytest.mark.parametrize(
    ("given", "encoder", "target"),
    [
        ({}, {"name": "lasso"}, 4),
        ({"train_nonzeros": 6}, {"name": "lasso"}, 6),
        ({"encoder": "omp"}, {"name": "omp", "nonzeros": 4}, None),
        ({"encoder": {"name": "lasso", "refit": True}}, {"name": "lasso", "refit": True}, 4),
        ({"encoder": "least_squares"}, {"name": "least_squares"}, None),
    ],
)
def test_the_recipe_is_the_run_s_at_the_sparsity_of_the_problem(
    given: dict[str, object], encoder: dict[str, object], target: float | None
) -> None:
    settings = SemiNMF(nb_concepts=4, l1_penalty=0.3, solver="pgd", normalize="center").settings
    recipe = Recovery(**SMALL | given).recipe(settings, Compositional(latents=60), seed=3)  # type: ignore[arg-type]
    assert encoder.items() <= recipe["encoder"].items()
    assert (recipe["target_l0"], recipe["l1_penalty"]) == (target, 0)
    assert (recipe["nb_concepts"], recipe["seed"], recipe["nonnegative"]) == (60, 3, "codes")
    assert recipe["solver"]["name"] == "pgd" and recipe["normalize"] == "center"
    SemiNMF(**recipe)


def test_training_may_have_a_penalty_instead(run: Path) -> None:
    """K-SVD needs many sweeps over the rows, and finds what plain training does not."""
    small = SMALL | {"samples": 1600, "epochs": 60, "seeds": 1, "train_penalty": 0.02}
    solver = {"name": "ksvd", "updates": 60, "trim": 5, "replace": 0.1}
    result = Recovery(**small, solver=solver, normalize="scale").run(Context(run))  # type: ignore[arg-type]
    assert (result.details["recipe"]["l1_penalty"], result.details["recipe"]["target_l0"]) == (0.02, None)
    found = values(result)
    assert found["trained"]["atom_mcc"] > found["null: data rows"]["atom_mcc"] + 0.1


def test_sizes_and_signs_are_chosen_by_the_settings() -> None:
    problem = Recovery(latents=60, samples=30).planted(seed=2)
    assert isinstance(problem, Compositional) and (problem.latents, problem.seed) == (60, 2)
    settings = SemiNMF(nb_concepts=4, l1_penalty=0.3).settings
    assert Recovery(nonnegative=None).recipe(settings, problem, 0)["nonnegative"] == "dictionary"
    assert Recovery().recipe(settings, Hierarchical(samples=2), 0)["nb_concepts"] == 256
    with pytest.raises(ValueError, match="compositional"):
        Recovery(problem="hierarchy")
    with pytest.raises(ValueError, match=r"suite\.recovery\.nonzeros"):
        Recovery(nonzeros=0)


def test_codes_may_be_scored_at_the_published_penalty(run: Path) -> None:
    found = values(Recovery(**SMALL, seeds=1, penalty=0.1).run(Context(run)))  # type: ignore[arg-type]
    assert found["oracle: true features"]["l0"] != pytest.approx(4, rel=0.1)
    assert found["oracle: true features"]["mcc"] > 0.9
    with pytest.raises(ValueError, match="encoder=omp takes no penalty"):
        Recovery(**SMALL, penalty=0.1, encoder="omp").run(Context(run))  # type: ignore[arg-type]


def test_an_autoencoder_of_the_same_rows_gets_a_line(run: Path, tmp_path: Path) -> None:
    """One whose decoder is the truth, and whose threshold is read."""
    for seed in (0, 1):
        features = torch.from_numpy(Compositional(latents=60, seed=seed).features)
        W = {"W_enc": features.T.contiguous(), "b_enc": torch.zeros(60), "W_dec": features}
        W |= {"b_dec": torch.ones(features.shape[1]), "threshold": torch.tensor(0.5)}
        save_file(W, tmp_path / f"true_{seed}.safetensors")
    suite = Recovery(**SMALL, seeds=2, sae=str(tmp_path / "true_SEED.safetensors"))  # type: ignore[arg-type]
    line = values(suite.run(Context(run)))["SAE true_SEED"]
    assert line["atom_mcc"] == pytest.approx(1) and line["uniqueness"] == 1 and 0 < line["l0"] < 30
    with pytest.raises(FileNotFoundError, match="none_0"):
        Recovery(**SMALL, sae=str(tmp_path / "none_SEED.safetensors")).run(Context(run))  # type: ignore[arg-type]


def test_a_shared_threshold_keeps_the_nonzeros_on_average_and_detects_better(run: Path) -> None:
    shared = Recovery(**SMALL, seeds=1, encoder="threshold", shared_threshold=True)  # type: ignore[arg-type]
    each = Recovery(**SMALL, seeds=1, encoder="threshold")  # type: ignore[arg-type]
    name = "oracle: true features"
    one, other = values(shared.run(Context(run)))[name], values(each.run(Context(run)))[name]
    assert one["l0"] == pytest.approx(4, rel=0.02) and one["f1"] > other["f1"]
