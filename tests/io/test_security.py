"""What comes from elsewhere is data: it is never run, never leaves its folder, and is refused in words."""

from __future__ import annotations

import ast
import io
import json
import os
import pickle
import re
import shutil
import subprocess
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import pytest
import torch
from commands import ROOT
from safetensors.torch import load_file, save_file

from seminmf_lightning import SemiNMF, SemiNMFModule
from seminmf_lightning.cli.build import data_of_run
from seminmf_lightning.data import ActivationDataModule, HarvestedRows, NpyRows, SafetensorsRows
from seminmf_lightning.explain.runs import read_run
from seminmf_lightning.harvest import HarvestJob, HarvestRecipe, Store
from seminmf_lightning.harvest.inputs.images import ImageFiles
from seminmf_lightning.harvest.models.base import load_weights
from seminmf_lightning.training.checkpoints import read_checkpoint

SOURCES = sorted([*(ROOT / "seminmf_lightning").rglob("*.py"), *(ROOT / "scripts").rglob("*.py")])


class Payload:
    """What a pickle makes of itself: a file that says it was run."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.marker}",)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a checkpoint, a dictionary and the rows of a small run."""
    folder = tmp_path_factory.mktemp("trained")
    A = torch.randn(200, 6, generator=torch.Generator().manual_seed(0))
    np.save(folder / "rows.npy", A.numpy())
    trainer = lightning.Trainer(
        accelerator="cpu", max_epochs=1, logger=False, enable_progress_bar=False, enable_model_summary=False,
        default_root_dir=folder, enable_checkpointing=False,
    )  # fmt: skip
    trainer.fit(SemiNMFModule(4, l1_penalty=0.1), ActivationDataModule(A))
    trainer.save_checkpoint(folder / "last.ckpt")
    model = SemiNMF(4, "hals")
    model.fit(A)
    model.save(folder / "dictionary.safetensors")
    return folder


