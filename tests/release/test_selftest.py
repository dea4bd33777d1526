"""The self-test of a release: inputs of every width, and the engine's answers."""

from __future__ import annotations

import struct
import subprocess
import zlib
from pathlib import Path

import numpy as np
import pytest

from osbc_deploy.data.samples import check_samples
from osbc_deploy.errors import ArtefactError, UsageError
from osbc_deploy.fixedpoint.engine import run
from osbc_deploy.fixedpoint.formats import NumberFormats
from osbc_deploy.release.selftest import SelfTest, make_selftest
from osbc_deploy.testing import random_networks
from power_cuts import SANITIZE, build


def test_random_networks_pass_their_own_and_no_other(formats: NumberFormats) -> None:
    tested = 0
    for case in random_networks(4, formats, start=5):
        if case.network.input.kind == "values":
            continue
        samples = check_samples("case", case.spikes)
        made = make_selftest(case.network, samples, 2)
        again = SelfTest.unpack(data := made.pack())
        assert np.array_equal(again.payloads, made.payloads), case.features
        assert again.failures(case.network) == 0
        # By hand: the first CRC is that of the engine's output.
        output = run(case.network, case.spikes[:1]).output
        assert struct.unpack_from("<I", data, 32)[0] == zlib.crc32(output.astype("<i4").tobytes())
        tested += 1
        wrong = SelfTest(made.payloads, tuple(c ^ 1 for c in made.crcs), made.outputs, made.signed)
        assert wrong.failures(case.network) == len(made.crcs)
    assert tested == 2


@pytest.mark.parametrize(
    ("payloads", "signed", "bits"),
    [([0, 1, 1], False, 1), ([0, 255, 3], False, 8), ([-128, 127, 0], True, 8),
     ([0, 256, 3], False, 16), ([-129, 0, 0], True, 16), ([2**31 - 1, 0, -(2**31)], True, 32)],
)  # fmt: skip
def test_payloads_take_the_least_width(payloads: list[int], signed: bool, bits: int) -> None:
    made = SelfTest(np.array([[payloads, payloads[::-1]]]), (7,), 1, signed)
    data = made.pack()
    assert data[20] == bits
    assert len(data) == 32 + 4 + -(-2 * -(-3 * bits // 8) // 4) * 4
    assert np.array_equal(SelfTest.unpack(data).payloads, made.payloads)


def test_damaged_ones_and_foreign_samples_are_refused(formats: NumberFormats) -> None:
    data = SelfTest(np.ones((2, 3, 5), np.int64), (1, 2), 4, False).pack()
    for broken in (b"", data[:-1], data + b"\0", b"X" + data[1:], data[:20] + b"\3" + data[21:]):
        with pytest.raises(ArtefactError, match="self-test: is damaged"):
            SelfTest.unpack(broken)
    network = random_networks(1, formats, start=5)[0].network
    wrong = check_samples("wrong", np.ones((1, 2, 999), np.uint8))
    with pytest.raises(UsageError, match="the network takes"):
        make_selftest(network, wrong, 1)


@pytest.mark.parametrize(
    ("low", "high", "kind"), [(0, 1, "u1"), (-5, 100, "i1"), (0, 999, "<u2"), (-70_000, 9, "<i4")]
)
def test_c_gives_the_inputs_and_holds_the_answers(
    low: int, high: int, kind: str, c_driver: Path, tmp_path: Path
) -> None:
    random = np.random.default_rng(0)
    payloads = random.integers(low, high, (2, 3, 11), endpoint=True)
    payloads[0, 0, :2] = low, high
    answers = random.integers(-(2**31), 2**31, (2, 3, 4)).astype("<i4")
    crcs = tuple(zlib.crc32(sample.tobytes()) for sample in answers)
    data = SelfTest(payloads, crcs, 4, low < 0).pack()

    def run(vectors: bytes, said: bytes = answers.tobytes(), room: int = 0) -> int:
        (tmp_path / "v").write_bytes(vectors)
        (tmp_path / "a").write_bytes(said)
        width = str(room or 11 * np.dtype(kind).itemsize)
        command = [c_driver, *(tmp_path / name for name in "vai"), width, "4"]
        return int(subprocess.run(command, capture_output=True, check=True).stdout)

    assert run(data) == 0
    given = (tmp_path / "i").read_bytes()
    rows = [b"f-"[t > 0 : 1 + (t > 0)] + payloads[n, t].astype(kind).tobytes()
            for n in range(2) for t in range(3)]  # fmt: skip
    assert given == b"".join(rows)
    wrong = bytearray(answers.tobytes())
    wrong[-1] ^= 1
    assert run(data, bytes(wrong)) == -13
    assert run(data, room=10) == -6
    assert {run(data[:size]) for size in (0, 31, 32, 40, len(data) - 1)} == {-8}
    for at in (6, 8, 11, 12, 15, 16, 20, 25):
        assert run(data[:at] + bytes([data[at] ^ 0x81]) + data[at + 1 :]) in (-8, -6)


@pytest.fixture(scope="module")
def c_driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("c"), *SANITIZE, driver="selftest_driver")
