"""Share dictionaries on the Hugging Face Hub: ``save_pretrained``, ``from_pretrained``, ``push_to_hub``.

A class of its own, because the mixin is a base class and :class:`~seminmf_lightning.SemiNMF` must not need
huggingface_hub.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

try:
    from huggingface_hub import ModelCard, ModelHubMixin, snapshot_download
except ModuleNotFoundError as error:
    raise ModuleNotFoundError("HubSemiNMF needs: pip install 'seminmf-lightning[hub]'") from error
from torch import Tensor

from seminmf_lightning.dictionary_file import FILE_NAME
from seminmf_lightning.estimator import Activations, SemiNMF
from seminmf_lightning.explain.runs import METRICS_FILE, read_metrics
from seminmf_lightning.integrations.model_card import is_unedited, model_card
from seminmf_lightning.metrics import finite_or_none

if TYPE_CHECKING:
    from typing_extensions import Self

CONFIG, CARD = "config.json", "README.md"


class HubSemiNMF(
    SemiNMF,
    ModelHubMixin,
    library_name="seminmf_lightning",
    tags=["semi-nmf", "dictionary-learning", "sparse-coding", "interpretability"],
):
    """A :class:`~seminmf_lightning.SemiNMF` that can be saved to and loaded from the Hub.

        HubSemiNMF.load(run).push_to_hub("owner/name", model_card_kwargs={"rows": "layer 3 of MiniLM"})
        model = HubSemiNMF.from_pretrained("owner/name")  # or a folder written by save_pretrained

    ``save_pretrained`` writes ``dictionary.safetensors`` (the only file that loading needs), ``config.json``
    (the :class:`~seminmf_lightning.learners.Recipe`, for people; it is never read), ``metrics.json`` where
    metrics are known, and the card ``README.md``, which is kept if somebody has edited it.  No path of the
    training data is written.

    Attributes:
        metrics: metrics for the card: those of the run given to :meth:`load`, or your own, such as
            ``model.metrics = model.evaluate(A_held_out)``; None if nothing was measured.
    """

    metrics: dict[str, Any] | None = None

    def fit(self, A: Activations, max_iter: int = 500) -> tuple[Tensor, Tensor]:
        """Fit as :meth:`SemiNMF.fit`; metrics of an earlier dictionary are dropped."""
        self.metrics = None
        return super().fit(A, max_iter)

    @classmethod
    def load(cls, path: str | os.PathLike[str], device: str | torch.device = "cpu") -> Self:
        """Load as :meth:`SemiNMF.load`, with the ``metrics.json`` of a directory.

        Raises:
            FileNotFoundError, ValueError: there is no dictionary, or a file cannot be read.
        """
        model = super().load(path, device)
        if (Path(path) / METRICS_FILE).is_file():
            model.metrics = read_metrics(Path(path))
        return model

    @classmethod
    def from_pretrained(  # type: ignore[override]
        cls, pretrained_model_name_or_path: str | os.PathLike[str], *, device: str | torch.device = "cpu",
        revision: str | None = None, force_download: bool = False, local_files_only: bool = False,
        cache_dir: str | Path | None = None, token: str | bool | None = None,
    ) -> Self:  # fmt: skip
        """Load a folder of :meth:`save_pretrained`, or download it from the Hub.

        The dictionary comes with its settings; where to compute is the caller's choice, never the file's.
        """
        folder = os.fspath(pretrained_model_name_or_path)
        if not Path(folder).is_dir():
            folder = snapshot_download(
                folder, revision=revision, cache_dir=cache_dir, force_download=force_download, token=token,
                local_files_only=local_files_only, allow_patterns=[FILE_NAME, METRICS_FILE],
            )  # fmt: skip
        return cls.load(folder, device)

    def generate_model_card(self, *, rows: str | None = None) -> ModelCard:
        """Return the card; ``rows`` says in words what the activations are."""
        return model_card(self._hub_mixin_info.model_card_data, self, self.metrics, rows)

    def _save_pretrained(self, save_directory: Path) -> None:
        if (save_directory / "checkpoints").exists():
            raise FileExistsError(
                f"{save_directory} is a run directory, whose dictionary would be replaced; choose another"
            )
        metrics = {name: finite_or_none(value) for name, value in (self.metrics or {}).items()}
        config, metrics_text = (
            json.dumps(values, indent=2, allow_nan=False) + "\n" for values in (self.settings, metrics)
        )
        self.save(save_directory / FILE_NAME)
        (save_directory / CONFIG).write_text(config, encoding="utf-8")
        (save_directory / METRICS_FILE).unlink(missing_ok=True)
        if self.metrics is not None:
            (save_directory / METRICS_FILE).write_text(metrics_text, encoding="utf-8")
        card = save_directory / CARD
        if card.is_file() and is_unedited(card.read_text(encoding="utf-8", errors="replace")):
            card.unlink()  # the mixin writes a card where there is none
