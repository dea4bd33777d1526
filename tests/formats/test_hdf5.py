"""HDF5 files that declare, expand to, or point at too much are refused before memory is taken."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

import peak
from osbc_deploy.formats.hdf5 import open_hdf5

MIB = 2**20
READ = """
import h5py, nir
from osbc_deploy.chip.target import load_target
from osbc_deploy.formats.netx.read import read_netx_fixed
from osbc_deploy.formats.nir.read import read_nir
formats = load_target("loihi2").number_formats
def read(path):
    if path.suffix == ".net":
        read_netx_fixed(path, formats)
    else:
        read_nir(path, dt=1e-3, reset="zero")
"""


def netx(path: Path, weight: Callable[[Any], Any], shape: Any = (8,)) -> Path:
    """Write a NetX file of one dense layer whose weights are added by a function."""
    with h5py.File(path, "w") as file:
        layer = file.create_group("layer/0")
        layer["type"], layer["shape"] = "dense", np.array(shape, np.int64)
        for key, value in (("type", "CUBA"), ("iDecay", 1), ("vDecay", 2), ("vThMant", 3)):
            layer[f"neuron/{key}"] = value
        weight(layer)
    return path


def nir_file(path: Path, change: Callable[[Any], Any]) -> Path:
    with h5py.File(path, "w") as file:
        node = file.create_group("node")
        node["type"] = "NIRGraph"
        change(node)
    return path


def expands(group: Any) -> None:
    """Store a chunk of 64 bytes that expands to 200 MiB."""
    data = group.create_dataset("weight", (8, 8), "u1", chunks=(8, 8), compression="gzip")
    data.id.write_direct_chunk((0, 0), zlib.compress(bytes(200 * MIB), 9))


def one_text_for_all(node: Any) -> None:
    """Let 50,000 texts be one of 100 kB: the references in the file are made the same."""
    node.create_dataset("edges", (50_000,), h5py.string_dtype())[:] = "x"
    node["edges"][0] = "y" * 100_000


def same_references(path: Path) -> Path:
    with h5py.File(path, "r") as file:
        start = file["node/edges"].id.get_offset()
    data = bytearray(path.read_bytes())
    data[start : start + 16 * 50_000] = data[start : start + 16] * 50_000
    path.write_bytes(data)
    return path


def holds_itself(node: Any) -> None:
    node["nodes"] = node


def branches(node: Any) -> None:
    """Twenty groups, each twice in the one before: a million ways through a small file."""
    for _ in range(20):
        below = node.create_group("a")
        node["b"] = below
        node = below


def deep(node: Any) -> None:
    for _ in range(100):
        node = node.create_group("a")


def crowded(node: Any) -> None:
    node["x"] = 1
    for number in range(12_000):
        node[f"{number}"] = node["x"]


def virtual(node: Any) -> None:
    layout = h5py.VirtualLayout((8, 8), "f4")
    layout[:] = h5py.VirtualSource("/etc/passwd", "x", (8, 8))
    node.create_virtual_dataset("edges", layout)


def reference(node: Any) -> None:
    node.create_dataset("edges", (2,), h5py.ref_dtype)


def test_bombs_are_refused_before_memory_is_taken(tmp_path: Path) -> None:
    def of(name: str) -> Path:
        return tmp_path / name

    def declares(shape: Any, **how: Any) -> Callable[[Any], Any]:
        return lambda group: group.create_dataset("weight", shape, "i1", **how)

    def edges(**how: Any) -> Callable[[Any], Any]:
        return lambda node: node.create_dataset("edges", **how)

    fill = np.zeros((2000, 2000), np.int8)
    bombs = {
        netx(of("declares.net"), declares((8, 2**31))): "/layer/0/weight needs",
        netx(of("overflow.net"), declares((2**40, 2**40))): "needs more than 2^8",
        netx(of("gzip.net"), lambda g: g.create_dataset("weight", data=fill, compression=9)): (
            "/layer/0/weight needs 141."
        ),
        netx(of("chunk.net"), declares((8, 8), chunks=(8, 2**28), maxshape=(8, None))): (
            "/layer/0/weight needs"
        ),
        netx(of("expands.net"), expands): "chunk that expands to more than 64 bytes",
        netx(of("lzf.net"), declares((8, 8), compression="lzf")): "is stored with filters",
        netx(of("neurons.net"), declares((8, 8)), (2**20, 2**20, 2**20)): "needs more than 2^6",
        netx(of("null.net"), lambda g: g.create_dataset("weight", data=h5py.Empty("f4"))): (
            "/layer/0/weight holds nothing"
        ),
        nir_file(of("numbers.nir"), edges(shape=(2**33,), dtype="f4")): "/node/edges needs",
        nir_file(of("fixed.nir"), edges(shape=(9,), dtype=f"S{2**27}")): "/node/edges needs",
        same_references(nir_file(of("texts.nir"), one_text_for_all)): "/node/edges needs",
        nir_file(of("itself.nir"), holds_itself): "a group that is also somewhere else",
        nir_file(of("branches.nir"), branches): "a group that is also somewhere else",
        nir_file(of("deep.nir"), deep): "more than 32 groups deep",
        nir_file(of("virtual.nir"), virtual): "is stored in another file",
        nir_file(of("reference.nir"), reference): "does not hold text",
        nir_file(of("soft.nir"), lambda n: n.__setitem__("a", h5py.SoftLink("/node"))): "is a link",
        nir_file(of("hard.nir"), lambda n: n.__setitem__("a", h5py.ExternalLink("b", "/"))): (
            "is a link"
        ),
    }
    assert max(path.stat().st_size for path in bombs) < 6 * MIB
    peak.assert_refused(READ, "read(path)", bombs)
    # HDF5 takes long for many members, so what may be taken is less.
    many = {nir_file(of("crowded.nir"), crowded): "crowded.nir: needs"}
    peak.assert_refused(READ, "read(path)", many, 16 * MIB)


def test_what_fits_takes_no_more_than_the_limit(tmp_path: Path) -> None:
    weight = np.random.default_rng(0).integers(-100, 100, (1200, 1200)).astype(np.int8)

    def whole(group: Any) -> None:
        group.create_dataset("weight", data=weight, compression="gzip", shuffle=True)

    path = netx(tmp_path / "a.net", whole, (1200,))
    ((size, said),) = peak.reading(READ, "kept = read(path)", [path])
    assert said == ""
    assert weight.nbytes < size < peak.LIMIT


@pytest.mark.parametrize(
    "how",
    [
        {},
        {"chunks": (3, 2)},
        {"compression": "gzip"},
        {"compression": "gzip", "shuffle": True, "fletcher32": True},
        {"shuffle": True},
        {"fletcher32": True},
    ],
)
@pytest.mark.parametrize("dtype", ["i1", "<i8", ">i4", "f2", "f4", ">f8", "?"])
def test_numbers_are_read_however_they_are_stored(
    tmp_path: Path, how: dict[str, Any], dtype: str
) -> None:
    wanted = np.random.default_rng(0).integers(0, 2, (7, 5)).astype(dtype)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("x", data=wanted, **how)
    with open_hdf5(tmp_path / "a.h5") as hdf5:
        found = hdf5.numbers(hdf5.member(hdf5.file, "x"))
    assert found.dtype == wanted.dtype
    assert np.array_equal(found, wanted)


@pytest.mark.parametrize("shape", [(), (4,), (2, 3), (3, 0)])
@pytest.mark.parametrize("fixed", [False, True])
@pytest.mark.parametrize("limit", ["1G", "30K"])
def test_texts_are_read_in_their_shape(
    tmp_path: Path,
    shape: tuple[int, ...],
    fixed: bool,
    limit: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OSBC_DEPLOY_MEMORY", limit)
    wanted = np.array([f"n\u00e9 {k}" for k in range(int(np.prod(shape)))], object).reshape(shape)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        if fixed:
            file["x"] = np.char.encode(wanted.astype("U"), "utf-8")
        else:
            file.create_dataset("x", shape, h5py.string_dtype())[...] = wanted
    with open_hdf5(tmp_path / "a.h5") as hdf5:
        found = hdf5.texts(hdf5.member(hdf5.file, "x"))
    assert found.shape == shape
    assert found.tolist() == wanted.tolist()
