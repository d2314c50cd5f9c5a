"""A data set of Hugging Face: on the hub, or a folder written by ``save_to_disk``."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from seminmf_lightning.core.checks import one_of
from seminmf_lightning.harvest.inputs.base import Inputs, Unreadable, digest_of
from seminmf_lightning.harvest.inputs.files import digest_of_files
from seminmf_lightning.harvest.inputs.pixels import as_rgb


@dataclass
class HubDataset(Inputs):
    """One column of one split, memory-mapped."""

    path: str
    """Name on the hub, or a folder of ``save_to_disk``."""
    column: str
    split: str = "train"
    config: str | None = None
    """Name of the configuration, for data sets with several."""
    revision: str | None = None
    kind: str = "text"  # type: ignore[misc]
    """Content of the column: ``text`` or ``image``."""

    def __post_init__(self) -> None:
        one_of("inputs.kind", self.kind, ("text", "image"))

    @cached_property
    def _rows(self) -> Any:
        try:
            import datasets
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(
                "inputs=hf_dataset needs: pip install 'seminmf-lightning[datasets]'"
            ) from error
        if os.path.exists(os.path.join(self.path, "dataset_info.json")):
            rows = datasets.load_from_disk(self.path)
        elif os.path.exists(os.path.join(self.path, "dataset_dict.json")):
            splits = datasets.load_from_disk(self.path)
            if self.split not in splits:
                raise ValueError(f"{self.path}: no split {self.split!r}; it has {', '.join(splits)}")
            rows = splits[self.split]
        else:
            rows = datasets.load_dataset(self.path, self.config, split=self.split, revision=self.revision)
        if self.column not in rows.column_names:
            raise ValueError(f"{self.path}: no column {self.column!r}; it has {', '.join(rows.column_names)}")
        return rows

    def __len__(self) -> int:
        return len(self._rows)

    def read(self, example: int) -> Any:
        try:
            value = self._rows[example][self.column]
        except Exception as error:  # decoders raise errors of their own
            raise Unreadable(f"{self.identify(example)}: {error}") from error
        if self.kind == "text":
            if not isinstance(value, str):
                raise Unreadable(f"{self.identify(example)}: expected a text, found {type(value).__name__}")
            return value
        if not hasattr(value, "convert"):
            raise Unreadable(f"{self.identify(example)}: expected an image, found {type(value).__name__}")
        try:
            return as_rgb(value)
        except Exception as error:
            raise Unreadable(f"{self.identify(example)}: {error}") from error

    def digest(self) -> str:
        files = [str(file["filename"]) for file in self._rows.cache_files]
        return digest_of([digest_of_files(files) if files else self._rows._fingerprint, str(len(self))])

    def identify(self, example: int) -> str:
        return f"{self.path}, {self.split}, row {example}"
