"""Slow tests run in a bounded form, in CI too, unless SEMINMF_FULL is set."""

from __future__ import annotations

import os
from typing import TypeVar

import pytest

T = TypeVar("T")
FULL = "SEMINMF_FULL" in os.environ
needs_full = pytest.mark.skipif(not FULL, reason="long: SEMINMF_FULL=1")


def bounded(full: T, in_ci: T) -> T:
    """Return the first in a full run, else the second."""
    return full if FULL else in_ci
