"""Files that scripts write: whole or absent, and never in place of another that nobody said may go."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from seminmf_lightning.cli.launch import is_first_process
from seminmf_lightning.io.atomic import whole_file


def refuse_to_overwrite(output: Path, overwrite: bool) -> None:
    """Raise FileExistsError if there is such a file already and nobody said that it may go."""
    if is_first_process() and output.exists() and not overwrite:
        raise FileExistsError(
            f"{output} exists; choose another with output=..., or replace it with overwrite=true"
        )


def write_json(path: Path, figures: dict[str, Any]) -> None:
    """Write figures, whole or not at all."""
    with whole_file(path, "make room and run the same command again") as partial:
        partial.write_text(json.dumps(figures, indent=2) + "\n")
