"""Labels made without a language model."""

from __future__ import annotations

from typing import Any

from seminmf_lightning.explain.automatic_labels import automatic_labels


def fires(text: str, token: str) -> dict[str, Any]:
    start = text.index(token)
    return {"name": "a.txt", "text": text, "tokens": [[0, 1, 3, 0], [start, start + len(token), 127, 1]]}


def image(name: str) -> dict[str, Any]:
    return {"name": f"{name}: patch [0:8, 0:8] of 64 x 64 pixels", "image": 0, "cells": [[0, 0, 127]]}


def test_tokens_with_the_word_that_is_always_beside_them_or_the_strongest() -> None:
    labels = automatic_labels({
        0: [fires("in the List of", "the"), fires("on the list", "the"), fires("The list", "The")],
        1: [fires("a red fox", "red"), fires("a blue fox", "blue"), fires("a tea", "tea")],
        2: [fires("re-reading it", "ing"), fires("finding her", "ing")],
        3: [fires("a dog", "dog"), fires("the dog sat", "dog"), fires("A Cat", "Cat"), fires("cat", "cat")],
        4: [],
        5: [{"name": "rows.npy, row 7"}],
        6: [fires("a  \n", "  ")],
        7: [fires("on the mat", " the"), fires("under the mat", " the")],  # a tokenizer that keeps spaces
    })  # fmt: skip
    assert labels == {
        0: "the list",
        1: "red, blue, tea",
        2: "-ing",
        3: "dog, Cat",
        6: "\u2423\u2423",
        7: "the mat",
    }


def test_images_have_the_name_of_their_common_group() -> None:
    groups = {
        0: [image("in/cats/1.png"), image("in/cats/2.png"), image("in/dogs/1.png")],
        1: [image("in/cats/1.png"), image("in/dogs/2.png"), image("in/fish/3.png")],
    }
    assert automatic_labels(groups) == {0: "cats", 1: "1, 2, 3"}
    one_folder = {0: [image("in/moon.png"), image("in/sun.png"), image("in/moon.png")]}
    assert automatic_labels(one_folder) == {0: "moon, sun"}  # a folder of all images says nothing
