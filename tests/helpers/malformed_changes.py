"""Random changes of files that know their structure: lengths, types, names, links between parts."""

from __future__ import annotations

import contextlib
import io
import json
import random
import re
import struct
import zipfile
from collections.abc import Iterator
from typing import Any

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
    None,
    True,
    -1,
    0,
    1,
    2,
    3,
    2**31,
    2**62,
    2**63,
    2**64,
    10**30,
    0.5,
    -0.0,
    1e308,
    float("nan"),
    float("inf"),
    "",
    "x",
    "../../x",
    "/etc/passwd",
    "\ud800",
    "F32",
    "I64",
    "F8_E4M3",
    "BF16",
    "C64",
    [],
    [0],
    [-1],
    [2**62, 2**62],
    {},
    {"name": "os"},
    {"_target_": "os.system"},
    [[]],
    "a" * 2000,
)


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
        for node in containers(found)
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


def containers(node: Any) -> Iterator[Any]:
    if isinstance(node, dict | list):
        yield node
        for value in list(node.values() if isinstance(node, dict) else node):
            yield from containers(value)


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
    (b"<f4", b"|O"),
    (b"<f4", b">f4"),
    (b"<f4", b"<f2"),
    (b"<f4", b"<U1"),
    (b"<f4", b"<c8"),
    (b"<f4", b"<f16"),
    (b"False", b"True"),
    (b"8, 4", b"4, 8"),
    (b"8, 4", b"8, 3"),
    (b"8, 4", b"7, 4"),
    (b"8, 4", b"32,"),
    (b"8, 4", b""),
    (b"8, 4", b"-8, -4"),
    (b"8, 4", b"8, 4, 1"),
    (b"8, 4", b"True, 32"),
    (b"8, 4", b"4294967296, 4294967296"),
    (b"8, 4", b"0, 4"),
    (b"'<f4'", b"[('a', '<f4')]"),
    (b"8, 4", b"-" * 9000 + b"8, 4"),
    (b"8, 4", b"(" * 9000 + b"8, 4"),
)


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
