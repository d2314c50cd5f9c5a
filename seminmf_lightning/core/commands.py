"""Name a command of this project as the user types it."""

from __future__ import annotations

import sys
from pathlib import PurePath


def command(name: str) -> str:
    """Return ``seminmf <name>``, or ``python scripts/<name>.py`` in a process that such a script started.

    Hints and errors use it, so that what they tell the user to type works where the user is.

    >>> command("train")
    'seminmf train'
    """
    started = PurePath(sys.argv[0])
    if started.parent.name == "scripts" and started.suffix == ".py":
        return f"python {started.with_name(name.replace('-', '_') + '.py')}"
    return f"seminmf {name}"
