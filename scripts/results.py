"""Files that scripts write: whole or absent, and never in place of another that nobody said may go."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any


def refuse_to_overwrite(output: Path, overwrite: bool) -> None:
    """Raise FileExistsError if there is such a file already and nobody said that it may go."""
    first = int(os.environ.get("LOCAL_RANK", 0)) == 0 and int(os.environ.get("RANK", 0)) == 0
    if first and output.exists() and not overwrite:
        raise FileExistsError(f"{output} exists; choose another with output=..., or replace it with overwrite=true")


def write_json(path: Path, figures: dict[str, Any]) -> None:
    """Write beside the target, then move over it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    partial.write_text(json.dumps(figures, indent=2) + "\n")
    os.replace(partial, path)
