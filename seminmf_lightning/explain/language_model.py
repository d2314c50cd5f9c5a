"""Label concepts in words by a language model behind an OpenAI-compatible server.

Only texts are sent, and only to the server that is named: a few sentences per concept, the firing token in
double brackets.  The method is that of Bills et al., "Language models can explain neurons in language models"
(2023), without their simulation score.
"""

from __future__ import annotations

import json
import os
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

KEY = "OPENAI_API_KEY"
"""Environment variable with the server's key; servers on the own machine need none."""
TIMEOUT = 120.0
"""Seconds that one answer may take."""
PARALLEL = 4
"""Requests at once."""
SENTENCES = 8
LONGEST = 200
"""Characters of a label."""
QUESTION = (
    "A feature of a neural network fires on the token in [[double brackets]] in each text below. In at "
    "most ten words, say what these tokens or their contexts have in common. Answer with that phrase alone."
)


def describe(
    concepts: Mapping[int, Sequence[Mapping[str, Any]]], base_url: str, model: str | None
) -> dict[int, str]:
    """Return labels of the concepts that have examples in texts, strongest first.

    Args:
        concepts: examples by concept, as on the page.
        base_url: such as ``http://localhost:8000/v1``.
        model: a name that the server knows.

    Raises:
        ValueError: see :func:`require_server`.
        ConnectionError: the server cannot be reached, refuses, or gives no answer in the usual form.
    """
    require_server(base_url, model)
    sentences = {
        concept: [marked(one) for one in shown if "tokens" in one] for concept, shown in concepts.items()
    }
    asked = {concept: lines[:SENTENCES] for concept, lines in sentences.items() if lines}
    with ThreadPoolExecutor(PARALLEL) as pool:
        answers = pool.map(lambda lines: answer(base_url, str(model), lines), asked.values())
        return {concept: text for concept, text in zip(asked, answers, strict=True) if text}


def require_server(base_url: str, model: str | None) -> None:
    """Raise ValueError, before any work is done, if these settings cannot name a server and its model."""
    if not base_url.startswith(("http://", "https://")):
        raise ValueError(f"base_url must begin with http:// or https://, got {base_url!r}")
    if not model:
        raise ValueError("base_url needs language_model=<a name that the server knows>")


def marked(example: Mapping[str, Any]) -> str:
    """Return an example's text with its firing token in double brackets.

    >>> marked({"text": "the cat sat", "tokens": [[4, 7, 127, 1]]})
    'the [[cat]] sat'
    """
    text = example["text"]
    start, stop = next(((start, stop) for start, stop, _, here in example["tokens"] if here), (0, 0))
    return " ".join(f"{text[:start]}[[{text[start:stop]}]]{text[stop:]}".split())


def answer(base_url: str, model: str, sentences: Sequence[str]) -> str:
    """Return the server's answer on one line; errors as :func:`describe`."""
    content = "\n".join([QUESTION, "", *sentences])
    body = {"model": model, "temperature": 0, "messages": [{"role": "user", "content": content}]}
    address = f"{base_url.rstrip('/')}/chat/completions"
    headers = {"Content-Type": "application/json"}
    if key := os.environ.get(KEY):
        headers["Authorization"] = f"Bearer {key}"
    request = urllib.request.Request(address, json.dumps(body).encode(), headers)
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT) as response:
            text = json.load(response)["choices"][0]["message"]["content"]
        if not isinstance(text, str):
            raise TypeError(f"its content is {type(text).__name__}, not a text")
    except urllib.error.HTTPError as error:
        said = error.read(300).decode("utf-8", "replace")
        raise ConnectionError(f"{address} answered {error.code}: {said}") from error
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise ConnectionError(
            f"{address} gave no answer of a chat ({error}); base_url ends with /v1"
        ) from error
    return " ".join(text.split())[:LONGEST]
