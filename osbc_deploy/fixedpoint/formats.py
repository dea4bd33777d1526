"""The widths of a chip's registers, as a target describes them."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["NumberFormats"]


@dataclass(frozen=True)
class NumberFormats:
    """Register widths of a Loihi-style core.

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
