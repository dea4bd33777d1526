"""Ways to damage a file: byte by byte, and knowing its format."""

from __future__ import annotations

import contextlib
import copy
import hashlib
import io
import json
import re
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from safetensors import safe_open
from safetensors.numpy import save

from hostile import HOSTILE
from osbc_deploy.compress.state import _digest as state_digest
from osbc_deploy.formats.image import write as layout
from osbc_deploy.provenance import report_digest

__all__ = ["damage_bytes", "damage_hdf5", "damage_image", "damage_json", "damage_npz",
           "damage_packets", "damage_report", "damage_state", "damage_tensors", "damage_text",
           "damage_toml"]  # fmt: skip

Rng = np.random.Generator

EXTREMES = (0, 1, -1, 2, 7, 127, 128, 255, 256, 32767, 65535, 2**31 - 1, -(2**31), 2**32 - 1, 2**63,
            -(2**63))  # fmt: skip

VALUES: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 3, 2**31, 2**63, -(2**63), 2**64, 10**30, 10**400, 10**18,
    0.5, -0.0, 1e308, 1e-320, float("nan"), float("inf"), -float("inf"),
    "", "x", "input", "\0", "a/b", "..", "\ud800", "x" * 5000, "mixed",
    [], {}, [[]], [1], [0, 0], [-1, 2], [2**40, 2**40], ["a"], {"value": 1}, {"": None},
    [[1, 2], [3]], [None] * 50,
)  # fmt: skip

_FACT = '{{ value = {}, unit = "x", grade = "assumed", source = "brief" }}'
TOML_VALUES = (
    "true", "0", "-1", "1", "9" * 18, "9223372036854775807", "1" + "0" * 60, "9" * 5000,
    "0.5", "-0.0", "inf", "-inf", "nan", '""', '"x"', '"\\u0000"', '"\\u202e"', "1979-05-27",
    "07:32:00", "[]", "[[]]", "{}", "[1]", "[0, 0]", "[99999999999, 99999999999]", '["a", 1]',
    "[" * 50 + "]" * 50, "{ value = 1 }",
    *(_FACT.format(value) for value in (1, -5, 31, 99999999999, "[1, 2]", "nan")),
)  # fmt: skip


def damage_bytes(data: bytes, other: bytes, rng: Rng) -> bytes:
    """Change one to four places of a file; `other` is one to splice with."""
    for _ in range(int(rng.integers(1, 5))):
        at = int(rng.integers(0, len(data) + 1))
        size = int(rng.choice([1, 1, 2, 4, 8, 64, 1024]))
        kind = int(rng.integers(0, 9))
        if kind == 0 and data:
            at = min(at, len(data) - 1)
            flipped = data[at] ^ (1 << int(rng.integers(0, 8)))
            data = data[:at] + bytes([flipped]) + data[at + 1 :]
        elif kind == 1:
            data = data[:at]
        elif kind == 2:
            data = data[:at] + rng.bytes(size) + data[at:]
        elif kind == 3:
            data = data[:at] + rng.bytes(size) + data[at + size :]
        elif kind == 4:
            data = data[:at] + data[at + size :]
        elif kind == 5:
            place = int(rng.integers(0, len(other) + 1))
            data = data[:at] + other[place : place + 4 * size] + data[at + 4 * size :]
        elif kind == 6:
            data = data[:at] + data[at : at + size] * int(rng.integers(2, 5)) + data[at + size :]
        elif kind == 7:
            data = data[:at] + bytes(size) + data[at + size :]
        else:
            order, width = str(rng.choice(["little", "big"])), int(rng.choice([1, 2, 4, 8]))
            value = int(rng.choice(np.array(EXTREMES, object))) % (1 << (8 * width))
            data = data[:at] + value.to_bytes(width, order) + data[at + width :]  # type: ignore[arg-type]
    return data


