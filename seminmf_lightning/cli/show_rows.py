"""Show where rows of a harvest come from.

Prints the token of each row in its sentence, or the patch in its image; pictures=FOLDER saves the images
with the patch framed.
"""

from __future__ import annotations

import random
import shlex
from pathlib import Path

from omegaconf import DictConfig

from seminmf_lightning.cli.build import plain
from seminmf_lightning.cli.run_directory import next_commands, shown_path
from seminmf_lightning.harvest.provenance import PatchOrigin, Tracer
from seminmf_lightning.harvest.store import Store

EXAMPLES = (
    "store=harvests/minilm_pydoc 'rows=[0,17,4096]'",
    "store=harvests/minilm_pydoc first=100 count=20",
    "store=harvests/vision_demo pictures=patches",
)


def main(cfg: DictConfig) -> list[str]:
    """Print the origins of rows and return them as text."""
    tracer = Tracer(Store(cfg.store), cfg.layer)
    rows = plain(cfg.rows)
    if rows is None and cfg.first is not None:
        rows = range(cfg.first, min(cfg.first + cfg.count, len(tracer)))
    elif rows is None:
        rows = sorted(random.Random(0).sample(range(len(tracer)), min(cfg.count, len(tracer))))
    lines = []
    for row in rows:
        origin = tracer.origin(row)
        lines.append(f"{row:>9}  {origin}")
        print(lines[-1], flush=True)
        if cfg.pictures and isinstance(origin, PatchOrigin):
            save_framed(tracer, origin, Path(cfg.pictures) / f"{row:09d}.png")
    layer = f" data.layer={shlex.quote(cfg.layer)}" if cfg.layer else ""
    hint = f"train data=shards data.path={shown_path(cfg.store)}{layer} l1_penalty=0.1"
    print(*next_commands(hint), sep="\n")
    return lines


def save_framed(tracer: Tracer, origin: PatchOrigin, path: Path) -> None:
    """Save the image with a frame around the patch."""
    from PIL import ImageDraw

    image = tracer.image(origin).convert("RGB")
    if origin.box is not None:
        top, left, bottom, right = origin.box
        width = max(1, min(image.size) // 100)
        ImageDraw.Draw(image).rectangle((left, top, right - 1, bottom - 1), outline=(255, 0, 0), width=width)
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)
