"""Files of a model choose neither code nor device."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import tiny_networks as tiny
from harvests import CPU, all_rows, text_recipe

from seminmf_lightning.core.discovery import build
from seminmf_lightning.harvest import HarvestRecipe
from seminmf_lightning.harvest.models import Model

pytest.importorskip("transformers")
CODE = "open({ran!r}, 'w').close()\nfrom transformers import {classes}\n"


def change(file: Path, **keys: object) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | keys))


@pytest.mark.parametrize("part", ["config.json", "tokenizer_config.json"])
def test_code_of_a_model_folder_is_refused_by_name_and_never_run(
    part: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, ran = tiny.bert(tmp_path / "bert"), tmp_path / "ran"
    classes = "BertConfig as C, BertModel as M, PreTrainedTokenizerFast as T"
    (folder / "own.py").write_text(CODE.format(ran=str(ran), classes=classes))
    if part == "config.json":
        change(folder / part, model_type="own", auto_map={"AutoConfig": "own.C", "AutoModel": "own.M"})
    else:
        change(folder / part, tokenizer_class="OwnTokenizer", auto_map={"AutoTokenizer": [None, "own.T"]})
    monkeypatch.setattr("builtins.input", lambda *text: "y")
    model = {"name": "transformers", "path": str(folder)}
    try:
        build(Model, model).load("text")
    except ValueError as error:
        refusal = str(error)
    else:  # a known tokenizer needs no code
        refusal = "model.trust_remote_code=true" if part != "config.json" else "loaded"
    assert "model.trust_remote_code=true" in refusal
    assert not ran.exists()


def test_a_device_in_a_downloaded_file_is_not_obeyed(tmp_path: Path) -> None:
    from transformers import ViTConfig, ViTImageProcessor, ViTModel

    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    folder = tmp_path / "vit"
    ViTModel(ViTConfig(**sizes, image_size=32, patch_size=8)).save_pretrained(folder)
    ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)
    change(folder / "preprocessor_config.json", device="meta")
    change(folder / "config.json", device_map="meta", device="meta")
    inputs = {"name": "images", "path": str(tiny.pictures(tmp_path / "images", 3))}
    recipe = HarvestRecipe({"name": "transformers", "path": str(folder)}, inputs, "layers.0")
    (rows,) = all_rows(recipe.harvester(CPU)).values()
    assert rows.values.device == CPU and rows.values.isfinite().all()


def test_a_window_beyond_the_limit_is_refused(tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text("the cat")
    recipe = text_recipe(tiny.bert(tmp_path / "bert"), tmp_path / "t.txt")
    model = {"name": "transformers", "path": str(tmp_path / "bert"), "max_length": 65}
    with pytest.raises(ValueError, match=r"model\.max_length=65 is more than the 64 tokens"):
        build(Model, model).load("text")
    assert recipe.loaded.feed.max_length == 64