def damage_text(text: str, rng: Rng) -> str:
    """Change lines and cells."""
    lines = text.split("\n")
    at = int(rng.integers(0, len(lines)))
    cells = ["²", "-1", "9" * 30, "9" * 5000, "", " 1", "1e3", "nan", "\0", "२", "a,b", "x" * 9999]
    kind = int(rng.integers(0, 4))
    if kind == 0:
        parts = lines[at].split(",")
        parts[int(rng.integers(0, len(parts)))] = str(rng.choice(cells))
        lines[at] = ",".join(parts)
    elif kind == 1:
        del lines[at]
    elif kind == 2:
        lines.insert(at, lines[int(rng.integers(0, len(lines)))])
    else:
        lines[at] = str(rng.choice([*cells, "../../etc/passwd", "/dev/zero", "."]))
    return "\n".join(lines)


def _pick(value: Any, rng: Rng, depth: int = 0) -> tuple[Any, Any]:
    """Return a random container below a value, and a key in it."""
    keys = list(value) if isinstance(value, dict) else list(range(len(value)))
    key = keys[int(rng.integers(0, len(keys)))]
    below = value[key]
    if isinstance(below, dict | list) and below and (depth < 1 or rng.random() < 0.8):
        return _pick(below, rng, depth + 1)
    return value, key


def _absurd(rng: Rng) -> Any:
    return copy.deepcopy(VALUES[int(rng.integers(0, len(VALUES)))])


def _near(value: Any, rng: Rng) -> Any:
    """Return a value of the same type, which a schema may take."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        others = [0, 1, -1, value + 1, value - 1, 2 * value, -value, value // 2, 10**9 * value]
        return others[int(rng.integers(0, len(others)))]
    return HOSTILE[int(rng.integers(0, len(HOSTILE)))] if isinstance(value, str) else value


def change(value: Any, rng: Rng) -> Any:
    """Change one to three places of plain data, which is returned, or something else for it."""
    if rng.random() < 0.02 or not isinstance(value, dict | list) or not value:
        return _absurd(rng)
    for _ in range(int(rng.integers(1, 4))):
        if not value:
            break
        where, key = _pick(value, rng)
        new = _absurd(rng)
        kind = int(rng.integers(0, 12))
        if kind > 7:
            where[key] = _near(where[key], rng)
        elif kind < 4:
            where[key] = new
        elif kind == 4:
            del where[key]
        elif kind == 5 and isinstance(where, dict):
            where[str(new)[:50]] = where.pop(key)
        elif kind == 6 and isinstance(where, list):
            where.insert(key, where[key])
        elif isinstance(where[key], int | float):
            where[key] = where[key] * int(rng.choice([-1, 2, 1000]))
        else:
            where[key] = [where[key]] * 3
    return value


def damage_json(text: str, rng: Rng) -> str:
    """Change values of a document; what results need not be valid."""
    if rng.random() < 0.03:
        return str(rng.choice(["[" * 100_000, '{"a":' * 50_000, "9" * 5000, "NaN", "", "\ufeff{}"]))
    return json.dumps(change(json.loads(text), rng))


def damage_report(text: str, rng: Rng) -> str:
    """Change values of a report, and make the digest in it right again."""
    report = change(json.loads(text), rng)
    with contextlib.suppress(KeyError, TypeError, ValueError, AttributeError):
        report["provenance"]["report_sha256"] = report_digest(report)
    return json.dumps(report)


def damage_toml(text: str, rng: Rng) -> str:
    """Change values and lines of a document."""
    if rng.random() < 0.03:
        return str(rng.choice(["x = " + "[" * 100_000, "a." * 50_000 + "b = 1", "[" + "a." * 99]))
    lines = text.split("\n")
    for _ in range(int(rng.integers(1, 4))):
        at = int(rng.integers(0, len(lines)))
        found = re.match(r"\s*([\w-]+)\s*=\s*(.*)", lines[at])
        new = str(rng.choice(np.array(TOML_VALUES, object)))
        kind = int(rng.integers(0, 6))
        if found and kind < 3:
            value = re.sub(r"(?<=value = )[^,}]+", lambda _, new=new: new, found[2], count=1)
            lines[at] = f"{found[1]} = {new if value == found[2] else value}"
        elif kind == 3:
            lines.insert(at, f"{rng.choice(['x', 'inherits', 'schema', 'name', 'model'])} = {new}")
        elif kind == 4:
            del lines[at]
            lines = lines or [""]
        else:
            lines.insert(at, lines[int(rng.integers(0, len(lines)))])
    return "\n".join(lines)


def damage_tensors(data: bytes, rng: Rng) -> bytes:
    """Change the header of a safetensors file, or its numbers, and keep the lengths right."""
    size = int.from_bytes(data[:8], "little")
    header, body = json.loads(data[8 : 8 + size]), bytearray(data[8 + size :])
    kind = int(rng.integers(0, 4))
    if kind == 0 and body:
        at = int(rng.integers(0, len(body)))
        body[at : at + 8] = rng.bytes(8)
    elif kind == 1:
        values = [v for k, v in header.items() if k != "__metadata__"]
        value = values[int(rng.integers(0, len(values)))]
        kinds = ["F64", "I8", "U8", "F32", "BOOL", "BF16", "I64", "F8_E4M3", "U64", "x"]
        value["dtype"] = str(rng.choice(kinds))
    else:
        header = change(header, rng)
    text = json.dumps(header).encode("utf-8", "surrogatepass")
    return len(text).to_bytes(8, "little") + text + bytes(body)


def damage_state(path: Path, rng: Rng) -> bytes:
    """Change what a finished layer's file says, and make its digest right again."""
    with safe_open(path, framework="numpy") as file:
        about = json.loads(file.metadata()["layer"])
        arrays = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    about.pop("sha256")
    about = change(about, rng)
    if isinstance(about, dict):
        about["sha256"] = state_digest(about, arrays)
    return save(arrays, {"layer": json.dumps(about)})


