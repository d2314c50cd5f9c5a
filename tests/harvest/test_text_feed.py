"""Windows of texts: typed special tokens are no rows, long texts give the windows of the whole."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_networks as tiny
from harvests import CPU, all_rows, text_recipe

from seminmf_lightning.harvest import text_feed
from seminmf_lightning.harvest.inputs import Unreadable
from seminmf_lightning.harvest.text_feed import TextFeed

pytest.importorskip("transformers")
SENTENCES = (
    "the cat sat, and then",
    "Übergrößen 数学 naïve",
    "it was very  quick\n\n",
    "🙂🙂 dog-tree!",
    "under_the mat ...",
)


def byte_level(folder: Path) -> Any:
    """A byte-level BPE, as of GPT-2."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder, tokenizer.post_processor = (
        decoders.ByteLevel(),
        processors.ByteLevel(trim_offsets=False),
    )
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=350, special_tokens=["<end>"], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator([" ".join(SENTENCES)] * 9, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>", unk_token="<end>")


def bert(folder: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(tiny.bert(folder / "bert"))


def metaspace(folder: Path) -> Any:
    """A unigram model with spaces as part of words, as of T5."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace("  ", " ")])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=120, special_tokens=["</s>", "<unk>"], unk_token="<unk>", show_progress=False
    )
    tokenizer.train_from_iterator([" ".join(SENTENCES)] * 9, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 0)])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>", unk_token="<unk>")


@pytest.mark.parametrize("make", [byte_level, bert, metaspace])
def test_a_text_in_chunks_gives_the_windows_of_the_whole(
    make: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    feed = TextFeed(make(tmp_path), 17)
    text = " ".join(np.random.default_rng(4).choice(SENTENCES, 900))
    whole = feed.items(3, text)
    monkeypatch.setattr(text_feed, "CHUNK", 2000)
    monkeypatch.setattr(text_feed, "OVERLAP", 400)
    chunked = feed.items(3, text)
    assert len(chunked) == len(whole) > 100
    for a, b in zip(whole, chunked, strict=True):
        assert (a.window, a.inputs["input_ids"].tolist()) == (b.window, b.inputs["input_ids"].tolist())
        assert (
            a.special.tolist() == b.special.tolist()
            and a.spans[~a.special].tolist() == b.spans[~b.special].tolist()
        )


def test_equal_bytes_of_one_character_are_all_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_feed, "CHUNK", 2000)
    monkeypatch.setattr(text_feed, "OVERLAP", 200)
    feed = TextFeed(byte_level(tmp_path), 32)
    generator = np.random.default_rng(0)
    # The last two bytes of this goat are equal: two tokens with one number and one span.
    text = " ".join("\U0001f410" * count for count in generator.integers(1, 9, 2500))
    tokens = np.concatenate([item.inputs["input_ids"].numpy() for item in feed.items(0, text)])
    monkeypatch.setattr(text_feed, "CHUNK", 10**9)
    whole = np.concatenate([item.inputs["input_ids"].numpy() for item in feed.items(0, text)])
    assert np.array_equal(tokens, whole)


def test_a_text_without_end_or_borders_still_comes_in_chunks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(text_feed, "CHUNK", 1000)
    monkeypatch.setattr(text_feed, "OVERLAP", 100)
    items = TextFeed(bert(tmp_path), 9).items(0, "x" * 5000)  # one unknown word
    assert items[0].tokens == 9 or len(items) == 1
    assert TextFeed(bert(tmp_path), 9).items(0, " " * 5000)[0].tokens <= 2


@pytest.mark.parametrize("typed", ["[SEP]", "[CLS]", "[PAD]", "[UNK]"])
def test_typed_special_tokens_are_no_rows_but_unknown_words_are(typed: str, tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text(f"{typed} the zebra ran {typed} a cat\n{typed}")
    folder = tiny.bert(tmp_path / "bert")
    rows = all_rows(text_recipe(folder, tmp_path / "t.txt").harvester(CPU))["encoder.layer.1"]
    text = (tmp_path / "t.txt").read_text()
    shown = [text[a:b] for a, b in zip(rows.origin["start"], rows.origin["stop"], strict=True)]
    assert shown == ["the", "zebra", "ran", "a", "cat"]


def test_half_a_surrogate_pair_is_named(tmp_path: Path) -> None:
    with pytest.raises(Unreadable, match="unpaired surrogate at character 4"):
        TextFeed(bert(tmp_path), 9).items(0, "cat \udc80 dog")
