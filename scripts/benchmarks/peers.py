"""Other libraries on the same rows.  They come with the extra: pip install -e '.[bench]'."""

from __future__ import annotations

import time
from argparse import Namespace

import numpy as np
import torch

PEER_ITERATIONS = 300


def overcomplete_mu(options: Namespace) -> dict[str, float]:
    """overcomplete's SemiNMF(solver="mu"): its Z is the nonnegative factor, so it is fitted on A^T."""
    from overcomplete.optimization import SemiNMF

    A = torch.from_numpy(np.load(options.path)).float()
    model = SemiNMF(nb_concepts=options.concepts, solver="mu", tol=0)
    torch.manual_seed(0)
    began = time.perf_counter()
    Z, D = model.fit(A.T.contiguous(), max_iter=PEER_ITERATIONS)
    seconds = time.perf_counter() - began
    loss = sum(
        float((rows - codes @ Z.T).square().sum(dtype=torch.float64))
        for rows, codes in zip(A.split(8192), D.T.split(8192), strict=True)
    )
    return {"seconds": seconds, "loss": loss / A.numel()}
