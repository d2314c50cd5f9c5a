"""Addresses that people paste: with a query, signed, with brackets, or of a server without ranges."""

from __future__ import annotations

import http.server
import io
import threading
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from seminmf_lightning.data import ObjectStoreRows
from seminmf_lightning.data.secrets import refuse_secrets

pytest.importorskip("aiohttp")
SIGNATURE = "X-Amz-Credential=AKIA%2F20260101&X-Amz-Signature=5ca1ab1e"


class Files(http.server.ThreadingHTTPServer):
    """Objects by name; ``ranges`` and ``signature`` say what the server can do and what it asks for."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.objects: dict[str, bytes] = {}
        self.ranges, self.signature, self.sent = True, "", 0

    def url(self, name: str) -> str:
        return f"http://127.0.0.1:{self.server_port}/{name}"


class Handler(http.server.BaseHTTPRequestHandler):
    server: Files

    def log_message(self, *arguments: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.answer(False)

    def do_GET(self) -> None:
        self.answer(True)

    def answer(self, body: bool) -> None:
        url = urllib.parse.urlsplit(self.path)
        content = self.server.objects.get(urllib.parse.unquote(url.path[1:]))
        if content is None or urllib.parse.unquote(url.query) != urllib.parse.unquote(self.server.signature):
            return self.send_error(404 if content is None else 403)
        span = self.headers.get("Range", "")[6:].split("-") if self.server.ranges else [""]
        if span != [""]:
            content = content[int(span[0]) : int(span[1]) + 1]
        self.send_response(206 if span != [""] else 200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if body:
            self.server.sent += len(content)
            self.wfile.write(content)


@pytest.fixture
def files(signed: torch.Tensor, monkeypatch: pytest.MonkeyPatch) -> Iterator[Files]:
    monkeypatch.setattr("seminmf_lightning.data.remote.objects.FIRST_PAUSE", 0.001)
    server = Files()
    for name, rows in (("a.npy", signed), ("b[1].npy", signed[:99])):
        stream = io.BytesIO()
        np.save(stream, rows.numpy())
        server.objects[name] = stream.getvalue()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def source(tmp_path: Path, path: Any, **options: Any) -> ObjectStoreRows:
    return ObjectStoreRows(path, cache_dir=str(tmp_path / "cache"), shuffle_mb=16, **options)


def test_rows_come_from_a_plain_web_server(files: Files, tmp_path: Path, signed: torch.Tensor) -> None:
    assert torch.equal(source(tmp_path, files.url("a.npy")).read_range(0, 600), signed)
    assert torch.equal(source(tmp_path, files.url("b[1].npy")).read_range(0, 99), signed[:99])


def test_a_server_without_ranges_is_refused_before_much_is_sent(files: Files, tmp_path: Path) -> None:
    files.ranges = False
    with pytest.raises(ValueError, match=r"a\.npy: this server does not answer range requests.*download"):
        len(source(tmp_path, files.url("a.npy")))
    assert files.sent <= 2 * len(files.objects["a.npy"])


@pytest.mark.parametrize("query", ["download=true", SIGNATURE, ""])
def test_a_query_is_refused_and_not_repeated(files: Files, tmp_path: Path, query: str) -> None:
    with pytest.raises(
        ValueError, match=r"data\.path: the query of .*a\.npy\?\.\.\..*SEMINMF_URL_QUERY"
    ) as error:
        len(source(tmp_path, files.url(f"a.npy?{query}")))
    assert not query or query not in str(error.value)
    with pytest.raises(ValueError, match="query"):
        refuse_secrets({"name": "npy", "path": ["a.npy", files.url(f"a.npy?{query}")]})


def test_a_signature_comes_from_the_environment_and_is_in_no_message(
    files: Files, tmp_path: Path, signed: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    files.signature = SIGNATURE
    monkeypatch.setenv("SEMINMF_URL_QUERY", f"?{SIGNATURE}")
    rows = source(tmp_path, files.url("a.npy"), retries=1)
    assert torch.equal(rows.read_range(0, 600), signed)
    assert "Signature" not in rows.where(0)
    monkeypatch.setenv("SEMINMF_URL_QUERY", SIGNATURE.replace("5ca1ab1e", "0badc0de"))
    with pytest.raises(OSError, match=r"a\.npy") as error:
        len(source(tmp_path, files.url("a.npy"), retries=1))
    assert "Signature" not in str(error.value)


def test_brackets_are_letters_where_such_a_file_exists_and_else_a_glob(tmp_path: Path) -> None:
    for name in ("a[1].npy", "a2.npy", "a3.npy", "what?.npy"):
        np.save(tmp_path / name, np.full((4, 2), len(name)))
    for name, rows in (("a[1].npy", 4), ("a[23].npy", 8), ("what?.npy", 4), ("a?.npy", 8)):
        assert len(source(tmp_path, str(tmp_path / name))) == rows
    (tmp_path / "run[1]").mkdir()
    np.save(tmp_path / "run[1]" / "a.npy", np.ones((3, 2)))
    assert len(source(tmp_path, str(tmp_path / "run[1]"))) == 3
    assert len(source(tmp_path, str(tmp_path / "run[[]1]" / "*.npy"))) == 3
    with pytest.raises(FileNotFoundError, match=r"\[\[\] stands for a bracket"):
        len(source(tmp_path, str(tmp_path / "run[1]" / "*.npy")))
