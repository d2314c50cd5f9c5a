"""Long examples are run in parts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_networks as tiny
import torch
from harvests import CPU, job, text_recipe

from seminmf_lightning.harvest import HarvestRecipe, Store
from seminmf_lightning.harvest.provenance import Tracer


def test_a_long_text_is_run_in_parts(bert: Path, tmp_path: Path) -> None:
    (tmp_path / "long.txt").write_text(" ".join(tiny.texts(400)))
    recipe = text_recipe(bert, tmp_path / "long.txt", batch_size=1)
    harvester = recipe.harvester(CPU)
    pools = list(harvester.pools(harvester.read([0])))
    assert len(pools) > 5
    assert all(sum(len(read.items) for read in pool) <= 32 for pool in pools)
    assert job(recipe, tmp_path / "store").run() is not None
    tracer = Tracer(Store(tmp_path / "store"))
    origins = [tracer.origin(row) for row in range(len(tracer))]
    assert [origin.start for origin in origins] == sorted(origin.start for origin in origins)
    assert len(origins) == len((tmp_path / "long.txt").read_text().split())


class Picky:
    """Preprocessing that fails for the images whose first pixel is even."""

    def __init__(self, error: type[Exception]) -> None:
        self.error = error

    def __call__(self, image: Any) -> torch.Tensor:
        pixels = np.asarray(image).copy()
        if pixels[0, 0, 0] % 2 == 0:
            raise self.error("an odd first pixel is needed")
        return torch.from_numpy(pixels).permute(2, 0, 1).float()


def picky(error: str) -> tuple[torch.nn.Module, Any]:
    import builtins

    return tiny.convolutions(), Picky(getattr(builtins, error))


@pytest.mark.parametrize("error", ["KeyError", "AssertionError", "ZeroDivisionError", "TypeError"])
@pytest.mark.parametrize("workers", [0, 1])
def test_whatever_preprocessing_raises_the_example_is_skipped_and_listed(
    error: str, workers: int, tmp_path: Path
) -> None:
    folder = tiny.pictures(tmp_path / "images", 8)
    model = {"name": "callable", "target": f"{__name__}:picky", "options": {"error": error}}
    recipe = HarvestRecipe(model, {"name": "images", "path": str(folder)}, "relu@1", workers=workers)
    manifest = job(recipe, tmp_path / "store", max_skipped=0.9).run()
    assert manifest is not None and 0 < manifest["skipped"] < 8
    assert all(
        f"{error}: " in one["skipped"] and one["name"] in one["skipped"]
        for one in manifest["skipped_examples"]
    )
