"""What holds for every learner: odd data, resuming, starting again."""

from __future__ import annotations

import warnings

import lightning
import pytest
import torch
from learning import learn

from seminmf_lightning import SemiNMF, SemiNMFModule
from seminmf_lightning.learners import Recipe, make_learner


@pytest.mark.parametrize("penalty", [0.0, 0.1])
@pytest.mark.parametrize(
    "case", ["zero rows", "zero columns", "twice", "tiny", "huge", "outlier", "wide", "constant"]
)
def test_odd_data_simply_works(signed: torch.Tensor, case: str, penalty: float) -> None:
    A, k = signed.clone(), 8
    if case == "zero rows":
        A[::2] = 0
    elif case == "zero columns":
        A[:, ::3] = 0
    elif case == "twice":
        A[1::2] = A[::2]
    elif case == "tiny":
        A *= 1e-20
    elif case == "huge":
        A *= 1e20
    elif case == "outlier":
        A[:, 0] *= 1000
    elif case == "wide":
        k = 40
    else:
        A[:, 0] = 3.0
    with pytest.warns(UserWarning, match="fits anything") if k > 24 and penalty == 0 else _nothing():
        learner, D = learn(A, steps=20, nb_concepts=k, solver="pgd", l1_penalty=penalty)
    assert D.isfinite().all()
    assert (D >= 0).all()
    assert learner.mean_squared_error(D) <= float(A.double().square().mean()) * (1 + 1e-6)


class _nothing:  # noqa: N801
    def __enter__(self) -> None: ...

    def __exit__(self, *exc: object) -> None: ...


@pytest.mark.parametrize("penalty", [0.0, 0.1])
def test_state_continues_bit_for_bit(signed: torch.Tensor, penalty: float) -> None:
    recipe = Recipe(nb_concepts=6, solver="hals", l1_penalty=penalty)
    first = make_learner(recipe, 24)
    D = first.initialise(signed)
    first.observe(signed[:100], D)
    first.absorb()
    D = first.improve(D)
    second = make_learner(recipe, 24)
    second.attach_sample(signed, first.normalizer)
    second.load_state_dict(first.state_dict())
    E = D.clone()
    for learner in (first, second):
        learner.observe(signed[100:300], D)
        learner.absorb()
    assert torch.equal(first.improve(D), second.improve(E))


def test_what_only_the_data_shows_is_refused_too(signed: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="nonzeros=9 is more than"):
        make_learner(Recipe(nb_concepts=8, encoder={"name": "omp", "nonzeros": 9}), 24)
    with pytest.raises(ValueError, match="every code zero"):
        make_learner(Recipe(nb_concepts=8, l1_penalty=50.0), 24).initialise(signed)


@pytest.mark.parametrize("recipe", [{}, {"l1_penalty": 0.1}])
def test_a_loader_of_anything_that_begins_with_rows_will_do(recipe: dict, signed: torch.Tensor) -> None:
    labelled = torch.utils.data.TensorDataset(signed, torch.arange(600), torch.ones(600))
    module = SemiNMFModule(8, solver="hals", **recipe)
    trainer = lightning.Trainer(
        accelerator="cpu", max_epochs=2, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(module, torch.utils.data.DataLoader(labelled, batch_size=100))
    assert module.dictionary.norm(dim=1).min() > 0
    assert module.rows_seen == 600 * (1 if not recipe else 2)


@pytest.mark.parametrize("settings", [{}, {"l1_penalty": 0.1}, {"target_l0": 3}])
def test_a_learner_that_starts_again_equals_a_fresh_one(
    signed: torch.Tensor, settings: dict[str, object]
) -> None:
    recipe = Recipe(nb_concepts=6, seed=4, **settings)
    other = signed[:, torch.randperm(24, generator=torch.Generator().manual_seed(2))] * 7
    used, fresh = make_learner(recipe, 24), make_learner(recipe, 24)
    for rows in (other, 2 * other):
        D = used.initialise(rows)
        used.observe(rows, D)
        used.absorb()
        used.end_epoch(used.improve(D))
    dictionaries = []
    for learner in (used, fresh):
        D = learner.initialise(signed)
        for rows in signed.split(150):
            learner.observe(rows, D)
            learner.absorb()
            D = learner.improve(D)
        dictionaries.append(learner.end_epoch(D))
    assert torch.equal(*dictionaries)
    assert used.rows_seen == 600
    for name, tensor in used.total.tensors().items():
        assert torch.equal(tensor, fresh.total.tensors()[name]), name
    assert used.penalty == fresh.penalty


@pytest.mark.parametrize("init", ["random", "svd"])
@pytest.mark.parametrize(("offset", "penalty"), [(3e6, 0.0), (5e7, 0.0), (200.0, 0.1), (3e6, 0.1)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_an_offset_that_hides_the_rows_is_named_with_the_cure(
    signed: torch.Tensor, init: str, offset: float, penalty: float, dtype: torch.dtype
) -> None:
    rows, recipe = (signed.double() + offset).to(dtype), {"init": init, "l1_penalty": penalty}
    with pytest.warns(
        UserWarning, match=r"vary by .* of their squares, .*normalize=center removes the offset"
    ):
        SemiNMF(4, **recipe).fit(rows, max_iter=2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for usual in (signed, signed + 1, signed[:1].expand_as(signed) + offset):
            SemiNMF(4, **recipe).fit(usual, max_iter=2)
        centred = SemiNMF(4, normalize="center", **recipe)
        centred.fit(rows, max_iter=40)
    assert centred.evaluate(rows)["r2"] > 0.2
