"""SAELens: a JumpReLU autoencoder that its ``SAE.load_from_disk`` loads, and one with the exact codes.

    OUTPUT/cfg.json, sae_weights.safetensors          W_enc, b_enc, threshold: fitted to the exact codes
    OUTPUT/exact/cfg.json, sae_weights.safetensors    architecture ``seminmf``, which the module
                                                      :mod:`seminmf_lightning.integrations.saelens` registers

Both have the same decoder: scale and mean of the run are in it, so that features are the run's codes, and
come from activations as they are.  Keys as of SAELens 6.54.

Legend:  A (n, d) raw rows   F (n, m) features   W (m, d) atoms in data units
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from seminmf_lightning.core.checks import whole_number
from seminmf_lightning.integrations.formats.base import Content, Format
from seminmf_lightning.integrations.linear_encoder import LinearEncoder, fit_linear_encoder
from seminmf_lightning.sae_file import SETTINGS, WEIGHTS

ARCHITECTURE, EXACT = "seminmf", "exact"
"""Name of the architecture with exact codes, and its folder."""
VERSION = "6.54.12"
"""Version of SAELens whose keys are written; it takes those of files without a version for older ones."""


@dataclass(frozen=True, kw_only=True)
class SAELens(Format):
    """``cfg.json`` and ``sae_weights.safetensors``."""

    rows: int = 16_384
    """Training rows that the encoder is fitted to."""
    hook_name: str | None = None
    """Name that TransformerLens has for the layer, such as ``blocks.5.hook_resid_post``."""
    model_name: str | None = None
    """Name that TransformerLens has for the model; None: that of the harvest."""

    def __post_init__(self) -> None:
        whole_number("format.rows", self.rows, 2)

    def write(self, folder: Path, content: Content) -> list[str]:
        A = content.sample[: self.rows]
        X, F = A - content.mean, content.features(A)
        encoder = fit_linear_encoder(X, F)
        W_dec, b_dec = content.atoms, content.mean
        decoder = {"W_dec": W_dec, "b_dec": b_dec}
        weights = {"W_enc": encoder.W, "b_enc": encoder.b, "threshold": encoder.threshold}
        settings = self._settings(content)
        _save(folder, decoder | weights, settings | {"architecture": "jumprelu"})
        model = content.model
        mean = model.normalizer.mean
        exact = {"D": model.get_dictionary()} | ({} if mean is None else {"mean": mean.double()})
        keys = {
            "architecture": ARCHITECTURE, "scale": model.normalizer.scale, "recipe": model.settings,
            "effort": list(model.effort),
        }  # fmt: skip
        _save(folder / EXACT, decoder | exact, settings | keys)
        return _compared(content, encoder, len(A))

    def _settings(self, content: Content) -> dict[str, Any]:
        """Return the keys that both architectures have."""
        network = content.model.network or {"model": {}, "layer": None}
        metadata = {
            "sae_lens_version": VERSION, "sae_lens_training_version": None,
            "model_name": self.model_name or network["model"].get("path"), "hook_name": self.hook_name,
            "seminmf_layer": network["layer"], "seminmf_nonnegative": content.model.recipe.nonnegative,
            "seminmf_halves": content.halves,
        }  # fmt: skip
        m, d = content.atoms.shape
        return {
            "d_in": d, "d_sae": m, "dtype": "float32", "device": "cpu", "apply_b_dec_to_input": True,
            "normalize_activations": "none", "reshape_activations": "none", "metadata": metadata,
        }  # fmt: skip


def _save(folder: Path, tensors: dict[str, Tensor], settings: dict[str, Any]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    kept = {"mean": torch.float64}
    save_file(
        {
            key: one.detach().to("cpu", kept.get(key, torch.float32)).contiguous()
            for key, one in tensors.items()
        },
        folder / WEIGHTS,
    )
    (folder / SETTINGS).write_text(json.dumps(settings, indent=1) + "\n", encoding="utf-8")


def _compared(content: Content, encoder: LinearEncoder, fitted: int) -> list[str]:
    """Return lines with R2 and L0 of exact and fitted features, on rows that were not fitted where there are
    any."""
    A = content.held_out
    exact = content.features(A)
    linear = encoder.encode(A - content.mean)
    missed = 1 - _share_left(exact, linear)
    m, k = len(content.atoms), len(content.model.get_dictionary())
    halves = f"{k:,} concepts of both signs as {m:,} features" if content.halves else f"{m:,} features"
    others = "others" if content.holds_out else "of the same, because data.val_fraction=0 holds out none"
    lines = [f"{halves}; on {len(A):,} rows, the encoder fitted to {fitted:,} {others}:"]
    for name, F in (("exact codes", exact), ("fitted encoder", linear)):
        r2 = 1 - _share_left(A, F @ content.atoms + content.mean)
        lines.append(f"  {name:15} R2 {r2:.4f}   L0 {float((F != 0).sum(dim=1).float().mean()):.2f}")
    return [*lines, f"  R2 of the fitted codes against the exact ones {missed:.4f}"]


def _share_left(A: Tensor, A_hat: Tensor) -> float:
    """Return the share of the variation of A that A_hat leaves."""
    A = A.double()
    total = (A - A.mean(dim=0)).square().sum().clamp(min=torch.finfo(torch.float64).tiny)
    return float((A - A_hat.double()).square().sum() / total)
