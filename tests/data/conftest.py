"""An S3 server for the tests of sources."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest


@pytest.fixture(scope="session")
def server() -> Iterator[Any]:
    pytest.importorskip("s3fs")
    from s3_server import DUMMY, S3

    with pytest.MonkeyPatch.context() as patch:
        for name, value in DUMMY.items():
            patch.setenv(name, value)
        server = S3()
        yield server
        server.server.stop()


@pytest.fixture
def s3(server: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr("seminmf_lightning.data.remote.objects.FIRST_PAUSE", 0.001)
    server.clear()
    server.reset()
    return server
