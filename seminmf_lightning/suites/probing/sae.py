"""Lines of sparse autoencoders, from the files that :mod:`seminmf_lightning.sae_file` reads."""

from __future__ import annotations

from pathlib import Path

import torch

from seminmf_lightning.io.untrusted import Refused
from seminmf_lightning.sae_file import WEIGHTS, read_sae
from seminmf_lightning.suites.probing.lines import Features


def sae_features(file: str, features: int, nonzeros: int | None, device: torch.device) -> Features:
    """Return the line of an autoencoder.

    ``nonzeros`` of each row are kept; None: those at or above the ``threshold`` of the file, or as many as
    its metadata ``k`` says, or all positive ones.

    Raises:
        FileNotFoundError, ValueError: no such file, a pickle, an encoder that is not read, or weights that do
            not fit each other or rows of that many features.
    """
    sae = read_sae(file).with_nonzeros(nonzeros).to(device)
    m, d = sae.W_dec.shape
    if sae.W_enc is None:
        raise Refused(f"{sae.path}: its encoder is not read, only its decoder, by SemiNMF.from_sae")
    if sae.signed and sae.nonzeros is None and sae.threshold is None:
        raise Refused(f"{sae.path}: AbsTopK without a number of codes; set suite.probes.sae_nonzeros")
    if d != features:
        raise Refused(
            f"{sae.path}: an autoencoder of {d} features, but the run has {features}: give one of the same "
            "model and layer"
        )
    if sae.nonzeros is not None and not 0 < sae.nonzeros <= m:
        raise Refused(
            f"{sae.path}: {sae.nonzeros} nonzeros of {m} codes; set suite.probes.sae_nonzeros to 1..{m}"
        )
    name = sae.path.parent.name if sae.path.name == WEIGHTS else Path(file).stem
    return Features(f"SAE {name}", m, sae.encode, sae.decode)
