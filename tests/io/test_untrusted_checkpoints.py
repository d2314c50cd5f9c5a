"""Checkpoints from elsewhere: never run, never leave their folder, refused in words."""

from __future__ import annotations

import io
import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

from seminmf_lightning import SemiNMFModule
from seminmf_lightning.harvest.models.weights import load_weights
from seminmf_lightning.training.checkpoints import read_checkpoint


class Payload:
    """What a pickle makes of itself: a file that says it was run."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.marker}",)


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
        "train",
        "data=npy",
        f"data.path={trained / 'rows.npy'}",
        f"ckpt_path={path}",
        f"hydra.run.dir={tmp_path / 'run'}",
        "nb_concepts=4",
        "l1_penalty=0.1",
        "logger=none",
        check=False,
    )
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
    # It claims that D is 2 billion x 6.
    huge = pickled.replace(b"K\x04K\x06\x86", b"J\x00\x00\x00\x7fK\x06\x86", 1)
    assert huge != pickled
    bomb = io.BytesIO()
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x/data.pkl", bytes(10**7))
    for content in (
        repickled(whole, deep()),
        deep(),
        cyclic(trained),
        repickled(whole, huge),
        bomb.getvalue(),
        b"",
        whole[:-300],
        b"\x80\x02" + b"X\xff\xff\xff\x7f" + b"a" * 10,
    ):
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
