"""Examples that are tensors already."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from seminmf_lightning.harvest.inputs.base import Inputs, Unreadable
from seminmf_lightning.harvest.inputs.files import digest_of_files
from seminmf_lightning.io.untrusted import Refused, open_npy, open_safetensors, read_tensor, refusing


@dataclass
class TensorExamples(Inputs):
    """The first axis of one ``.npy`` array, or of a tensor in one ``.safetensors`` file, memory-mapped."""

    path: str
    key: str | None = None
    """Name of the tensor in a ``.safetensors`` file; None: the only one."""
    kind = "tensor"

    @cached_property
    def _tensor(self) -> torch.Tensor:
        path = Path(self.path).expanduser()
        with refusing(path, "a file to read examples from"):
            if path.suffix.lower() == ".npy":
                return torch.from_numpy(open_npy(path))
            with open_safetensors(path) as handle:
                names = list(handle.keys())
                key = self.key or (names[0] if len(names) == 1 else None)
                if key is None or key not in names:
                    raise Refused(
                        f"{path}: set inputs.key to one of its tensors: {', '.join(names) or 'none'}"
                    )
                return read_tensor(path, handle, key)

    def __len__(self) -> int:
        if self._tensor.ndim < 2 or not len(self._tensor):
            raise ValueError(
                f"{self.path}: expected examples (n, ...), found shape {tuple(self._tensor.shape)}"
            )
        return len(self._tensor)

    def read(self, example: int) -> Any:
        value = self._tensor[example]
        if value.is_floating_point() and not value.isfinite().all():
            raise Unreadable(f"{self.identify(example)}: holds NaN or Inf")
        return value.float() if value.is_floating_point() else value.clone()

    def digest(self) -> str:
        return digest_of_files([str(Path(self.path).expanduser())])

    def identify(self, example: int) -> str:
        return f"{self.path}, example {example}"
