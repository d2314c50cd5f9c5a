"""Where rows come from:  python scripts/show_rows.py store=harvests/minilm_pydoc rows=[0,17,4096]

Prints each row's token in its sentence, or its patch in its photograph; ``pictures=<folder>`` saves the
photographs with the patch framed.  Every key is in configs/show_rows.yaml.
"""

from __future__ import annotations

import random
from pathlib import Path

import hydra
from omegaconf import DictConfig

from seminmf_lightning.cli.build import plain, register_schemas
from seminmf_lightning.harvest.provenance import PatchOrigin, Tracer
from seminmf_lightning.harvest.store import Store

register_schemas()


@hydra.main(version_base="1.3", config_path="pkg://seminmf_lightning.configs", config_name="show_rows")
def main(cfg: DictConfig) -> None:
    show(cfg)


def show(cfg: DictConfig) -> list[str]:
    """Print the origins and return them as text."""
    tracer = Tracer(Store(cfg.store), cfg.layer)
    rows = plain(cfg.rows)
    if rows is None and cfg.first is not None:
        rows = range(cfg.first, min(cfg.first + cfg.count, len(tracer)))
    elif rows is None:
        rows = sorted(random.Random(0).sample(range(len(tracer)), min(cfg.count, len(tracer))))
    shown = []
    for row in rows:
        origin = tracer.origin(row)
        shown.append(f"{row:>9}  {origin}")
        print(shown[-1], flush=True)
        if cfg.pictures and isinstance(origin, PatchOrigin):
            save_framed(tracer, origin, Path(cfg.pictures) / f"{row:09d}.png")
    return shown


def save_framed(tracer: Tracer, origin: PatchOrigin, path: Path) -> None:
    """The photograph with a frame around the patch."""
    from PIL import ImageDraw

    picture = tracer.image(origin).convert("RGB")
    if origin.box is not None:
        top, left, bottom, right = origin.box
        thick = max(1, min(picture.size) // 100)
        ImageDraw.Draw(picture).rectangle(
            (left, top, right - 1, bottom - 1), outline=(255, 0, 0), width=thick
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path)
