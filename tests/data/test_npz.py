"""Archives that expand, lie or list too much are refused before memory is taken."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest

import peak
from osbc_deploy.data.npz import read_npz
from osbc_deploy.data.samples import load_npz
from osbc_deploy.errors import ArtefactError

MIB = 2**20


def header(shape: str, version: int = 1, descr: str = "|u1", pad: int = 0) -> bytes:
    text = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}" + " " * pad + "\n"
    width = 2 if version == 1 else 4
    return b"\x93NUMPY" + bytes([version, 0]) + len(text).to_bytes(width, "little") + text.encode()


def archive(path: Path, how: int = zipfile.ZIP_DEFLATED, **entries: tuple[bytes, int]) -> Path:
    """Write entries that begin with some bytes and go on with MiB of zeros."""
    with zipfile.ZipFile(path, "w", how) as file:
        for name, (start, zeros) in entries.items():
            with file.open(f"{name}.npy", "w") as entry:
                entry.write(start)
                for _ in range(zeros):
                    entry.write(bytes(MIB))
    return path


def test_bombs_are_refused_before_memory_is_taken(tmp_path: Path) -> None:
    whole = header(str((200, 1, MIB)))
    half = header(str((40, 1, MIB)))
    more = header(str((72, 1, MIB)))
    many = tmp_path / "many.npz"
    with zipfile.ZipFile(many, "w") as file:
        for number in range(30_000):
            file.writestr(f"{number}", b"")
    bombs = {
        archive(tmp_path / "zeros.npz", spikes=(whole, 200)): "zeros.npz: needs 202.00 MiB of mem",
        archive(tmp_path / "two.npz", spikes=(half, 40), labels=(half, 40)): "two.npz: needs",
        archive(tmp_path / "lie.npz", spikes=(whole, 1)): "needs 202.00 MiB",
        archive(tmp_path / "short.npz", spikes=(half, 1)): "declares 41,943,040 bytes and holds",
        archive(tmp_path / "large.npz", spikes=(header(str((2**40, 2**40, 2**40))), 1)): (
            "needs more than 2^120 B of memory"
        ),
        archive(tmp_path / "copies.npz", spikes=(header(str((9, 1, MIB)), descr="<f8"), 72)): (
            "needs 83.00 MiB"
        ),
        archive(tmp_path / "head.npz", spikes=(header("(1, 1, 1)", 2, pad=200 * MIB), 0)): (
            "has a header of"
        ),
        archive(tmp_path / "bz2.npz", zipfile.ZIP_BZIP2, spikes=(more, 72)): "compressed in a w",
        archive(tmp_path / "lzma.npz", zipfile.ZIP_LZMA, spikes=(more, 72)): "compressed in a w",
        many: "its list of arrays has more than 1048576 bytes",
    }
    assert max(path.stat().st_size for path in bombs) < 4 * MIB
    peak.assert_refused("from osbc_deploy.data.samples import load_npz", "load_npz(path)", bombs)


def test_what_fits_takes_no_more_than_the_limit(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    paths = []
    for dtype in ("u1", "?", "<f4", ">i8"):
        size = 60 * MIB // (np.dtype(dtype).itemsize + (dtype != "u1"))
        spikes = np.zeros((4, 5, size // 20), dtype)
        spikes[rng.integers(0, 4, 50), rng.integers(0, 5, 50), rng.integers(0, size // 20, 50)] = 1
        paths.append(tmp_path / f"{len(paths)}.npz")
        np.savez_compressed(paths[-1], spikes=spikes, labels=np.arange(4))
    found = peak.reading(
        "from osbc_deploy.data.samples import load_npz", "kept = load_npz(path)", paths
    )
    assert [said for _, said in found] == [""] * 4
    assert sum(size for size, _ in found) < 2 * peak.LIMIT
    assert found[0][0] > 50 * MIB


@pytest.mark.parametrize("dtype", ["u1", "?", "<i2", ">i4", "<f2", ">f8", "<u8"])
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_arrays_are_read_as_numpy_reads_them(
    tmp_path: Path, dtype: str, order: str, save: object
) -> None:
    rng = np.random.default_rng(0)
    given = {
        "spikes": np.array(rng.integers(0, 2, (3, 4, 5)), dtype, order=order),
        "labels": np.arange(3).astype(dtype),
        "other": np.ones(()),
    }
    save(tmp_path / "a.npz", **given)  # type: ignore[operator]
    found, names = read_npz(tmp_path / "a.npz", ("spikes", "labels", "other", "more"))
    assert names == ["spikes", "labels", "other"]
    with np.load(tmp_path / "a.npz") as wanted:
        for name, array in found.items():
            assert array.dtype == wanted[name].dtype
            assert np.array_equal(array, wanted[name])


def test_every_flipped_byte_is_noticed_or_harmless(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    spikes = (rng.random((3, 4, 5)) < 0.5).astype(np.uint8)
    np.savez_compressed(tmp_path / "a.npz", spikes=spikes)
    whole = (tmp_path / "a.npz").read_bytes()
    path = tmp_path / "b.npz"
    for place in range(len(whole)):
        broken = bytearray(whole)
        broken[place] ^= 1 << rng.integers(8)
        path.write_bytes(broken)
        try:
            found = load_npz(path).spikes
        except ArtefactError:
            continue
        assert np.array_equal(found, spikes)
