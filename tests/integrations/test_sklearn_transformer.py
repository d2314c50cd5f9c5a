"""The scikit-learn transformer: scikit-learn's own checks, and the company it is made for."""

from __future__ import annotations

import importlib
import pickle
import sys
from dataclasses import fields

import numpy as np
import pytest
import torch

pytest.importorskip("sklearn", minversion="1.6", reason="the extra sklearn is not installed")
from sklearn.base import clone
from sklearn.compose import ColumnTransformer
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import Ridge
from sklearn.metrics import r2_score
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from seminmf_lightning import SemiNMF
from seminmf_lightning.integrations.sklearn import SemiNMFTransformer
from seminmf_lightning.learners import Recipe

EXPECTED_FAILURES: dict[str, str] = {}
"""None.  A check that must fail goes here with its reason."""
# Two concepts: the checks have as few as 10 rows, and 64 concepts want as many.
CHECKED = [
    SemiNMFTransformer(2, max_iter=5), SemiNMFTransformer(2, l1_penalty=0.1, normalize="center", max_iter=5),
    SemiNMFTransformer(2, encoder={"name": "omp", "nonzeros": 1}, max_iter=5),
    SemiNMFTransformer(2, l1_penalty=0.1, nonnegative="codes", max_iter=5),
    SemiNMFTransformer(2, l1_penalty=0.1, nonnegative="none", max_iter=5),
]  # fmt: skip


# Some checks have rows of one feature.
@pytest.mark.filterwarnings("ignore:nb_concepts=2 is not less than:UserWarning")
@parametrize_with_checks(CHECKED, expected_failed_checks=lambda estimator: EXPECTED_FAILURES)
def test_scikit_learns_own_checks(estimator: SemiNMFTransformer, check) -> None:
    check(estimator)


@pytest.fixture
def rows(signed: torch.Tensor) -> np.ndarray:
    return signed.numpy()


@pytest.mark.parametrize(
    "settings",
    [
        {}, {"l1_penalty": 0.1, "normalize": "center"}, {"nonnegative": "codes"}, {"nonnegative": "both"},
        {"nonnegative": "none", "l1_penalty": 0.1},
    ],
    ids=str,
)  # fmt: skip
def test_it_is_the_estimator(settings: dict, rows: np.ndarray) -> None:
    rows = np.abs(rows) if settings.get("nonnegative") == "both" else rows
    transformer = SemiNMFTransformer(6, max_iter=20, **settings)
    Z = transformer.fit_transform(rows)
    expected, D = SemiNMF(6, solver="hals", **settings).fit(rows, max_iter=20)
    assert np.array_equal(Z, expected.numpy())
    assert np.array_equal(transformer.components_, D.numpy())
    assert np.array_equal(transformer.transform(rows), Z)
    assert transformer.n_features_in_ == 24
    assert 1 <= transformer.n_iter_ <= 20
    normalizer = transformer.model_.normalizer
    mean = 0 if normalizer.mean is None else normalizer.mean.numpy()
    back = transformer.inverse_transform(Z)
    assert np.allclose(back, normalizer.scale * (Z @ transformer.components_) + mean, atol=1e-4)
    assert transformer.score(rows) == pytest.approx(
        r2_score(rows, back, multioutput="variance_weighted"), abs=1e-5
    )
    again = pickle.loads(pickle.dumps(transformer))
    assert np.array_equal(again.transform(rows), Z)


def test_parameters_are_those_of_the_recipe() -> None:
    """scikit-learn needs them one by one in __init__; this holds the list equal to the recipe's."""
    params = SemiNMFTransformer().get_params()
    for name in ("max_iter", "device", "verbose"):
        params.pop(name)
    assert params.pop("solver") == "hals"
    assert params == {field.name: field.default for field in fields(Recipe) if field.name != "solver"}


def test_names_and_output_containers(rows: np.ndarray) -> None:
    pandas = pytest.importorskip("pandas", reason="the container of this test")
    frame = pandas.DataFrame(rows, columns=[f"unit{j}" for j in range(24)], index=np.arange(600) + 7)
    transformer = SemiNMFTransformer(3, max_iter=5).set_output(transform="pandas").fit(frame)
    codes = transformer.transform(frame)
    assert (
        list(codes.columns)
        == list(transformer.get_feature_names_out())
        == [f"seminmftransformer{j}" for j in range(3)]
    )
    assert codes.index.equals(frame.index)
    assert list(transformer.feature_names_in_) == list(frame.columns)
    assert np.allclose(transformer.inverse_transform(codes), transformer.inverse_transform(codes.to_numpy()))
    with pytest.raises(ValueError, match="feature names"):
        transformer.transform(frame.rename(columns={"unit0": "other"}))


