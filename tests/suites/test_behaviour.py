"""The suite ``behaviour`` on small networks, against outputs computed text by text by hand."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from commands import ROOT
from hydra import compose, initialize_config_dir

from seminmf_lightning import SemiNMF, attach
from seminmf_lightning.cli import evaluate
from seminmf_lightning.core.discovery import build
from seminmf_lightning.dictionary_file import load_dictionary, save_dictionary
from seminmf_lightning.suites import Context, Result, Suite
from seminmf_lightning.suites.probing.others import other_lines

tiny = pytest.importorskip("tiny_networks")
transformers = pytest.importorskip("transformers")
WIDTH, K = 16, 24


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two language models and an encoder, texts, rows, and a run on each layer."""
    folder = tmp_path_factory.mktemp("behaviour")
    tiny.llama(folder / "llama")
    tiny.gpt(folder / "gpt2")
    tiny.bert(folder / "bert")
    (folder / "corpus").mkdir()
    for number, text in enumerate(tiny.texts(12, seed=3)):
        (folder / "corpus" / f"{number:02}.txt").write_text(" ".join(text.split()[:20]))
    A = torch.randn(300, WIDTH, generator=torch.Generator().manual_seed(0))
    np.save(folder / "rows.npy", A.numpy())
    model = SemiNMF(nb_concepts=K, l1_penalty=0.1)
    model.fit(A, max_iter=3)
    config = model.settings | {"data": {"name": "npy", "path": str(folder / "rows.npy")}}
    save_dictionary(folder / "run" / "dictionary.safetensors", model.get_dictionary(), model.normalizer,
                    config, model.effort)  # fmt: skip
    return folder


def measured(home: Path, model: str, architecture: str, layer: str, **settings: Any) -> Result:
    context = Context(
        home / "run", inputs={"name": "text", "path": str(home / "corpus")},
        model={"name": "transformers", "path": str(home / model), "architecture": architecture},
    )  # fmt: skip
    spec = {"name": "behaviour", "layer": layer, "batch_size": 5} | settings
    return build(Suite, spec).run(context)


def by_hand(home: Path, model: str, kind: Any, layer: str) -> list[tuple[Any, Any, torch.Tensor]]:
    """Outputs before and after, and the tokens, of each text alone, replaced at its ordinary tokens."""
    network = kind.from_pretrained(home / model).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(home / model)
    dictionary, results = SemiNMF.load(home / "run"), []
    for file in sorted((home / "corpus").iterdir()):
        ids = tokenizer(file.read_text(), return_tensors="pt")["input_ids"]
        special = torch.isin(ids, torch.tensor(tokenizer.all_special_ids))[..., None]

        def rebuilt(module: Any, args: Any, output: Any, special: torch.Tensor = special) -> Any:
            x = output[0] if isinstance(output, tuple) else output
            new = dictionary.decode(dictionary.encode(x.reshape(-1, WIDTH))).reshape(x.shape)
            new = torch.where(special, x, new)
            return (new, *output[1:]) if isinstance(output, tuple) else new

        with torch.no_grad():
            before = network(input_ids=ids)
            with network.get_submodule(layer).register_forward_hook(rebuilt):
                results.append((before, network(input_ids=ids), ids[0]))
    return results


@pytest.mark.parametrize(("model", "layer"), [("llama", "model.layers.0"), ("gpt2", "transformer.h.0")])
def test_losses_of_language_models_are_those_by_hand(home: Path, model: str, layer: str) -> None:
    result = measured(home, model, "AutoModelForCausalLM", layer)
    found = {line.name: line.values for line in result.lines}
    ce: list[list[float]] = [[], []]
    kl, agreement = [], []
    for before, after, ids in by_hand(home, model, transformers.AutoModelForCausalLM, layer):
        p, q = before.logits[0, :-1].log_softmax(-1), after.logits[0, :-1].log_softmax(-1)
        for losses, logp in zip(ce, (p, q), strict=True):
            losses += (-logp.gather(1, ids[1:, None]))[:, 0].tolist()
        kl += (p.exp() * (p - q)).sum(-1).tolist()
        agreement += (p.argmax(-1) == q.argmax(-1)).float().tolist()
    run = found["run, lasso"]
    assert found["untouched"]["ce"].value == pytest.approx(np.mean(ce[0]), abs=1e-5)
    assert found["untouched"]["kl"].value == 0
    assert run["ce"].value == pytest.approx(np.mean(ce[1]), abs=1e-4)
    assert run["kl"].value == pytest.approx(np.mean(kl), abs=1e-4)
    assert run["agreement"].value == pytest.approx(np.mean(agreement), abs=0.01)
    mean, clean = found["mean"]["ce"].value, found["untouched"]["ce"].value
    assert run["recovered"].value == pytest.approx((mean - run["ce"].value) / (mean - clean), abs=1e-6)
    assert found["mean"]["recovered"].value == 0
    assert {"random atoms, lasso", "data rows, lasso", "run, omp", "run, threshold"} <= set(found)
    assert result.plain()["task"] == "language"


