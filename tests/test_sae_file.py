"""Autoencoders taken as dictionaries: files, folders of SAELens, the Hub, and what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from seminmf_lightning import SemiNMF
from seminmf_lightning.sae_file import SETTINGS, WEIGHTS, read_sae

D_IN, D_SAE = 8, 20


def weights(**more: torch.Tensor) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = {"W_enc": (D_IN, D_SAE), "b_enc": (D_SAE,), "W_dec": (D_SAE, D_IN), "b_dec": (D_IN,)}
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()} | more


def folder_of(folder: Path, tensors: dict[str, torch.Tensor], **settings: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / WEIGHTS)
    (folder / SETTINGS).write_text(json.dumps({"d_in": D_IN, "d_sae": D_SAE, "metadata": {}} | settings))
    return folder


def r2(A: torch.Tensor, A_hat: torch.Tensor) -> float:
    return 1 - float((A - A_hat).square().sum() / (A - A.mean(dim=0)).square().sum())


def test_the_decoder_is_the_dictionary_and_its_bias_the_mean(tmp_path: Path) -> None:
    W = weights()
    W["W_dec"][3] = 0  # an atom that died keeps its number
    model = SemiNMF.from_sae(folder_of(tmp_path / "sae", W, architecture="topk", k=3))
    D = model.get_dictionary()
    assert torch.allclose(D.norm(dim=1), torch.ones(D_SAE).index_fill(0, torch.tensor([3]), 0.0))
    assert torch.allclose(D * W["W_dec"].norm(dim=1, keepdim=True), W["W_dec"], atol=1e-6)
    A = torch.randn(50, D_IN)
    Z = model.encode(A)
    assert (Z >= 0).all() and (Z != 0).sum(dim=1).max() == 3
    assert torch.allclose(model.decode(Z), Z @ D + W["b_dec"], atol=1e-5)
    model.save(tmp_path / "saved.safetensors")
    assert torch.equal(SemiNMF.load(tmp_path / "saved.safetensors").encode(A), Z)


def test_exact_codes_explain_more_than_the_encoder_at_the_same_nonzeros(tmp_path: Path) -> None:
    """A decoder of planted atoms with the encoder that its transpose is."""
    generator = torch.Generator().manual_seed(1)
    D = torch.nn.functional.normalize(torch.randn(40, 16, generator=generator), dim=1)
    codes = torch.rand(400, 40, generator=generator) * (torch.rand(400, 40, generator=generator) < 0.1)
    A = codes @ D + 0.5
    W = {"W_enc": D.T.contiguous(), "b_enc": torch.zeros(40), "W_dec": D, "b_dec": torch.full((16,), 0.5)}
    folder = folder_of(tmp_path, W, architecture="topk", k=4, d_in=16, d_sae=40)
    sae, model = read_sae(folder), SemiNMF.from_sae(folder)
    own, Z = sae.encode(A), model.encode(A)
    assert (Z != 0).sum() <= (own != 0).sum()
    gain = r2(A, model.decode(Z)) - r2(A, sae.decode(own))
    assert gain > 0.1, gain


@pytest.mark.parametrize(
    "settings",
    [{"nonnegative": "none"}, {"l1_penalty": 0.1}, {"encoder": {"name": "threshold", "nonzeros": 2}}],
)
def test_other_encoders_and_signs(settings: dict[str, Any], tmp_path: Path) -> None:
    save_file(weights(), tmp_path / "a.safetensors")
    given = settings if "l1_penalty" in settings or "encoder" in settings else settings | {"nonzeros": 2}
    model = SemiNMF.from_sae(tmp_path / "a.safetensors", **given)
    Z = model.encode(torch.randn(30, D_IN))
    assert bool((Z < 0).any()) == (settings.get("nonnegative") == "none")


def test_codes_of_both_signs_stay_so(tmp_path: Path) -> None:
    model = SemiNMF.from_sae(folder_of(tmp_path, weights(), architecture="abstopk", k=2))
    assert model.recipe.nonnegative == "none" and (model.encode(torch.randn(9, D_IN)) < 0).any()


def test_a_gate_is_a_threshold(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(2)
    W = weights(**{name: torch.randn(D_SAE, generator=generator) for name in ("b_gate", "b_mag", "r_mag")})
    del W["b_enc"]
    A = torch.randn(200, D_IN)
    pre = (A - W["b_dec"]) @ W["W_enc"]
    magnitude = (pre * W["r_mag"].exp() + W["b_mag"]).relu()
    expected = torch.where(pre + W["b_gate"] > 0, magnitude, 0.0)
    codes = read_sae(folder_of(tmp_path, W, architecture="gated")).encode(A)
    assert torch.allclose(codes, expected, atol=1e-5)


def test_a_bias_that_is_not_taken_from_the_input_and_norms_that_are_folded(tmp_path: Path) -> None:
    W, A = weights(), torch.randn(100, D_IN)
    plain = read_sae(folder_of(tmp_path / "a", W, apply_b_dec_to_input=False))
    assert torch.allclose(plain.encode(A), (A @ W["W_enc"] + W["b_enc"]).relu(), atol=1e-5)
    settings = {"architecture": "topk", "k": 4, "rescale_acts_by_decoder_norm": True}
    folded = read_sae(folder_of(tmp_path / "b", W, **settings))
    norms = W["W_dec"].norm(dim=1)
    pre = (((A - W["b_dec"]) @ W["W_enc"] + W["b_enc"]) * norms).relu()
    pre[pre < pre.sort(dim=1, descending=True).values[:, 3:4]] = 0
    assert torch.allclose(folded.encode(A), pre, atol=1e-4)
    assert torch.allclose(folded.decode(pre), (pre / norms) @ W["W_dec"] + W["b_dec"], atol=1e-4)


def test_settings_before_version_6_are_read(tmp_path: Path) -> None:
    old = {"activation_fn_str": "topk", "activation_fn_kwargs": {"k": 5}, "hook_point": "h", "metadata": None}
    assert read_sae(folder_of(tmp_path, weights(), **old)).nonzeros == 5


def test_a_mistyped_folder_is_not_only_looked_for_on_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    hub = pytest.importorskip("huggingface_hub")

    def snapshot_download(repository: str, **options: Any) -> str:
        raise hub.errors.LocalEntryNotFoundError("no connection\nand more")

    monkeypatch.setattr(hub, "snapshot_download", snapshot_download)
    message = r"outputs/sea: no such file or folder here, and the Hub gives .*\(no connection\)$"
    with pytest.raises(FileNotFoundError, match=message):
        SemiNMF.from_sae("outputs/sea", nonzeros=3)


def test_a_repository_of_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub = pytest.importorskip("huggingface_hub")
    folder_of(tmp_path / "layer_3", weights(), k=2, architecture="topk")
    asked: dict[str, Any] = {}

    def snapshot_download(repository: str, **options: Any) -> str:
        asked.update(options, repository=repository)
        return str(tmp_path)

    monkeypatch.setattr(hub, "snapshot_download", snapshot_download)
    assert SemiNMF.from_sae("owner/name", subfolder="layer_3", revision="v1").D is not None
    assert asked["repository"] == "owner/name" and asked["revision"] == "v1"
    assert asked["allow_patterns"] == ["layer_3/cfg.json", "layer_3/sae_weights.safetensors"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"architecture": "transcoder"}, r"architecture 'transcoder' is not read; accepted: standard, jump"),
        ({"normalize_activations": "layer_norm"}, r"normalize_activations='layer_norm' scales rows .* fold"),
        ({"architecture": "topk", "k": "many"}, r"cfg\.json: k: expected a whole number from 0 up"),
        ({"architecture": ["topk"]}, r"architecture: expected a text"),
        ({}, r"does not say how many codes it keeps: give nonzeros=32"),
        ({"k": 2, "d_in": 9}, r"W_dec \(20, 8\), but cfg\.json says d_sae=20 and d_in=9; .*is it transposed"),
        ({"architecture": "topk", "k": 21}, r"k=21; expected 1 to 20, the codes that there are"),
        ({"activation_fn": "topk", "activation_fn_kwargs": {"k": "4"}}, r"kwargs\.k: expected a whole num"),
    ],
)
def test_settings_that_are_refused(settings: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        SemiNMF.from_sae(folder_of(tmp_path, weights(), **settings))


def test_an_activation_that_is_not_read_leaves_the_decoder(tmp_path: Path) -> None:
    sae = read_sae(folder_of(tmp_path, weights(), activation_fn="tanh-relu"))
    assert sae.W_enc is None and sae.W_dec.shape == (D_SAE, D_IN)
    save_file(weights(), tmp_path / "a.safetensors", metadata={"activation": "gelu", "k": "2"})
    with pytest.raises(ValueError, match=r"activation='gelu'; accepted: relu, topk, abs_topk"):
        read_sae(tmp_path / "a.safetensors")


def test_atoms_whose_norm_underflows_have_length_one(tmp_path: Path) -> None:
    W = weights()
    W["W_dec"][0] = 1e-40
    model = SemiNMF.from_sae(folder_of(tmp_path, W, architecture="topk", k=2))
    assert float(model.get_dictionary()[0].norm()) == pytest.approx(1, rel=1e-4)
    assert model.encode(torch.randn(9, D_IN)).isfinite().all()


@pytest.mark.parametrize("settings", ["[]", "null", '"topk"'])
def test_settings_that_are_no_object_are_refused(settings: str, tmp_path: Path) -> None:
    (folder_of(tmp_path, weights()) / SETTINGS).write_text(settings)
    with pytest.raises(ValueError, match=r"cfg\.json: expected an object, found"):
        SemiNMF.from_sae(tmp_path, nonzeros=2)


@pytest.mark.parametrize("path", ["nothing", "~/no/where", "../no", "runs/deep/er"])
def test_a_path_that_is_not_there_is_no_repository(path: str) -> None:
    with pytest.raises(FileNotFoundError, match=f"{path}: no such file or folder; give a .safetensors file"):
        SemiNMF.from_sae(path, nonzeros=2)


def test_files_that_are_refused(tmp_path: Path) -> None:
    (tmp_path / "pickled").mkdir()
    torch.save(weights(), tmp_path / "pickled" / "ae.pt")
    with pytest.raises(ValueError, match=r"ae\.pt: a pickle can run any code"):
        SemiNMF.from_sae(tmp_path / "pickled" / "ae.pt")
    with pytest.raises(FileNotFoundError, match=r"no cfg\.json; found ae\.pt; ae\.pt is a pickle, which can"):
        SemiNMF.from_sae(tmp_path / "pickled")
    with pytest.raises(FileNotFoundError):
        SemiNMF.from_sae(tmp_path / "nothing")
    folder = folder_of(tmp_path / "sae", weights(b_dec=torch.full((D_IN,), float("nan"))), k=2)
    with pytest.raises(ValueError, match=r"sae_weights\.safetensors: b_dec holds NaN or Inf"):
        SemiNMF.from_sae(folder, nonzeros=2)
    shutil.copy(folder / WEIGHTS, tmp_path / WEIGHTS)
    (folder / SETTINGS).write_text("{")
    with pytest.raises(ValueError, match=r"cfg\.json: not JSON"):
        SemiNMF.from_sae(folder)
    folder_of(tmp_path / "sae", weights(W_dec=torch.zeros(D_SAE, 3)), d_in=3)
    with pytest.raises(ValueError, match=r"do not belong together"):
        SemiNMF.from_sae(folder, nonzeros=2)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"nonzeros": 3, "l1_penalty": 0.1}, r"nonzeros=3 chooses encoder=omp; leave it out, or l1_penalty"),
        ({"nonzeros": 0}, r"nonzeros must be at least 1, got 0"),
        ({"nonzeros": 9}, r"encoder\.nonzeros=9 is more than min"),
        ({"nonzeros": 2, "nonnegative": "dictionary"}, r"nonnegative must be one of codes, none"),
        ({"nonzeros": 2, "sede": 1}, r"unknown setting 'sede'; did you mean 'seed'"),
    ],
)
def test_arguments_that_contradict(settings: dict[str, Any], message: str, tmp_path: Path) -> None:
    save_file(weights(), tmp_path / "a.safetensors")
    with pytest.raises((TypeError, ValueError), match=message):
        SemiNMF.from_sae(tmp_path / "a.safetensors", **settings)
