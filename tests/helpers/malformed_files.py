"""Malformed files by the thousand:  python tests/fuzzing.py --files 100000

Whole files of every kind that the project reads are changed at random, in ways that know their structure, and
read.  Of each one of two things must come: what an independent reader finds in the same bytes, or an error
that is a ValueError (or says that the file is not there) and names the file.  Anything else is a failure,
kept with its seed: another error, another result, more than five seconds, more than 512 MB (2 GB for a
picture and its copy), the end of the process.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import logging
import math
import multiprocessing
import os
import random
import re
import resource
import shutil
import signal
import struct
import sys
import tempfile
import time
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors.torch import save

from seminmf_lightning import SemiNMF, SemiNMFModule
from seminmf_lightning.data import ActivationDataModule, HarvestedRows, NpyRows, SafetensorsRows
from seminmf_lightning.explain.runs import read_run
from seminmf_lightning.harvest import HarvestJob, HarvestRecipe, Store
from seminmf_lightning.harvest.inputs.base import Unreadable
from seminmf_lightning.harvest.inputs.images import FORMATS, ImageFiles
from seminmf_lightning.harvest.inputs.text import TextFiles
from seminmf_lightning.harvest.provenance import Tracer
from seminmf_lightning.io.untrusted import Refused

SECONDS = 5.0
ACCEPTED_ERRORS = (Refused, Unreadable, ValueError, FileNotFoundError)
"""By their very type: a UnicodeDecodeError is a ValueError that says nothing of the file."""
NUMPY_TYPES = {"F32": "<f4", "F64": "<f8", "F16": "<f2", "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "i1", "U8": "u1",
               "U16": "<u2", "U32": "<u4", "U64": "<u8", "BOOL": "?"}  # fmt: skip


class Kind(NamedTuple):
    """A kind of file: how often it is tried, where it lies, whole ones, and a reader that returns True where
    all of it was read, False where all that is wrong was named; it raises AssertionError where the two
    readers differ."""

    share: float
    name: str
    whole: list[bytes]
    read: Callable[[Path, bytes], bool]
    megabytes: int = 512  # that both readers may take together


# --- changes
# ---------------------------------------------------------------------------------------------------------

LENGTHS = (
    0,
    1,
    7,
    8,
    127,
    128,
    255,
    256,
    65_535,
    2**31 - 1,
    2**31,
    2**32 - 1,
    2**40,
    2**53,
    2**62,
    2**63 - 1,
    2**63,
    2**64 - 1,
)
TEXTS = (
    b"-1",
    b"0",
    b"1",
    b"3",
    b"1e9",
    b"1e400",
    b"NaN",
    b"99999999999999999999",
    b"9" * 400,
    b"null",
    b"true",
    b'""',
    b"()",
)
VALUES: tuple[Any, ...] = (
    None, True, -1, 0, 1, 2, 3, 2**31, 2**62, 2**63, 2**64, 10**30, 0.5, -0.0, 1e308, float("nan"), float("inf"), "", "x",
    "../../x", "/etc/passwd", "\ud800", "F32", "I64", "F8_E4M3", "BF16", "C64", [], [0], [-1], [2**62, 2**62], {},
    {"name": "os"}, {"_target_": "os.system"}, [[]], "a" * 2000,
)  # fmt: skip


def change(content: bytes, others: list[bytes], chance: random.Random) -> bytes:
    """One to three changes of bytes, whatever they mean."""
    for _ in range(chance.choice((1, 1, 1, 2, 3))):
        content = chance.choice(CHANGES)(content, others, chance)
    return content


def flipped(content: bytes, others: list[bytes], chance: random.Random) -> bytes:
    found = bytearray(content)
    for _ in range(chance.randint(1, 8) if found else 0):
        found[chance.randrange(len(found))] ^= 1 << chance.randrange(8)
    return bytes(found)


def cut(content: bytes, others: list[bytes], chance: random.Random) -> bytes:
    return content[: chance.randint(0, len(content))]


def longer(content: bytes, others: list[bytes], chance: random.Random) -> bytes:
    return content + chance.choice((b"\0", b"\n", content, chance.randbytes(chance.randint(1, 64))))


def without(content: bytes, others: list[bytes], chance: random.Random) -> bytes:
    start = chance.randint(0, len(content))
    return content[:start] + content[start + chance.randint(1, 32) :]


def blank(content: bytes, others: list[bytes], chance: random.Random) -> bytes:
    start, length = chance.randint(0, len(content)), chance.randint(1, 32)
    return (
        content[:start]
        + chance.choice((b"\0", b"\xff", b" ", b"[", b"(")) * length
        + content[start + length :]
    )


def spliced(content: bytes, others: list[bytes], chance: random.Random) -> bytes:
    other = chance.choice(others)
    return content[: chance.randint(0, len(content))] + other[chance.randint(0, len(other)) :]


def other_length(content: bytes, others: list[bytes], chance: random.Random) -> bytes:
    form = chance.choice(("<Q", "<I", "<H", ">I"))
    size = struct.calcsize(form)
    at = 0 if chance.random() < 0.3 else chance.randint(0, max(0, len(content) - size))
    return content[:at] + struct.pack(form, chance.choice(LENGTHS) % 256**size) + content[at + size :]


def other_number(content: bytes, others: list[bytes], chance: random.Random) -> bytes:
    places = list(re.finditer(rb"\d+", content[:4096]))
    if not places:
        return content
    place = chance.choice(places)
    return content[: place.start()] + chance.choice(TEXTS) + content[place.end() :]


def noise(content: bytes, others: list[bytes], chance: random.Random) -> bytes:
    return chance.randbytes(chance.randint(0, 200))


def nested(content: bytes, others: list[bytes], chance: random.Random) -> bytes:
    return chance.choice((b"[", b"{", b"(", b'{"a":')) * chance.choice((10, 1000, 100_000))


CHANGES = (flipped, flipped, cut, longer, without, blank, spliced, other_length, other_number, other_number)


def other_json(content: bytes, chance: random.Random) -> bytes:
    """One value, key or item of a JSON text is another, or gone."""
    found = json.loads(content)
    node, place = found, None
    places = [
        (node, key)
        for node in _containers(found)
        for key in (node if isinstance(node, dict) else range(len(node)))
    ]
    if not places:
        return content
    node, place = chance.choice(places)
    action = chance.random()
    if action < 0.2:
        del node[place]
    elif action < 0.3 and isinstance(node, dict):
        node[chance.choice(("x", "", "D", "__metadata__", "activations"))] = node.pop(place)
    elif action < 0.4:
        node[place] = chance.choice(places)[0]
    elif action < 0.6 and isinstance(node[place], int):
        node[place] += chance.choice((-8, -1, 1, 4, 8))
    else:
        node[place] = chance.choice(VALUES)
    with contextlib.suppress(ValueError, RecursionError):  # a value that holds itself
        return json.dumps(found).encode()
    return content


def _containers(node: Any) -> Iterator[Any]:
    if isinstance(node, dict | list):
        yield node
        for value in list(node.values() if isinstance(node, dict) else node):
            yield from _containers(value)


def change_safetensors(content: bytes, others: list[bytes], chance: random.Random) -> bytes:
    if chance.random() < 0.5:
        return change(content, others, chance)
    size = struct.unpack("<Q", content[:8])[0]
    header, rest = content[8 : 8 + size], content[8 + size :]
    if chance.random() < 0.3 and b'"config"' in header:
        found = json.loads(header)
        name = chance.choice(sorted(found["__metadata__"]))
        edited = other_json(found["__metadata__"][name].encode(), chance)
        found["__metadata__"][name] = (
            change(edited, [edited], chance).decode("latin-1") if chance.random() < 0.2 else edited.decode()
        )
        header = json.dumps(found).encode()
    elif chance.random() < 0.8:
        header = other_json(header, chance)
    else:
        header = change(header, [header], chance)
    if chance.random() < 0.1:
        rest = change(rest, others, chance)
    return struct.pack("<Q", len(header)) + header + rest


def change_npy(content: bytes, others: list[bytes], chance: random.Random) -> bytes:
    if chance.random() < 0.5:
        return change(content, others, chance)
    size = struct.unpack("<H", content[8:10])[0]
    header, rest = content[10 : 10 + size], content[10 + size :]
    if chance.random() < 0.3:
        for old, new in (chance.choice(NPY_EDITS), chance.choice(NPY_EDITS)):
            header = header.replace(old, new)
    else:
        header = change(header, [header], chance)
    return (
        content[:6]
        + bytes((chance.choice((1, 1, 1, 2, 3)), 0))
        + struct.pack("<H", len(header) % 65_536)
        + header
        + rest
    )


NPY_EDITS = (
    (b"<f4", b"|O"), (b"<f4", b">f4"), (b"<f4", b"<f2"), (b"<f4", b"<U1"), (b"<f4", b"<c8"), (b"<f4", b"<f16"),
    (b"False", b"True"), (b"8, 4", b"4, 8"), (b"8, 4", b"8, 3"),
    (b"8, 4", b"7, 4"), (b"8, 4", b"32,"), (b"8, 4", b""), (b"8, 4", b"-8, -4"),
    (b"8, 4", b"8, 4, 1"), (b"8, 4", b"True, 32"), (b"8, 4", b"4294967296, 4294967296"), (b"8, 4", b"0, 4"),
    (b"'<f4'", b"[('a', '<f4')]"),
    (b"8, 4", b"-" * 9000 + b"8, 4"), (b"8, 4", b"(" * 9000 + b"8, 4"),
)  # fmt: skip


def change_checkpoint(content: bytes, others: list[bytes], chance: random.Random) -> bytes:
    if chance.random() < 0.4:
        return change(content, others, chance)
    stream = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(stream, "w") as new:
        for part in old.infolist():
            data, roll = old.read(part), chance.random()
            if part.filename.endswith("data.pkl") or roll < 0.05:
                data = change(data, others, chance)
            elif roll < 0.07:
                continue
            new.writestr(part.filename, data, zipfile.ZIP_DEFLATED if chance.random() < 0.005 else None)
    return stream.getvalue()


def change_json(content: bytes, others: list[bytes], chance: random.Random) -> bytes:
    if chance.random() < 0.5:
        return chance.choice((change, change, change, noise, nested))(content, others, chance)
    return other_json(content, chance)


def change_lines(content: bytes, others: list[bytes], chance: random.Random) -> bytes:
    lines = content.splitlines(keepends=True)
    at = chance.randrange(len(lines))
    lines[at] = change_json(lines[at].rstrip(b"\n"), others, chance) + b"\n"
    return b"".join(lines) if chance.random() < 0.8 else change(content, others, chance)


# --- independent readers
# ---------------------------------------------------------------------------------------------


def plain_safetensors(content: bytes) -> tuple[dict[str, tuple[list[int], str, bytes]], dict[str, str]]:
    """Shape, type and bytes of each tensor, and the metadata, by ``struct`` and ``json`` alone; of equal keys
    the last."""
    size = struct.unpack("<Q", content[:8])[0]
    header = json.loads(content[8 : 8 + size])
    metadata = header.pop("__metadata__", None) or {}
    tensors = {}
    for name, found in header.items():
        start, stop = found["data_offsets"]
        tensors[name] = (found["shape"], found["dtype"], content[8 + size :][start:stop])
    assert sum(len(data) for *_, data in tensors.values()) == len(content) - 8 - size, (
        "bytes of the file were dropped"
    )
    return tensors, metadata


def same_tensor(found: torch.Tensor, plain: tuple[list[int], str, bytes]) -> None:
    shape, kind, data = plain
    assert list(found.shape) == shape
    assert found.contiguous().flatten().view(torch.uint8).numpy().tobytes() == data
    if kind in NUMPY_TYPES:
        assert found.numpy().dtype == np.dtype(NUMPY_TYPES[kind])


def same(found: Any, plain: Any) -> bool:
    """Equal, NaN included."""
    if isinstance(found, torch.Tensor):
        return (
            isinstance(plain, torch.Tensor)
            and found.dtype == plain.dtype
            and torch.equal(found.nan_to_num(), plain.nan_to_num())
        )
    if isinstance(found, dict):
        return (
            isinstance(plain, dict)
            and found.keys() == plain.keys()
            and all(same(found[key], plain[key]) for key in found)
        )
    if isinstance(found, list | tuple):
        return len(found) == len(plain) and all(map(same, found, plain))
    return found == plain or (found != found and plain != plain)


# --- kinds
# -----------------------------------------------------------------------------------------------------------


def read_npy(path: Path, content: bytes) -> bool:
    (shard,) = NpyRows(str(path)).shards
    plain = np.load(io.BytesIO(content), allow_pickle=False)
    rows = shard.slice(0, len(shard.rows)).numpy()
    assert rows.shape == plain.shape and np.array_equal(rows, plain, equal_nan=True)
    assert len(content) >= plain.nbytes and content.endswith(
        plain.tobytes("A" if plain.flags.c_contiguous else "F")
    )
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
            value for node in _containers(found) for value in node.values() if isinstance(value, torch.Tensor)
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
    "npy": change_npy, "groups": change_npy, "safetensors": change_safetensors, "dictionary": change_safetensors,
    "checkpoint": change_checkpoint, "manifest": change_json, "shard": change_safetensors, "index": change_safetensors,
    "examples": change_lines, "texts": change_lines, "picture": change, "figures": change_json, "settings": change,
}  # fmt: skip


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
    made = folder / "made"
    made.mkdir(parents=True)
    A = torch.from_numpy(chance.normal(size=(60, 6)).astype("f4"))
    for name, model in (
        ("a", SemiNMF(4, "hals")),
        ("b", SemiNMF(4, "pgd", l1_penalty=0.1, normalize="center")),
    ):
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
        "dictionary": Kind(0.14, "dictionary.safetensors", [read(made / f"{n}.safetensors") for n in "ab"], read_dictionary),
        "checkpoint": Kind(0.08, "last.ckpt", [read(made / f"{n}.ckpt") for n in "ab"], read_checkpoint),
        "manifest": Kind(0.05, "store/manifest.json", [read(store / "manifest.json")], read_store),
        "shard": Kind(0.03, "store/0/000000.safetensors", [read(store / "0/000000.safetensors")], read_store),
        "index": Kind(0.05, "store/0/index/000000.safetensors", [read(store / "0/index/000000.safetensors")], read_store),
        "examples": Kind(0.03, "store/examples/000000.jsonl", [read(store / "examples/000000.jsonl")], read_store),
        "texts": Kind(0.06, "texts.jsonl", [texts], read_lines),
        "picture": Kind(0.06, "a.png", list(pictures()), read_picture, megabytes=2048),
        "figures": Kind(0.02, "run/metrics.json", [read(run / "metrics.json")], read_a_run),
        "settings": Kind(0.01, "run/.hydra/config.yaml", [read(run / ".hydra/config.yaml")], read_a_run),
    }  # fmt: skip


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
    harvester = recipe.harvester(torch.device("cpu"))
    settings = recipe.settings(harvester.layers)
    HarvestJob(
        harvester, Store(folder), settings, dtype="float32", shard_mb=0.0008, tell=lambda text: None
    ).run()


def pictures() -> Iterator[bytes]:
    from PIL import Image

    pixels = np.random.default_rng(0).integers(0, 255, (12, 16, 3), dtype=np.uint8)
    for name in FORMATS:
        stream = io.BytesIO()
        Image.fromarray(pixels).save(stream, name)
        yield stream.getvalue()


# --- the run
# ---------------------------------------------------------------------------------------------------------


def malformed(name: str, kind: Kind, seed: int) -> bytes:
    """File number ``seed``, the same on every machine with the same whole files."""
    chance = random.Random(f"{name} {seed}")
    return EDITS[name](chance.choice(kind.whole), kind.whole, chance)


def verdict(kind: Kind, path: Path, content: bytes) -> str:
    """``loaded right``, ``refused clearly``, or what went wrong."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        path.write_bytes(content)
        found = "loaded right" if kind.read(path, content) else "refused clearly"
    except Exception as error:
        named = path.name in str(error) or (kind.name.startswith("store/") and "/store" in str(error))
        clear = type(error) in ACCEPTED_ERRORS and named and len(str(error)) > len(str(path)) + 10
        found = "refused clearly" if clear else f"{type(error).__name__}: {error}"
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    return found if grown < kind.megabytes else f"took {grown:.0f} MB ({found})"