def test_embeddings_of_an_encoder_are_those_by_hand(home: Path) -> None:
    result = measured(home, "bert", "AutoModel", "encoder.layer.0", against=[])
    cosines = []
    for before, after, _ in by_hand(home, "bert", transformers.AutoModel, "encoder.layer.0"):
        old, new = (output.last_hidden_state[0].mean(dim=0) for output in (before, after))
        cosines.append(float(torch.cosine_similarity(old, new, dim=0)))
    found = {line.name: line.values for line in result.lines}
    value, error = found["run, lasso"]["cosine"]
    assert value == pytest.approx(np.mean(cosines), abs=1e-4)
    assert error == pytest.approx(np.std(cosines, ddof=1) / np.sqrt(12), abs=1e-4)
    assert found["untouched"]["recovered"].value == pytest.approx(1, abs=1e-5)
    assert result.plotted == ("cosine",)


def test_batches_and_skipped_examples_change_nothing_else(home: Path) -> None:
    one = measured(home, "bert", "AutoModel", "encoder.layer.0", skip=4, limit=6, batch_size=2, nonzeros=3)
    other = measured(home, "bert", "AutoModel", "encoder.layer.0", skip=4, limit=6, batch_size=6, nonzeros=3)
    assert one.details["examples"] == 6
    for a, b in zip(one.lines, other.lines, strict=True):
        assert a.name == b.name
        assert a.values["cosine"].value == pytest.approx(b.values["cosine"].value, abs=1e-4)
    found = {line.name: line.values for line in one.lines}
    assert found["run, omp at 3"]["l0"].value <= 3


def test_classes_of_images(home: Path, tmp_path: Path) -> None:
    images = np.random.default_rng(0).standard_normal((7, 3, 24, 24)).astype(np.float32)
    np.save(tmp_path / "x.npy", images)
    network, A = tiny.convolutions(), torch.randn(300, 8)
    np.save(tmp_path / "rows.npy", A.numpy())
    dictionary = SemiNMF(nb_concepts=6, l1_penalty=0.1)
    dictionary.fit(A, max_iter=2)
    config = dictionary.settings | {"data": {"name": "npy", "path": str(tmp_path / "rows.npy")}}
    save_dictionary(tmp_path / "dictionary.safetensors", dictionary.get_dictionary(), dictionary.normalizer,
                    config, dictionary.effort)  # fmt: skip
    context = Context(
        tmp_path, inputs={"name": "tensors", "path": str(tmp_path / "x.npy")},
        model={"name": "callable", "target": "tiny_networks:convolutions"},
    )  # fmt: skip
    result = build(Suite, {"name": "behaviour", "layer": "second", "batch_size": 3}).run(context)
    found = {line.name: line.values for line in result.lines}
    before = network(torch.from_numpy(images)).log_softmax(-1)
    with attach(network, "second", dictionary, replace=True), torch.no_grad():
        after = network(torch.from_numpy(images)).log_softmax(-1)
    kl = (before.exp() * (before - after)).sum(-1).mean()
    assert found["run, lasso"]["kl"].value == pytest.approx(float(kl.detach()), abs=1e-4)
    same = float((before.argmax(-1) == after.argmax(-1)).float().mean())
    assert found["run, lasso"]["agreement"].value == pytest.approx(same)


def test_the_command_takes_model_and_inputs_as_harvest_does(home: Path, tmp_path: Path) -> None:
    def run(*overrides: str) -> dict[str, Any]:
        with initialize_config_dir(str(ROOT / "configs"), version_base="1.3"):
            return evaluate.main(compose("evaluate", overrides=["trainer=cpu", *overrides]))

    inputs = f"run={home / 'run'}", "inputs=text", f"inputs.path={home / 'corpus'}"
    chosen = "model=transformers", f"model.path={home / 'bert'}", "suite.behaviour.layer=encoder.layer.0"
    found = run(*inputs, *chosen, "suite=behaviour", f"output={tmp_path}")["behaviour"]
    assert found["lines"][0]["line"] == "untouched"
    assert (tmp_path / "suite_behaviour.svg").is_file()
    with pytest.raises(ValueError, match="inputs= is read by suite=behaviour alone"):
        run(*inputs)
    with pytest.raises(ValueError, match="model= is read by suite=behaviour alone"):
        run(inputs[0], "suite=recovery", *chosen[:2])


