"""Labels of concepts: ``labels.json``, exported from the report, and the automatic ones that it writes.

    {"dictionary": "0f3a...", "labels": {"17": "end of a sentence"}}

``dictionary`` is the digest of the atoms that were labelled; a file written by hand may leave it out.
"""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from seminmf_lightning.io.atomic import whole_file
from seminmf_lightning.io.schema import conform
from seminmf_lightning.io.untrusted import Refused, file_size, parse_json

LABELS_FILE = "labels.json"
AUTOMATIC_FILE = "automatic_labels.json"
MAX_BYTES = 2**26
"""Larger files are no labels."""


def digest_of(D: Tensor) -> str:
    """Return 16 hexadecimal digits that name the atoms D (k, d), as float32.

    >>> import torch
    >>> digest_of(torch.eye(2))
    'a666c95f0822c64e'
    """
    return hashlib.sha256(D.detach().float().cpu().contiguous().numpy().tobytes()).hexdigest()[:16]


def read_labels(path: Path, D: Tensor) -> dict[int, str]:
    """Return the labels of the atoms D (k, d) in a file, by concept; empty ones are left out.

    Raises:
        FileNotFoundError: there is no such file.
        Refused: another form, a concept that D does not have, or labels of other atoms.
    """
    if (size := file_size(path)) > MAX_BYTES:
        raise Refused(f"{path}: {size:,} bytes; labels have at most {MAX_BYTES:,}")
    content = parse_json(path, path.read_bytes(), "labels: it is not JSON")
    conform(path, content, {"dictionary?": str, "labels": {str: str}})
    labelled, digest = content.get("dictionary"), digest_of(D)
    if labelled not in (None, digest):
        raise Refused(
            f"{path}: labels of the dictionary {labelled}, but this one is {digest}; give labels=<file> of "
            'this dictionary, or remove "dictionary" from the file if they fit nevertheless'
        )
    return checked_labels(path, content["labels"], len(D))


def checked_labels(path: Path, texts: Any, concepts: int) -> dict[int, str]:
    """Return labels by concept, from JSON with texts by the concept's number; empty ones are left out.

    >>> checked_labels(Path("labels.json"), {"3": " a verb ", "1": ""}, concepts=4)
    {3: 'a verb'}
    """
    conform(path, texts, {str: str}, "labels")
    refuse_unknown(path, texts, concepts)
    return {int(concept): text.strip() for concept, text in texts.items() if text.strip()}


def refuse_unknown(path: Path, numbers: Iterable[str], concepts: int) -> None:
    """Raise Refused for what is no number of a concept."""
    for one in numbers:
        number = int(one) if one.isascii() and one.isdigit() and len(one) < 20 else -1
        if not (0 <= number < concepts and str(number) == one):  # "01" may stand beside "1"
            raise Refused(f"{path}: concepts are numbered 0 to {concepts - 1}, found {one[:80]!r}")


def write_labels(path: Path, labels: Mapping[int, str], D: Tensor) -> None:
    """Write labels of the atoms D (k, d) atomically."""
    content = {"dictionary": digest_of(D), "labels": {str(concept): text for concept, text in labels.items()}}
    with whole_file(path, "make room and run the same command again") as partial:
        text = json.dumps(content, indent=1, ensure_ascii=False) + "\n"
        partial.write_bytes(text.encode(errors="surrogatepass"))  # names of files may be invalid Unicode


def labels_beside(run: str | os.PathLike[str], D: Tensor, saved: Mapping[int, str]) -> dict[int, str]:
    """Return the labels in a run's folder, or beside its file: typed, else ``saved``, else automatic ones.

    Labels of another dictionary, such as the one that a new run replaced, are left out with a warning.
    """
    folder = Path(run) if os.path.isdir(run) else Path(run).parent
    automatic, typed = (
        labels_or_warning(folder / name, D) if (folder / name).is_file() else {}
        for name in (AUTOMATIC_FILE, LABELS_FILE)
    )
    return automatic | dict(saved) | typed


def labels_or_warning(path: Path, D: Tensor) -> dict[int, str]:
    """Return the labels in a file; none, with a warning, if they cannot be used for D."""
    try:
        return read_labels(path, D)
    except (Refused, OSError) as error:
        warnings.warn(f"labels are not used: {error}", stacklevel=3)
        return {}
