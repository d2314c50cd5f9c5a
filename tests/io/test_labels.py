"""Labels of concepts are read, written and refused by name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from seminmf_lightning import SemiNMF
from seminmf_lightning.dictionary_file import load_dictionary
from seminmf_lightning.io.labels import AUTOMATIC_FILE, LABELS_FILE, digest_of, read_labels, write_labels

D = torch.arange(12.0).reshape(3, 4)


def test_labels_are_written_and_read_again(tmp_path: Path) -> None:
    labels = {2: "end of a sentence", 0: "ünï </script>"}
    write_labels(tmp_path / "labels.json", labels, D)
    assert read_labels(tmp_path / "labels.json", D) == labels
    with pytest.raises(ValueError, match=r"labels\.json: labels of the dictionary .* but this one is"):
        read_labels(tmp_path / "labels.json", D + 1)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "not labels: it is not JSON"),
        ("[]", "expected an object"),
        ('{"17": "a"}', "no 'labels'"),
        ('{"labels": {"1": 2}}', "expected a text"),
        ('{"labels": {"3": "a"}}', "concepts are numbered 0 to 2, found '3'"),
        ('{"labels": {"-1": "a"}}', "concepts are numbered 0 to 2"),
        ('{"labels": {"' + "9" * 5000 + '": "a"}}', "concepts are numbered 0 to 2"),
        ('{"labels": {"1": "a", "1": "b"}}', "the key '1' occurs twice"),
        ('{"labels": {"1": "a", "01": "b"}}', "numbered 0 to 2, found '01'"),
        ('{"dictionary": 1, "labels": {}}', "dictionary: expected a text"),
    ],
)
def test_files_that_hold_no_labels_are_refused(tmp_path: Path, content: str, words: str) -> None:
    (tmp_path / "labels.json").write_text(content)
    with pytest.raises(ValueError, match=words):
        read_labels(tmp_path / "labels.json", D)


def test_a_model_takes_the_labels_beside_it_and_keeps_them(tmp_path: Path) -> None:
    model = SemiNMF(nb_concepts=3, l1_penalty=0.1)
    model.fit(np.random.default_rng(0).random((40, 5)), max_iter=2)
    assert model.labels == {}
    model.save(tmp_path / "run" / "dictionary.safetensors")
    atoms = model.get_dictionary()
    write_labels(tmp_path / "run" / AUTOMATIC_FILE, {0: "cat, cats", 1: "dog"}, atoms)
    write_labels(tmp_path / "run" / LABELS_FILE, {0: "animals"}, atoms)
    labelled = SemiNMF.load(tmp_path / "run")
    assert labelled.labels == SemiNMF.load(tmp_path / "run" / "dictionary.safetensors").labels
    assert labelled.labels == {0: "animals", 1: "dog"}
    labelled.save(tmp_path / "elsewhere.safetensors")  # without the files beside it
    assert SemiNMF.load(tmp_path / "elsewhere.safetensors").labels == {0: "animals", 1: "dog"}
    assert load_dictionary(tmp_path / "run").labels == {}
    write_labels(tmp_path / "run" / LABELS_FILE, {0: "of an older run"}, atoms + 1)
    with pytest.warns(UserWarning, match="labels are not used: .*labels of the dictionary"):
        assert SemiNMF.load(tmp_path / "run").labels == {0: "cat, cats", 1: "dog"}
    assert digest_of(atoms) != digest_of(atoms + 1)
    labelled.fit(np.random.default_rng(1).random((40, 5)), max_iter=2)
    assert labelled.labels == {}


def test_labels_saved_with_a_model_come_before_automatic_ones(tmp_path: Path) -> None:
    model = SemiNMF.from_dictionary(D)
    model.labels = {0: "by hand"}
    model.save(tmp_path / "dictionary.safetensors")
    write_labels(tmp_path / AUTOMATIC_FILE, {0: "cat, cats", 1: "dog"}, D)
    assert SemiNMF.load(tmp_path).labels == {0: "by hand", 1: "dog"}


@pytest.mark.parametrize("labels", [{3: "a"}, {0: 1}, {0: None}, {"a": "b"}])
def test_labels_that_no_file_could_hold_are_refused_before_it_is_written(
    labels: dict, tmp_path: Path
) -> None:
    model = SemiNMF.from_dictionary(D)
    model.labels = labels
    with pytest.raises(ValueError, match=r"d\.safetensors: .*(numbered 0 to 2|expected a text)"):
        model.save(tmp_path / "d.safetensors")
    assert not list(tmp_path.iterdir())


def test_names_of_files_that_are_invalid_unicode_are_labels(tmp_path: Path) -> None:
    write_labels(tmp_path / AUTOMATIC_FILE, {0: "caf\udce9"}, D)
    assert read_labels(tmp_path / AUTOMATIC_FILE, D) == {0: "caf\udce9"}
