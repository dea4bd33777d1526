"""What the input carries: payloads by hand, and what is none."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from osbc_deploy.errors import UsageError
from osbc_deploy.fixedpoint.coding import SPIKES, InputFormat, InputSeen, bits_for

REAL = np.array([0.0, 0.24, 0.26, 0.75, -0.25, -9.0, 9.0], np.float32)


@pytest.mark.parametrize(
    ("given", "expected", "clipped"),
    [
        # Halves go to the even side: 0.75 / 0.5 is 1.5, which becomes 2; -0.25 / 0.5 becomes 0.
        (InputFormat("values", 4, True, 0.5), [0, 0, 1, 2, 0, -8, 7], 2 / 7),
        (InputFormat("values", 4, False, 0.5), [0, 0, 1, 2, 0, 15, 15], 2 / 7),
        (InputFormat("values", 8, True, 0.25), [0, 1, 1, 3, -1, -36, 36], 0.0),
        (InputFormat("values", 1, False, 1.0), [0, 0, 0, 1, 0, 1, 1], 2 / 7),
    ],
)
def test_real_values_become_the_nearest_multiples(
    given: InputFormat, expected: list[int], clipped: float
) -> None:
    # What has no sign takes -0.25, which becomes 0, and 9 in the place of -9.
    real = REAL if given.signed else np.where(REAL < -1, -REAL, REAL)
    codes = given.codes(real)
    assert codes.tolist() == expected
    assert codes.dtype == np.int16
    assert given.clipped(real) == pytest.approx(clipped)
    assert given.decoded(codes).tolist() == [code * given.scale for code in expected]
    assert InputSeen.of(given, real).largest == max(abs(code) for code in expected)


def test_whole_numbers_and_spikes_go_in_as_they_are() -> None:
    counts = np.array([[0, 3, -8, 7]], np.int8)
    assert InputFormat("integers", 4, signed=True).codes(counts).tolist() == counts.tolist()
    spikes = (counts > 0).astype(np.uint8)
    assert SPIKES.codes(spikes) is spikes
    assert InputFormat("integers", 4, signed=True).clipped(counts) == 0.0


@pytest.mark.parametrize(
    ("given", "samples", "words"),
    [
        (
            InputFormat("integers", 3),
            [0, 8],
            "values from 0 to 8, the network's input takes 0 to 7",
        ),
        (InputFormat("integers", 3), [-1, 1], "values from -1 to 1, .* takes 0 to 7"),
        (InputFormat("integers", 3, signed=True), [0, 4], "takes -4 to 3"),
        (InputFormat("integers", 3), [0.5, 1], "real values from 0 to 1"),
        (SPIKES, [0, 2], "takes 0 or 1. Give what it was deployed for"),
        (InputFormat("values", 8, scale=0.5), [-0.5, 1.0], "go down to -0.5, .* has no sign"),
    ],
)
def test_other_samples_are_refused(given: InputFormat, samples: list[Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        given.codes(np.array(samples))


@pytest.mark.parametrize(
    "wrong",
    [
        {"kind": "counts"}, {"bits": 0}, {"bits": 25}, {"bits": 1, "signed": True},
        {"bits": 8.0}, {"bits": True}, {"signed": 1}, {"scale": 0.0}, {"scale": float("nan")},
        {"scale": -1.0}, {"scale": True}, {"scale": "1"},
        {"kind": "integers", "scale": 2.0}, {"kind": "spikes"},
    ],
)  # fmt: skip
def test_a_format_that_is_none_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="input: "):
        InputFormat(**({"kind": "values", "bits": 8} | wrong))


@pytest.mark.parametrize(
    ("low", "high", "bits"),
    [(0, 1, 1), (0, 7, 3), (0, 8, 4), (0, 255, 8), (-1, 0, 2), (-4, 3, 3), (-4, 4, 4), (-5, 0, 4)],
)
def test_the_bits_of_whole_numbers(low: int, high: int, bits: int) -> None:
    assert bits_for(low, high) == bits
    held = InputFormat("integers", bits, signed=low < 0)
    assert held.low <= low <= high <= held.high
