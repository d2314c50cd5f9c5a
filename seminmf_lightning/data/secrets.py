"""Refuse secrets in settings, because a run writes its settings to its folder and into its dictionary."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

QUERY_VARIABLE = "SEMINMF_URL_QUERY"
"""Environment variable with the query of signed URLs: what follows the ``?``."""
SECRET_WORDS = (
    "secret", "passw", "token", "account_key", "api_key", "apikey", "access_key", "connection_string", "sas",
    "credential", "authorization",
)  # fmt: skip
OPEN_TOKENS = (
    "anon",
    "cloud",
    "google_default",
)  # values of gcsfs's `token` that name a way to sign in, not a secret
QUERY = re.compile(r"(https?://[^\s?'\"]*)\?[^\s'\"]*", re.IGNORECASE)


def refuse_secrets(settings: Mapping[str, Any], inside: str = "data") -> None:
    """Raise ValueError if a setting is a secret: a URL with password or query, or a key under ``storage``.

    >>> refuse_secrets({"path": "https://host/a.npy?sig=1f"})  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ValueError: data.path: the query of https://host/a.npy?... may be a signature, ...
    """
    kept = "and a run's settings are written to its folder and its dictionary"
    for name, value in settings.items():
        where = f"{inside}.{name}"
        if isinstance(value, list | tuple):
            value = dict(enumerate(value))
        if isinstance(value, Mapping):
            refuse_secrets(value, where)
            continue
        text = str(value) if isinstance(value, str | os.PathLike) else ""
        if QUERY.search(text):
            raise ValueError(
                f"{where}: the query of {without_queries(text)} may be a signature, {kept}; "
                f"leave it out, or set {QUERY_VARIABLE} to what follows the '?'"
            )
        by_name = inside.startswith("data.storage") and any(
            word in str(name).lower() for word in SECRET_WORDS
        )
        is_secret = by_name and value is not None and value not in OPEN_TOKENS
        if is_secret or re.match(r"\w+://[^/]*:[^/]*@", text):
            raise ValueError(
                f"{where} looks like a secret, {kept}; give it in the environment instead "
                "(AWS_SECRET_ACCESS_KEY, AWS_PROFILE, GOOGLE_APPLICATION_CREDENTIALS, ...)"
            )


def without_queries(text: object) -> str:
    """Return a text with the queries of its URLs removed.

    >>> without_queries("403 for https://host/a.npy?sig=1f")
    '403 for https://host/a.npy?...'
    """
    return QUERY.sub(r"\1?...", str(text))