def work(folder: Path, known: dict[str, Kind], plan: list[tuple[str, int]], verdicts: Path) -> None:
    """The files of ``plan``, one line of JSON in ``verdicts`` each."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # what libraries in C have to say
    signal.signal(signal.SIGALRM, _too_long)
    mine = Path(tempfile.mkdtemp(dir=folder))
    for part in ("store", "run"):
        shutil.copytree(folder / part, mine / part)
    with open(verdicts, "a", buffering=1) as stream:
        for name, seed in plan:
            kind = known[name]
            content, path = malformed(name, kind, seed), mine / kind.name
            signal.setitimer(signal.ITIMER_REAL, SECONDS)
            try:
                found = verdict(kind, path, content)
            except TooLong as error:
                found = str(error)
            signal.setitimer(signal.ITIMER_REAL, 0)
            stream.write(json.dumps([name, seed, found]) + "\n")
            if kind.name.startswith(("store/", "run/")):
                path.write_bytes(kind.whole[0])


class TooLong(BaseException):
    """No reader may take so long; not an Exception, which a reader may catch."""


def _too_long(*_: object) -> None:
    raise TooLong(f"more than {SECONDS:g} seconds")


def fuzz(
    files: int, seed: int = 0, processes: int = 2, keep: Path | None = None
) -> tuple[Counter[tuple[str, str]], list[str]]:
    """Try ``files`` malformed files; return how many of each kind had each verdict, and the failures in
    words.

    The files of failures are written to ``keep``.
    """
    place = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    counts: Counter[tuple[str, str]] = Counter()
    failures: list[str] = []
    with tempfile.TemporaryDirectory(dir=place) as root:
        folder = Path(root)
        known = kinds(folder)
        chance = random.Random(seed)
        names = chance.choices(list(known), [kind.share for kind in known.values()], k=files)
        plan = [(name, seed * 10**9 + number) for number, name in enumerate(names)]
        workers = [
            Worker(folder, known, plan[start::processes], folder / f"verdicts.{start}")
            for start in range(processes)
        ]
        while not all([worker.done() for worker in workers]):
            time.sleep(0.05)
        for name, number, found in (line for worker in workers for line in worker.lines()):
            counts[name, found if found in VERDICTS else "FAILED"] += 1
            if found not in VERDICTS:
                failures.append(f"{name} {number}: {found}")
                if keep is not None:
                    keep.mkdir(parents=True, exist_ok=True)
                    (keep / f"{name}-{number}{Path(known[name].name).suffix}").write_bytes(
                        malformed(name, known[name], number)
                    )
    return counts, failures


VERDICTS = ("loaded right", "refused clearly")


class Worker:
    """A process that reads files, started anew behind one that ended it or does not come back."""

    def __init__(
        self, folder: Path, known: dict[str, Kind], plan: list[tuple[str, int]], verdicts: Path
    ) -> None:
        self.folder, self.known, self.plan, self.verdicts = folder, known, plan, verdicts
        verdicts.touch()
        self._start()

    def lines(self) -> list[Any]:
        return [json.loads(line) for line in self.verdicts.read_text().splitlines()]

    def done(self) -> bool:
        size = self.verdicts.stat().st_size
        if size != self.size:
            self.size, self.since = size, time.monotonic()
        stuck = time.monotonic() - self.since > 3 * SECONDS
        if self.process.is_alive() and not stuck:
            return False
        if stuck:
            self.process.kill()
        self.process.join()
        read = len(self.lines())
        if read == len(self.plan):
            return True
        why = "never came back" if stuck else f"ended the process ({self.process.exitcode})"
        with open(self.verdicts, "a") as stream:
            stream.write(json.dumps([*self.plan[read], why]) + "\n")
        self._start()
        return False

    def _start(self) -> None:
        self.size, self.since = -1, time.monotonic()
        left = self.plan[len(self.lines()) :]
        context = multiprocessing.get_context(
            "fork"
        )  # the whole files are at hand, and nothing is imported twice
        self.process = context.Process(target=work, args=(self.folder, self.known, left, self.verdicts))
        self.process.start()


def table(counts: Counter[tuple[str, str]]) -> str:
    """Verdicts by kind."""
    columns = (*VERDICTS, "FAILED")
    lines = [f"{'kind':<12}{'files':>9}" + "".join(f"{column:>17}" for column in columns)]
    for name in [*EDITS, "all"]:
        row = [
            sum(count for (kind, found), count in counts.items() if name in (kind, "all") and found == column)
            for column in columns
        ]
        lines.append(f"{name:<12}{sum(row):>9,}" + "".join(f"{count:>17,}" for count in row))
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--files", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--keep", type=Path, help="folder for the files of failures")
    options = parser.parse_args()
    began = time.monotonic()
    counts, failures = fuzz(options.files, options.seed, options.processes, options.keep)
    seconds = time.monotonic() - began
    print(f"{table(counts)}\n{seconds:.0f} s, {options.files / seconds:,.0f} files a second")
    print("\n".join(failures[:50]))
    sys.exit(bool(failures))


if __name__ == "__main__":
    main()
