"""An S3 server on loopback that records requests and fails on demand, and sources of rows on it."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import boto3
import torch
from moto.server import ThreadedMotoServer
from safetensors.torch import save

from seminmf_lightning.data import ObjectStoreRows, Source
from seminmf_lightning.data.loader import BatchStream
from seminmf_lightning.data.splits import RowSet

DUMMY = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1"}

SMALL = {"chunk_mb": 0.005, "shuffle_mb": 0.02}
"""54 rows of the fixture ``signed`` in a chunk, four chunks in a window."""


class Get(NamedTuple):
    """Bytes ``start..stop-1`` of an object that were asked for."""

    path: str
    start: int
    stop: int


class S3:
    """moto's server with one bucket.  ``share`` of the GETs of objects fail with 500, at random but always
    the same ones."""

    def __init__(self) -> None:
        self.server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
        self.server.start()
        web: Any = self.server._server
        self.app, web.app = web.app, self
        self.endpoint = "http://{}:{}".format(*self.server.get_host_and_port())
        self.client = boto3.client("s3", endpoint_url=self.endpoint)
        self.client.create_bucket(Bucket="rows")
        self.reset()

    def reset(self) -> None:
        self.gets: list[Get] = []
        self.failed, self.share, self.status, self.random = 0, 0.0, 500, random.Random(0)
        self.before: Callable[[Get], None] = lambda get: None

    @property
    def bytes(self) -> int:
        return sum(get.stop - get.start for get in self.gets)

    def put(self, key: str, content: bytes) -> None:
        self.client.put_object(Bucket="rows", Key=key, Body=content)

    def clear(self) -> None:
        for entry in self.client.list_objects_v2(Bucket="rows").get("Contents", []):
            self.client.delete_object(Bucket="rows", Key=entry["Key"])

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Any:
        found = re.fullmatch(r"bytes=(\d+)-(\d+)", environ.get("HTTP_RANGE", ""))
        if environ["REQUEST_METHOD"] == "GET" and found:
            get = Get(environ["PATH_INFO"], int(found[1]), int(found[2]) + 1)
            self.gets.append(get)
            if self.random.random() < self.share:
                self.failed += 1
                start_response(f"{self.status} Injected", [("Content-Type", "application/xml")])
                return [b"<Error><Code>%d</Code><Message>injected</Message></Error>" % self.status]
            self.before(get)
        return self.app(environ, start_response)

    @contextmanager
    def failing(self, share: float, status: int = 500) -> Iterator[None]:
        self.share, self.status = share, status
        yield
        self.share = 0.0


def fill(s3: S3, rows: torch.Tensor, size: int = 170) -> None:
    """Upload rows in .safetensors objects of ``size`` rows."""
    for index, part in enumerate(rows.split(size)):
        s3.put(f"acts/{index}.safetensors", save({"activations": part.clone()}))


def remote(
    s3: S3, cache: Path, path: Any = "s3://rows/acts/*.safetensors", **options: Any
) -> ObjectStoreRows:
    """A source of the uploaded rows, in small chunks."""
    storage = {"endpoint_url": s3.endpoint}
    return ObjectStoreRows(path, storage=storage, cache_dir=str(cache), **SMALL | options)


def streams(source: Source, world: int, *, shuffle: bool) -> list[BatchStream]:
    """The batches of each of ``world`` processes."""
    rows = RowSet.all(len(source))
    return [
        BatchStream(source, rows, 64, shuffle=shuffle, seed=1, rank=rank, world=world, any_order=True)
        for rank in range(world)
    ]
