"""Read a sparse autoencoder: one safetensors file, a folder of SAELens, or one of the two on the Hub.

``z = s((a - b_dec) W_enc + b_enc)``, ``a ~ z W_dec + b_dec``, with s a ReLU, then the k largest where k is
given (TopK: Gao et al., "Scaling and evaluating sparse autoencoders", 2024); with the metadata
``activation=abs_topk`` the k largest of either sign instead.  A file with a ``threshold`` keeps the codes
that reach it, one number or one per code: BatchTopK (Bussmann, Leask & Nanda, "BatchTopK sparse
autoencoders", 2024), which takes the largest of a whole batch only in training; JumpReLU.

A folder of SAELens holds ``cfg.json`` and ``sae_weights.safetensors``, as of its version 6.54; older settings
are read, too.

Legend:  a (d) raw activations   z (m) codes   W_enc (d, m)   b_enc (m)   W_dec (m, d)   b_dec (d)
         threshold () or (m)
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from seminmf_lightning.core.checks import one_of, whole_number
from seminmf_lightning.io.schema import conform
from seminmf_lightning.io.untrusted import (
    Refused,
    file_size,
    open_safetensors,
    parse_json,
    read_tensor,
    refusing,
)

REALS = ("F16", "BF16", "F32", "F64")
PICKLES = (".pt", ".pth", ".bin", ".pkl", ".pickle", ".ckpt")
SETTINGS, WEIGHTS = "cfg.json", "sae_weights.safetensors"
"""The two files of a folder of SAELens."""
REPOSITORY = re.compile(r"\w[\w.-]*/\w[\w.-]*")
ENCODERS = ("standard", "jumprelu", "gated", "topk", "abstopk")
"""Architectures of SAELens whose encoder is read."""
DECODERS = (*ENCODERS, "matching_pursuit", "seminmf")
"""Architectures whose decoder is a dictionary of the rows that go in."""
KINDS = ("relu", "topk", "abs_topk", "batch_topk", "jumprelu")
"""Activations in the metadata of a single file."""
ACTIVATIONS = (None, "relu", "topk")
"""Activations of an encoder that is read; files of version 6 name none."""
SETTINGS_FORM = {
    "architecture?": str, "apply_b_dec_to_input?": bool, "rescale_acts_by_decoder_norm?": bool, "k?": int,
    "metadata?": dict, "activation_fn_kwargs?": {"k?": int}, "d_in?": int, "d_sae?": int,
}  # fmt: skip


@dataclass(frozen=True)
class SparseAutoencoder:
    """The weights of an autoencoder, in float32."""

    path: Path
    W_dec: Tensor
    b_dec: Tensor
    W_enc: Tensor | None = None
    """None: the file's encoder is not of a kind that is read."""
    b_enc: Tensor | None = None
    threshold: Tensor | None = None
    nonzeros: int | None = None
    """Codes that TopK keeps."""
    signed: bool = False
    """Codes of either sign: AbsTopK."""
    b_in: Tensor | None = None
    """What is taken from rows before they are encoded, if it is not ``b_dec``."""

    def encode(self, A: Tensor) -> Tensor:
        """Return the codes (n, m) of its own encoder for raw rows A (n, d)."""
        assert self.W_enc is not None and self.b_enc is not None
        Z = (A - (self.b_dec if self.b_in is None else self.b_in)) @ self.W_enc + self.b_enc
        Z = Z if self.signed else Z.relu()
        if self.threshold is not None:
            return torch.where(Z.abs() >= self.threshold, Z, 0.0)
        if self.nonzeros is None:
            return Z
        largest = Z.abs().topk(self.nonzeros, dim=1).indices
        return torch.zeros_like(Z).scatter_(1, largest, Z.gather(1, largest))

    def decode(self, Z: Tensor) -> Tensor:
        """Return rows (n, d) for codes Z (n, m)."""
        return Z @ self.W_dec + self.b_dec

    def with_nonzeros(self, nonzeros: int | None) -> SparseAutoencoder:
        """Return the autoencoder that keeps that many codes of each row; None changes nothing."""
        return self if nonzeros is None else replace(self, nonzeros=nonzeros, threshold=None)

    def settings(self, nonzeros: int | None, given: Mapping[str, Any]) -> dict[str, Any]:
        """Return settings of a :class:`~seminmf_lightning.learners.Recipe` that encodes with its atoms.

        Raises:
            ValueError: how many codes to keep is unknown, or said twice, or codes have a wrong sign.
        """
        settings = {"nonnegative": "none" if self.signed else "codes", **given}
        one_of("nonnegative", settings["nonnegative"], ("codes", "none"))
        chosen = sorted(settings.keys() & {"encoder", "l1_penalty"})
        if chosen and nonzeros is not None:
            raise ValueError(f"nonzeros={nonzeros} chooses encoder=omp; leave it out, or {chosen[0]}")
        if nonzeros is not None:
            whole_number("nonzeros", nonzeros, 1)
        elif not chosen and (nonzeros := self.nonzeros) is None:
            raise ValueError(
                f"{self.path} does not say how many codes it keeps: give nonzeros=32, l1_penalty or encoder"
            )
        return settings if chosen else settings | {"encoder": {"name": "omp", "nonzeros": nonzeros}}

    def to(self, device: torch.device) -> SparseAutoencoder:
        """Return the autoencoder on ``device``."""
        moved: dict[str, Any] = {
            name: value.to(device) for name, value in vars(self).items() if isinstance(value, Tensor)
        }
        return replace(self, **moved)


