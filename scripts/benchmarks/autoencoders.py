"""Train TopK and AbsTopK autoencoders on rows, with the learning rate tuned, for `evaluate suite=probes`.

    python scripts/benchmarks/autoencoders.py rows.npy --concepts 1024 --nonzeros 16 --seconds 100

Each learning rate gets a tenth of the seconds, the one of the highest held-out R2 all of them.  Writes
`topk.safetensors` and `abs_topk.safetensors` for `suite.probes.sae=[...]`.

TopK: Gao et al., "Scaling and evaluating sparse autoencoders", 2024.  AbsTopK keeps the largest codes of
either sign.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

RATES = (3e-4, 1e-3, 3e-3, 1e-2)
BATCH = 1024


class Autoencoder(nn.Module):
    """``a ~ z W_dec + b_dec``, z the largest of ``(a - b_dec) W_enc + b_enc``, with unit rows of W_dec."""

    def __init__(self, mean: Tensor, concepts: int, nonzeros: int, signed: bool, seed: int) -> None:
        super().__init__()
        atoms = torch.randn(concepts, len(mean), generator=torch.Generator().manual_seed(seed))
        atoms = nn.functional.normalize(atoms)
        self.W_dec, self.W_enc = nn.Parameter(atoms.clone()), nn.Parameter(atoms.T.clone())
        self.b_enc, self.b_dec = nn.Parameter(torch.zeros(concepts)), nn.Parameter(mean.clone())
        self.nonzeros, self.signed = nonzeros, signed

    def forward(self, A: Tensor) -> Tensor:
        Z = (A - self.b_dec) @ self.W_enc + self.b_enc
        Z = Z if self.signed else Z.relu()
        atoms = (Z.abs() if self.signed else Z).topk(self.nonzeros, dim=1).indices
        kept = torch.zeros_like(Z).scatter(1, atoms, Z.gather(1, atoms))
        return kept @ self.W_dec + self.b_dec


def train(A: Tensor, held_out: Tensor, rate: float, seconds: float, model: Autoencoder) -> float:
    """Train on rows of mean norm 1 for so long; return R2 on the held-out rows."""
    optimizer = torch.optim.Adam(model.parameters(), lr=rate)
    generator, began = torch.Generator().manual_seed(0), time.perf_counter()
    while (share := (time.perf_counter() - began) / seconds) < 1:
        optimizer.param_groups[0]["lr"] = rate * min(1.0, 5 * (1 - share))  # falls over the last fifth
        rows = A[torch.randint(len(A), (BATCH,), generator=generator)]
        loss = (model(rows) - rows).square().sum(dim=1).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            model.W_dec.copy_(nn.functional.normalize(model.W_dec))
    with torch.no_grad():
        rebuilt = torch.cat([model(part) for part in held_out.split(4096)])
    total = (held_out - held_out.mean(dim=0)).square().sum()
    return float(1 - (held_out - rebuilt).square().sum() / total)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("rows", type=Path)
    parser.add_argument("--concepts", type=int, default=1024)
    parser.add_argument("--nonzeros", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=100.0)
    parser.add_argument("--held-out", type=int, default=8000, help="the last rows")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=Path())
    options = parser.parse_args()
    rows = torch.from_numpy(np.load(options.rows, allow_pickle=False)).float()
    scale = float(rows.norm(dim=1).mean())
    A, held_out = (part / scale for part in rows.split([len(rows) - options.held_out, options.held_out]))
    for name, signed in (("topk", False), ("abs_topk", True)):

        def fit(rate: float, seconds: float, signed: bool = signed) -> tuple[float, Autoencoder]:
            model = Autoencoder(A.mean(dim=0), options.concepts, options.nonzeros, signed, options.seed)
            return train(A, held_out, rate, seconds, model), model

        scores = {rate: fit(rate, options.seconds / 10)[0] for rate in RATES}
        best = max(scores, key=lambda rate: scores[rate])
        r2, model = fit(best, options.seconds)
        weights = {
            key: value.detach().clone(memory_format=torch.contiguous_format)
            for key, value in model.named_parameters()
        }
        weights |= {"b_enc": weights["b_enc"] * scale, "b_dec": weights["b_dec"] * scale}
        file = options.output / f"{name}.safetensors"
        save_file(weights, file, {"k": str(options.nonzeros), "activation": name})
        grid = ", ".join(f"{rate:g}: {score:.3f}" for rate, score in scores.items())
        print(f"{file}: held-out r2 {r2:.4f} after {options.seconds:g} s at rate {best:g} (a tenth: {grid})")


if __name__ == "__main__":
    main()
