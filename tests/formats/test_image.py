"""The binary image: read back it is the same network, and a single wrong bit is refused."""

from __future__ import annotations

import hashlib
import json
import struct
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import peak
from osbc_deploy.chip.mapping import map_network
from osbc_deploy.chip.target import load_target
from osbc_deploy.errors import ArtefactError, FitError, UnsupportedModelError, UsageError
from osbc_deploy.fixedpoint.engine import run
from osbc_deploy.fixedpoint.formats import NumberFormats
from osbc_deploy.fixedpoint.network import (
    FixedConv,
    FixedDense,
    FixedPointNetwork,
    FixedPopulation,
    FixedProjection,
)
from osbc_deploy.formats.folder import manifest_of
from osbc_deploy.formats.image.bits import pack, packed_size, unpack
from osbc_deploy.formats.image.read import decode_image, read_image
from osbc_deploy.formats.image.write import ImageMap, _assemble, encode_image, write_image
from osbc_deploy.testing import Case, random_networks


@pytest.fixture(scope="module")
def drawn(formats: NumberFormats) -> list[Case]:
    return random_networks(40, formats, start=7)


def same(left: FixedPointNetwork, right: FixedPointNetwork) -> None:
    assert (left.input_shape, left.readout, left.formats) == (
        (right.input_shape, right.readout, right.formats)
    )
    for ours, theirs in zip(left.populations, right.populations, strict=True):
        for name, value in vars(ours).items():
            assert np.array_equal(value, getattr(theirs, name)), name
    for a, b in zip(left.projections, right.projections, strict=True):
        for name, value in vars(a).items():
            if name != "connection":
                assert value == getattr(b, name), name
        assert np.array_equal(a.connection.weight, b.connection.weight)
        delay = getattr(a.connection, "delay", None)
        if delay is not None:
            # Where there is no synapse there is no delay to keep.
            stored = a.connection.weight != 0
            assert np.array_equal(delay[stored], b.connection.delay[stored])


@pytest.mark.parametrize("target", ["loihi2", "loihi1", "speck", "xylo-audio2", "kapoho-point"])
def test_random_networks_come_back_the_same(target: str, drawn: list[Case]) -> None:
    chip, done, cores = load_target(target), 0, 0
    for case in drawn:
        try:
            mapping = map_network(case.network, chip)
            data, found = encode_image(case.network, mapping)
        except (FitError, UnsupportedModelError):
            continue
        back = decode_image(data)
        same(case.network, back)
        assert np.array_equal(run(case.network, case.spikes).output, run(back, case.spikes).output)
        assert found.size == len(data)
        done, cores = done + 1, max(cores, mapping.cores_used)
    if target in ("loihi2", "kapoho-point"):
        assert done > 30


def layers(formats: NumberFormats) -> FixedPointNetwork:
    """A convolution and a sparse layer that need several cores each."""
    rng = np.random.default_rng(0)

    def population(name: str, shape: tuple[int, ...]) -> FixedPopulation:
        size = int(np.prod(shape))
        some = rng.integers(0, 4, size)
        return FixedPopulation(
            name, shape, some, some, 100 + some, some, some, 0 * some, 0 * some, True,
            np.ones(size), rng.random(size),
        )  # fmt: skip

    conv = FixedConv(32 * rng.integers(-8, 8, (8, 2, 3, 3)), (1, 1), (1, 1), (1, 1), 1)
    dense = 32 * rng.integers(-8, 8, (900, 8 * 30 * 30)) * (rng.random((900, 7200)) < 0.05)
    return FixedPointNetwork(
        (2, 30, 30),
        (population("a", (8, 30, 30)), population("β", (900,))),
        (
            FixedProjection("conv", "input", "a", conv, 4, 0),
            FixedProjection("dense", "a", "β", FixedDense(dense), 4, -2),
        ),
        formats,
        "max",
    )


