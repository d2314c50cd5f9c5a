"""Dictionaries on the Hugging Face Hub: the estimator with ``save_pretrained``, ``from_pretrained`` and
``push_to_hub``.

In a file and a class of its own because the mixin is a base class: :class:`~seminmf_lightning.SemiNMF` itself
would need huggingface_hub to be defined at all.
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
from seminmf_lightning.integrations.model_card import is_as_written, model_card
from seminmf_lightning.io.schema import conform
from seminmf_lightning.io.untrusted import parse_json
from seminmf_lightning.metrics import finite_or_none

if TYPE_CHECKING:
    from typing_extensions import Self

CONFIG, FIGURES, CARD = "config.json", "metrics.json", "README.md"


class HubSemiNMF(
    SemiNMF,
    ModelHubMixin,
    library_name="seminmf_lightning",
    tags=["semi-nmf", "dictionary-learning", "sparse-coding", "interpretability"],
):
    """A :class:`~seminmf_lightning.SemiNMF` that goes to the Hub and comes from it.

        HubSemiNMF.load(run).push_to_hub("owner/name")
        model = HubSemiNMF.from_pretrained("owner/name")  # or a folder of save_pretrained

    A folder of ``save_pretrained`` holds ``dictionary.safetensors``, ``config.json`` (the settings),
    ``metrics.json`` (the figures, where any are known) and the card ``README.md``, which is left alone where
    somebody has edited it.  Settings are those of :class:`~seminmf_lightning.learners.Recipe` alone: no path
    of the run's data goes along.  The card says what the rows are if it is told: ``push_to_hub("owner/name",
    model_card_kwargs={"rows": "layer 3 of all-MiniLM-L6-v2"})``.

    Attributes:
        figures: what the card states: those of the run that :meth:`load` was given, or yours,
            ``model.figures = model.evaluate(A_held_out)``; None where nothing was measured.
    """

    figures: dict[str, Any] | None = None

    def fit(self, A: Activations, max_iter: int = 500) -> tuple[Tensor, Tensor]:
        """As :meth:`SemiNMF.fit`; figures of an earlier dictionary are forgotten."""
        self.figures = None
        return super().fit(A, max_iter)

    @classmethod
    def load(cls, path: str | os.PathLike[str], device: str | torch.device = "cpu") -> Self:
        """As :meth:`SemiNMF.load`, and the ``metrics.json`` of a directory becomes :attr:`figures`.

        Raises:
            FileNotFoundError, ValueError: no dictionary, or a file that cannot be read.
        """
        model = super().load(path, device)
        file = Path(path) / FIGURES
        if file.is_file():
            model.figures = _read_figures(file)
        return model

    def generate_model_card(self, *, rows: str | None = None) -> ModelCard:
        """The card; ``rows`` says in words what the activations are."""
        D = self.get_dictionary()
        return model_card(
            self._hub_mixin_info.model_card_data, shape=(D.shape[0], D.shape[1]), scale=self.normalizer.scale,
            centred=self.normalizer.mean is not None, bounded=self.recipe.bounded, settings=self.settings,
            figures=self.figures, rows=rows,
        )  # fmt: skip

    def _save_pretrained(self, save_directory: Path) -> None:
        if (save_directory / "checkpoints").exists():
            raise FileExistsError(
                f"{save_directory} is a run directory, whose dictionary would be replaced; choose another"
            )
        known = {name: finite_or_none(value) for name, value in (self.figures or {}).items()}
        settings, figures = (
            json.dumps(found, indent=2, allow_nan=False) + "\n" for found in (self.settings, known)
        )
        self.save(save_directory / FILE_NAME)
        (save_directory / CONFIG).write_text(settings, encoding="utf-8")
        if self.figures is None:
            (save_directory / FIGURES).unlink(missing_ok=True)
        else:
            (save_directory / FIGURES).write_text(figures, encoding="utf-8")
        card = save_directory / CARD
        if card.is_file() and is_as_written(card.read_text(encoding="utf-8", errors="replace")):
            card.unlink()  # the mixin writes one where there is none: of this dictionary

    @classmethod
    def _from_pretrained(
        cls, *, model_id: str, revision: str | None, cache_dir: str | Path | None, force_download: bool,
        local_files_only: bool, token: str | bool | None, device: str | torch.device = "cpu",
        config: dict[str, Any] | None = None, **settings: Any,
    ) -> Self:  # fmt: skip
        # The mixin passes on the settings it finds in config.json; dictionary.safetensors holds them too, and
        # is what counts.
        known = config or {}
        foreign = sorted(
            name for name, value in settings.items() if name not in known or known[name] != value
        )
        if foreign:
            raise TypeError(
                f"from_pretrained takes `device` and what huggingface_hub documents, not {', '.join(foreign)}: "
                "a dictionary comes with its settings"
            )
        if Path(model_id).is_dir():
            return cls.load(model_id, device)
        folder = snapshot_download(
            model_id, revision=revision, cache_dir=cache_dir, force_download=force_download,
            local_files_only=local_files_only, token=token, allow_patterns=[FILE_NAME, FIGURES],
        )  # fmt: skip
        return cls.load(folder, device)


def _read_figures(file: Path) -> dict[str, Any]:
    figures = parse_json(file, file.read_bytes(), "JSON; a finished run writes it, and it may be deleted")
    conform(file, figures, {})
    return figures
