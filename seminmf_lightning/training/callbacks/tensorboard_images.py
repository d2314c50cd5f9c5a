"""Log to TensorBoard: examples of the strongest concepts, r2 against l0, atoms in the projector."""

from __future__ import annotations

import itertools
import re
from functools import lru_cache, partial
from typing import Any

import lightning
import numpy as np
import torch
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from torch import Tensor

from seminmf_lightning.core.checks import whole_number
from seminmf_lightning.data import ActivationDataModule, HarvestDataModule
from seminmf_lightning.explain.provenance import Harvested, Origins, origins_of
from seminmf_lightning.explain.strongest import ConceptSums, Top, TopExamples
from seminmf_lightning.harvest.provenance import PatchOrigin, TokenOrigin, Tracer
from seminmf_lightning.training.callbacks.concept_sheets import Sign, concept_sheet
from seminmf_lightning.training.callbacks.histograms import tensorboard_writers
from seminmf_lightning.training.module import SemiNMFModule

MAX_PROJECTOR_NUMBERS = 2**23
"""Largest dictionary that is written for the projector, which reads text."""
CONTEXT = 60
"""Characters shown on each side of a token."""
QUANTILE_NUMBERS = 2**20
"""Codes that quantiles are estimated from."""


class Gallery(lightning.Callback):
    """Log examples of the concepts of most energy, and r2 against l0, at validations; the atoms at the end.

    Examples need ``data=shards``, whose rows know their image or text; other data give curve and atoms.

    Args:
        every_n_steps: least number of steps between two galleries of one epoch; each epoch has one.
        concepts: concepts shown.
        examples: examples per concept and sign.
        rows: held-out rows that are encoded.

    >>> Gallery(concepts=0)
    Traceback (most recent call last):
    ValueError: concepts must be at least 1, got 0
    """

    def __init__(
        self, every_n_steps: int = 200, concepts: int = 8, examples: int = 4, rows: int = 4096
    ) -> None:
        self.every_n_steps = whole_number("every_n_steps", every_n_steps, 1)
        self.concepts = whole_number("concepts", concepts, 1)
        self.examples = whole_number("examples", examples, 1)
        self.rows = whole_number("rows", rows, 1)
        self._last: tuple[int, int] | None = None
        self._origins: Origins | None = None

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        assert isinstance(pl_module, SemiNMFModule)
        data, step = trainer.datamodule, pl_module.global_step  # type: ignore[attr-defined]
        epoch = trainer.current_epoch
        due = self._last is None or epoch > self._last[0] or step - self._last[1] >= self.every_n_steps
        writers = list(tensorboard_writers(trainer))
        if not (due and writers and trainer.state.fn == "fit") or trainer.sanity_checking:
            return
        if not isinstance(data, ActivationDataModule | HarvestDataModule):
            return
        self._last = (epoch, step)
        A, row_ids = self._held_out(data, pl_module)
        if not len(A):
            return
        Z = pl_module.encode(A).float()
        l0, r2 = r2_against_l0(pl_module.normalizer.apply(A).to(Z), Z, pl_module.dictionary.detach().to(Z))
        zeros = torch.zeros(len(l0))
        for writer in writers:  # the plugin's axes are recall and precision: here l0 / k and r2
            writer.add_pr_curve_raw(
                "val/r2_against_share_of_concepts", zeros, zeros, zeros, zeros, r2.clamp(0, 1),
                l0 / Z.shape[1], step, len(l0),
            )  # fmt: skip
        if isinstance(data, ActivationDataModule) and row_ids is not None:
            self._origins = self._origins or origins_of(data.source)
            if isinstance(self._origins, Harvested):
                try:
                    self._log_examples(writers, Z, row_ids, self._origins, data, pl_module)
                except (OSError, ValueError) as error:  # inputs that are gone must not end the training
                    rank_zero_warn(
                        f"TensorBoard shows no examples, because their inputs cannot be read: {error}"
                    )

    def on_train_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        assert isinstance(pl_module, SemiNMFModule)
        D = pl_module.dictionary.detach().float().cpu()
        for writer in tensorboard_writers(trainer):
            if D.numel() > MAX_PROJECTOR_NUMBERS:
                rank_zero_info(
                    f"a dictionary of {D.numel():,} numbers is too large for TensorBoard's projector"
                )
                return
            labels = [
                [str(concept), str(int(feature))] for concept, feature in enumerate(D.abs().argmax(dim=1))
            ]
            writer.add_embedding(
                D, metadata=labels, metadata_header=["concept", "strongest feature"], tag="dictionary",
                global_step=pl_module.global_step,
            )  # fmt: skip

    def _held_out(
        self, data: ActivationDataModule | HarvestDataModule, module: SemiNMFModule
    ) -> tuple[Tensor, np.ndarray | None]:
        """Return held-out rows, and their ids if the data can be read by row."""
        if isinstance(data, HarvestDataModule) or data.val_rows is None:
            return data.held_out_sample(self.rows).to(module.device), None
        row_ids = data.val_rows.rows(np.arange(min(self.rows, len(data.val_rows))))
        A, usable = data.usable(data.source.read(row_ids), torch.from_numpy(row_ids))
        return A.to(module.device), usable.numpy()

    def _log_examples(
        self, writers: list[Any], Z: Tensor, row_ids: np.ndarray, origins: Harvested,
        data: ActivationDataModule, module: SemiNMFModule,
    ) -> None:  # fmt: skip
        sums, top = ConceptSums(Z.shape[1]), TopExamples(Z.shape[1], self.examples)
        sums.update(Z)
        groups = np.concatenate([origins.groups(row, row + 1) for row in row_ids.tolist()])
        top.update(Z, torch.from_numpy(row_ids).to(Z.device), torch.from_numpy(groups).to(Z.device))
        energy = sums.squares * module.dictionary.detach().cpu().double().square().sum(dim=1)
        shown = energy.argsort(descending=True)[: self.concepts].tolist()
        images = isinstance(origins.tracer.origin(int(row_ids[0])), PatchOrigin)
        signs = top.signs()[: 1 if module.recipe.constraint.nonnegative_codes else 2]
        sheets = self._sheets(shown, signs, origins.tracer, data, module) if images else []
        for writer in writers:
            if images:
                for place, sheet in enumerate(sheets, start=1):
                    tag = f"val/top_concepts/{place}"
                    writer.add_image(tag, sheet, module.global_step, dataformats="HWC")
            else:
                table = markdown_table(shown, signs, origins.tracer)
                writer.add_text("val/top_concepts", table, module.global_step)

    def _sheets(
        self, shown: list[int], signs: tuple[Top, ...], tracer: Tracer, data: ActivationDataModule,
        module: SemiNMFModule,
    ) -> list[np.ndarray]:  # fmt: skip
        """Draw one image per concept."""

        @lru_cache(maxsize=8)  # concepts share images
        def codes(rows: range) -> np.ndarray:
            A = data.source.read_range(rows.start, rows.stop).nan_to_num(0, 0, 0)
            return module.encode(A.to(module.device)).float().cpu().numpy()

        def codes_of(concept: int, rows: range) -> np.ndarray:
            return codes(rows)[:, concept]

        def of_sign(concept: int, sign: int) -> Sign:
            used = signs[sign].row_ids[concept] >= 0
            top = (part[concept][used].tolist() for part in signs[sign])
            return Sign(bool(sign), *top)

        sheets = []
        for concept in shown:
            used = [one for one in map(partial(of_sign, concept), range(len(signs))) if one.row_ids]
            sheets.append(concept_sheet(concept, used, self.examples, tracer, partial(codes_of, concept)))
        return sheets