@pytest.fixture(scope="module")
def harvested(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished store."""
    folder = tmp_path_factory.mktemp("harvested")
    np.save(folder / "x.npy", np.random.default_rng(0).normal(size=(60, 5)).astype(np.float32))
    recipe = HarvestRecipe(
        {"name": "callable", "target": "torch.nn:Sequential"},
        {"name": "tensors", "path": str(folder / "x.npy")},
        "0",
    )
    recipe.loaded.network.append(torch.nn.Identity())
    harvester = recipe.harvester(torch.device("cpu"))
    store = Store(folder / "store")
    job = HarvestJob(
        harvester, store, recipe.settings(harvester.layers), dtype="float32", shard_mb=0.0005, tell=print
    )
    assert job.run() is not None
    return folder / "store"


# --- the source
# ------------------------------------------------------------------------------------------------------


def forbidden(call: ast.Call) -> str | None:
    """Why a call may not be in the source."""
    name, options = ast.unparse(call.func), {word.arg: ast.unparse(word.value) for word in call.keywords}
    if name in ("eval", "exec", "compile", "__import__") or re.fullmatch(
        r"(pickle|dill|marshal|shelve|joblib)\.\w+", name
    ):
        return name
    if name in ("os.system", "os.popen") or options.get("shell") == "True":
        return "a shell"
    if re.fullmatch(r"yaml\.(\w*_)?load(_all)?", name) and "safe" not in name:
        return "yaml.load"
    if name == "torch.load" and options.get("weights_only") != "True":
        return "torch.load without weights_only=True"
    if name == "np.load" and options.get("allow_pickle") != "False":
        return "np.load without allow_pickle=False"
    if options.get("trust_remote_code", "False") != "False":
        return "trust_remote_code"
    return None


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_runs_what_it_reads(path: Path) -> None:
    calls = [
        node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.Call)
    ]
    assert [(call.lineno, why) for call in calls if (why := forbidden(call))] == []


@pytest.mark.parametrize(
    "call",
    ["eval(x)", "pickle.loads(x)", "torch.load(f)", "torch.load(f, weights_only=False)", "np.load(f)", "yaml.load(f)",
     "subprocess.run(x, shell=True)", "os.system(x)", "np.load(f, allow_pickle=True)"],
)  # fmt: skip
def test_the_search_finds_what_it_looks_for(call: str) -> None:
    (found,) = [node for node in ast.walk(ast.parse(call)) if isinstance(node, ast.Call)]
    assert forbidden(found)


def requirements() -> Iterator[tuple[str, str]]:
    """Each requirement of ``pyproject.toml`` but our own extras, with the remark on its line."""
    listing = False
    for line in (ROOT / "pyproject.toml").read_text(encoding="utf-8").partition("[tool.")[0].splitlines():
        code, _, remark = line.partition("  #")
        if re.match(r"[\w-]+ = \[", code) and not code.startswith(("keywords", "license")):
            listing = True
        for requirement in re.findall(r'"([^"]+)"', code.partition(" = ")[2] or code) if listing else ():
            if not requirement.startswith("seminmf-lightning["):
                yield requirement, remark.strip()
        listing = listing and "]" not in re.sub(r'"[^"]*"', "", code)


def test_every_dependency_has_a_bound_and_a_reason() -> None:
    found = list(requirements())
    assert len(found) > 35 and any(name.startswith("torch>=") for name, _ in found)
    assert [name for name, _ in found if not re.match(r"[\w.-]+(\[[\w,]+\])?(>=|==)\d", name)] == []
    assert [name for name, remark in found if not remark] == []


# --- checkpoints
# -----------------------------------------------------------------------------------------------------


def legacy(content: Any) -> bytes:
    stream = io.BytesIO()
    torch.save(content, stream, _use_new_zipfile_serialization=False)
    return stream.getvalue()


def zipped(content: Any) -> bytes:
    stream = io.BytesIO()
    torch.save(content, stream)
    return stream.getvalue()


def repickled(checkpoint: bytes, pickled: bytes) -> bytes:
    """A checkpoint's archive with another ``data.pkl``."""
    stream = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(checkpoint)) as old, zipfile.ZipFile(stream, "w") as new:
        for part in old.infolist():
            new.writestr(part.filename, pickled if part.filename.endswith("data.pkl") else old.read(part))
    return stream.getvalue()


def malicious(kind: str, marker: Path, trained: Path) -> bytes:
    payload, whole = Payload(marker), (trained / "last.ckpt").read_bytes()
    if kind == "a bare pickle":
        return pickle.dumps(payload)
    if kind == "legacy":
        return legacy({"state_dict": payload})
    if kind == "an archive":
        return zipped(payload)
    if kind == "a value of a checkpoint":
        return zipped(torch.load(trained / "last.ckpt", weights_only=True) | {"effort": payload})
    return repickled(whole, pickle.dumps(payload, protocol=2))


@pytest.mark.parametrize(
    "kind", ["a bare pickle", "legacy", "an archive", "a value of a checkpoint", "another data.pkl"]
)
def test_a_malicious_checkpoint_is_refused_and_never_runs(kind: str, trained: Path, tmp_path: Path) -> None:
    marker, path = tmp_path / "ran", tmp_path / "evil.ckpt"
    path.write_bytes(malicious(kind, marker, trained))
    for read in (read_checkpoint, SemiNMFModule.load_from_checkpoint):
        with pytest.raises(
            ValueError, match=r"evil\.ckpt: (refused: .*system.*nothing in it was run|not a checkpoint)"
        ):
            read(path)
    assert not marker.exists()
    with pytest.raises(ValueError, match=r"evil\.ckpt: not a file of weights"):
        load_weights(torch.nn.Linear(2, 2), str(path))
    assert not marker.exists()
    if kind in ("a bare pickle", "an archive"):  # that it would have worked
        if kind == "an archive":
            torch.load(path, weights_only=False)
        else:
            pickle.loads(path.read_bytes())
        assert marker.exists()


