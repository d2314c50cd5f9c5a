"""Commands in a pseudo-terminal, and the lines that they paint there."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import struct
import subprocess
import termios
from collections.abc import Mapping, Sequence
from pathlib import Path

SEQUENCE = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]|\x1b[@-_]")
"""Escape sequences: colours, cursor movements, erasures."""


def run_in_terminal(
    command: Sequence[str], columns: int, cwd: Path, environment: Mapping[str, str] | None = None
) -> tuple[int, str]:
    """Run a command in a terminal of ``columns``; return its exit status and everything it wrote."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    clean = {
        name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES", "NO_COLOR")
    }
    env = clean | {"TERM": "xterm-256color"} | dict(environment or {})
    process = subprocess.Popen(
        command, cwd=cwd, env=env, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True
    )
    os.close(theirs)
    output = b""
    with contextlib.suppress(OSError):  # the other end is closed
        while part := os.read(ours, 65_536):
            output += part
    os.close(ours)
    return process.wait(), output.decode(errors="replace")


def painted_lines(output: str) -> list[str]:
    """Every line as it was painted, also those that were painted over, without escape sequences."""
    return [line for line in re.split(r"[\r\n]+", SEQUENCE.sub("", output)) if line]
