"""The contract of every source: the same rows however they are read, and each row once in an epoch.

A source of this package is found by its file; its examples are those of
``tests/helpers/source_examples/<name>.py``: a function ``examples(folder, rows)`` that yields sources of
``rows``, or of rows of their own.
"""

from __future__ import annotations

import importlib
import inspect
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from commands import ROOT

from seminmf_lightning.core.discovery import available
from seminmf_lightning.data import ActivationDataModule, Source
from seminmf_lightning.data.loader import BatchStream
from seminmf_lightning.data.sources.base import NO_FETCH
from seminmf_lightning.data.splits import RowSet

SOURCES = {
    name: kind
    for name, kind in available(Source).items()
    if kind.__module__.startswith(Source.__module__[:-4])
}
WITH_YAML = sorted(path.stem for path in ROOT.glob("configs/data/*.yaml") if path.stem in SOURCES)


@pytest.fixture(params=SOURCES)
def examples(request: pytest.FixtureRequest, tmp_path: Path, signed: torch.Tensor) -> list[Source]:
    return list(importlib.import_module(f"source_examples.{request.param}").examples(tmp_path, signed))


def rows_of(source: Source) -> torch.Tensor:
    source.prepare()
    return source.read_range(0, len(source)).clone()


def test_rows_are_the_rows(examples: list[Source], signed: torch.Tensor) -> None:
    for source in examples:
        rows = rows_of(source)
        if len(rows) == len(signed):
            assert torch.equal(rows, signed)
        n = len(source)
        assert rows.shape == (n, source.features) and rows.dtype in (torch.float32, torch.float64)
        for chosen in ([n - 1, 0, 170, 169, 340, 3], [5, 5, 2], [], list(range(n))[::-1]):
            assert torch.equal(source.read(np.array(chosen, dtype=np.int64)), rows[chosen])
        for start, stop in ((100, 400), (0, n), (169, 171), (n - 1, n), (7, 7)):
            assert torch.equal(source.read_range(start, stop), rows[start:stop])


def test_a_row_is_located_in_a_shard(examples: list[Source]) -> None:
    for source in examples:
        source.prepare()
        places = [source.locate(row) for row in range(len(source))]
        assert len(set(places)) == len(places)
        assert {name for name, _ in places} == {shard.name for shard in source.shards}
        name, local = places[-1]
        assert source.where(len(source) - 1).startswith(f"{name}, row {local}")


def test_a_source_is_sent_to_another_process_without_its_rows(
    examples: list[Source], request: pytest.FixtureRequest
) -> None:
    for source in examples:
        rows = rows_of(source)
        content = pickle.dumps(source)
        if request.node.callspec.params["examples"] in WITH_YAML:
            assert len(content) < 2000
        assert torch.equal(rows_of(pickle.loads(content)), rows)


def test_groups_are_one_number_for_each_row(examples: list[Source]) -> None:
    for source in examples:
        source.prepare()
        groups = source.open_groups()
        assert groups is None or groups.shape == (len(source),)


@pytest.mark.parametrize("shuffle", [False, True])
def test_two_processes_read_each_row_once(examples: list[Source], shuffle: bool) -> None:
    for source in examples:
        rows, seen = rows_of(source), []
        for rank in range(2):
            stream = BatchStream(
                source, RowSet.all(len(rows)), 64, shuffle=shuffle, seed=1, rank=rank, world=2, any_order=True
            )
            for A, numbers, sizes in stream:
                assert torch.equal(A, rows[numbers]) and int(sizes.sum()) == len(A)
                seen.append(numbers)
            source.prefetch(NO_FETCH)
        assert sorted(torch.cat(seen).tolist()) == list(range(len(rows)))


def test_a_data_module_samples_training_rows(examples: list[Source]) -> None:
    for source in examples:
        data = ActivationDataModule(source, sample_rows=50, val_fraction=0.2)
        data.prepare_data()
        data.setup()
        sample = data.sample()
        assert (
            len(sample) == 50
            and (data.source.read_range(0, len(source))[:, None] == sample).all(2).any(0).all()
        )


@pytest.mark.parametrize("name", WITH_YAML)
def test_the_yaml_of_a_source_has_its_settings(name: str) -> None:
    content = yaml.safe_load((ROOT / f"configs/data/{name}.yaml").read_text())
    assert content.pop("name") == name
    content.pop("defaults")
    parameters = inspect.signature(SOURCES[name]).parameters
    assert set(content) == set(parameters)
    for key, value in content.items():
        default = parameters[key].default
        if default is inspect.Parameter.empty:
            assert value == "???"
        elif isinstance(value, dict):
            assert not any(value.values())
        else:
            assert value == default


def test_every_source_has_examples() -> None:
    written = {path.stem for path in (ROOT / "tests/helpers/source_examples").glob("*.py")}
    assert written == set(SOURCES), "a new source is tested by tests/helpers/source_examples/<name>.py"