@pytest.fixture(scope="module")
def many(formats: NumberFormats) -> tuple[FixedPointNetwork, bytes, ImageMap]:
    """Return these layers, their image and its map."""
    network = layers(formats)
    return network, *encode_image(network, map_network(network, load_target("loihi2")))


def test_layers_over_many_cores_come_back_the_same(formats: NumberFormats, tmp_path: Path) -> None:
    network = layers(formats)
    mapping = map_network(network, load_target("loihi2"))
    assert mapping.cores_used > 6
    found = write_image(network, mapping, tmp_path / "a.img")
    same(network, read_image(tmp_path / "a.img"))
    data = (tmp_path / "a.img").read_bytes()
    about = json.loads((tmp_path / "a.img.map.json").read_text())
    assert about == json.loads(json.dumps(found.as_dict()))
    assert about["sha256"] == hashlib.sha256(data[:-32]).hexdigest()
    for section in about["sections"]:
        part = data[section["offset"] : section["offset"] + section["length"]]
        assert f"{zlib.crc32(part):08x}" == section["crc32"]
    stored = sum(
        entry["synapses"]
        for section in about["sections"]
        for entry in section.get("slices", ())
        if entry["layer"] == "dense"
    )
    assert stored == np.count_nonzero(network.projections[1].connection.weight)


def test_a_sorted_layer_comes_back_the_same(formats: NumberFormats) -> None:
    rng = np.random.default_rng(0)
    late = rng.integers(0, 4, (60, 9))
    weight = FixedDense(2 * rng.integers(-60, 60, (60, 9)) * (rng.random((60, 9)) < 0.6), late)
    zero = np.zeros(60, np.int64)
    population = FixedPopulation(
        "out", (60,), zero + 4095, 10 * (np.arange(60) % 12), 7 + zero, zero, zero, zero, zero,
        True, zero + 1.0, zero + 0.0,
    )  # fmt: skip
    projection = FixedProjection("w", "input", "out", weight, 8, 0)
    network = FixedPointNetwork((9,), (population,), (projection,), formats, "sum")
    mapping = map_network(network, load_target("loihi2"))
    assert len(mapping.cores) == 2
    data, found = encode_image(network, mapping)
    same(network, decode_image(data))
    # The first neuron that is listed, behind the number of slices and the head of this one.
    for number in (1, 60):
        with pytest.raises(ArtefactError, match="listed neurons"):
            decode_image(forged(data, found, put(0, 52, "<I", number)))


def tiny(formats: NumberFormats) -> FixedPointNetwork:
    """Three inputs to two neurons."""
    population = FixedPopulation(
        "out", (2,), [4095, 4095], [300, 300], [7, 8], [0, 0], [0, 0], [0, 0], [0, 0], True,
        [1.0, 1.0], [0.0, 0.0], reset="subtract", drop=[7, 20],
    )  # fmt: skip
    weight = FixedDense(np.array([[64, 0, 0], [-32, 0, 96]]))
    projection = FixedProjection("w", "input", "out", weight, 4, -2)
    return FixedPointNetwork((3,), (population,), (projection,), formats, "sum")


