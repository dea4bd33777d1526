"""Blobs: what their page says, what is refused, and that the runtime and Python agree on it."""

from __future__ import annotations

import hashlib
import re
import subprocess
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from osbc_deploy.errors import ArtefactError, UnsupportedModelError
from osbc_deploy.firmware import layout
from osbc_deploy.firmware.blob import write_blob
from osbc_deploy.firmware.layout import HEADER, NETWORK, Record
from osbc_deploy.firmware.read import read_blob
from osbc_deploy.firmware.runtime import runtime_sources
from osbc_deploy.firmware.tables import lay_out
from osbc_deploy.fixedpoint.formats import NumberFormats
from osbc_deploy.fixedpoint.network import (
    FixedConv,
    FixedDense,
    FixedPointNetwork,
    FixedPopulation,
    FixedProjection,
)
from osbc_deploy.testing import Case, random_networks

DOCS = Path(__file__).parents[2] / "docs"
SANITIZE = ("-O0", "-g", "-fsanitize=undefined,address", "-fno-sanitize-recover=all")
BODY = HEADER.size


@pytest.fixture(scope="module")
def drawn(formats: NumberFormats) -> list[Case]:
    return random_networks(12, formats, start=5)


@pytest.fixture(scope="module")
def blobs(drawn: list[Case]) -> list[bytes]:
    return [write_blob(case.network, lay_out(case.network)) for case in drawn]


