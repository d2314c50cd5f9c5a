"""SemiNMF: its interface, and that it has none of the defects found in a peer."""

from __future__ import annotations

from pathlib import Path

import lightning
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from seminmf_lightning import ActivationDataModule, SemiNMF, SemiNMFModule

KINDS = [{"solver": "mu"}, {"solver": "pgd"}, {"solver": "hals"}, {"solver": "pgd", "l1_penalty": 0.1}]


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_fit_encode_decode_save_load(kind: dict, signed: torch.Tensor, tmp_path: Path) -> None:
    model = SemiNMF(8, **kind)
    Z, D = model.fit(signed, max_iter=30)
    assert Z.shape == (600, 8)
    assert D.shape == (8, 24)
    assert (D >= 0).all()  # D >= 0 and Z free in sign, as documented
    assert (Z < 0).any()
    assert torch.equal(model.encode(signed), model.encode(signed))  # two calls agree
    assert torch.equal(Z, model.encode(signed))
    error = (model.decode(Z) - signed).square().sum() / signed.square().sum()
    assert error < 0.75
    if "l1_penalty" not in kind:
        assert torch.allclose(model.decode(Z), Z @ D)
    model.save(tmp_path / "m.safetensors")
    again = SemiNMF.load(tmp_path / "m.safetensors")
    assert torch.equal(again.get_dictionary(), D)
    assert torch.equal(again.encode(signed), Z)
    assert torch.equal(again.decode(Z), model.decode(Z))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.int32])
def test_number_types(dtype: torch.dtype, signed: torch.Tensor) -> None:
    Z, D = SemiNMF(4, solver="hals").fit((signed * 10).to(dtype), max_iter=5)
    assert Z.dtype == D.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)


@pytest.mark.parametrize("penalty", [0.0, 0.1])
def test_array_loader_and_tensor_agree(penalty: float, signed: torch.Tensor) -> None:
    def fitted(A: object) -> torch.Tensor:
        return SemiNMF(6, solver="hals", l1_penalty=penalty).fit(A, max_iter=20)[1]

    assert torch.equal(fitted(signed), fitted(signed.numpy()))
    loaded = fitted(DataLoader(signed, batch_size=100))  # type: ignore[arg-type]
    if penalty == 0:
        assert torch.allclose(loaded, fitted(signed), atol=1e-4)


def test_penalty_makes_codes_sparse_with_bounded_atoms(signed: torch.Tensor) -> None:
    counts = []
    for penalty in (0.05, 0.2):
        Z, D = SemiNMF(16, solver="pgd", l1_penalty=penalty).fit(signed, max_iter=20)
        assert (D.norm(dim=1) <= 1).all()
        counts.append(float((Z != 0).sum(dim=1).float().mean()))
    assert counts[1] < counts[0] < 16


def test_bad_arguments() -> None:
    with pytest.raises(TypeError):
        SemiNMF(8, max_iterations=3)  # type: ignore[call-arg]
    with pytest.raises(ValueError, match=r"hals or solver=ksvd or solver=pgd"):
        SemiNMF(8, solver="mu", l1_penalty=0.1)
    for bad in (-0.1, float("nan")):
        with pytest.raises(ValueError, match="l1_penalty"):
            SemiNMF(8, solver="pgd", l1_penalty=bad)
    with pytest.raises(TypeError, match="l1_penalty"):
        SemiNMF(8, l1_penalty="high")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="nb_concepts"):
        SemiNMF(0)
    with pytest.raises(TypeError, match="nb_concepts"):
        SemiNMF(2.5)  # type: ignore[arg-type]
    with pytest.raises(RuntimeError, match="fit"):
        SemiNMF(2).get_dictionary()


def test_bad_rows(signed: torch.Tensor) -> None:
    model = SemiNMF(8)
    bad = signed.clone()
    bad[5, 3] = float("inf")
    for rows, words in (
        (bad, "row 5"),
        (signed[0], "1-D"),
        (signed[:0], "empty"),
        (signed[:4], "more than the 4 rows"),
    ):
        with pytest.raises(ValueError, match=words):
            model.fit(rows)
    with pytest.raises(TypeError, match="tensor"):
        model.fit([[1.0]])  # type: ignore[arg-type]