@pytest.mark.parametrize(("settings", "message"), [
    ({"skip": 12}, "12 examples, but suite.behaviour.skip=12"),
    ({"layer": None}, r"run does not name a layer of BertModel: give suite\.behaviour\.layer"),
    ({"layer": "encoder.layer.7"}, "is not in this BertModel; nearest"),
    ({"layer": "encoder.layer.0.intermediate"}, r"32 features wide, but the dictionary has 16"),
    ({"task": "language"}, r"task=language does not fit BertModel, which returns .*; accepted: embedding"),
    ({"task": "classes"}, r"task=classes does not fit BertModel"),
    ({"nonzeros": 17}, r"nonzeros=17 is more than min\(concepts=24, features=16\); lower it"),
    ({"task": "words"}, "suite.behaviour.task must be one of language, classes, embedding"),
])  # fmt: skip
def test_bad_settings_are_refused(home: Path, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        measured(home, "bert", "AutoModel", **{"layer": "encoder.layer.0"} | settings)


def test_the_mean_logit_of_a_language_model_is_no_embedding(home: Path) -> None:
    with pytest.raises(ValueError, match=r"task=embedding does not fit LlamaForCausalLM.*accepted: language"):
        measured(home, "llama", "AutoModelForCausalLM", "model.layers.0", task="embedding")


def test_another_run_of_another_layer_is_said(home: Path, tmp_path: Path) -> None:
    saved = load_dictionary(home / "run")
    for name in ("ours", "theirs"):
        config = saved.config | {"network": {"model": {"architecture": "BertModel"}, "layer": name}}
        save_dictionary(tmp_path / name / "dictionary.safetensors", saved.D, saved.normalizer, config,
                        saved.effort)  # fmt: skip
    ours, theirs = tmp_path / "ours", str(tmp_path / "theirs")
    said = pytest.warns(
        UserWarning, match=r"theirs was learned from layer theirs of .*from layer ours of Bert"
    )
    with said:
        other_lines(ours, load_dictionary(ours), [theirs], [], None, "suite.x", torch.device("cpu"))
    with said:
        evaluate.other_dictionary(theirs, str(ours), saved.D)


def test_a_layer_of_one_row_per_example(home: Path) -> None:
    result = measured(home, "bert", "AutoModel", "pooler", limit=5)
    assert result.details["examples"] == 5
    assert {line.name: line.values for line in result.lines}["run, omp"]["l0"].value > 0


def test_what_is_missing_is_named(home: Path) -> None:
    suite = build(Suite, "behaviour")
    with pytest.raises(ValueError, match=r"on your inputs: inputs=text inputs\.path"):
        suite.run(Context(home / "run"))
    with pytest.raises(ValueError, match=r"run was learned from rows: give the network, model="):
        suite.run(Context(home / "run", inputs={"name": "text", "path": str(home / "corpus")}))
    with pytest.raises(ValueError, match="does not generate text; choose model"):
        measured(home, "bert", "AutoModelForMaskedLM", "bert.encoder.layer.0")


def test_the_network_of_the_run_is_the_default(home: Path, tmp_path: Path) -> None:
    saved = load_dictionary(home / "run")
    model = {"library": "transformers", "path": str(home / "bert"), "architecture": "BertModel",
             "precision": "float32"}  # fmt: skip
    config = saved.config | {"network": {"model": model, "layer": "encoder.layer.0"}}
    save_dictionary(tmp_path / "dictionary.safetensors", saved.D, saved.normalizer, config, saved.effort)
    inputs = {"name": "text", "path": str(home / "corpus")}
    found = build(Suite, "behaviour").run(Context(tmp_path, inputs=inputs))
    given = measured(home, "bert", "AutoModel", "encoder.layer.0", batch_size=16)
    assert found.plain()["lines"] == given.plain()["lines"]


def test_what_was_left_out_and_another_network_are_said(home: Path, tmp_path: Path) -> None:
    texts = shutil.copytree(home / "corpus", tmp_path / "corpus")
    (texts / "odd.txt").write_bytes(b"\xff\xfe\xff")
    saved = load_dictionary(home / "run")
    model = {"library": "transformers", "path": str(home / "bert"), "architecture": "BertModel",
             "precision": "float32", "weights": "of another network"}  # fmt: skip
    config = saved.config | {"network": {"model": model, "layer": "encoder.layer.0"}}
    save_dictionary(tmp_path / "dictionary.safetensors", saved.D, saved.normalizer, config, saved.effort)
    inputs = {"name": "text", "path": str(texts)}
    result = build(Suite, "behaviour").run(Context(tmp_path, inputs=inputs))
    assert result.details["examples"] == 12
    said = "\n".join(result.notes)
    assert "Left out: 1 examples that cannot be read, such as" in said and "odd.txt" in said
    assert "Not the network of the run: this BertModel has other weights" in said
    other = {"name": "behaviour", "layer": "encoder.layer.1"}
    notes = build(Suite, other).run(Context(tmp_path, inputs=inputs)).notes
    assert any("learned from layer encoder.layer.0, not encoder.layer.1" in one for one in notes)
    assert not any(
        "Not the network" in one for one in measured(home, "bert", "AutoModel", other["layer"]).notes
    )