def test_the_script_refuses_a_malicious_checkpoint(script: Any, trained: Path, tmp_path: Path) -> None:
    marker, path = tmp_path / "ran", tmp_path / "evil.ckpt"
    path.write_bytes(malicious("a value of a checkpoint", marker, trained))
    done = script(
        "train", "data=npy", f"data.path={trained / 'rows.npy'}", f"ckpt_path={path}", f"hydra.run.dir={tmp_path / 'run'}",
        "nb_concepts=4", "l1_penalty=0.1", "logger=none", check=False,
    )  # fmt: skip
    assert done.returncode and "evil.ckpt: refused:" in done.stderr and not marker.exists()


def deep() -> bytes:
    return b"\x80\x02" + b"(" * 200_000 + b"l" * 200_000 + b"."


def cyclic(trained: Path) -> bytes:
    checkpoint = torch.load(trained / "last.ckpt", weights_only=True)
    loop: list[Any] = []
    loop.append(loop)
    return zipped(checkpoint | {"callbacks": {"x": loop}, "epoch": "many"})


def test_checkpoints_that_are_deep_or_endless_or_larger_than_they_are(trained: Path, tmp_path: Path) -> None:
    whole, path = (trained / "last.ckpt").read_bytes(), tmp_path / "odd.ckpt"
    with zipfile.ZipFile(io.BytesIO(whole)) as archive:
        pickled = archive.read(next(name for name in archive.namelist() if name.endswith("data.pkl")))
    huge = pickled.replace(
        b"K\x04K\x06\x86", b"J\x00\x00\x00\x7fK\x06\x86", 1
    )  # D is 2 billion x 6, so it says
    assert huge != pickled
    bomb = io.BytesIO()
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x/data.pkl", bytes(10**7))
    for content in (
        repickled(whole, deep()), deep(), cyclic(trained), repickled(whole, huge), bomb.getvalue(), b"", whole[:-300],
        b"\x80\x02" + b"X\xff\xff\xff\x7f" + b"a" * 10,
    ):  # fmt: skip
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"odd\.ckpt"):
            read_checkpoint(path)


def test_a_checkpoint_cannot_name_files_outside_its_run(trained: Path, tmp_path: Path) -> None:
    checkpoint = torch.load(trained / "last.ckpt", weights_only=True)
    checkpoint["callbacks"] = {
        "ModelCheckpoint": {"best_k_models": {"/run/checkpoints/../../etc/passwd": torch.zeros(())}}
    }
    torch.save(checkpoint, tmp_path / "evil.ckpt")
    with pytest.raises(ValueError, match=r"evil\.ckpt: refused: .*leaves the run's folder"):
        read_checkpoint(tmp_path / "evil.ckpt")


CHANGES: dict[str, Any] = {
    r"written with other statistics": lambda c: c["learner"].pop("total"),
    r"learner\.total\.gram is torch.float64 \(3, 3\); this run needs torch.float64 \(4, 4\)": lambda c: c[
        "learner"
    ]["total"].update(gram=torch.zeros(3, 3, dtype=torch.float64)),
    r"learner\.silent is torch.float32": lambda c: c["learner"].update(silent=c["learner"]["silent"].float()),
    r"learner\.total\.rows holds NaN": lambda c: c["learner"]["total"].update(
        rows=torch.tensor(float("nan"), dtype=torch.float64)
    ),
    r"learner\.rows_seen: expected a value like 0, found 'many'": lambda c: c["learner"].update(
        rows_seen="many"
    ),
    r"no 'dictionary'": lambda c: c["state_dict"].pop("dictionary"),
    r"state_dict\.mean is torch.float64 \(3,\)": lambda c: c["state_dict"].update(
        mean=torch.zeros(3, dtype=torch.float64)
    ),
    r"shape \(4,\)": lambda c: c["state_dict"].update(dictionary=torch.zeros(4)),
    r"no 'learner'": lambda c: c.pop("learner"),
    r"no 'loops'": lambda c: c.pop("loops"),
    r"epoch: expected a whole number": lambda c: c.update(epoch=-1),
    r"effort: expected a list": lambda c: c.update(effort="all"),
    r"Lightning '1\.0'": lambda c: c.update({"pytorch-lightning_version": "1.0"}),
    r"SemiNMFModule .*nb_concepts": lambda c: c["hyper_parameters"].update(nb_concepts="many"),
}


