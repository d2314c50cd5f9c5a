"""TensorBoard while it trains: what the strongest concepts fire on, the atoms in the projector, r2 against
nonzeros."""

from __future__ import annotations

import re
from typing import Any

import lightning
import numpy as np
import torch
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor

from seminmf_lightning.core.checks import whole_number
from seminmf_lightning.explain.provenance import Harvested, Origins, network_view, origins_of
from seminmf_lightning.explain.strongest import ConceptSums, Top, TopExamples
from seminmf_lightning.harvest.provenance import PatchOrigin, TokenOrigin, Tracer
from seminmf_lightning.training.callbacks.standard import tensorboards
from seminmf_lightning.training.module import SemiNMFModule

THRESHOLDS = 64
CELL = 150
"""Pixels of a photograph and its margin."""
PROJECTOR_NUMBERS = 2**23
"""Numbers of a dictionary beyond which the projector, which reads text, is not fed."""
AROUND = 60
QUANTILE_NUMBERS = 2**20
"""Codes that quantiles are taken of."""


class Gallery(lightning.Callback):
    """At validations: pictures or texts of the concepts of most energy, and r2 against l0; at the end: the
    projector.

    Pictures and texts need ``data=shards``, whose rows know where they come from; other data gives the curve
    and the atoms.

    Args:
        every_n_steps: least number of steps between two galleries.
        concepts: shown at once.
        examples: of each sign.
        rows: held-out rows that are looked at.
    """

    def __init__(
        self, every_n_steps: int = 200, concepts: int = 8, examples: int = 4, rows: int = 4096
    ) -> None:
        self.every_n_steps = whole_number("every_n_steps", every_n_steps, 1)
        self.concepts = whole_number("concepts", concepts, 1)
        self.examples = whole_number("examples", examples, 1)
        self.rows = whole_number("rows", rows, 1)
        self._last: int | None = None
        self._origins: Origins | None = None

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        assert isinstance(pl_module, SemiNMFModule)
        step = pl_module.global_step
        due = self._last is None or step - self._last >= self.every_n_steps
        writers = (
            list(tensorboards(trainer))
            if due and trainer.state.fn == "fit" and not trainer.sanity_checking
            else []
        )
        data: Any = getattr(trainer, "datamodule", None)
        if not writers or data is None:
            return
        self._last = step
        A, numbers = self._held_out(data, pl_module)
        Z = pl_module.encode(A).float()
        l0, r2 = r2_against_l0(pl_module.normalizer.apply(A).to(Z), Z, pl_module.dictionary.detach().to(Z))
        for writer in writers:
            zeros = torch.zeros(len(l0))
            # The plugin's axes are recall and precision: here l0 as a share of the concepts, and r2.
            writer.add_pr_curve_raw(
                "val/r2_against_share_of_concepts",
                zeros,
                zeros,
                zeros,
                zeros,
                r2.clamp(0, 1),
                l0 / Z.shape[1],
                step,
                len(l0),
            )
        origins = self._origins_of(data)
        if numbers is None or not isinstance(origins, Harvested):
            return
        shown, poles = self._strongest(Z, numbers, origins, pl_module.dictionary.detach())
        tracer = origins.tracer
        for writer in writers:
            if isinstance(tracer.origin(int(numbers[0])), PatchOrigin):
                picture = self._pictures(shown, poles, tracer, data, pl_module)
                writer.add_image("val/top_concepts", picture, step, dataformats="HWC")
            else:
                writer.add_text("val/top_concepts", texts(shown, poles, tracer), step)

    def on_train_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        assert isinstance(pl_module, SemiNMFModule)
        D = pl_module.dictionary.detach().float().cpu()
        for writer in tensorboards(trainer):
            if D.numel() > PROJECTOR_NUMBERS:
                rank_zero_info(
                    f"the dictionary of {D.numel():,} numbers is too large for TensorBoard's projector"
                )
                return
            labels = [[str(concept), str(int(feature))] for concept, feature in enumerate(D.argmax(dim=1))]
            writer.add_embedding(
                D, metadata=labels, metadata_header=["concept", "strongest feature"], tag="dictionary",
                global_step=pl_module.global_step,
            )  # fmt: skip

    def _held_out(self, data: Any, module: SemiNMFModule) -> tuple[Tensor, np.ndarray | None]:
        if getattr(data, "val_rows", None) is None:
            return data.held_out_sample(self.rows).to(module.device), None
        numbers = data.val_rows.rows(np.arange(min(self.rows, len(data.val_rows))))
        A, left = data.usable(data.source.read(numbers), torch.from_numpy(numbers))
        return A.to(module.device), left.numpy()

    def _origins_of(self, data: Any) -> Origins | None:
        if self._origins is None and getattr(data, "val_rows", None) is not None:
            self._origins = origins_of(data.source)
        return self._origins

    def _strongest(
        self, Z: Tensor, numbers: np.ndarray, origins: Origins, D: Tensor
    ) -> tuple[list[int], tuple[Top, Top]]:
        """The concepts of most energy, and the strongest rows of all."""
        sums, top = ConceptSums(Z.shape[1]), TopExamples(Z.shape[1], self.examples)
        sums.update(Z)
        groups = np.concatenate([origins.groups(row, row + 1) for row in numbers.tolist()])
        top.update(Z, torch.from_numpy(numbers).to(Z.device), torch.from_numpy(groups).to(Z.device))
        energy = sums.squares * D.cpu().double().square().sum(dim=1)
        return energy.argsort(descending=True)[: self.concepts].tolist(), top.signs()

    def _pictures(
        self, shown: list[int], poles: tuple[Top, Top], tracer: Tracer, data: Any, module: SemiNMFModule
    ) -> np.ndarray:
        """A row of photographs a concept: its positive pole on the left, its negative on the right (h, w,
        3)."""
        from PIL import Image, ImageDraw

        sheet = Image.new("RGB", (2 * self.examples * CELL, len(shown) * CELL), "white")
        for line, concept in enumerate(shown):
            for pole, top in enumerate(poles):
                for place, row in enumerate(top.row_ids[concept].tolist()):
                    if row < 0:
                        continue
                    origin = tracer.origin(row)
                    assert isinstance(origin, PatchOrigin)
                    rows = tracer.neighbours(row)
                    A = data.source.read_range(rows.start, rows.stop).nan_to_num(
                        0, 0, 0
                    )  # a row left out has no colour
                    codes = module.encode(A.to(module.device))[:, concept]
                    small = heat(
                        network_view(tracer.image(origin), origin.region), origin, tracer, rows, codes.cpu().numpy()
                    )
                    left = (pole * self.examples + place) * CELL
                    sheet.paste(small, (left, line * CELL))
            pen = ImageDraw.Draw(sheet)
            pen.text(
                (2, line * CELL + 2), f"concept {concept}", fill="black", stroke_width=2, stroke_fill="white"
            )
        return np.asarray(sheet)


