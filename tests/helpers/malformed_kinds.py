"""Kinds of files: whole ones, and readers that compare the package with an independent reader."""

from __future__ import annotations

import io
import json
import logging
import math
import random
import re
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from harvests import job
from independent_readers import NUMPY_TYPES, plain_safetensors, same, same_tensor
from malformed_changes import (
    change,
    change_checkpoint,
    change_json,
    change_lines,
    change_npy,
    change_safetensors,
    containers,
)  # fmt: skip
from safetensors.torch import save

from seminmf_lightning import SemiNMF, SemiNMFModule
from seminmf_lightning.data import ActivationDataModule, HarvestedRows, NpyRows, SafetensorsRows
from seminmf_lightning.explain.runs import read_run
from seminmf_lightning.harvest import HarvestRecipe, Store
from seminmf_lightning.harvest.inputs.base import Unreadable
from seminmf_lightning.harvest.inputs.images import FORMATS, ImageFiles
from seminmf_lightning.harvest.inputs.text import TextFiles
from seminmf_lightning.harvest.provenance import Tracer


class Kind(NamedTuple):
    """A kind of file: how often it is tried, where it lies, whole ones, and a reader that returns True if it
    read the file, False if it named what is wrong; it raises AssertionError where two readers differ."""

    share: float
    name: str
    whole: list[bytes]
    read: Callable[[Path, bytes], bool]
    megabytes: int = 512  # that both readers may take together


def read_npy(path: Path, content: bytes) -> bool:
    (shard,) = NpyRows(str(path)).shards
    plain = np.load(io.BytesIO(content), allow_pickle=False)
    rows = shard.slice(0, len(shard.rows)).numpy()
    assert rows.shape == plain.shape and np.array_equal(rows, plain, equal_nan=True)
    order = "A" if plain.flags.c_contiguous else "F"
    assert len(content) >= plain.nbytes and content.endswith(plain.tobytes(order))
    return True


def read_groups(path: Path, content: bytes) -> bool:
    groups = NpyRows("unused", groups=str(path)).open_groups()
    assert groups is not None and np.array_equal(groups, np.load(io.BytesIO(content), allow_pickle=False))
    return True


def read_safetensors(path: Path, content: bytes) -> bool:
    source = SafetensorsRows(str(path))
    (shard,) = source.shards
    tensors, _ = plain_safetensors(content)
    matrices = [name for name, (shape, *_) in tensors.items() if len(shape) == 2]
    same_tensor(shard.rows, tensors["activations" if "activations" in tensors else matrices[0]])
    groups = source.open_groups()
    assert (groups is None) is ("group" not in tensors)
    if groups is not None:
        _, kind, data = tensors["group"]
        plain = np.frombuffer(data, NUMPY_TYPES[kind])
        assert np.array_equal(groups[:, None] == groups, plain[:, None] == plain)
    return True


def read_dictionary(path: Path, content: bytes) -> bool:
    model = SemiNMF.load(path)
    tensors, metadata = plain_safetensors(content)
    same_tensor(model.get_dictionary(), tensors["D"])
    same_tensor(
        torch.tensor(model.normalizer.scale, dtype=torch.float64).reshape(tensors["scale"][0]),
        tensors["scale"],
    )
    assert (model.get_dictionary() >= 0).all() and len(model.get_dictionary()) == model.recipe.nb_concepts
    config = json.loads(metadata["config"])
    assert all(
        model.settings[name] == config[name] for name in ("l1_penalty", "seed", "tol") if name in config
    )
    return True


def read_checkpoint(path: Path, content: bytes) -> bool:
    module = SemiNMFModule.load_from_checkpoint(path)
    plain = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    found = {"state_dict": dict(module.state_dict()), "learner": module._learner_state}
    if not same(found, {"state_dict": dict(plain["state_dict"]), "learner": plain["learner"]}):
        # torch's other reader leaves the memory of some tensors as it was: bytes of the archive settle it.
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            stored = {archive.read(part) for part in archive.namelist() if "/data/" in part}
        tensors = [
            value for node in containers(found) for value in node.values() if isinstance(value, torch.Tensor)
        ]
        assert tensors and all(tensor.numpy().tobytes() in stored for tensor in tensors)
    return True