@pytest.mark.parametrize("words", CHANGES)
def test_a_checkpoint_of_another_form_is_refused_by_name(words: str, trained: Path, tmp_path: Path) -> None:
    checkpoint = torch.load(trained / "last.ckpt", weights_only=True)
    CHANGES[words](checkpoint)
    torch.save(checkpoint, tmp_path / "other.ckpt")
    with pytest.raises(ValueError, match=rf"other\.ckpt: .*{words}|other\.ckpt: {words}"):
        SemiNMFModule.load_from_checkpoint(tmp_path / "other.ckpt")


# --- dictionaries
# ----------------------------------------------------------------------------------------------------


def with_config(trained: Path, path: Path, config: Any, **tensors: torch.Tensor) -> Path:
    save_file(load_file(trained / "dictionary.safetensors") | tensors, path, metadata={"config": config})
    return path


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ("{", "not JSON"), ("[" * 100_000, "not JSON"), ("[]", "expected an object"),
        ('{"solver": {"name": "os"}}', "unknown solver"),
        ('{"solver": {"name": "hals", "_target_": "os.system"}}', "unknown argument of solver .hals. ._target_."),
        ('{"nb_concepts": 5}', "D has 4 atoms"),
        ('{"nb_concepts": 1e99}', "whole number"), ('{"tol": NaN}', "tol"), ('{"data": 3}', "config.data: expected"),
        ('{"encoder": 7}', "settings"), ('{"l1_penalty": "0"}', "l1_penalty"), ('{"seed": ' + "9" * 5000 + "}", "not JSON"),
    ],
)  # fmt: skip
def test_a_dictionary_with_odd_settings_is_refused(
    config: str, words: str, trained: Path, tmp_path: Path
) -> None:
    path = with_config(trained, tmp_path / "odd.safetensors", config)
    for load in (SemiNMF.load, SemiNMFModule.from_run):
        with pytest.raises(ValueError, match=rf"odd\.safetensors: .*{words}"):
            load(path)


@pytest.mark.parametrize(
    ("tensors", "words"),
    [
        ({"D": torch.full((4, 6), -1.0)}, "nonnegative"), ({"D": torch.full((4, 6), torch.nan)}, "finite"),
        ({"D": torch.zeros(0, 6)}, "belong together"), ({"D": torch.ones(4, 6, dtype=torch.int64)}, "I64"),
        ({"scale": torch.tensor(0.0)}, "scale"), ({"scale": torch.tensor(torch.inf)}, "scale"),
        ({"mean": torch.ones(6)}, "centres"),
        ({"mean": torch.full((6,), torch.nan)}, "mean"), ({"mean": torch.zeros(5)}, "belong together"),
    ],
)  # fmt: skip
def test_a_dictionary_with_odd_numbers_is_refused(
    tensors: Any, words: str, trained: Path, tmp_path: Path
) -> None:
    path = with_config(trained, tmp_path / "odd.safetensors", '{"nb_concepts": 4}', **tensors)
    with pytest.raises(ValueError, match=rf"odd\.safetensors: .*{words}"):
        SemiNMF.load(path)