def read_sae(
    path: str | os.PathLike[str], subfolder: str | None = None, revision: str | None = None
) -> SparseAutoencoder:
    """Read an autoencoder from a file, a folder or the Hub (``owner/name``, then ``subfolder`` in it).

    Raises:
        FileNotFoundError: there is none; the message says what there is.
        ValueError: a pickle, an architecture that is not read, or weights that do not fit each other.
    """
    if not Path(path).expanduser().exists():
        if not REPOSITORY.fullmatch(os.fspath(path)):
            raise FileNotFoundError(
                f"{path}: no such file or folder; give a .safetensors file, a folder of SAELens, or a "
                "repository of the Hub, owner/name"
            )
        path = _downloaded(os.fspath(path), subfolder, revision)
    folder = Path(path).expanduser() / (subfolder or "")
    if folder.suffix in PICKLES:
        raise Refused(f"{folder}: a pickle can run any code, and is not read; save it as .safetensors")
    if folder.name == WEIGHTS and folder.with_name(SETTINGS).is_file():
        folder = folder.parent
    if not folder.is_dir():
        return _of_file(folder)
    if missing := [name for name in (SETTINGS, WEIGHTS) if not (folder / name).is_file()]:
        found = sorted(entry.name for entry in folder.iterdir())
        pickled = [name for name in found if name.endswith(PICKLES)]
        why = f"; {pickled[0]} is a pickle, which can run any code and is not read" if pickled else ""
        raise FileNotFoundError(
            f"{folder}: no {missing[0]}; found {', '.join(found[:8]) or 'nothing'}{why}. A folder of SAELens "
            f"holds {SETTINGS} and {WEIGHTS}; name one inside with subfolder=..., or give a .safetensors file"
        )
    return _of_folder(folder)


def _downloaded(repository: str, subfolder: str | None, revision: str | None) -> str:
    """Download the two files of SAELens and nothing else."""
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HfHubHTTPError
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"{repository}: no such file or folder here; the Hub needs: pip install 'seminmf-lightning[hub]'"
        ) from error
    prefix = f"{subfolder}/" if subfolder else ""
    patterns = [prefix + name for name in (SETTINGS, WEIGHTS)]
    try:
        return snapshot_download(repository, revision=revision, allow_patterns=patterns)
    except (HfHubHTTPError, OSError) as error:  # a mistyped folder looks like a repository, too
        reason = str(error).strip().partition("\n")[0]
        raise FileNotFoundError(
            f"{repository}: no such file or folder here, and the Hub gives none of that name ({reason})"
        ) from error


def _of_file(path: Path) -> SparseAutoencoder:
    with open_safetensors(path) as handle:
        names = ("W_enc", "b_enc", "W_dec", "b_dec")
        W_enc, b_enc, W_dec, b_dec = (read_tensor(path, handle, name, REALS).float() for name in names)
        metadata = handle.metadata() or {}
        threshold, nonzeros = None, None
        if "threshold" in handle.keys():  # noqa: SIM118  (not a mapping)
            threshold = read_tensor(path, handle, "threshold", REALS).float()
        elif "k" in metadata:
            with refusing(path, f"a file whose metadata k={metadata['k']!r} is a whole number"):
                nonzeros = int(metadata["k"])
    activation = metadata.get("activation", "topk")
    if activation not in KINDS:
        raise Refused(f"{path}: metadata activation={activation!r}; accepted: {', '.join(KINDS)}")
    signed = activation == "abs_topk"
    return _checked(SparseAutoencoder(path, W_dec, b_dec, W_enc, b_enc, threshold, nonzeros, signed))