def read_store(path: Path, content: bytes) -> bool:
    """``path`` is any file of a store in ``<folder>/store``."""
    folder = next(parent for parent in path.parents if parent.name == "store")
    source = HarvestedRows(str(folder))
    rows, groups = source.read_range(0, len(source)), source.open_groups()
    tracer = Tracer(Store(folder), source.layers()[0])
    origins = [tracer.origin(row) for row in range(0, len(tracer), 7)]
    manifest = json.loads((folder / "manifest.json").read_bytes())
    (layer,) = manifest["layers"].values()
    plain_rows, plain_groups, names = [], [], {}
    for record in layer["shards"]:
        tensors, _ = plain_safetensors((folder / record["file"]).read_bytes())
        shape, kind, data = tensors["activations"]
        plain_rows.append(np.frombuffer(data, NUMPY_TYPES[kind]).reshape(shape))
        shape, kind, data = plain_safetensors((folder / record["index"]).read_bytes())[0]["example"]
        plain_groups.append(np.frombuffer(data, NUMPY_TYPES[kind]))
        text = (
            (folder / "examples" / f"{record['shard']:06d}.jsonl")
            .read_bytes()
            .decode("utf-8", "surrogatepass")
        )
        for number, line in enumerate(text.split("\n")[:-1]):
            names[record["examples"][0] + number] = json.loads(line)["name"]
    assert len(rows) == layer["rows"] and np.array_equal(
        rows.numpy(), np.concatenate(plain_rows).astype("f4"), equal_nan=True
    )
    assert np.array_equal(groups, np.concatenate(plain_groups))
    assert all(origin.name == names[origin.example] for origin in origins)
    return True


def read_lines(path: Path, content: bytes) -> bool:
    inputs, whole = TextFiles(str(path)), True
    lines = content.split(b"\n")
    lines = lines[:-1] if not lines[-1] else lines
    assert len(inputs) == len(lines)
    for number, line in enumerate(lines):
        try:
            found = inputs.read(number)
        except Unreadable as error:
            if path.name not in str(error) or f"line {number + 1}" not in str(error):
                raise
            whole = False
        else:
            text = line.decode().rstrip("\r\n").removeprefix("\ufeff")
            assert found == (json.loads(text)["text"] if text.strip() else "")
    return whole


def read_picture(path: Path, content: bytes) -> bool:
    from PIL import Image, ImageOps

    found = ImageFiles(str(path)).read(0)
    with Image.open(io.BytesIO(content), formats=FORMATS) as plain:
        plain = ImageOps.exif_transpose(plain)
        if plain.mode not in ("L", "RGB", "CMYK", "YCbCr") or "transparency" in plain.info:
            return True  # scaled or laid over white; tests/harvest/inputs/test_pixels.py
        plain = plain.convert("RGB")
    assert found.mode == "RGB" and found.size == plain.size and found.tobytes() == plain.tobytes()
    return True


def read_a_run(path: Path, content: bytes) -> bool:
    """``path`` is any file of a run in ``<folder>/run``."""
    folder = next(parent for parent in path.parents if parent.name == "run")
    found = read_run(folder)
    if found.status != "finished":
        if (
            path.name in found.reason
            or ".hydra" in found.reason
            or re.search(r"\w+ is (missing|\S+)", found.reason)
        ):
            return False
        raise AssertionError(f"status {found.status}, reason {found.reason!r}")
    plain = json.loads((folder / "metrics.json").read_bytes())
    assert all(
        math.isclose(plain[name], found.metrics[name] or 0.0) for name in ("r2", "l0", "reconstruction_loss")
    )
    return True


EDITS: dict[str, Callable[[bytes, list[bytes], random.Random], bytes]] = {
    "npy": change_npy,
    "groups": change_npy,
    "safetensors": change_safetensors,
    "dictionary": change_safetensors,
    "checkpoint": change_checkpoint,
    "manifest": change_json,
    "shard": change_safetensors,
    "index": change_safetensors,
    "examples": change_lines,
    "texts": change_lines,
    "picture": change,
    "figures": change_json,
    "settings": change,
}


