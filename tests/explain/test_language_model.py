"""Labels of a language model, behind a server in this process."""

from __future__ import annotations

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread
from typing import Any

import pytest

from seminmf_lightning.explain.language_model import KEY, LONGEST, describe


@pytest.fixture
def server() -> Iterator[Any]:
    """Answers with the texts' last line; keeps what it was asked."""

    class Chat(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            made.asked.append((self.path, self.headers["Authorization"], asked))
            text = asked["messages"][0]["content"].splitlines()[-1] + "\n" + "z" * 300
            content = made.reply or json.dumps({"choices": [{"message": {"content": text}}]})
            self.send_response(made.status)
            self.end_headers()
            self.wfile.write(content.encode())

        def log_message(self, *args: Any) -> None:
            pass

    made: Any = HTTPServer(("127.0.0.1", 0), Chat)
    made.asked, made.reply, made.status = [], "", 200
    made.url = f"http://127.0.0.1:{made.server_port}/v1/"
    Thread(target=made.serve_forever, daemon=True).start()
    yield made
    made.shutdown()
    made.server_close()


EXAMPLES = {
    3: [{"text": "the cat\nsat", "tokens": [[0, 3, 4, 0], [4, 7, 127, 1]]}],
    4: [{"name": "rows.npy, row 1"}],
}


def test_concepts_with_texts_are_described_on_one_line(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY, "secret")
    labels = describe(EXAMPLES, server.url, "small")
    assert set(labels) == {3} and labels[3].startswith("the [[cat]] sat zzz") and len(labels[3]) == LONGEST
    ((path, key, asked),) = server.asked
    assert (path, key, asked["model"]) == ("/v1/chat/completions", "Bearer secret", "small")


@pytest.mark.parametrize(
    ("status", "reply", "words"),
    [
        (401, "no key", "answered 401: no key"),
        (200, "[]", "gave no answer"),
        (200, "<html>", "gave no answer"),
        (200, '{"choices": [{"message": {"content": null}}]}', "its content is NoneType, not a text"),
    ],
)
def test_what_a_server_does_wrong_is_said(server: Any, status: int, reply: str, words: str) -> None:
    server.status, server.reply = status, reply
    with pytest.raises(ConnectionError, match=words):
        describe(EXAMPLES, server.url, "small")


def test_settings_are_checked_before_anything_is_sent(server: Any) -> None:
    with pytest.raises(ValueError, match="must begin with http"):
        describe(EXAMPLES, "file:///etc/passwd", "small")
    with pytest.raises(ValueError, match="language_model="):
        describe(EXAMPLES, server.url, None)
    assert server.asked == []