def _of_folder(folder: Path) -> SparseAutoencoder:
    path, weights = folder / SETTINGS, folder / WEIGHTS
    file_size(path)
    settings = parse_json(path, path.read_bytes(), "JSON")
    conform(path, settings, {})
    conform(path, settings, {key: form for key, form in SETTINGS_FORM.items() if settings.get(key[:-1])})
    architecture = _architecture(path, settings)
    with open_safetensors(weights) as handle:

        def tensor(name: str) -> Tensor:
            return read_tensor(weights, handle, name, REALS).float().clone()

        W_dec, b_dec = tensor("W_dec"), tensor("b_dec")
        said = settings.get("d_sae") or len(W_dec), settings.get("d_in") or W_dec.shape[-1]
        if W_dec.shape != said:
            raise Refused(
                f"{weights}: W_dec {tuple(W_dec.shape)}, but {path.name} says d_sae={said[0]} and "
                f"d_in={said[1]}; expected (d_sae, d_in): is it transposed, or of another autoencoder?"
            )
        if architecture not in ENCODERS or _activation(settings) not in ACTIVATIONS:
            return _checked(SparseAutoencoder(weights, W_dec, b_dec))
        W_enc, threshold = tensor("W_enc"), None
        if architecture == "gated":  # active where x W + b_gate > 0, of size e^r (x W) + b_mag
            scale, b_enc = tensor("r_mag").exp(), tensor("b_mag")
            W_enc, threshold = W_enc * scale, b_enc - scale * tensor("b_gate")
        else:
            b_enc = tensor("b_enc")
        if architecture == "jumprelu":
            threshold = tensor("threshold")
    if settings.get("rescale_acts_by_decoder_norm"):
        norms = W_dec.norm(dim=1).clamp(min=torch.finfo(torch.float32).tiny)
        W_enc, b_enc, W_dec = W_enc * norms, b_enc * norms, W_dec / norms[:, None]
    kept = settings.get("k") or (settings.get("activation_fn_kwargs") or {}).get("k")
    return _checked(
        SparseAutoencoder(
            weights, W_dec, b_dec, W_enc, b_enc, threshold,
            nonzeros=kept if "topk" in architecture else None, signed=architecture == "abstopk",
            b_in=None if settings.get("apply_b_dec_to_input", True) else torch.zeros_like(b_dec),
        )
    )  # fmt: skip


def _activation(settings: Mapping[str, Any]) -> Any:
    return settings.get("activation_fn_str", settings.get("activation_fn"))


def _architecture(path: Path, settings: Mapping[str, Any]) -> str:
    """Return the architecture; raise Refused where the decoder does not give back the rows that go in."""
    architecture = settings.get("architecture") or "standard"
    if _activation(settings) == "topk":  # before version 6
        architecture = "topk"
    if architecture not in DECODERS:
        raise Refused(f"{path}: architecture {architecture!r} is not read; accepted: {', '.join(DECODERS)}")
    scaling = settings.get("normalize_activations") or "none"
    if scaling != "none" or settings.get("finetuning_scaling_factor"):
        what = f"normalize_activations={scaling!r}" if scaling != "none" else "finetuning_scaling_factor"
        raise Refused(
            f"{path}: {what} scales rows by numbers that are not in the file: fold them into the weights "
            "(SAE.fold_activation_norm_scaling_factor of SAELens), and save it again"
        )
    return str(architecture)


def _checked(sae: SparseAutoencoder) -> SparseAutoencoder:
    """Raise Refused unless the weights belong together and are finite."""
    path, W_dec, b_dec = sae.path, sae.W_dec, sae.b_dec
    if sae.W_enc is not None and sae.b_enc is not None:
        W_enc, b_enc = sae.W_enc, sae.b_enc
        if W_dec.ndim != 2 or W_enc.shape != W_dec.T.shape or b_enc.shape != W_dec.shape[:1]:
            raise Refused(
                f"{path}: W_enc {tuple(W_enc.shape)}, b_enc {tuple(b_enc.shape)} and W_dec "
                f"{tuple(W_dec.shape)} do not belong together; expected (d, m), (m,) and (m, d)"
            )
    if W_dec.ndim != 2 or 0 in W_dec.shape or b_dec.shape != W_dec.shape[1:]:
        raise Refused(
            f"{path}: W_dec {tuple(W_dec.shape)} and b_dec {tuple(b_dec.shape)} do not belong together; "
            "expected (m, d) and (d,)"
        )
    m = len(W_dec)
    if sae.threshold is not None and sae.threshold.shape not in ((), (1,), (m,)):
        raise Refused(
            f"{path}: threshold {tuple(sae.threshold.shape)}; expected one number, or one per code ({m},)"
        )
    if sae.nonzeros is not None and not 0 < sae.nonzeros <= m:
        raise Refused(f"{path}: k={sae.nonzeros}; expected 1 to {m}, the codes that there are")
    for name, value in vars(sae).items():
        if isinstance(value, Tensor) and name == "threshold":
            value = value.nan_to_num(torch.nan, posinf=0.0)  # Inf is a code that never fires
        if isinstance(value, Tensor) and not value.isfinite().all():
            raise Refused(f"{path}: {name} holds NaN or Inf")
    return sae
