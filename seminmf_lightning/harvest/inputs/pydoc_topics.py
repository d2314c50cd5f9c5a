"""The topics of Python's own help (``pydoc_data.topics``): real texts without a download."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from seminmf_lightning.harvest.inputs.base import Inputs, digest_of


@dataclass
class PydocTopics(Inputs):
    """One text per topic, in the order of the standard library."""

    kind = "text"

    @cached_property
    def _topics(self) -> list[tuple[str, str]]:
        from pydoc_data.topics import topics

        return list(topics.items())

    def __len__(self) -> int:
        return len(self._topics)

    def read(self, example: int) -> Any:
        return self._topics[example][1]

    def digest(self) -> str:
        return digest_of(text for topic in self._topics for text in topic)

    def identify(self, example: int) -> str:
        return f"pydoc topic {self._topics[example][0]!r}"