def markdown_table(shown: list[int], signs: tuple[Top, ...], tracer: Tracer) -> str:
    """Return a Markdown table of the strongest tokens of each sign in their sentences."""
    lines = ["| concept | z | sentence |", "|---|---|---|"]
    for concept, (sign, top) in itertools.product(shown, zip((1, -1), signs, strict=False)):
        for value, row in zip(top.values[concept].tolist(), top.row_ids[concept].tolist(), strict=True):
            origin = tracer.origin(row) if row >= 0 else None
            if isinstance(origin, TokenOrigin):
                lines.append(f"| {concept} | {sign * value:.3g} | {sentence(origin)} |")
    return "\n".join(lines)


def sentence(origin: TokenOrigin) -> str:
    """Return a token in bold with its context, without effect on a Markdown table.

    >>> sentence(TokenOrigin(0, 0, "a.txt", 1, text="the *cat* sat", start=5, stop=8))
    'the &#42;<b>cat</b>&#42; sat'
    """
    if origin.start < 0:
        return escaped(str(origin))
    before = origin.text[max(0, origin.start - CONTEXT) : origin.start]
    after = origin.text[origin.stop : origin.stop + CONTEXT]
    return f"{escaped(before)}<b>{escaped(origin.text[origin.start : origin.stop])}</b>{escaped(after)}"


def escaped(text: str) -> str:
    """Return text on one line, without characters that mean something in HTML or Markdown."""
    return "".join(f"&#{ord(c)};" if c in "&<>\"'|*_`[]\\#~" else c for c in re.sub(r"\s+", " ", text))


def r2_against_l0(A: Tensor, Z: Tensor, D: Tensor, thresholds: int = 64) -> tuple[Tensor, Tensor]:
    """Return mean nonzeros per row and r2 (t,) if only codes with ``|z| ||D_j||`` above a threshold are kept.

    Thresholds are quantiles of the nonzero codes, ascending; the first keeps all.

    >>> Z = torch.tensor([[1.0, 0.0], [2.0, 3.0]])
    >>> l0, r2 = r2_against_l0(Z, Z, torch.eye(2), thresholds=2)
    >>> l0.tolist(), r2.tolist()[0]
    ([1.5, 0.5], 1.0)
    """
    size = Z.abs() * D.norm(dim=1)
    used = size[size > 0]
    if not used.numel():
        used = size.new_zeros(1)
    shares = torch.linspace(0, 1, thresholds, device=Z.device)
    cuts = torch.quantile(used[:: max(1, used.numel() // QUANTILE_NUMBERS)], shares)
    total = (A - A.mean(dim=0)).square().sum().clamp(min=1e-30)
    l0, r2 = [], []
    for cut in cuts:
        kept = Z * (size >= cut)
        l0.append((kept != 0).sum(dim=1).float().mean())
        r2.append(1 - (A - kept @ D).square().sum() / total)
    return torch.stack(l0).cpu(), torch.stack(r2).cpu()
