"""Small networks for the tests of harvesting: built here, no download."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

WORDS = (
    "the", "a", "cat", "dog", "sat", "ran", "on", "under", "mat", "tree", "and", "then", "it", "was", "very",
    "quick", "slow",
)  # fmt: skip


def bert(folder: Path, **options: Any) -> Path:
    """A two-layer BERT with a word-level tokenizer, saved as transformers saves them."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    vocabulary = {word: number for number, word in enumerate([*special, *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]",
        sep_token="[SEP]", model_max_length=64,
    ).save_pretrained(folder)  # fmt: skip
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(vocabulary), hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=32, max_position_embeddings=64, **options,
    )  # fmt: skip
    BertModel(config).save_pretrained(folder)
    return folder


def gpt(folder: Path, layers: int = 2, width: int = 16) -> Path:
    """A two-layer GPT-2 whose tokenizer has neither special tokens nor padding."""
    from transformers import GPT2Config, GPT2Model

    save_plain_tokenizer(folder)
    torch.manual_seed(0)
    GPT2Model(
        GPT2Config(vocab_size=len(WORDS) + 1, n_embd=width, n_layer=layers, n_head=2, n_positions=32)
    ).save_pretrained(folder)
    return folder


def llama(folder: Path) -> Path:
    """A two-layer Llama, whose MLP multiplies a gate and a projection; the tokenizer is that of ``gpt``."""
    from transformers import LlamaConfig, LlamaForCausalLM

    save_plain_tokenizer(folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(WORDS) + 1, hidden_size=16, intermediate_size=24, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=1, max_position_embeddings=32,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def save_plain_tokenizer(folder: Path) -> None:
    """Save a word-level tokenizer without special tokens and padding."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(
        models.WordLevel({word: number for number, word in enumerate(["?", *WORDS])}, unk_token="?")
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=32).save_pretrained(folder)


def texts(count: int, seed: int = 0) -> list[str]:
    generator = np.random.default_rng(seed)
    return [" ".join(generator.choice(WORDS, generator.integers(3, 150))) for _ in range(count)]


class Convolutions(nn.Module):
    """Two convolutions with a ReLU used twice, in place."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 6, 3, stride=4), nn.Conv2d(6, 8, 3)
        self.relu = nn.ReLU(inplace=True)
        self.head = nn.Linear(8, 5)
        self.names = Names()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.relu(self.second(self.relu(self.first(x))))
        self.names(x)
        return self.head(x.mean(dim=(2, 3)))


class Names(nn.Module):
    def forward(self, x: torch.Tensor) -> list[str]:
        return ["no", "tensor"]


def convolutions() -> nn.Module:
    torch.manual_seed(0)
    return Convolutions()


class Doubling(nn.Module):
    """A layer whose width is the length of its input."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner(x.flatten(1))


def doubling() -> nn.Module:
    return Doubling()


def scaled(factor: float = 1.0) -> nn.Module:
    """A linear layer whose activations are large."""
    torch.manual_seed(0)
    layer = nn.Linear(4, 6)
    with torch.no_grad():
        layer.weight.mul_(factor)
    return nn.Sequential(layer)


def pictures(folder: Path, count: int = 8) -> Path:
    from PIL import Image

    generator = np.random.default_rng(0)
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        pixels = generator.integers(0, 255, (40, 48, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:02d}.png")
    return folder


def nothing() -> nn.Module:
    """A network whose one layer changes nothing that is positive."""
    network = nn.Sequential()
    network.add_module("act", nn.ReLU())
    return network