def damage_npz(data: bytes, rng: Rng) -> bytes:
    """Write an archive again with other headers, types, values or entries."""
    kinds = ["|u1", "<f8", "|O", "<U3", "|V8", "<c16", ">i2", "|b1", "<M8[s]", "<f2", "|S4", "x"]
    shapes = [
        "()",
        "(0,)",
        "(12, 8, 12)",
        "(99999999999, 99999999999)",
        "(-1, 3)",
        "(1,)*40",
        "None",
    ]
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as before, zipfile.ZipFile(out, "w") as after:
        for entry in before.infolist():
            content = before.read(entry)
            name = entry.filename
            length = int.from_bytes(content[8:10], "little")
            header, body = content[10 : 10 + length].decode("latin1"), content[10 + length :]
            kind = int(rng.integers(0, 8))
            if kind == 0:
                header = re.sub(r"'descr': [^,]+", f"'descr': '{rng.choice(kinds)}'", header)
            elif kind == 1:
                header = re.sub(r"'shape': \([^)]*\)", f"'shape': {rng.choice(shapes)}", header)
            elif kind == 2:
                body = body[: int(rng.integers(0, len(body) + 1))]
            elif kind == 3:
                body = rng.bytes(len(body))
            elif kind == 4:
                name = str(rng.choice(["x.npy", "labels", "../labels.npy", "spikes.npy/"]))
            elif kind == 5:
                header = str(rng.choice(["", "{", "[1]", "__import__('os')", "(" * 300]))
            packed = header.encode("latin1", "replace")
            method = int(rng.choice([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2]))
            start = content[:8] + len(packed).to_bytes(2, "little")
            after.writestr(name, start + packed + body, method)
    return out.getvalue()


def damage_hdf5(path: Path, rng: Rng) -> None:
    """Change members, values, types and shapes of an HDF5 file in place."""
    with h5py.File(path, "r+") as file:
        for _ in range(int(rng.integers(1, 3))):
            places: list[str] = []
            file.visit(places.append)
            if not places:
                return
            name = places[int(rng.integers(0, len(places)))]
            item, kind = file[name], int(rng.integers(0, 14))
            if isinstance(item, h5py.Dataset) and kind < 10:
                data = item[()] if item.shape is not None and item.size < 10**6 else 0
                del file[name]
                _other_values(file, name, data, kind, rng)
            elif kind == 10:
                del file[name]
            elif kind == 11:
                file.move(name, name + str(rng.choice(["x", "/x", "é", "0"])))
            elif kind == 12:
                elsewhere = places[int(rng.integers(0, len(places)))]
                target: Any = [
                    h5py.SoftLink("/" + elsewhere), h5py.ExternalLink("/etc/passwd", "/x"),
                    file[elsewhere], file["/"],
                ][int(rng.integers(0, 4))]  # fmt: skip
                del file[name]
                file[name] = target
            else:
                file.require_group("extra")[str(int(rng.integers(0, 10**9)))] = np.arange(3)