def test_a_core_is_what_the_document_says(formats: NumberFormats) -> None:
    network = tiny(formats)
    mapping = map_network(network, load_target("loihi2"))
    data, found = encode_image(network, mapping)
    core = next(s for s in found.sections if s.kind == "core")
    # docs/image-format.md, by hand: one slice, both neurons, two sets of registers, one afferent.
    expected = struct.pack("<I", 1)
    expected += struct.pack("<HHI", 0, 3, 2) + struct.pack("<6I", 0, 2, 0, 1, 0, 1)
    expected += struct.pack("<4I", 0, 0, 2, 1)
    expected += struct.pack("<8i", 4095, 300, 7, 7, 0, 0, 0, 0)
    expected += struct.pack("<8i", 4095, 300, 8, 20, 0, 0, 0, 0)
    expected += bytes([0, 1, 0, 0])
    sparse = "sparse" in mapping.cores[0].usage.encoding
    if sparse:
        # Axon 0 reaches neurons 0 (code 2) and 1 (code -1), axon 2 neuron 1 (code 3): four bits
        # of code and one of index each.
        records = 0b0_0010 | 0b1_1111 << 5 | 0b1_0011 << 10
        synapses = struct.pack("<4I", 0, 0, 2, 2) + struct.pack("<I", records)
        shape = (2, 3, 1)
    else:
        # Both codes of each input, input by input.
        synapses = struct.pack("<I", 0x2 | 0xF << 4 | 0x0 << 8 | 0x0 << 12 | 0x0 << 16 | 0x3 << 20)
        shape = (3, 6, 0)
    expected += struct.pack(
        "<HHBBbBBBBBIII", 0, 0xFFFF, int(not sparse), 4, -2, 0, 0, 0, shape[2], 0,
        shape[0], shape[1], len(synapses),
    )  # fmt: skip
    assert data[core.offset : core.offset + core.length] == expected + synapses


def test_every_flipped_byte_is_refused(formats: NumberFormats) -> None:
    network = tiny(formats)
    data, _ = encode_image(network, map_network(network, load_target("loihi2")))
    for place in range(len(data)):
        for flip in (0x01, 0x80, 0xFF):
            broken = bytearray(data)
            broken[place] ^= flip
            with pytest.raises(ArtefactError) as caught:
                decode_image(bytes(broken))
            assert caught.value.exit_code == 6


def test_every_truncation_is_refused(formats: NumberFormats) -> None:
    network = tiny(formats)
    data, _ = encode_image(network, map_network(network, load_target("loihi2")))
    for length in range(len(data)):
        with pytest.raises(ArtefactError):
            decode_image(data[:length])
    for more in (b"\0", b"x", data):
        with pytest.raises(ArtefactError):
            decode_image(data + more)


def test_a_forged_image_is_refused_too(drawn: list[Case], formats: NumberFormats) -> None:
    # All checksums are made right again, so only the content can give it away, or be harmless.
    rng = np.random.default_rng(0)
    network = tiny(formats)
    data, found = encode_image(network, map_network(network, load_target("loihi2")))
    refused = 0
    for _ in range(400):
        section = found.sections[rng.integers(len(found.sections))]
        broken = bytearray(data)
        broken[section.offset + rng.integers(section.length)] ^= 1 << rng.integers(8)
        try:
            decode_image(repaired(broken))
        except ArtefactError:
            refused += 1
    assert refused > 100


@pytest.mark.parametrize(
    ("field", "value"),
    [(2, 0), (6, 0xFF), (7, 1), (11, 1)],
    ids=["source", "exponent", "sign", "graded"],
)
def test_a_core_that_says_other_than_the_structure_is_refused(
    field: int, value: int, formats: NumberFormats
) -> None:
    network = tiny(formats)
    data, found = encode_image(network, map_network(network, load_target("loihi2")))
    core = next(s for s in found.sections if s.kind == "core")
    # Before the afferent: 4 bytes of count, 48 of the slice, two sets of 32, 4 of which set.
    broken = bytearray(data)
    assert broken[core.offset + 120 + field] != value
    broken[core.offset + 120 + field] = value
    if field == 2:
        broken[core.offset + 120 + 3] = 0
    with pytest.raises(ArtefactError, match="afferent contradicts the structure"):
        decode_image(repaired(broken))


def test_cores_with_other_kernels_of_a_channel_are_refused(
    many: tuple[FixedPointNetwork, bytes, ImageMap],
) -> None:
    _, data, found = many
    cores = [s for s in found.sections if s.slices and s.slices[0]["layer"] == "conv"]
    assert len(cores) > 1
    # The kernel, 8 x 2 x 3 x 3 codes of four bits, ends the section.
    for place in (-72, -1):
        broken = bytearray(data)
        broken[cores[1].offset + cores[1].length + place] ^= 0x01
        with pytest.raises(ArtefactError, match="cores hold different kernels of one channel"):
            decode_image(repaired(broken))