@pytest.mark.parametrize(
    "node",
    [
        {"_target_": "os.system", "command": "touch MARKER"},
        {"_target_": "seminmf_lightning.data.files.os.system", "command": "touch MARKER"},
        {"_target_": "seminmf_lightning.data.datamodule.torch.utils.data.Dataset"},
        {"_target_": ["seminmf_lightning.data.NpyRows"]}, {"path": "x"}, None,
        {"name": "os.system", "command": "touch MARKER"}, {"name": "os"}, {"name": ["npy"]}, {"name": 3},
        {"name": "harvest", "model": {"name": "callable", "target": "os:system"}},
        {"name": "npy", "path": {"_target_": "os.system", "_args_": ["touch MARKER"]}},
        {"name": "npy", "path": [{"x": {"_target_": "os.system", "command": "touch MARKER"}}]},
        {"name": "npy", "path": "x.npy", "_partial_": True}, {"name": "npy", "path": "${oc.env:HOME}"},
        {"name": "npy", "path": ["a.npy", "${oc.env:HOME}"]}, {"name": "npy", "path": [["a.npy"]]},
        {"name": "npy", "path": "x.npy", "source": "y"}, {"name": "npy", "path": "x.npy", "trainer": "y"},
        {"name": "object_store", "path": "s3://x", "storage": {"a": {"_target_": "os.system"}}},
        {"name": "object_store", "path": "s3://x", "storage": {"a": "${oc.env:HOME}"}},
    ],
)  # fmt: skip
def test_a_dictionary_from_elsewhere_cannot_name_code(node: Any, trained: Path, tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    config = json.dumps({"nb_concepts": 4, "data": node}).replace("MARKER", str(marker))
    with pytest.raises(ValueError, match=r"give data=\.\.\. data\.path="):
        data_of_run(with_config(trained, tmp_path / "dictionary.safetensors", config))
    assert not marker.exists()


def test_the_data_of_a_run_of_ours_is_found(trained: Path, tmp_path: Path) -> None:
    node = {"name": "npy", "path": "x.npy", "val_fraction": 0.1, "groups": None}
    path = with_config(
        trained, tmp_path / "dictionary.safetensors", json.dumps({"nb_concepts": 4, "data": node})
    )
    assert data_of_run(path) == node


def test_a_report_runs_nothing_that_a_dictionary_names(script: Any, trained: Path, tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    node = {"name": "npy", "path": {"_target_": "os.system", "command": f"touch {marker}"}}
    with_config(trained, tmp_path / "dictionary.safetensors", json.dumps({"nb_concepts": 4, "data": node}))
    done = script("report", f"run={tmp_path}", check=False)
    assert done.returncode and "which is not read" in done.stderr and not marker.exists()


# --- stores
# ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["file", "index"])
@pytest.mark.parametrize(
    "escape", ["../../etc/passwd", "/etc/passwd", "0/../../outside.safetensors", "link/0.safetensors"]
)
def test_a_manifest_cannot_leave_its_folder(key: str, escape: str, harvested: Path, tmp_path: Path) -> None:
    store, outside = tmp_path / "store", tmp_path / "outside"
    shutil.copytree(harvested, store)
    outside.mkdir()
    shutil.copy(store / "0" / "000000.safetensors", outside / "0.safetensors")
    shutil.copy(store / "0" / "000000.safetensors", tmp_path / "outside.safetensors")
    (store / "link").symlink_to(outside)
    manifest = json.loads((store / "manifest.json").read_text())
    manifest["layers"]["0"]["shards"][0][key] = escape
    (store / "manifest.json").write_text(json.dumps(manifest))
    source = HarvestedRows(str(store))
    with pytest.raises(ValueError, match=r"leaves the store's folder .* it was not opened"):
        source.open() if key == "file" else source.open_groups()


@pytest.mark.parametrize(
    "file", ["0/000000.safetensors", "0/index/000000.safetensors", "examples/000000.jsonl"]
)
def test_links_out_of_a_store_are_not_followed(file: str, harvested: Path, tmp_path: Path) -> None:
    store, outside = tmp_path / "store", tmp_path / "outside"
    shutil.copytree(harvested, store)
    shutil.move(store / file, outside)
    (store / file).symlink_to(outside)
    readers: Any = (
        HarvestedRows(str(store)).open, HarvestedRows(str(store)).open_groups,
        lambda: Store(store).columns("0", 0), lambda: Store(store).examples(0),
    )  # fmt: skip
    told = []
    for read in readers:
        try:
            read()
        except ValueError as error:
            told.append(str(error))
    assert told and all("leaves the store's folder" in text for text in told)


MANIFESTS: dict[str, Any] = {
    "no 'shards'": lambda m: m["layers"]["0"].pop("shards"),
    r"shards\[0\].rows: expected a whole number": lambda m: m["layers"]["0"]["shards"][0].update(rows="4"),
    "lists . shards; its plan has": lambda m: m["layers"]["0"]["shards"].pop(),
    "rows, but its shards have": lambda m: m["layers"]["0"].update(rows=3),
    "examples_per_shard": lambda m: m["plan"].update(examples_per_shard=0),
    "features": lambda m: m["layers"]["0"].update(features=0),
    "format 2": lambda m: m.update(format=2),
    "not a range": lambda m: m["layers"]["0"]["shards"][0].update(examples=[1]),
    "settings": lambda m: m.update(settings=[]),
}


@pytest.mark.parametrize("words", MANIFESTS)
def test_a_manifest_of_another_form_is_refused(words: str, harvested: Path, tmp_path: Path) -> None:
    manifest = json.loads((harvested / "manifest.json").read_text())
    MANIFESTS[words](manifest)
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ValueError, match=rf"manifest\.json: .*{words}"):
        HarvestedRows(str(tmp_path)).open()


def test_a_plan_without_end_does_not_hang(harvested: Path, tmp_path: Path) -> None:
    manifest = json.loads((harvested / "manifest.json").read_text())
    manifest |= {"complete": False}
    manifest["plan"] |= {"examples": 2**62, "examples_per_shard": 1, "widths": {"0": 2**62}}
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ValueError, match="holds no rows yet"):
        HarvestedRows(str(tmp_path), partial=True).open()


