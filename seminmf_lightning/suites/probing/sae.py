"""Read a sparse autoencoder from a safetensors file.

``z = s((a - b_dec) W_enc + b_enc)``, ``a ~ z W_dec + b_dec``, with s a ReLU, then the k largest where k is
given (TopK: Gao et al., "Scaling and evaluating sparse autoencoders", 2024); with the metadata
``activation=abs_topk`` the k largest of either sign instead.  A file with a ``threshold`` keeps the codes
that reach it, one number or one per code: BatchTopK (Bussmann, Leask & Nanda, "BatchTopK sparse
autoencoders", 2024), which takes the largest of a whole batch only in training; JumpReLU.

Legend:  a (d) raw activations   z (m) codes   W_enc (d, m)   b_enc (m)   W_dec (m, d)   b_dec (d)
         threshold () or (m)
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from seminmf_lightning.io.untrusted import Refused, open_safetensors, read_tensor, refusing
from seminmf_lightning.suites.probing.lines import Features

REALS = ("F16", "BF16", "F32", "F64")
PICKLES = (".pt", ".pth", ".bin", ".pkl", ".pickle", ".ckpt")


def sae_features(file: str, features: int, nonzeros: int | None, device: torch.device) -> Features:
    """Return the line of an autoencoder.

    ``nonzeros`` of each row are kept; None: those at or above the ``threshold`` of the file, or as many as
    its metadata ``k`` says, or all positive ones.

    Raises:
        FileNotFoundError, ValueError: no such file, a pickle, or weights that do not fit each other or rows
            of that many features.
    """
    path = Path(file).expanduser()
    if path.suffix in PICKLES:
        raise Refused(f"{path}: a pickle can run any code, and is not read; save its weights as .safetensors")
    with open_safetensors(path) as handle:
        names = ("W_enc", "b_enc", "W_dec", "b_dec")
        W_enc, b_enc, W_dec, b_dec = (
            read_tensor(path, handle, name, REALS).float().to(device) for name in names
        )
        metadata = handle.metadata() or {}
        threshold = None
        if nonzeros is None and "threshold" in handle.keys():  # noqa: SIM118
            threshold = read_tensor(path, handle, "threshold", REALS).float().to(device)
        elif nonzeros is None and "k" in metadata:
            with refusing(path, f"a file whose metadata k={metadata['k']!r} is a whole number"):
                nonzeros = int(metadata["k"])
    if W_dec.ndim != 2 or W_enc.shape != W_dec.T.shape or b_enc.shape != W_dec.shape[:1]:
        raise Refused(
            f"{path}: W_enc {tuple(W_enc.shape)}, b_enc {tuple(b_enc.shape)} and W_dec {tuple(W_dec.shape)} "
            "do not belong together; expected (d, m), (m,) and (m, d)"
        )
    m, d = W_dec.shape
    if threshold is not None and threshold.shape not in ((), (1,), (m,)):
        raise Refused(
            f"{path}: threshold {tuple(threshold.shape)}; expected one number, or one per code ({m},)"
        )
    signed = metadata.get("activation") == "abs_topk"
    if signed and nonzeros is None and threshold is None:
        raise Refused(f"{path}: AbsTopK without a number of codes; set suite.probes.sae_nonzeros")
    if d != features or b_dec.shape != (d,):
        raise Refused(
            f"{path}: an autoencoder of {d} features (b_dec {tuple(b_dec.shape)}), but the run has {features}"
            ": give one of the same model and layer"
        )
    if nonzeros is not None and not 0 < nonzeros <= m:
        raise Refused(f"{path}: {nonzeros} nonzeros of {m} codes; set suite.probes.sae_nonzeros to 1..{m}")

    def codes(A: Tensor) -> Tensor:
        Z = (A - b_dec) @ W_enc + b_enc
        Z = Z if signed else Z.relu()
        if threshold is not None:
            return torch.where(Z.abs() >= threshold, Z, 0.0)
        if nonzeros is None:
            return Z
        largest = Z.abs().topk(nonzeros, dim=1).indices
        return torch.zeros_like(Z).scatter_(1, largest, Z.gather(1, largest))

    return Features(f"SAE {path.stem}", m, codes, lambda Z: Z @ W_dec + b_dec)
