"""Small networks, and runs of their layers, for the commands that look inside."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_module

from seminmf_lightning import SemiNMF
from seminmf_lightning.cli import concepts, steer
from seminmf_lightning.dictionary_file import save_dictionary

tiny = pytest.importorskip("tiny_networks")
transformers = pytest.importorskip("transformers")
WIDTH, K, TEXT = 16, 24, "the cat, sat on"


def run(name: str, folder: Path, *overrides: str) -> dict[str, Any]:
    """Call a command with its config."""
    with initialize_config_module("seminmf_lightning.configs", version_base="1.3"):
        cfg = compose(name, [f"run={folder}", "device=cpu", *overrides])
    return {"concepts": concepts, "steer": steer}[name].main(cfg)


def run_of(folder: Path, network: dict[str, Any] | None, width: int = WIDTH, **settings: Any) -> Path:
    """Save a dictionary of random rows as that of a network's layer."""
    A = 0.02 * torch.randn(300, width, generator=torch.Generator().manual_seed(0))  # as initial weights give
    model = SemiNMF(nb_concepts=K, **{"l1_penalty": 0.1, "normalize": "scale"} | settings)
    model.fit(A, max_iter=3)
    config = model.settings | ({} if network is None else {"network": network})
    save_dictionary(folder / "dictionary.safetensors", model.get_dictionary(), model.normalizer, config,
                    model.effort)  # fmt: skip
    return folder


def origin(path: Path, layer: str, kind: str = "text", **model: str) -> dict[str, Any]:
    """What a harvest of an ``AutoModel`` records."""
    from seminmf_lightning.core.discovery import build
    from seminmf_lightning.harvest.models import Model

    loaded = build(Model, {"name": "transformers", "path": str(path)} | model).load(kind)
    return {"model": loaded.description, "layer": layer}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Networks with their runs."""
    folder = tmp_path_factory.mktemp("inside")
    tiny.llama(folder / "llama")
    tiny.bert(folder / "bert")
    torch.manual_seed(0)
    config = transformers.GPT2Config(vocab_size=18, n_embd=WIDTH, n_layer=2, n_head=2, n_positions=32,
                                     bos_token_id=0, eos_token_id=0)  # fmt: skip
    transformers.GPT2LMHeadModel(config).save_pretrained(folder / "gpt2")
    tiny.save_plain_tokenizer(folder / "gpt2")
    run_of(folder / "of_llama", origin(folder / "llama", "layers.0"), nonnegative="none")
    run_of(folder / "of_gpt2", origin(folder / "gpt2", "h.0"))
    run_of(folder / "of_bert", origin(folder / "bert", "encoder.layer.0"))
    return folder


def language_model(home: Path, name: str) -> Any:
    return transformers.AutoModelForCausalLM.from_pretrained(home / name).eval()
