"""Long examples are run in parts."""

from __future__ import annotations

from pathlib import Path

import tiny_networks as tiny
from harvests import CPU, job, text_recipe

from seminmf_lightning.harvest import Store
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