@pytest.fixture(scope="module")
def loader(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("loader")
    for name, text in runtime_sources("osbc").items():
        (folder / name).write_text(text)
    sources = [str(Path(__file__).parent / "loader.c"), "osbc_runtime.c", "osbc_load.c"]
    subprocess.run(["gcc", *SANITIZE, "-I.", *sources, "-o", "loader"], cwd=folder, check=True)
    return folder / "loader"


def said(loader: Path, blobs: list[bytes]) -> list[int]:
    """What the loader says of each; whatever the sanitizers find ends in an error."""
    given = b"".join(len(blob).to_bytes(4, "little") + blob for blob in blobs)
    done = subprocess.run([loader], input=given, check=True, capture_output=True)
    return [int(n) for n in np.frombuffer(done.stdout, np.int32)]


def accepted(blob: bytes) -> bool:
    try:
        read_blob(blob)
    except ArtefactError:
        return False
    return True


def sealed(data: bytes) -> bytes:
    """The same with a length, an identity and CRCs that are right."""
    body = data[BODY:]
    fields = HEADER.unpack(data) | {
        "length": len(data),
        "identity": hashlib.sha256(body).digest()[:16],
        "body_crc": zlib.crc32(body),
    }
    fields["header_crc"] = zlib.crc32(HEADER.pack(fields)[:-4])
    return HEADER.pack(fields) + body


@pytest.mark.parametrize(
    ("page", "heading", "described"),
    [
        ("blob.md", "Header", layout.HEADER),
        ("blob.md", "Network", layout.NETWORK),
        ("blob.md", "Projection", layout.PROJECTION),
        ("blob.md", "Population", layout.POPULATION),
        ("blob.md", "Table", layout.TABLE),
        ("blob.md", "Geometry", layout.GEOMETRY),
        ("telemetry.md", "Record", layout.RECORD),
        ("telemetry.md", "Layer", layout.LAYER),
    ],
)
def test_the_page_lists_every_field(page: str, heading: str, described: Record) -> None:
    _, text = re.split(f"^##+ {heading}$", (DOCS / page).read_text("utf-8"), flags=re.MULTILINE)
    text = text.split("\n#")[0]
    rows = re.findall(r"^\| (\d+) \| ([^|]+) \| (\w+) \|", text, re.MULTILINE)
    assert rows == [(str(f.offset), f.type, f.name) for f in described.fields]


def test_what_is_read_is_what_the_network_has(drawn: list[Case], blobs: list[bytes]) -> None:
    seen = set()
    for case, data in zip(drawn, blobs, strict=True):
        network, blob = case.network, read_blob(data)
        assert (blob.facts["inputs"], blob.outputs) == (
            int(np.prod(network.input_shape)),
            network.output.size,
        )
        for part, p in zip(blob.populations, network.populations, strict=True):
            registers: dict[str, Any] = p.decoded(network.formats)._asdict()
            registers |= {"u_init": p.u_init, "v_init": p.v_init}
            drop = part.tables.pop("drop") + registers["threshold"]
            if p.reset == "subtract":
                assert np.array_equal(drop, registers["drop"])
            del registers["drop"]
            for name, values in registers.items():
                assert np.array_equal(part.tables[name], values), name
        names = ["input", *(p.name for p in network.populations)]
        for p in network.projections:
            ends = (names.index(p.pre), names.index(p.post) - 1)
            parts = [q for q in blob.projections if (q.fields["pre"], q.fields["post"]) == ends]
            if len([q for q in network.projections if (q.pre, q.post) == (p.pre, p.post)]) > 1:
                continue
            # Every synapse lies in one of the parts, and the common factor in their shifts.
            weights = p.connection.weight[p.connection.weight != 0].astype(float)
            exponent = [q.fields["shift"] - q.fields["right"] for q in parts]
            found = np.concatenate([q.tables["codes"][q.tables["codes"] != 0] * 2.0**e
                                    for q, e in zip(parts, exponent, strict=True)])  # fmt: skip
            assert sorted(found) == sorted(weights * 2.0**p.weight_exp)
            seen |= {q.fields["kind"] for q in parts}
    assert seen == {0, 1, 2}
    assert {q.fields["direct"] for data in blobs for q in read_blob(data).projections} == {0, 1}


def test_every_changed_byte_and_every_other_length_is_refused(
    blobs: list[bytes], loader: Path
) -> None:
    blob = min(blobs, key=len)
    flipped = [
        blob[:i] + bytes([blob[i] ^ change]) + blob[i + 1 :]
        for i in range(len(blob))
        for change in (1 << i % 8, 0xFF)
    ]
    cut = [blob[:i] for i in range(len(blob))]
    answers = said(loader, [blob, *flipped, *cut])
    assert answers[0] == 0
    assert all(answer in (-3, -5) for answer in answers[1:])
    assert not any(accepted(changed) for changed in [*flipped, *cut, blob + b"\0"])
    # A slot of flash may be larger than what lies in it.
    assert said(loader, [blob + bytes(100)]) == [0]


def test_hostile_tables_are_refused_by_both_or_lead_nowhere(
    blobs: list[bytes], loader: Path
) -> None:
    rng = np.random.default_rng(0)
    extremes = [0, 1, 2, 3, 4, 5, 31, 32, 127, 128, 255]
    changed = []
    for number in range(1000):
        data = bytearray(blobs[number % len(blobs)])
        records = NETWORK.size + 108 * 4
        for _ in range(rng.integers(1, 4)):
            # Mostly in the records, where a number is worth most.
            end = len(data) if rng.random() < 0.2 else min(len(data), BODY + records)
            at = int(rng.integers(BODY, end))
            data[at] = rng.choice(extremes) if rng.random() < 0.7 else rng.integers(0, 256)
            if rng.random() < 0.2:
                data[at & ~3 : (at & ~3) + 4] = bytes(rng.choice([0xFF, 0x80, 0x7F, 0], 4))
        changed.append(sealed(bytes(data)))
    answers = said(loader, changed)
    assert [answer == 0 for answer in answers] == [accepted(blob) for blob in changed]
    assert 100 < sum(answer == 0 for answer in answers) < 900


@pytest.mark.parametrize(
    "changes",
    [
        {"direct": 2},
        {"right": 1},
        {"wraps": 1},
        {"graded": 1},
        {"shift": 26},
        {"ring": 2, "latency": 1},
        {"sums": 4},
        {"direct": 0},
    ],
)
def test_a_projection_is_direct_only_where_sums_need_no_place(
    changes: dict[str, int], by_hand: FixedPointNetwork, loader: Path
) -> None:
    """Shifts of 25 and 6 are the most that 32 bits take; sums lie where v of neuron 0 does not."""
    honest = write_blob(by_hand, lay_out(by_hand))
    most, data = bytearray(honest), bytearray(honest)
    most[BODY + NETWORK.size + layout.PROJECTION.offset("shift")] = 25
    for name, value in changes.items():
        data[BODY + NETWORK.size + layout.PROJECTION.offset(name)] = value
    data[BODY + NETWORK.offset("cycle")] = 2
    changed = [sealed(bytes(most)), sealed(bytes(data))]
    assert said(loader, changed) == [0, -3]
    assert [accepted(blob) for blob in changed] == [True, False]


def test_a_network_of_another_layout_is_refused_by_name(blobs: list[bytes], loader: Path) -> None:
    other = bytearray(blobs[0])
    for number in (0, 3):
        other[HEADER.offset("layout")] = number
        assert said(loader, [sealed(bytes(other))]) == [-5]
        with pytest.raises(ArtefactError, match=f"has layout {number}, this version reads 1 to 2"):
            read_blob(sealed(bytes(other)))


def test_a_small_blob_of_a_large_network_takes_no_memory(blobs: list[bytes]) -> None:
    data = bytearray(blobs[0])
    at = BODY + layout.NETWORK.offset("inputs")
    data[at : at + 4] = (2**28).to_bytes(4, "little")
    with pytest.raises(ArtefactError, match="blob: "):
        read_blob(sealed(bytes(data)))


@pytest.fixture
def by_hand(formats: NumberFormats) -> FixedPointNetwork:
    """One neuron, one input: weight 2 = 1 * 2^1, threshold 5 * 2^6, u keeps 4095 of 4096."""
    one = {"du": 0, "dv": 4095, "vth": 5, "bias_mant": 0, "bias_exp": 0, "u_init": 0, "v_init": -7}
    registers: dict[str, Any] = {name: np.array([value]) for name, value in one.items()}
    population = FixedPopulation(
        "a", (1,), **registers, spiking=True, v_scale=np.ones(1), v_offset=np.zeros(1)
    )
    projection = FixedProjection("p", "input", "a", FixedDense(np.array([[2]])), 8, 0)
    return FixedPointNetwork((1,), (population,), (projection,), formats, "sum")


def test_the_bytes_of_a_network_by_hand(by_hand: FixedPointNetwork) -> None:
    blob = write_blob(by_hand, lay_out(by_hand))

    def u8(*values: int) -> bytes:
        return bytes(values)

    def u32(*values: int) -> bytes:
        return b"".join((value % 2**32).to_bytes(4, "little") for value in values)

    def const(value: int) -> bytes:
        return u32(value, 1, 0)

    body = u32(1, 2**29, 1, 1) + bytes(6) + u8(0xF0, 0x3F)  # the scale is 1.0
    body += u8(1, 0, 1, 0, 12, 24, 6, 0, 0, 1, 0, 0)
    body += u8(1, 2, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0)  # dense, 2 bits, shift 1, direct
    # Step, u, v and a byte of spikes take words 0 to 3; sums are added to u. The code lies at 260.
    body += u32(0, 1, 1, 1, 260, 0) + const(0) * 3
    body += u32(1, 1, 0, 0) + u8(0, 0, 1, 0, 1, 0, 1, 0)
    body += b"".join(map(const, (4095, 1, 0, 320, 0, 0, -7)))
    body += u8(1, 0, 0, 0)
    assert blob[44:] == body
    head = b"OSBCNET\0" + u8(2, 0, 0, 0) + u32(len(blob)) + hashlib.sha256(body).digest()[:16]
    head += u32(16, zlib.crc32(body))
    assert blob[:44] == head + u32(zlib.crc32(head))


def test_what_a_blob_cannot_count_is_refused(formats: NumberFormats) -> None:
    wide = 70_000
    ones = np.ones(wide, np.int64)
    population = FixedPopulation(
        "a", (1, 1, wide), du=ones, dv=ones, vth=ones, bias_mant=0 * ones, bias_exp=0 * ones,
        u_init=0 * ones, v_init=0 * ones, spiking=True, v_scale=ones, v_offset=0 * ones,
    )  # fmt: skip
    kernel = FixedConv(np.full((1, 1, 1, 1), 2), (1, 1), (0, 0), (1, 1), 1)
    projection = FixedProjection("p", "input", "a", kernel, 8, 0)
    network = FixedPointNetwork((1, 1, wide), (population,), (projection,), formats, "sum")
    with pytest.raises(UnsupportedModelError, match=r"p: width 70,000, columns 70,000"):
        write_blob(network, lay_out(network))