def _other_values(file: h5py.File, name: str, data: Any, kind: int, rng: Rng) -> None:
    array = np.asarray(data)
    numeric = array.dtype.kind in "iuf"
    if kind == 0:
        file[name] = h5py.Empty("f")
    elif kind == 1:
        file.create_dataset(name, (2**40, 2**10), "i8", chunks=(1024, 1024))
    elif kind == 2:
        absurd = ["", "x", "CUBA", "LIF", "sigma_delta", "\ud7ff" * 9, "NIRGraph"]
        file[name] = str(rng.choice(absurd))
    elif kind == 3 and numeric:
        values = [np.nan, np.inf, -1, 0, 1e300, -(2.0**40), 0.5, 3e9]
        file[name] = array * 0.0 + float(rng.choice(values))
    elif kind == 4:
        types: list[Any] = [np.dtype([("a", "i4"), ("b", "f8")]), "V7", h5py.ref_dtype,
                            h5py.vlen_dtype(np.int32), h5py.enum_dtype({"A": 1}), "c16", "?",
                            h5py.string_dtype("ascii", 4)]  # fmt: skip
        file.create_dataset(name, (3,), types[int(rng.integers(0, len(types)))])
    elif kind == 5 and numeric and array.size:
        file[name] = array.reshape(-1)[: int(rng.integers(0, array.size + 1))]
    elif kind == 6 and numeric:
        file[name] = array[None]
    elif kind == 7 and numeric:
        file[name] = array.astype(str(rng.choice(["f2", ">f8", "u1", "i8", "?", "u8"])))
    elif kind == 8 and numeric:
        file[name] = np.broadcast_to(array.ravel()[:1], (int(rng.integers(0, 40)),))
    else:
        file.create_group(name)


def damage_image(data: bytes, rng: Rng) -> bytes:
    """Change the sections of a chip image, and make all its checksums right again."""
    head = list(layout.HEADER.unpack_from(data))
    count = head[4]
    entries = [list(e) for e in layout.ENTRY.iter_unpack(
        data[layout.HEADER.size : layout.HEADER.size + count * layout.ENTRY.size])]  # fmt: skip
    parts = [bytearray(data[e[3] : e[3] + e[4]]) for e in entries]
    which = int(rng.integers(0, len(parts)))
    if which == 0 or rng.random() < 0.4:
        manifest = change(json.loads(bytes(parts[0])), rng)
        parts[0] = bytearray(json.dumps(manifest).encode())
    else:
        part = parts[which]
        for _ in range(int(rng.integers(1, 4))):
            at = int(rng.integers(0, max(1, len(part))))
            width = int(rng.choice([1, 2, 4]))
            value = int(rng.choice(np.array(EXTREMES, object))) % (1 << (8 * width))
            part[at : at + width] = value.to_bytes(width, "little")
        if rng.random() < 0.2:
            del part[int(rng.integers(0, len(part) + 1)) :]
    at = layout.HEADER.size + len(entries) * layout.ENTRY.size
    body = b""
    for entry, part in zip(entries, parts, strict=True):
        entry[3:6] = at + len(body), len(part), zlib.crc32(part)
        body += bytes(part) + bytes(-len(part) % 4)
    table = b"".join(layout.ENTRY.pack(*entry) for entry in entries)
    head[3], head[6] = at + len(body) + 32, zlib.crc32(table)
    start = layout.HEADER.pack(*head[:-1], 0)[:-4]
    whole = start + struct.pack("<I", zlib.crc32(start)) + table + body
    return whole + hashlib.sha256(whole).digest()


def damage_packets(data: bytes, rng: Rng) -> bytes:
    """Change whole numbers of 16 and 32 bits where an event file has them."""
    changed = bytearray(data)
    for _ in range(int(rng.integers(1, 6))):
        width = int(rng.choice([2, 4]))
        at = int(rng.integers(0, max(1, len(changed) - width)))
        value = int(rng.choice(np.array(EXTREMES, object))) % (1 << (8 * width))
        changed[at : at + width] = value.to_bytes(width, str(rng.choice(["little", "big"])))  # type: ignore[arg-type]
    return bytes(changed)