def kinds(folder: Path) -> dict[str, Kind]:
    """Whole files of each kind, and the stores and runs around some of them, made in ``folder``."""
    chance = np.random.default_rng(0)
    arrays = [chance.normal(size=(8, 4)).astype(kind) for kind in ("<f4", "<f4", "<f2", "<f8")]
    arrays.append(np.asfortranarray(arrays[0]))
    groups = [np.arange(8) // 3, np.array(["a", "b", "b", "c"]), (np.arange(8) // 2).astype("<i2")]
    rows, group = torch.from_numpy(arrays[0]), torch.arange(8, dtype=torch.int32) // 3
    shards = [
        save({"activations": rows, "group": group}),
        save({"x": rows.bfloat16()}),
        save({"activations": rows.half(), "y": group}),
    ]
    (made := folder / "made").mkdir(parents=True)
    A = torch.from_numpy(chance.normal(size=(60, 6)).astype("f4"))
    models = SemiNMF(4, "hals"), SemiNMF(4, "pgd", l1_penalty=0.1, normalize="center")
    for name, model in zip("ab", models, strict=True):
        model.fit(A, max_iter=3)
        model.save(made / f"{name}.safetensors")
        checkpoint(made / f"{name}.ckpt", A, 0.1 if name == "b" else 0.0)
    store_of(folder / "store", A)
    run = folder / "run"
    (run / ".hydra").mkdir(parents=True)
    (run / "metrics.json").write_text(
        '{"r2": 0.5, "l0": 3.0, "reconstruction_loss": 0.1, "dead_fraction": 0.0, "seconds": 1.5}'
    )
    (run / ".hydra" / "overrides.yaml").write_text("- data=npy\n- l1_penalty=0.1\n")
    (run / ".hydra" / "config.yaml").write_text("data:\n  _target_: a.b\n  path: [x, y]\nseed: 0\n")
    texts = b"".join(json.dumps({"text": f"line {i} \u00e9"}).encode() + b"\n" for i in range(4))
    store, read = folder / "store", Path.read_bytes
    return {
        "npy": Kind(0.2, "rows.npy", [_npy(array) for array in arrays], read_npy),
        "groups": Kind(0.05, "groups.npy", [_npy(array) for array in groups], read_groups),
        "safetensors": Kind(0.22, "rows.safetensors", shards, read_safetensors),
        "dictionary": Kind(
            0.14, "dictionary.safetensors", [read(made / f"{n}.safetensors") for n in "ab"], read_dictionary
        ),
        "checkpoint": Kind(0.08, "last.ckpt", [read(made / f"{n}.ckpt") for n in "ab"], read_checkpoint),
        "manifest": Kind(0.05, "store/manifest.json", [read(store / "manifest.json")], read_store),
        "shard": Kind(0.03, "store/0/000000.safetensors", [read(store / "0/000000.safetensors")], read_store),
        "index": Kind(
            0.05, "store/0/index/000000.safetensors", [read(store / "0/index/000000.safetensors")], read_store
        ),
        "examples": Kind(
            0.03, "store/examples/000000.jsonl", [read(store / "examples/000000.jsonl")], read_store
        ),
        "texts": Kind(0.06, "texts.jsonl", [texts], read_lines),
        "picture": Kind(0.06, "a.png", list(pictures()), read_picture, megabytes=2048),
        "figures": Kind(0.02, "run/metrics.json", [read(run / "metrics.json")], read_a_run),
        "settings": Kind(0.01, "run/.hydra/config.yaml", [read(run / ".hydra/config.yaml")], read_a_run),
    }


def _npy(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def checkpoint(path: Path, A: torch.Tensor, penalty: float) -> None:
    import lightning

    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    trainer = lightning.Trainer(
        accelerator="cpu", max_epochs=1, logger=False, enable_progress_bar=False, enable_model_summary=False,
        default_root_dir=path.parent, enable_checkpointing=False,
    )  # fmt: skip
    trainer.fit(SemiNMFModule(4, l1_penalty=penalty), ActivationDataModule(A))
    trainer.save_checkpoint(path)


def store_of(folder: Path, A: torch.Tensor) -> None:
    np.save(folder.parent / "x.npy", A.numpy())
    recipe = HarvestRecipe(
        {"name": "callable", "target": "torch.nn:Sequential"},
        {"name": "tensors", "path": str(folder.parent / "x.npy")},
        "0",
    )
    recipe.loaded.network.append(torch.nn.Identity())
    job(recipe, folder, shard_mb=0.0008).run()


def pictures() -> Iterator[bytes]:
    from PIL import Image

    pixels = np.random.default_rng(0).integers(0, 255, (12, 16, 3), dtype=np.uint8)
    for name in FORMATS:
        stream = io.BytesIO()
        Image.fromarray(pixels).save(stream, name)
        yield stream.getvalue()