# --- rows and examples
# -----------------------------------------------------------------------------------------------


def test_a_header_that_says_less_or_more_than_there_is(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    np.save(path, np.ones((8, 4), dtype=np.float32))
    whole = path.read_bytes()
    for old, new in (
        (b"(8, 4)", b"(7, 4)"),
        (b"(8, 4)", b"(9, 4)"),
        (b"<f4", b"<f8"),
        (b"(8, 4), }          ", b"(9999999999, 4), } "),
    ):
        path.write_bytes(whole.replace(old, new))
        with pytest.raises(ValueError, match=r"a\.npy: .*bytes, but its header says"):
            NpyRows(str(path)).open()
    np.save(path, np.array([[object()]]), allow_pickle=True)
    with pytest.raises(ValueError, match="dtype object"):
        NpyRows(str(path)).open()


def test_what_is_no_regular_file_is_not_opened(tmp_path: Path) -> None:
    for name in ("a.npy", "a.safetensors"):
        os.mkfifo(tmp_path / name)  # which would wait for a writer for ever
    for source in (NpyRows(str(tmp_path / "a.npy")), SafetensorsRows(str(tmp_path / "a.safetensors"))):
        with pytest.raises(ValueError, match="not a regular file"):
            source.open()


def test_groups_are_checked_and_kept_apart(tmp_path: Path) -> None:
    rows = torch.ones(3, 2)
    for name, group in (("a", [2**62, 5, 5]), ("b", [5, 7, 5])):
        save_file({"activations": rows, "group": torch.tensor(group)}, tmp_path / f"{name}.safetensors")
    groups = SafetensorsRows(str(tmp_path)).open_groups()
    assert groups is not None and len(np.unique(groups)) == 4 and not set(groups[:3]) & set(groups[3:])
    save_file({"activations": rows, "group": torch.ones(2, dtype=torch.int32)}, tmp_path / "b.safetensors")
    with pytest.raises(ValueError, match=r"b\.safetensors: 'group' has shape \(2,\), but there are 3 rows"):
        SafetensorsRows(str(tmp_path)).open_groups()
    save_file({"activations": rows, "group": torch.ones(3)}, tmp_path / "b.safetensors")
    with pytest.raises(ValueError, match=r"b\.safetensors: tensor 'group' has type F32"):
        SafetensorsRows(str(tmp_path)).open_groups()
    save_file({"activations": rows}, tmp_path / "b.safetensors")
    with pytest.raises(ValueError, match=r"b\.safetensors: no tensor 'group', but other shards have one"):
        SafetensorsRows(str(tmp_path)).open_groups()


def test_a_picture_is_what_its_formats_are(tmp_path: Path) -> None:
    from PIL import Image

    (tmp_path / "a.png").write_bytes(
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n"
    )  # Pillow would start Ghostscript
    Image.new("1", (9000, 9000)).save(tmp_path / "b.png")
    inputs = ImageFiles(str(tmp_path))
    with pytest.raises(ValueError, match=r"a\.png: not a complete image"):
        inputs.read(0)
    with pytest.raises(ValueError, match=r"b\.png: 9000 x 9000; at most"):
        inputs.read(1)


# --- runs
# ------------------------------------------------------------------------------------------------------------


def test_runs_cannot_stop_the_comparison(tmp_path: Path) -> None:
    (tmp_path / ".hydra").mkdir()
    (tmp_path / ".hydra" / "overrides.yaml").write_text("[]")
    (tmp_path / "error.txt").write_bytes(b"\xff\xfe broken")
    assert read_run(tmp_path).status == "failed"
    for content in (
        "1" * 4000,
        '{"r2": ' + "9" * 400 + "}",
        "[" * 100_000,
        "\xff",
        '{"r2": true, "l0": 1, "reconstruction_loss": 1}',
    ):
        (tmp_path / "metrics.json").write_bytes(content.encode("latin-1"))
        assert read_run(tmp_path).status == "failed"
    lines = ["a0: &a0 [x, x]"] + [f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]" for i in range(1, 40)]
    for content in ("\n".join(lines), "!!python/object/apply:os.system ['false']", "[" * 20_000, "- 3"):
        (tmp_path / ".hydra" / "overrides.yaml").write_text(content)
        found = read_run(tmp_path)
        assert found.status == "failed" and ".hydra" in found.reason


# --- the audit
# -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("report", "status", "words"),
    [
        (None, 0, "not reached"),
        ({"dependencies": [{"name": "a", "skip_reason": "not found"}]}, 0, "not reached"),
        ({"dependencies": [{"name": "a", "version": "1", "vulns": []}, {"skip_reason": "x"}]}, 0, "in 1 packages, 1 not"),
        ({"dependencies": [{"name": "a", "version": "1", "vulns": [{"id": "CVE-1", "fix_versions": ["2"]}]}]}, 1, "a 1: CVE-1"),
    ],
)  # fmt: skip
def test_the_audit_tells_unreached_from_clean(report: Any, status: int, words: str, tmp_path: Path) -> None:
    tool = tmp_path / "pip-audit"  # one that writes this report, in place of the one that asks the service
    writing = (
        "exit 3"
        if report is None
        else f"while [ $# -gt 1 ]; do shift; done; cat > \"$1\" <<'E'\n{json.dumps(report)}\nE"
    )
    tool.write_text(f"#!/bin/sh\n{writing}\n")
    tool.chmod(0o755)
    done = subprocess.run(
        [str(ROOT / ".ci" / "audit")], env=os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == status and words in done.stdout
