"""What the input of a network on the chip may be, and how the data become that.

A spike is 0 or 1. Chips with graded spikes take a whole number, the payload, which every synapse
multiplies with its weight: whole numbers go in as they are, real values as multiples of one scale,
which the weights behind the input have taken up.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import get_args

import numpy as np

from osbc_deploy.arrays import FloatArray, InputArray, IntArray, peak_of
from osbc_deploy.errors import UsageError
from osbc_deploy.options.notation import InputKind

__all__ = ["MOST_BITS", "SPIKES", "InputFormat", "InputSeen", "bits_for", "undeclared"]

MOST_BITS = 24
"""Of a payload here: such numbers are exact in single precision, which simulations may use."""


@dataclass(frozen=True)
class InputFormat:
    """What the input carries.

    Attributes
    ----------
    kind : {"spikes", "integers", "values"}
        0 or 1, whole numbers as they are, or real values as multiples of `scale`.
    bits : int
        Of the payload, the sign included.
    signed : bool
        Whether payloads may be negative; those are held as two's complement.
    scale : float
        What a payload of 1 stands for.
    """

    kind: InputKind = "spikes"
    bits: int = 1
    signed: bool = False
    scale: float = 1.0

    def __post_init__(self) -> None:
        wrong = self.kind not in get_args(InputKind)
        wrong |= type(self.bits) is not int or type(self.signed) is not bool
        if wrong or not 1 + self.signed <= self.bits <= MOST_BITS:
            raise ValueError(f"input: {self.bits!r} bits of {self.kind!r}, signed {self.signed!r}")
        if type(self.scale) is not float or not 0 < self.scale < float("inf"):
            raise ValueError(f"input: scale {self.scale!r}")
        if self.kind != "values" and self.scale != 1.0:
            raise ValueError(f"input: {self.kind} with a scale of {self.scale!r}")
        if self.kind == "spikes" and (self.bits, self.signed) != (1, False):
            raise ValueError(f"input: spikes of {self.bits} bits")

    @property
    def graded(self) -> bool:
        """Whether the chip must multiply with what arrives."""
        return self.kind != "spikes"

    @property
    def low(self) -> int:
        """The least payload."""
        return -(1 << (self.bits - 1)) if self.signed else 0

    @property
    def high(self) -> int:
        """The largest payload."""
        return (1 << (self.bits - self.signed)) - 1

    @property
    def peak(self) -> int:
        """The largest size of a payload."""
        return max(-self.low, self.high)

    def codes(self, values: InputArray) -> IntArray:
        """Return what the chip is given for samples: payloads, or the spikes themselves.

        Real values are rounded to the nearest multiple of the scale (to even at the middle) and
        cut off at the ends of the range.

        Returns
        -------
        ndarray of uint8, or of a signed type where the input is graded

        Raises
        ------
        UsageError
            For spikes or whole numbers that are none, or out of range; for real values below 0
            where the input has no sign.
        """
        if self.kind == "values":
            least = float(values.min(initial=0))
            if not self.signed and np.rint(least / self.scale) < 0:
                raise UsageError(
                    f"samples: go down to {least:g}, the network's input has no sign. Deploy it "
                    "again with such samples for calibration."
                )
            codes = np.empty(values.shape, np.int16 if self.peak < 2**15 else np.int32)
            for number, sample in enumerate(values):
                codes[number] = np.clip(self._rounded(sample), self.low, self.high)
            return codes
        self.check(values)
        whole = values.dtype.kind in "bui"
        return values if whole else values.astype(np.int32 if self.graded else np.uint8)

    def check(self, payloads: InputArray) -> None:
        """Refuse payloads that are no whole numbers of this range."""
        low, high = payloads.min(initial=0), payloads.max(initial=0)
        whole = payloads.dtype.kind in "bui" or bool((payloads == np.rint(payloads)).all())
        if whole and self.low <= low and high <= self.high:
            return
        held = f"{self.low:,} to {self.high:,}" if self.graded else "0 or 1"
        raise UsageError(
            f"samples: {'values' if whole else 'real values'} from {low:g} to {high:g}, the "
            f"network's input takes {held}. Give what it was deployed for, or deploy it again with "
            "such samples for calibration."
        )

    def decoded(self, payloads: InputArray) -> FloatArray:
        """Return the values that payloads stand for, in single precision."""
        return (payloads * self.scale).astype(np.float32)

    def clipped(self, values: InputArray) -> float:
        """Return the share of values that are cut off at the ends of the range."""
        if self.kind != "values":
            return 0.0
        cut = 0
        for sample in values:
            payload = self._rounded(sample)
            cut += int(np.count_nonzero((payload < self.low) | (payload > self.high)))
        return cut / values.size

    def _rounded(self, values: InputArray) -> FloatArray:
        """Return multiples of the scale, of as many values as fit into memory twice."""
        return np.asarray(np.rint(values / np.float64(self.scale)))


@dataclass(frozen=True)
class InputSeen:
    """What some samples became as input.

    Attributes
    ----------
    largest : int
        Payload, whatever its sign.
    clipped : float
        Share of values that were cut off at the ends of the range.
    """

    largest: int
    clipped: float

    @classmethod
    def of(cls, given: InputFormat, samples: InputArray) -> InputSeen:
        """Return what samples become."""
        return cls(int(peak_of(given.codes(samples))), given.clipped(samples))


SPIKES = InputFormat()


def undeclared(*, graded: bool) -> InputFormat:
    """Return the input of a network that does not say: any payload of 16 bits, or spikes."""
    return InputFormat("integers", 16, signed=True) if graded else SPIKES


def bits_for(low: int, high: int) -> int:
    """Return the bits that hold whole numbers from `low` to `high`, with a sign below 0."""
    if low < 0:
        return 1 + max((-low - 1).bit_length(), high.bit_length(), 1)
    return max(1, high.bit_length())
