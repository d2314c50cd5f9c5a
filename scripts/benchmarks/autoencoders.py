"""Train TopK, AbsTopK and BatchTopK autoencoders, with the learning rate tuned, for `evaluate suite=...`.

    python scripts/benchmarks/autoencoders.py rows.npy --concepts 1024 --nonzeros 16 --seconds 100
    python scripts/benchmarks/autoencoders.py hierarchical --seed 0 --concepts 256 --nonzeros 10 \
        --kinds batch_topk --seconds 60

Each learning rate gets a share of the seconds, the one of the highest held-out R2 all of them.  Seconds are
those of the processor, so that work beside it does not count; set OMP_NUM_THREADS=1.  Writes
`<kind>.safetensors`, for `suite.probes.sae=[...]` and `suite.recovery.sae=[...]`.

TopK: Gao et al., "Scaling and evaluating sparse autoencoders", 2024.  AbsTopK keeps the largest codes of
either sign.  BatchTopK: Bussmann, Leask & Nanda, "BatchTopK sparse autoencoders", 2024: in training the
largest of a whole batch, afterwards those at or above the mean of the least codes kept in training, which
the file holds as `threshold`.  All have the auxiliary loss of TopK: dead codes rebuild the residual.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from seminmf_lightning.core.discovery import available
from seminmf_lightning.suites.planted import Planted

KINDS = ("topk", "abs_topk", "batch_topk")
RATES = (3e-4, 1e-3, 3e-3, 1e-2)
"""With 0.03 a short trial may look better, and the whole training ends lower (r2 .765 instead of .812 on the
hierarchical problem of seed 3)."""
BATCH = 1024
DEAD_AFTER = 100
"""Batches without firing after which a code counts as dead."""
AUXILIARY_WEIGHT = 1 / 32
RECENT = 0.01
"""Weight of the newest batch in the mean of the threshold."""
HELD_OUT = 8000


class Autoencoder(nn.Module):
    """``a ~ z W_dec + b_dec``, z the largest of ``(a - b_dec) W_enc + b_enc``, with unit rows of W_dec."""

    def __init__(self, mean: Tensor, concepts: int, nonzeros: int, kind: str, seed: int) -> None:
        super().__init__()
        atoms = torch.randn(concepts, len(mean), generator=torch.Generator().manual_seed(seed))
        atoms = nn.functional.normalize(atoms)
        self.W_dec, self.W_enc = nn.Parameter(atoms.clone()), nn.Parameter(atoms.T.clone())
        self.b_enc, self.b_dec = nn.Parameter(torch.zeros(concepts)), nn.Parameter(mean.clone())
        self.nonzeros, self.kind = nonzeros, kind
        self.threshold: Tensor | None = None  # of BatchTopK
        self.idle = torch.zeros(concepts)  # batches since a code last fired

    def codes(self, A: Tensor) -> Tensor:
        Z = (A - self.b_dec) @ self.W_enc + self.b_enc
        return Z if self.kind == "abs_topk" else Z.relu()

    def kept(self, Z: Tensor) -> Tensor:
        """Return the codes with all but the largest set to 0."""
        if self.kind == "batch_topk":
            if not self.training and self.threshold is not None:
                return torch.where(self.threshold <= Z, Z, 0.0)
            least = Z.detach().flatten().topk(self.nonzeros * len(Z)).values[-1]
            if self.training:
                self.threshold = least if self.threshold is None else self.threshold.lerp(least, RECENT)
            return torch.where(least <= Z, Z, 0.0)
        atoms = Z.abs().topk(self.nonzeros, dim=1).indices
        return torch.zeros_like(Z).scatter(1, atoms, Z.gather(1, atoms))

    def forward(self, A: Tensor) -> Tensor:
        return self.kept(self.codes(A)) @ self.W_dec + self.b_dec

    def loss(self, A: Tensor) -> Tensor:
        """Return the mean squared error of rows, with that of dead codes on the residual."""
        Z = self.codes(A)
        kept = self.kept(Z)
        residual = A - (kept @ self.W_dec + self.b_dec)
        loss = residual.square().sum(dim=1).mean()
        self.idle = torch.where((kept != 0).any(dim=0), 0.0, self.idle + 1)
        dead = (self.idle >= DEAD_AFTER).nonzero()[:, 0]
        if len(dead):
            few = min(len(dead), A.shape[1] // 2)
            Z = Z[:, dead]
            atoms = Z.abs().topk(few, dim=1).indices
            rebuilt = torch.zeros_like(Z).scatter(1, atoms, Z.gather(1, atoms)) @ self.W_dec[dead]
            loss = loss + AUXILIARY_WEIGHT * (residual.detach() - rebuilt).square().sum(dim=1).mean()
        return loss


def train(A: Tensor, held_out: Tensor, rate: float, seconds: float, model: Autoencoder) -> float:
    """Train on rows of mean norm 1 for so long; return R2 on the held-out rows."""
    optimizer = torch.optim.Adam(model.parameters(), lr=rate)
    generator, began = torch.Generator().manual_seed(0), time.process_time()
    while (share := (time.process_time() - began) / seconds) < 1:
        optimizer.param_groups[0]["lr"] = rate * min(1.0, 5 * (1 - share))  # falls over the last fifth
        loss = model.loss(A[torch.randint(len(A), (BATCH,), generator=generator)])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            model.W_dec.copy_(nn.functional.normalize(model.W_dec))
    model.eval()
    with torch.no_grad():
        rebuilt = torch.cat([model(part) for part in held_out.split(4096)])
    total = (held_out - held_out.mean(dim=0)).square().sum()
    return float(1 - (held_out - rebuilt).square().sum() / total)


def read_rows(source: str, seed: int, fresh: int) -> Tensor:
    """Return the rows of a file, or fresh ones of a planted problem, as `suite.recovery.fresh` has them."""
    if source in available(Planted):
        problem = available(Planted)[source](seed=seed)  # type: ignore[call-arg]
        return torch.from_numpy(np.concatenate([block.rows for block in problem.stream(fresh, seed)]))
    return torch.from_numpy(np.load(source, allow_pickle=False)).float()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("rows", help="a .npy file, or a planted problem: " + ", ".join(available(Planted)))
    parser.add_argument("--concepts", type=int, default=1024)
    parser.add_argument("--nonzeros", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=100.0)
    parser.add_argument("--kinds", nargs="+", default=["topk", "abs_topk"], choices=KINDS)
    parser.add_argument("--rates", nargs="+", type=float, default=list(RATES), help="learning rates tried")
    parser.add_argument("--tuning", type=float, default=0.1, help="share of the seconds per learning rate")
    parser.add_argument("--held-out", type=int, default=HELD_OUT, help="the last rows")
    parser.add_argument("--fresh", type=int, default=100_000, help="rows of a planted problem")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=Path())
    parser.add_argument("--suffix", default="", help="of the files' names")
    options = parser.parse_args()
    rows = read_rows(options.rows, options.seed, options.fresh)
    scale = float(rows.norm(dim=1).mean())
    A, held_out = (part / scale for part in rows.split([len(rows) - options.held_out, options.held_out]))
    for kind in options.kinds:

        def fit(rate: float, seconds: float, kind: str = kind) -> tuple[float, Autoencoder]:
            model = Autoencoder(A.mean(dim=0), options.concepts, options.nonzeros, kind, options.seed)
            return train(A, held_out, rate, seconds, model), model

        scores = {rate: fit(rate, options.seconds * options.tuning)[0] for rate in options.rates}
        best = max(scores, key=lambda rate: scores[rate])
        r2, model = fit(best, options.seconds)
        weights = {
            key: value.detach().clone(memory_format=torch.contiguous_format)
            for key, value in model.named_parameters()
        }
        weights |= {"b_enc": weights["b_enc"] * scale, "b_dec": weights["b_dec"] * scale}
        if model.threshold is not None:
            weights["threshold"] = model.threshold * scale
        file = options.output / f"{kind}{options.suffix}.safetensors"
        save_file(weights, file, {"k": str(options.nonzeros), "activation": kind})
        grid = ", ".join(f"{rate:g}: {score:.3f}" for rate, score in scores.items())
        print(f"{file}: held-out r2 {r2:.4f} after {options.seconds:g} s at rate {best:g} (tuning: {grid})")


if __name__ == "__main__":
    main()
