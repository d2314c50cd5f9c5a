"""The model card of a dictionary on the Hugging Face Hub.

Text from outside (names, values, what the rows are) appears literally: its HTML and Markdown have no effect.
"""

from __future__ import annotations

import hashlib
import html
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard, ModelCardData

from seminmf_lightning.estimator import SemiNMF
from seminmf_lightning.metrics import described

TEMPLATE = Path(__file__).with_name("model_card.md")
SPECIAL = re.compile(r"[\\`*\[\]|~:@$]|(?<![^\W_])_|_(?![^\W_])|(?<!\d)\.(?=\w)")
"""Characters of Markdown; not an underscore inside a word, nor a full stop after one or inside a number."""

KNOWN_AS = {
    "dictionary": 'semi-nonnegative matrix factorisation (Ding, Li & Jordan, "Convex and Semi-Nonnegative '
    'Matrix Factorizations", TPAMI 32(1), 2010)',
    "codes": "semi-nonnegative matrix factorisation with the signs of sparse autoencoders",
    "both": 'nonnegative matrix factorisation (Lee & Seung, "Learning the parts of objects by non-negative '
    'matrix factorization", Nature 401, 1999)',
    "none": "dictionary learning",
}
"""What each value of ``nonnegative`` is called."""


def model_card(
    data: ModelCardData, model: SemiNMF, metrics: Mapping[str, Any] | None, rows: str | None
) -> ModelCard:
    """Return the card of a fitted model.

    Args:
        data: library and tags, for the Hub.
        model: its dictionary, normaliser and settings are described.
        metrics: as in ``metrics.json``; None if nothing was measured.
        rows: what the activations are, in words.
    """
    D, settings, signs = model.get_dictionary(), model.settings, model.recipe.constraint
    card = ModelCard.from_template(
        data, template_path=str(TEMPLATE), concepts=D.shape[0], features=D.shape[1],
        rows="" if rows is None else f": {literal(rows)}",
        l1_penalty=f"{settings['l1_penalty']:.6g}", bounded=model.recipe.bounded,
        signs=str(signs), known_as=KNOWN_AS[signs.name], nonnegative_atoms=signs.nonnegative_atoms,
        nonnegative_codes=signs.nonnegative_codes,
        encoder=settings["encoder"]["name"],
        scale=f"{model.normalizer.scale:.6g}", centred=model.normalizer.mean is not None,
        metrics=[[literal(cell) for cell in row] for row in described(metrics or {})],
        # Each line is indented or a brace, so that none can close the code block.
        settings=json.dumps(settings, indent=2),
    )  # fmt: skip
    card.text = f"{card.text}\n{_signature(str(card))}\n"
    return card


def is_unedited(text: str) -> bool:
    """Whether a card is still as :func:`model_card` wrote it."""
    words, _, end = text.rpartition("\n<!--")
    return f"<!--{end}" == f"{_signature(words)}\n"


def literal(text: object) -> str:
    """Escape ``text`` to one line that Markdown and HTML show as it stands; names and numbers stay readable.

    >>> literal("dead_fraction 0.5 <b>*x*</b>")
    'dead_fraction 0.5 &lt;b&gt;&#42;x&#42;&lt;/b&gt;'
    """
    escaped = html.escape(" ".join(str(text).split()))
    return SPECIAL.sub(lambda match: f"&#{ord(match[0])};", escaped)


def _signature(text: str) -> str:
    return f"<!-- made by seminmf_lightning {hashlib.sha256(text.encode()).hexdigest()} -->"
