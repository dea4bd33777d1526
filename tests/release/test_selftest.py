"""The self-test of a release: inputs of every width, and the engine's answers."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest

from osbc_deploy.data.samples import check_samples
from osbc_deploy.errors import ArtefactError, UsageError
from osbc_deploy.fixedpoint.engine import run
from osbc_deploy.fixedpoint.formats import NumberFormats
from osbc_deploy.release.selftest import SelfTest, make_selftest
from osbc_deploy.testing import random_networks


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