def forged(data: bytes, found: ImageMap, change: Callable[[list[bytearray]], None]) -> bytes:
    """Return an image whose cores were changed, dropped or repeated, with right checksums."""
    parts = [data[s.offset : s.offset + s.length] for s in found.sections]
    cores = [bytearray(part) for part in parts[2:]]
    change(cores)
    kinds = [("structure", parts[0]), ("scales", parts[1]), *(("core", bytes(c)) for c in cores)]
    return _assemble([(kind, None, part, ()) for kind, part in kinds], len(cores))[0]


def put(core: int, place: int, form: str, value: int) -> Callable[[list[bytearray]], None]:
    """Return a change of one field; a negative place counts from the end of the section."""

    def change(cores: list[bytearray]) -> None:
        at = place % len(cores[core])
        assert struct.unpack_from(form, cores[core], at) != (value,)
        struct.pack_into(form, cores[core], at, value)

    return change


@pytest.mark.parametrize(
    ("place", "form", "value", "said"),
    [
        # The section starts with the number of slices; a slice with population, flags, neurons,
        # three ranges, reset interval, reset offset, sets and afferents.
        (6, "<H", 1, "slice contradicts the structure"),
        (6, "<H", 2, "slice contradicts the structure"),
        (36, "<I", 5, "slice contradicts the structure"),
        (40, "<I", 1, "slice contradicts the structure"),
        (12, "<I", 1, "ranges of a slice"),
        (24, "<I", 2, "ranges of a slice"),
        (28, "<I", 1, "ranges of a slice"),
        (124, "<B", 1, "encoding of an afferent"),
        (124, "<B", 3, "encoding of an afferent"),
    ],
)
def test_a_slice_that_says_other_than_the_structure_is_refused(
    place: int, form: str, value: int, said: str, formats: NumberFormats
) -> None:
    network = tiny(formats)
    data, found = encode_image(network, map_network(network, load_target("loihi2")))
    with pytest.raises(ArtefactError, match=said):
        decode_image(forged(data, found, put(0, place, form, value)))


# The codes of a kernel end its section, 72 bytes; before them lie the source's shape, the kernel,
# stride, padding, dilation, groups, a zero and the length: three fields of four bytes, ten of two.
@pytest.mark.parametrize("place", range(-92, -76, 2))
def test_a_convolution_of_other_geometry_than_the_structure_is_refused(
    place: int, many: tuple[FixedPointNetwork, bytes, ImageMap]
) -> None:
    _, data, found = many
    with pytest.raises(ArtefactError, match="geometry of a convolution"):
        decode_image(forged(data, found, put(0, place, "<H", 7)))


def test_cores_whose_parts_do_not_fit_together_are_refused(
    many: tuple[FixedPointNetwork, bytes, ImageMap],
) -> None:
    network, data, found = many
    assert [s["layer"] for s in found.sections[3].slices] == ["conv"]

    def reshaped(cores: list[bytearray]) -> None:
        # A kernel of 9 x 1 has as many codes as one of 3 x 3.
        struct.pack_into("<HH", cores[1], len(cores[1]) - 96, 9, 1)

    def deaf(cores: list[bytearray]) -> None:
        # The last core of the dense layer keeps its neurons and receives input from nothing.
        sets, neurons = struct.unpack_from("<I", cores[-1], 44)[0], 900 - first
        struct.pack_into("<I", cores[-1], 48, 0)
        del cores[-1][52 + 32 * sets + neurons + -neurons % 4 :]

    first = struct.unpack_from("<I", data, found.sections[-1].offset + 12)[0]
    changes: list[tuple[Callable[[list[bytearray]], None], str]] = [
        (lambda cores: cores.pop(1), "neurons on no core, or on two"),
        (lambda cores: cores.append(cores[1]), "neurons on no core, or on two"),
        (deaf, "weights on no core"),
        (reshaped, "slices of a projection differ in shape"),
    ]
    for change, said in changes:
        with pytest.raises(ArtefactError, match=said):
            decode_image(forged(data, found, change))
    same(network, decode_image(forged(data, found, lambda cores: None)))


