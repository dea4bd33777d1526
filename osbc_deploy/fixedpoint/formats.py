"""The widths of a chip's registers, as a target describes them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

__all__ = ["LOIHI", "RANGES", "NumberFormats"]

LOIHI = "loihi"
"""The arithmetic of networks and targets that name none."""


RANGES: dict[str, tuple[int, int, str]] = {
    "weight_bits": (1, 14, "weights are kept in 16 bits, sign and 2^width included"),
    "weight_mantissa_bits": (1, 14, "weights are kept in 16 bits, sign and 2^width included"),
    "weight_exp_min": (-15, 15, "sums of weights are shifted within 64 bits"),
    "weight_exp_max": (-15, 15, "sums of weights are shifted within 64 bits"),
    "vth_bits": (1, 30, "registers are kept in 32 bits"),
    "decay_bits": (1, 30, "registers are kept in 32 bits, 2^width included"),
    "state_bits": (3, 31, "states are kept in 32 bits, and times 2^decay_bits in 64"),
    "bias_mant_bits": (2, 31, "registers are kept in 32 bits, and one bit is the sign"),
    "bias_exp_min": (0, 29, "a bias is kept in 32 bits"),
    "bias_exp_max": (0, 29, "a bias is kept in 32 bits"),
    "state_shift": (0, 29, "activations are shifted within 64 bits"),
    "decay_u_offset": (0, 1, "a decay register counts from 0 or from 1"),
}
"""Smallest and largest value of every width, and why the arithmetic here has these limits."""


@dataclass(frozen=True)
class NumberFormats:
    """Register widths of a chip's core, in the words of Loihi's.

    Attributes
    ----------
    weight_bits : tuple of int
        Widths a synapse can be stored in, rising; a mixed-sign weight spends one bit on its sign.
    weight_mantissa_bits : int
        Width of the weight register; narrower weights fill its upper bits.
    weight_exp_min, weight_exp_max : int
        Range of the exponent that shifts the sum of weights.
    vth_bits, decay_bits, state_bits : int
        Unsigned threshold mantissa, unsigned decays, signed `u` and `v`.
    bias_mant_bits : int
        Signed bias mantissa.
    bias_exp_min, bias_exp_max : int
        Smallest and largest left shift of the bias mantissa.
    state_shift : int
        Left shift that aligns activation and threshold with the state.
    decay_u_offset : int
        Added to `du` before it acts.
    arithmetic : str
        Name of the model that says what neurons do with them (:mod:`.arithmetics`).

    Raises
    ------
    ValueError
        With everything that is not a whole number, out of :data:`RANGES`, or contradicts another.
    """

    weight_bits: tuple[int, ...]
    weight_mantissa_bits: int
    weight_exp_min: int
    weight_exp_max: int
    vth_bits: int
    decay_bits: int
    state_bits: int
    bias_mant_bits: int
    bias_exp_min: int
    bias_exp_max: int
    state_shift: int
    decay_u_offset: int
    arithmetic: str = LOIHI

    def __post_init__(self) -> None:
        if faults := _out_of_range(self) or _contradictions(self):
            raise ValueError("; ".join(faults))

    @property
    def vth_max(self) -> int:
        """Largest threshold mantissa."""
        return (1 << self.vth_bits) - 1

    @property
    def decay_unity(self) -> int:
        """The decay that would forget everything in one step."""
        return 1 << self.decay_bits

    @property
    def decay_max(self) -> int:
        """Largest value of a decay register."""
        return self.decay_unity - 1

    @property
    def state_limit(self) -> int:
        """Half the range of a state register: ``2^(state_bits - 1)``."""
        return 1 << (self.state_bits - 1)

    @property
    def bias_mant_max(self) -> int:
        """Largest magnitude of a bias mantissa that both signs can hold."""
        return (1 << (self.bias_mant_bits - 1)) - 1

    def stored_bits(self, bits: int) -> int:
        """Return the width that weights of `bits` bits are stored in.

        A one-bit weight is a sign without a zero, which a mixed-sign synapse stores in two bits;
        widths the chip lacks are stored in the next wider one.
        """
        needed = max(2, bits)
        return min(width for width in self.weight_bits if width >= needed)

    def weight_shift(self, stored: int) -> int:
        """Return how far a code of `stored` bits lies from the register's lowest bit (mixed)."""
        return self.weight_mantissa_bits - stored + 1


def _out_of_range(formats: NumberFormats) -> list[str]:
    lines = []
    for name, (low, high, why) in RANGES.items():
        given: Any = getattr(formats, name)
        values = given if name == "weight_bits" and isinstance(given, tuple) else (given,)
        # True and 8.0 compare like whole numbers, and are none.
        if not values or not all(type(v) is int and low <= v <= high for v in values):
            lines.append(f"{name} is {_shown(given)}, allowed are {low} to {high}: {why}")
    return lines


def _shown(value: Any) -> str:
    text = repr(list(value) if isinstance(value, tuple) else value)
    return text if len(text) < 40 else f"{text[:40]}..."


def _contradictions(f: NumberFormats) -> list[str]:
    lines = []
    if f.weight_bits != tuple(sorted(f.weight_bits)):
        lines.append(f"weight_bits {list(f.weight_bits)} do not rise")
    widest = max(f.weight_bits)
    if widest < 2:
        lines.append("weight_bits: the widest is 1, at least 2 hold a weight that may be zero")
    if widest > f.weight_mantissa_bits:
        lines.append(
            f"weight_bits: {widest} exceed weight_mantissa_bits ({f.weight_mantissa_bits})"
        )
    for what in ("weight_exp", "bias_exp"):
        low, high = getattr(f, f"{what}_min"), getattr(f, f"{what}_max")
        if low > high:
            lines.append(f"{what}_min ({low}) exceeds {what}_max ({high})")
    if f.vth_bits + f.state_shift > f.state_bits - 1:
        lines.append(
            f"vth_bits + state_shift ({f.vth_bits} + {f.state_shift}) exceed state_bits - 1 "
            f"({f.state_bits - 1}): no potential would reach the threshold"
        )
    if f.bias_mant_bits + f.bias_exp_max > RANGES["bias_mant_bits"][1]:
        lines.append(
            f"bias_mant_bits + bias_exp_max ({f.bias_mant_bits} + {f.bias_exp_max}) exceed "
            f"{RANGES['bias_mant_bits'][1]}: {RANGES['bias_exp_max'][2]}"
        )
    return lines