def test_random_starts_are_seeded_and_nonnegative(signed: torch.Tensor) -> None:
    model = SemiNMF(5)
    Z = model.init_random_z(signed)
    D = model.init_random_d(signed, Z)
    assert torch.equal(Z, model.init_random_z(signed))
    assert Z.shape == (600, 5)
    assert D.shape == (5, 24)
    assert (D >= 0).all()
    assert (Z < 0).any()
    assert model.sanitize_np_codes(np.ones((2, 5))).dtype == torch.float64


def test_moving_a_model_moves_all_of_it(signed: torch.Tensor) -> None:
    model = SemiNMF(4)
    model.fit(signed, max_iter=2)
    model.to("meta")
    assert model.device.type == model.get_dictionary().device.type == "meta"


def test_a_new_module_takes_the_state_of_a_trained_one(signed: torch.Tensor, tmp_path: Path) -> None:
    trained = SemiNMFModule(4, solver="hals")
    trainer = lightning.Trainer(
        max_epochs=1, accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False,
        default_root_dir=tmp_path,
    )  # fmt: skip
    trainer.fit(trained, ActivationDataModule(signed))
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    new = SemiNMFModule(4, solver="hals")
    new.load_state_dict(trained.state_dict())
    again = SemiNMFModule.load_from_checkpoint(tmp_path / "last.ckpt", weights_only=True)
    for module in (new, again):
        assert torch.equal(module.dictionary, trained.dictionary)
        assert torch.equal(module.encode(signed), trained.eval().encode(signed))


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("penalty", [0.0, 0.1])
def test_a_bad_row_is_named_in_the_sample_and_beyond(penalty: float, dtype: torch.dtype) -> None:
    A = torch.randn(20_000, 6, generator=torch.Generator().manual_seed(0)).to(dtype)
    sampled = torch.randperm(20_000, generator=torch.Generator().manual_seed(0))
    for fault in ("nan", "inf", "-inf"):
        for row in (int(sampled[0]), int(sampled[-1])):  # in the sample, and known to the sums alone
            bad = A.clone()
            bad[row, 4] = float(fault)
            with pytest.raises(ValueError, match=rf"A: row {row} holds NaN or Inf \(1 such row"):
                SemiNMF(3, solver="hals", l1_penalty=penalty).fit(bad, max_iter=2)


def test_finite_rows_whose_squares_overflow_are_no_bad_rows() -> None:
    A = torch.randn(20_000, 6, generator=torch.Generator().manual_seed(0))
    last = int(torch.randperm(20_000, generator=torch.Generator().manual_seed(0))[-1])
    A[last] = 1e30  # its square is beyond float32, and within float64
    Z, _ = SemiNMF(3, solver="hals").fit(A, max_iter=2)
    assert Z.isfinite().all()
    A = A.double()
    A[last] = 1e200
    with pytest.raises(FloatingPointError, match="A\\^T A is not finite"):
        SemiNMF(3, solver="hals").fit(A, max_iter=2)


@pytest.mark.parametrize(("given", "message"), [
    ({"mean": torch.zeros(4)}, r"mean has the shape \(4,\), but D has 3 features"),
    ({"mean": torch.zeros(3, 1)}, r"mean has the shape \(3, 1\)"),
    ({"mean": 0.5}, r"mean has the shape \(\)"),
    ({"mean": torch.tensor([0.0, float("nan"), 0.0])}, "mean: row 0 holds NaN"),
    ({"nb_concepts": 4}, "make it {'nb_concepts': 3}; leave out nb_concepts"),
    ({"mean": torch.ones(3), "normalize": "scale"}, "make it {'normalize': 'center'}; leave out norm"),
])  # fmt: skip
def test_atoms_with_a_mean_or_settings_that_do_not_fit(given: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SemiNMF.from_dictionary(torch.eye(3), **given)


def test_a_mean_may_be_an_array_and_is_saved(tmp_path: Path) -> None:
    model = SemiNMF.from_dictionary(np.eye(3), mean=np.ones(3), normalize="center")
    model.save(tmp_path / "d.safetensors")
    assert SemiNMF.load(tmp_path / "d.safetensors").encode(torch.ones(1, 3)).abs().max() == 0
