"""The text that goes with a dictionary on the Hugging Face Hub.

Whatever was not written here is shown as it stands: special characters of HTML and Markdown have no effect.
"""

from __future__ import annotations

import hashlib
import html
import json
import re
from collections.abc import Mapping
from typing import Any

from huggingface_hub import ModelCard, ModelCardData

from seminmf_lightning.metrics import described

SPECIAL = re.compile(r"[\\`*\[\]|~:@$]|(?<![^\W_])_|_(?![^\W_])|(?<!\d)\.(?=\w)")
"""Not an underscore within a word, nor a full stop that ends one or is part of a number."""

TEMPLATE = """\
---
{{ card_data }}
---

# {{ concepts }} nonnegative concepts of {{ features }} features

`A ~ Z D` with `D >= 0` and `Z` free in sign: semi-nonnegative matrix factorisation (Ding, Li & Jordan, "Convex and
Semi-Nonnegative Matrix Factorizations", TPAMI 32(1), 2010) of activations, made with `seminmf_lightning`.

| | shape | |
|---|---|---|
| `A` | (n, {{ features }}) | activations{{ rows }} |
| `Z` | (n, {{ concepts }}) | codes |
| `D` | ({{ concepts }}, {{ features }}) | dictionary |

    minimise over D >= 0    (1/n) sum_i  min_z  1/2 ||a_i - z D||^2 + l1_penalty ||z||_1

with `l1_penalty = {{ l1_penalty }}`{{ bound }}, in normalised units, `(a - mean) / scale` with `scale = {{ scale }}` and
{{ mean }}. Hence `a ~ scale * (z D) + mean`. The codes are those of the encoder `{{ encoder }}`, its settings below.

## How to load it

    pip install 'seminmf-lightning[hub]'

```python
from seminmf_lightning.integrations.hub import HubSemiNMF

model = HubSemiNMF.from_pretrained("owner/name")  # this repository, or a folder that holds its files
Z = model.encode(A)  # codes of rows A in the data's own units
A_hat = model.decode(Z)
D = model.get_dictionary()
```

Without the library: tensors `D`, `scale` and `mean` are in `dictionary.safetensors`.

## Figures

{{ figures }}

## Settings

```json
{{ settings }}
```
"""


def model_card(
    data: ModelCardData,
    *,
    shape: tuple[int, int],
    scale: float,
    centred: bool,
    bounded: bool,
    settings: Mapping[str, Any],
    figures: Mapping[str, Any] | None,
    rows: str | None,
) -> ModelCard:
    """The card of a dictionary.

    Args:
        data: what the Hub reads: library and tags.
        shape: k, d.
        scale, centred: of the normaliser: its scale in data units, and whether it takes a mean off.
        bounded: whether atoms have ``||D_j||_2 <= 1``.
        settings: how it was learned, written as JSON.
        figures: as in ``metrics.json``; None where nothing was measured.
        rows: what the activations are, in words.
    """
    card = ModelCard.from_template(
        data, template_str=TEMPLATE,
        concepts=shape[0], features=shape[1],
        rows="" if rows is None else f": {literal(rows)}",
        l1_penalty=f"{settings['l1_penalty']:.6g}",
        bound=" and `||D_j||_2 <= 1` for every atom" if bounded else "",
        scale=f"{scale:.6g}",
        encoder=settings["encoder"]["name"],
        mean="`mean` the mean of the rows" if centred else "`mean = 0`",
        figures=_table(figures) if figures else "None was measured.",
        # lines are indented or a brace, so that none can close the block
        settings=json.dumps(dict(settings), indent=2),
    )  # fmt: skip
    card.text = f"{card.text}\n{_mark(str(card))}\n"
    return card


def is_as_written(text: str) -> bool:
    """Whether nobody has changed a word of a card since :func:`model_card` made it."""
    words, _, end = text.rpartition("\n<!--")
    return f"<!--{end}" == f"{_mark(words)}\n"


def _mark(text: str) -> str:
    return f"<!-- made by seminmf_lightning {hashlib.sha256(text.encode()).hexdigest()} -->"


def literal(text: object) -> str:
    """``text`` on one line and within a line, such that HTML and Markdown show it as it stands: no tag,
    emphasis, link, formula or new cell of a table.  Names and numbers stay readable."""
    escaped = html.escape(" ".join(str(text).split()))
    return SPECIAL.sub(lambda found: f"&#{ord(found[0])};", escaped)


def _table(figures: Mapping[str, Any]) -> str:
    lines = [f"| {' | '.join(map(literal, row))} |" for row in described(figures)]
    return "\n".join(["| figure | value | meaning |", "|---|---|---|", *lines])
