"""Delphi of EleutherAI: the cache of latents that it explains and scores.

    OUTPUT/<layer>/<first>_<last>.safetensors    ``locations`` (e, 3): window, token, latent less ``first``;
                                                 ``activations`` (e,) float16; ``tokens`` (B, S)
    OUTPUT/<layer>/config.json                   Delphi's ``CacheConfig`` and the model

As eai-delphi 0.1.3 reads it: ``LatentDataset(raw_dir=OUTPUT, modules=[<layer>], ...)``.  Windows shorter than
the longest are padded; padding has no activation.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import save_file

from seminmf_lightning.core.checks import whole_number
from seminmf_lightning.harvest.store import folder_name
from seminmf_lightning.integrations.formats.base import Content, Format
from seminmf_lightning.integrations.token_windows import TokenWindows, token_windows

LEAST = 1e-5
"""Activations up to this size are none, for Delphi."""
HALF = torch.finfo(torch.float16).max


@dataclass(frozen=True, kw_only=True)
class Delphi(Format):
    """One folder with the nonzero features of all rows, which are held in memory."""

    splits: int = 5
    """Files, each with a share of the features."""
    dataset: str = ""
    """Name of the texts, for people; Delphi reads the tokens in the files."""

    def __post_init__(self) -> None:
        whole_number("format.splits", self.splits, 1)

    def write(self, folder: Path, content: Content) -> list[str]:
        store, layer = content.origin()
        if self.splits > len(content.atoms):
            raise ValueError(
                f"format.splits={self.splits} is more than the {len(content.atoms):,} features; lower it"
            )
        windows = token_windows(store, layer)
        locations, activations = _nonzeros(content, windows)
        module = folder / folder_name(layer)
        module.mkdir(parents=True)
        bounds = np.linspace(0, len(content.atoms), self.splits + 1).astype(np.int64).tolist()
        for first, end in pairwise(bounds):
            inside = (locations[:, 2] >= first) & (locations[:, 2] < end)
            part = locations[inside] - np.array([0, 0, first])
            narrow = np.uint16 if part.max(initial=0) < 2**16 else np.uint32
            tensors = {
                "locations": part.astype(narrow), "activations": activations[inside], "tokens": windows.tokens
            }  # fmt: skip
            save_file(tensors, module / f"{first}_{end - 1}.safetensors")
        config = {
            "dataset_repo": self.dataset, "dataset_split": "", "dataset_name": "", "dataset_column": "text",
            "batch_size": len(windows.tokens), "cache_ctx_len": windows.tokens.shape[1],
            "n_tokens": windows.tokens.size, "n_splits": self.splits,
            "model_name": (content.model.network or {"model": {}})["model"].get("path", ""),
        }  # fmt: skip
        (module / "config.json").write_text(json.dumps(config, indent=4) + "\n", encoding="utf-8")
        alive = len(np.unique(locations[:, 2]))
        return [
            f"{len(activations):,} activations of {alive:,} of {len(content.atoms):,} features, in "
            f"{len(windows.tokens):,} windows of up to {windows.tokens.shape[1]:,} tokens"
        ]


def _nonzeros(content: Content, windows: TokenWindows) -> tuple[np.ndarray, np.ndarray]:
    """Return locations (e, 3) and activations (e,) of all rows, by window and position."""
    locations, activations = [], []
    for A, row_ids in content.blocks():
        F = content.features(A).cpu()
        if F.max() > HALF:
            raise ValueError(
                f"feature {int(F.max(dim=0).values.argmax())} reaches {float(F.max()):.3g}, but Delphi keeps "
                f"activations in float16, up to {HALF:g}; train with normalize=scale, or a penalty"
            )
        row, feature = (F > LEAST).nonzero(as_tuple=True)
        rows = row_ids[row].numpy()
        locations.append(
            np.stack([windows.window[rows], windows.position[rows], feature.numpy()], axis=1).astype(np.int64)
        )
        activations.append(F[row, feature].to(torch.float16).numpy())
    return np.concatenate(locations), np.concatenate(activations)
