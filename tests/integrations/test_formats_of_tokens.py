"""Formats that show tokens, read back: every activation lies on the token that it comes from."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import numpy as np
import pytest
import tiny_networks as tiny
import torch
from harvests import image_recipe, job, text_recipe
from safetensors.numpy import load_file

from seminmf_lightning import SemiNMF
from seminmf_lightning.harvest import Store
from seminmf_lightning.harvest.provenance import TokenOrigin, Tracer
from seminmf_lightning.integrations.token_windows import token_windows

pytest.importorskip("transformers")
LAYER = "encoder.layer.1"


@pytest.fixture
def harvested(tmp_path: Path) -> Path:
    """A harvest of texts of several windows each, in several shards."""
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    for number, text in enumerate(tiny.texts(12)):
        (corpus / f"{number:02d}.txt").write_text(text + " emoji 😀 and unknownword\n")
    job(text_recipe(tiny.bert(tmp_path / "bert"), corpus), tmp_path / "store", shard_mb=0.01).run()
    return tmp_path / "store"


@pytest.fixture
def run(harvested: Path, tmp_path: Path) -> tuple[Path, torch.Tensor]:
    """A run on it, and its exact features (n, 16)."""
    from seminmf_lightning.data.sources.shards import HarvestedRows

    source = HarvestedRows(str(harvested))
    A = source.read_range(0, len(source))
    model = SemiNMF(nb_concepts=8, l1_penalty=0.2, normalize="center")
    Z = model.fit(A, max_iter=3)[0]
    model.save(tmp_path / "run" / "dictionary.safetensors")
    return tmp_path / "run", torch.cat([Z.clamp(min=0), (-Z).clamp(min=0)], dim=1)


def test_windows_are_those_of_the_harvest(harvested: Path) -> None:
    assert len(list((harvested / "encoder.layer.1").glob("*.safetensors"))) > 1
    windows, tracer = token_windows(str(harvested), LAYER), Tracer(Store(harvested))
    assert len(windows.window) == len(tracer) and len(windows.tokens) > 12
    assert windows.tokens.shape[1] == 64 and (windows.lengths <= 64).all()
    for row in range(0, len(tracer), 7):
        origin, window = tracer.origin(row), int(windows.window[row])
        assert isinstance(origin, TokenOrigin) and row in windows.rows_of(window)
        text = origin.text[origin.start : origin.stop]
        assert windows.strings(window)[windows.position[row]].strip() == text
    strings = windows.strings(0)
    assert strings[0] == "[CLS]" and strings[-1] == "[SEP]"
    assert "".join(strings[1:-1]) in windows.texts[0]


def test_delphi_reads_every_nonzero_at_its_token(
    run: tuple[Path, torch.Tensor], harvested: Path, command
) -> None:
    folder, F = run
    command(
        "export", f"run={folder}", "format=delphi", "format.splits=3", "data=shards",
        f"data.path={harvested}", "device=cpu", "batch_rows=100",
    )  # fmt: skip
    module, windows = folder / "delphi" / LAYER, token_windows(str(harvested), LAYER)
    dense = np.zeros((*windows.tokens.shape, 16), dtype=np.float32)
    bounds = []
    for file in sorted(module.glob("*.safetensors"), key=lambda path: int(path.stem.split("_")[0])):
        first, last = map(int, file.stem.split("_"))
        bounds.append((first, last))
        content = load_file(file)
        assert content["locations"].dtype == np.uint16 and content["activations"].dtype == np.float16
        assert np.array_equal(content["tokens"], windows.tokens)
        batch, position, latent = content["locations"].astype(int).T
        assert latent.max(initial=0) <= last - first
        dense[batch, position, latent + first] = content["activations"]
    assert bounds == [(0, 4), (5, 9), (10, 15)]
    expected = np.zeros_like(dense)
    expected[windows.window, windows.position] = F.numpy()
    assert np.allclose(dense, expected, atol=2e-3) and (dense > 0).sum() == (F > 1e-5).sum()
    config = json.loads((module / "config.json").read_text())
    assert config["cache_ctx_len"] == 64 and config["n_tokens"] == windows.tokens.size


def test_neuronpedia_shows_the_strongest_windows_of_each_feature(
    run: tuple[Path, torch.Tensor], harvested: Path, command
) -> None:
    folder, F = run
    command(
        "export", f"run={folder}", "format=neuronpedia", "format.features_per_batch=6", "format.examples=3",
        "format.context=4", "format.model_id=tiny", "data=shards", f"data.path={harvested}", "device=cpu",
    )  # fmt: skip
    batches = [
        json.loads((folder / "neuronpedia" / f"batch-{number}.json").read_text()) for number in range(3)
    ]
    assert [len(batch["features"]) for batch in batches] == [6, 6, 4]
    assert all(batch["model_id"] == "tiny" and batch["layer"] == 1 for batch in batches)
    windows, model = token_windows(str(harvested), LAYER), SemiNMF.load(folder)
    best = np.zeros((len(windows.tokens), 16))
    np.maximum.at(best, windows.window, F.numpy())
    features = [feature for batch in batches for feature in batch["features"]]
    assert [feature["feature_index"] for feature in features] == list(range(16))
    for index, feature in enumerate(features):
        column = F[:, index]
        assert abs(feature["frac_nonzero"] - float((column > 0).float().mean())) < 1e-6
        assert sum(feature["freq_hist_data_bar_heights"]) == int((column > 0).sum())
        atom = model.normalizer.scale * model.get_dictionary()[index % 8] * (1 - 2 * (index > 7))
        assert np.allclose(feature["vector"], atom, rtol=1e-3, atol=1e-6)
        expected = sorted(best[:, index][best[:, index] > 0], reverse=True)[:3]
        shown = [max(one["values"]) for one in feature["activations"]]
        assert np.allclose(shown, expected, rtol=1e-3)
        for one in feature["activations"]:
            assert len(one["tokens"]) == len(one["values"]) <= 9
            assert one["values"][one["qualifying_token_index"]] == max(one["values"])
            assert any("".join(one["tokens"]).strip("[SEP]CL ") in text for text in windows.texts)


def test_rows_without_tokens_are_refused(
    run: tuple[Path, torch.Tensor], npy: Path, tmp_path: Path, command, capsys: pytest.CaptureFixture[str]
) -> None:
    model = SemiNMF(nb_concepts=3)
    model.fit(np.load(npy), max_iter=2)
    model.save(tmp_path / "other" / "dictionary.safetensors")
    with pytest.raises(SystemExit):
        command("export", f"run={tmp_path}/other", "format=delphi", "data=npy", f"data.path={npy}")
    assert "only rows of a harvest know: give data=shards data.path=HARVEST" in capsys.readouterr().err


@pytest.mark.parametrize(("words", "message"), [
    (("format=delphi", "format.splits=17"), "format.splits=17 is more than the 16 features; lower it"),
    (("format=neuronpedia",), "the run does not say which model: give format.model_id=gpt2-small"),
    (("format=saelens", "output={run}", "overwrite=true"), "holds the run, or this folder; choose another"),
    (("format=saelens", "output={run}/..", "overwrite=true"), "holds the run, or this folder"),
])  # fmt: skip
def test_exports_that_would_be_wrong_or_lose_the_run(
    run: tuple[Path, torch.Tensor], harvested: Path, command, words: tuple[str, ...], message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    folder = run[0]
    with pytest.raises(SystemExit):
        command("export", f"run={folder}", *(word.format(run=folder) for word in words), "data=shards",
                f"data.path={harvested}", "device=cpu")  # fmt: skip
    assert message in capsys.readouterr().err
    assert [path.name for path in folder.iterdir()] == ["dictionary.safetensors"]


def test_activations_beyond_half_precision_are_refused(
    harvested: Path, tmp_path: Path, command, capsys: pytest.CaptureFixture[str]
) -> None:
    SemiNMF.from_dictionary(1e-7 * torch.eye(16)).save(tmp_path / "tiny" / "dictionary.safetensors")
    with pytest.raises(SystemExit):
        command("export", f"run={tmp_path}/tiny", "format=delphi", "data=shards", f"data.path={harvested}",
                "device=cpu")  # fmt: skip
    assert "but Delphi keeps activations in float16, up to 65504" in capsys.readouterr().err


def test_rows_of_another_layer_are_said(
    run: tuple[Path, torch.Tensor], harvested: Path, tmp_path: Path, command
) -> None:
    model, manifest = SemiNMF.load(run[0]), Store(harvested).manifest()
    assert manifest is not None
    for layer, warns in (("encoder.layer.0", True), (LAYER, False)):
        model.network = {"model": manifest["settings"]["model"], "layer": layer}
        model.save(tmp_path / layer / "dictionary.safetensors")
        with warnings.catch_warnings(record=True) as found:
            warnings.simplefilter("always")
            command("export", f"run={tmp_path / layer}", "format=saelens", "data=shards",
                    f"data.path={harvested}", "device=cpu")  # fmt: skip
        said = [str(one.message) for one in found]
        assert any("these rows are of layer encoder.layer.1 of BertModel" in one for one in said) == warns


def test_images_and_other_tokenizers_are_refused(harvested: Path, tmp_path: Path) -> None:
    from PIL import Image

    (tmp_path / "images").mkdir()
    Image.new("RGB", (24, 24)).save(tmp_path / "images" / "a.png")
    job(image_recipe(tmp_path / "images"), tmp_path / "pictures").run()
    with pytest.raises(ValueError, match=r"rows of callable are not tokens; this format needs a harvest"):
        token_windows(str(tmp_path / "pictures"), "relu@1")
    tokenizer = tmp_path / "bert" / "tokenizer.json"
    tokenizer.write_text(tokenizer.read_text().replace('"quick"', '"quack"'))
    with pytest.raises(ValueError, match=r"the tokenizer of .*bert was .* when it was harvested, and is"):
        token_windows(str(harvested), LAYER)
