"""Headers are compared with the size of the file."""

from __future__ import annotations

import io
import json
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save

from seminmf_lightning.data.remote.headers import npy_layout, safetensors_layouts


def test_headers_are_held_against_the_size_of_the_file() -> None:
    def npy(array: Any) -> bytes:
        stream = io.BytesIO()
        np.save(stream, array)
        return stream.getvalue()

    def layout(content: bytes) -> Any:
        return npy_layout("x", len(content), lambda start, stop: content[start:stop])

    def layouts(content: bytes) -> Any:
        return safetensors_layouts("x", len(content), lambda start, stop: content[start:stop])

    whole = npy(np.ones((50, 4)))
    assert layout(whole)[:2] == (128, (50, 4))
    for content, words in (
        (whole[:-1], "truncated"), (whole + b"x", "more follows"), (b"", "truncated"),
        (b"\x93NUMPY", "truncated"),
        (npy(np.ones((5, 4)).T.copy(order="F")), "ascontiguousarray"), (npy(np.ones(3) * 1j), "dtype"),
        (npy(np.array(["a"])), "dtype"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=words):
            layout(content)
    # A header of more than one request.
    many = {f"tensor{index:05d}": torch.ones(2, 3).bfloat16() for index in range(2000)}
    found = layouts(save(many))
    assert len(found) == 2000
    assert found["tensor00007"].bfloat16
    whole = save({"a": torch.ones(50, 4), "b": torch.ones(3)})
    header = {"a": {"dtype": "F32", "shape": [1, 2], "data_offsets": [0, 8]}}

    def with_header(**changed: Any) -> bytes:
        text = json.dumps({"a": header["a"] | changed}).encode()
        return len(text).to_bytes(8, "little") + text + bytes(8)

    assert layouts(with_header())["a"].shape == (1, 2)
    for content in (
        whole[:-1], whole + b"x", b"", whole[:5], (2**60).to_bytes(8, "little") + whole[8:],
        b"\x05" + bytes(7) + b"[[[[[" + bytes(9),
        with_header(shape=[2, 2]), with_header(data_offsets=[4, 12]), with_header(shape=[-1, -2]),
        with_header(dtype=3), with_header(data_offsets=[0]), with_header(shape=[1.0, 2]),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=r"x: not a whole \.safetensors file"):
            layouts(content)