def heat(picture: Any, origin: PatchOrigin, tracer: Tracer, rows: range, codes: np.ndarray) -> Any:
    """Codes (len(rows),) of the patches of a picture laid over it: red above zero, blue below, stronger with
    size."""
    from PIL import Image, ImageDraw

    _, _, height, width = origin.cell
    if height < 1:
        return picture
    layer = Image.new("RGBA", picture.size, (0, 0, 0, 0))
    pen, largest = ImageDraw.Draw(layer), max(float(np.abs(codes).max()), 1e-12)
    for row, code in zip(rows, codes.tolist(), strict=True):
        place = tracer.origin(row)
        assert isinstance(place, PatchOrigin)
        y, x = place.cell[:2]
        if y < 0 or code == 0:
            continue
        colour = (214, 39, 40) if code > 0 else (31, 119, 180)
        box = (x * picture.width // width, y * picture.height // height)
        end = ((x + 1) * picture.width // width - 1, (y + 1) * picture.height // height - 1)
        pen.rectangle((*box, *end), fill=(*colour, int(190 * abs(code) / largest)))
    return Image.alpha_composite(picture.convert("RGBA"), layer).convert("RGB")


def texts(shown: list[int], poles: tuple[Top, Top], tracer: Tracer) -> str:
    """A Markdown table: for each concept the tokens of both poles in their sentences."""
    lines = ["| concept | z | sentence |", "|---|---|---|"]
    for concept in shown:
        for sign, top in zip((1, -1), poles, strict=True):
            for value, row in zip(top.values[concept].tolist(), top.row_ids[concept].tolist(), strict=True):
                origin = tracer.origin(row) if row >= 0 else None
                if isinstance(origin, TokenOrigin):
                    lines.append(f"| {concept} | {sign * value:.3g} | {sentence(origin)} |")
    return "\n".join(lines)


def sentence(origin: TokenOrigin) -> str:
    """A token in bold with what stands around it, harmless in a Markdown table."""
    if origin.start < 0:
        return plain(str(origin))
    before = origin.text[max(0, origin.start - AROUND) : origin.start]
    after = origin.text[origin.stop : origin.stop + AROUND]
    return f"{plain(before)}<b>{plain(origin.text[origin.start : origin.stop])}</b>{plain(after)}"


def plain(text: str) -> str:
    """Text on one line without a character that HTML or Markdown gives a meaning to."""
    return "".join(f"&#{ord(c)};" if c in "&<>\"'|*_`[]\\#~" else c for c in re.sub(r"\s+", " ", text))


def r2_against_l0(A: Tensor, Z: Tensor, D: Tensor, thresholds: int = THRESHOLDS) -> tuple[Tensor, Tensor]:
    """Mean nonzeros a row and r2 when only codes with ``|z| ||D_j||`` above a threshold are kept (t,),
    sparsest last.

    Thresholds are quantiles of the codes that are not zero; the first keeps all of them.
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