def repaired(data: bytearray) -> bytes:
    """Make all checksums right for what the sections hold now."""
    head, count = struct.Struct("<8sHHIIIII"), struct.unpack_from("<I", data, 16)[0]
    table = b""
    for number in range(count):
        kind, zero, core, offset, length, _ = struct.unpack_from("<HHIIII", data, 32 + 20 * number)
        crc = zlib.crc32(data[offset : offset + length])
        table += struct.pack("<HHIIII", kind, zero, core, offset, length, crc)
    data[head.size : head.size + len(table)] = table
    struct.pack_into("<I", data, 24, zlib.crc32(table))
    struct.pack_into("<I", data, 28, zlib.crc32(bytes(data[:28])))
    return bytes(data[:-32]) + hashlib.sha256(bytes(data[:-32])).digest()


def test_the_repair_of_an_unbroken_image_changes_nothing(formats: NumberFormats) -> None:
    network = tiny(formats)
    data, _ = encode_image(network, map_network(network, load_target("loihi2")))
    assert repaired(bytearray(data)) == data


def test_what_cannot_be_written_leaves_nothing(formats: NumberFormats, tmp_path: Path) -> None:
    chip = load_target("loihi2")
    network = tiny(formats)
    mapping = map_network(network, chip)
    with pytest.raises(FitError, match="does not fit the chip"):
        write_image(network, replace(mapping, available=0), tmp_path / "a.img")
    p = network.populations[0]
    wrong = replace(network, populations=(replace(p, vth=[2**20, 0]),))
    with pytest.raises(UnsupportedModelError, match="vth: 0 to 1048576"):
        write_image(wrong, mapping, tmp_path / "a.img")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "a.img").write_text("mine")
    with pytest.raises(UsageError, match="was not written by osbc-deploy"):
        write_image(network, mapping, tmp_path / "a.img")
    assert (tmp_path / "a.img").read_text() == "mine"
    with pytest.raises(UsageError, match="no such file"):
        read_image(tmp_path / "none.img")


def test_bits_are_packed_low_first() -> None:
    fields: list[Any] = [np.array([1, -1]), np.array([2, 5])]
    assert pack(fields, [2, 3]) == bytes([0b10111 << 5 & 0xFF | 0b01001, 0b10111 >> 3, 0, 0])
    assert packed_size(2, [2, 3]) == 4
    assert [x.tolist() for x in unpack(pack(fields, [2, 3]), 2, [2, 3])] == [[1, 3], [2, 5]]
    with pytest.raises(ValueError, match="padding"):
        unpack(bytes([0, 0, 0, 1]), 2, [2, 3])


def test_structures_of_too_much_are_refused_before_memory_is_taken(
    drawn: list[Case], tmp_path: Path
) -> None:
    network = drawn[0].network
    manifest = manifest_of(network)

    def image(name: str, structure: Any) -> Path:
        text = json.dumps(structure).encode() if isinstance(structure, dict) else structure
        parts = [("structure", None, text, ()), ("scales", None, b"", ())]
        path = tmp_path / name
        path.write_bytes(_assemble(parts, 0)[0])
        return path

    def shaped(*shape: int) -> dict[str, Any]:
        first, *others = manifest["populations"]
        return manifest | {"populations": [first | {"shape": shape}, *others]}

    bombs = {
        image("neurons.img", shaped(2**20)): "neurons.img: needs 160.",
        image("overflow.img", shaped(2**32, 2**32)): "overflow.img: needs more than 2^",
        image("lists.img", b"[" + b"[[]]," * 400_000 + b"1]"): "lists.img: needs 7",
    }
    peak.assert_refused(
        "from osbc_deploy.formats.image.read import read_image", "read_image(path)", bombs
    )