def test_pipeline_and_grid_search(rows: np.ndarray) -> None:
    pipeline = make_pipeline(StandardScaler(), SemiNMFTransformer(4, max_iter=5), Ridge())
    grid = GridSearchCV(pipeline, {"seminmftransformer__l1_penalty": [0.0, 0.1]}, cv=2).fit(rows, rows[:, 0])
    assert grid.best_score_ > 0

    grid = GridSearchCV(
        SemiNMFTransformer(max_iter=10), {"nb_concepts": [1, 4], "encoder": ["auto"]}, cv=3
    ).fit(rows)
    assert grid.best_params_["nb_concepts"] == 4  # the score is R2, which more concepts raise
    first, second = grid.cv_results_["mean_test_score"]
    assert first < second < 1
    assert grid.transform(rows).shape == (600, 4)

    columns = ColumnTransformer(
        [("concepts", SemiNMFTransformer(3, max_iter=5), slice(0, 12))], remainder="passthrough"
    )
    assert columns.fit_transform(rows).shape == (600, 3 + 12)


def test_clones_have_the_settings_and_nothing_learned(rows: np.ndarray) -> None:
    solver = {"name": "hals", "sweeps": 2}
    fitted = SemiNMFTransformer(3, solver=solver, max_iter=5).fit(rows)
    copy = clone(fitted)
    assert copy.get_params() == fitted.get_params()
    with pytest.raises(NotFittedError):
        copy.transform(rows)
    with pytest.raises(NotFittedError):
        copy.inverse_transform(np.ones((1, 3)))


def test_mistakes_are_explained(rows: np.ndarray) -> None:
    with pytest.raises(TypeError, match="concepts"):
        SemiNMFTransformer(concepts=3)  # type: ignore[call-arg]
    for settings, words in (
        ({"l1_penalty": -1.0}, "l1_penalty"),
        ({"solver": "mu", "l1_penalty": 0.1}, "solver=hals"),
        ({"nb_concepts": 601}, "nb_concepts=601"),
        ({"max_iter": 0}, "max_iter"),
    ):
        with pytest.raises(ValueError, match=words):
            SemiNMFTransformer(**{"nb_concepts": 3} | settings).fit(rows)
    with pytest.raises(ValueError, match="4 columns"):
        SemiNMFTransformer(3, max_iter=1).fit(rows).inverse_transform(np.ones((2, 4)))


def test_without_the_extra_the_message_has_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn", None)
    monkeypatch.setitem(sys.modules, "sklearn.base", None)
    monkeypatch.delitem(sys.modules, "seminmf_lightning.integrations.sklearn")
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'seminmf-lightning\[sklearn\]'"):
        importlib.import_module("seminmf_lightning.integrations.sklearn")


@pytest.mark.parametrize(
    "setting", ["l1_penalty", "target_l0", "tol", "seed", "nb_concepts", "max_iter", "nonzeros"]
)
@pytest.mark.parametrize("kind", [np.float32, np.float64, np.int32, np.int64])
def test_numpys_numbers_are_numbers(setting: str, kind: type, rows: np.ndarray, tmp_path) -> None:
    if setting in ("seed", "nb_concepts", "max_iter", "nonzeros") and issubclass(kind, np.floating):
        pytest.skip("a whole number")
    number = kind(0.125 if setting in ("l1_penalty", "tol") and issubclass(kind, np.floating) else 1)

    def fitted(value: object) -> SemiNMFTransformer:
        options = (
            {"encoder": {"name": "omp", "nonzeros": value}} if setting == "nonzeros" else {setting: value}
        )
        return SemiNMFTransformer(**({"nb_concepts": 4, "max_iter": 3} | options)).fit(rows)

    found, expected = fitted(number), fitted(number.item())
    assert np.array_equal(found.components_, expected.components_)
    saved = []
    for name, one in (("found", found), ("expected", expected)):
        one.model_.save(tmp_path / f"{name}.safetensors")
        saved.append(SemiNMF.load(tmp_path / f"{name}.safetensors").settings)
    assert saved[0] == saved[1]


def test_a_search_over_arrays(rows: np.ndarray) -> None:
    search = GridSearchCV(
        SemiNMFTransformer(max_iter=3),
        {"l1_penalty": np.logspace(-2, -1, 2), "nb_concepts": np.arange(3, 5)},
        cv=2,
    )
    assert np.isfinite(search.fit(rows).cv_results_["mean_test_score"]).all()
