"""The card of a dictionary: what it states, and that no text in it has an effect."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

pytest.importorskip("huggingface_hub", minversion="1.0", reason="the extra hub is not installed")
from huggingface_hub import ModelCard

from seminmf_lightning.integrations.hub import HubSemiNMF
from seminmf_lightning.integrations.model_card import literal
from seminmf_lightning.metrics import MEANINGS

METRICS = {
    "reconstruction_loss": 0.03125,
    "r2": 0.75,
    "l0": 3.5,
    "dead_fraction": 0.125,
    "optimality_gap": None,
}


def test_the_card_states_metrics_shapes_and_equation(signed: torch.Tensor, tmp_path: Path) -> None:
    model = HubSemiNMF(8, solver="hals")
    model.fit(signed, max_iter=5)
    model.metrics = METRICS
    model.save_pretrained(tmp_path / "m", model_card_kwargs={"rows": "layer 3"})
    card = ModelCard.load(tmp_path / "m" / "README.md")
    assert card.data.library_name == "seminmf_lightning"
    assert "semi-nmf" in card.data.tags
    for text in ("activations: layer 3", "(8, 24)", "min_z", "HubSemiNMF.from_pretrained", "l1_penalty = 0`"):
        assert text in card.text
    shown = {
        "reconstruction_loss": "0.03125",
        "r2": "0.75",
        "l0": "3.5",
        "dead_fraction": "0.125",
        "optimality_gap": "-",
    }
    for name, value in shown.items():
        assert f"| {name} | {value} | {MEANINGS[name]} |" in card.text
    again = HubSemiNMF.from_pretrained(tmp_path / "m")
    assert again.metrics == METRICS  # they go on with the dictionary, and no further than it
    again.fit(signed, max_iter=1)
    assert again.metrics is None
    again.save_pretrained(tmp_path / "m")
    assert HubSemiNMF.load(tmp_path / "m").metrics is None
    with pytest.raises(TypeError, match="layer"):
        again.save_pretrained(tmp_path / "n", model_card_kwargs={"layer": 3})


def test_special_characters_have_no_effect(signed: torch.Tensor, tmp_path: Path) -> None:
    markdown_it = pytest.importorskip(
        "markdown_it", reason="markdown-it-py, which rich brings, renders the card here"
    )
    nasty = '<script>alert("1")</script> **b** _e_ __s__ `c` | x\n\n# h [l](http://a.b) {{ 7 * 7 }} $x$'
    nasty += " ~~d~~ www.a.b"
    model = HubSemiNMF(2, solver="hals")
    model.fit(signed, max_iter=1)
    model.settings = model.settings | {"note": f"```\n{nasty}\n```\n"}
    model.metrics = {nasty: nasty, "dead_fraction": 0.5, "r2": float("nan")}
    model.save_pretrained(tmp_path / "m", model_card_kwargs={"rows": nasty})
    text = ModelCard.load(tmp_path / "m" / "README.md").text
    assert "<script" not in text.partition("## Settings")[0]
    tokens = (
        markdown_it.MarkdownIt("gfm-like", {"linkify": False}).enable(["table", "strikethrough"]).parse(text)
    )
    inline = [child.type for token in tokens for child in token.children or ()]
    assert set(inline) <= {"text", "softbreak", "code_inline"}  # no tag, link, emphasis
    assert sum(token.type == "fence" for token in tokens) == 2
    assert [token.tag for token in tokens].count("h1") == 2  # opened and closed
    shown = [
        "".join(child.content for child in token.children or ()) for token in tokens if token.type == "inline"
    ]
    flat = " ".join(nasty.split())
    assert shown.count(flat) == 2  # name and value, each in a cell of its own, as they stand
    assert f"activations: {flat}" in shown
    assert "www." not in text.partition("## Settings")[0]
    assert literal("dead_fraction 0.125 -1e-05") == "dead_fraction 0.125 -1e-05"
