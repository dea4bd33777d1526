r"""One time step of a Loihi-style core in integers.

The arithmetic is that of Lava's fixed-point processes (lava-nc 0.10, ``PyLifModelBitAcc`` and
the dense, sparse and conv models), stated in our own terms and compared with them bit for bit in
the tests:

.. math::

    u &= \mathrm{trunc}\!\left(u\,\frac{4096 - (du + 1)}{4096}\right) + 2^6 a
        \quad\text{(wraps once at 24 bits)} \\
    v &= \mathrm{trunc}\!\left(v\,\frac{4096 - dv}{4096}\right) + u + bias
        \quad\text{(saturates at 24 bits)} \\
    s &= v > 2^6\, vth, \qquad v = 0 \text{ where } s

All functions take and return int64 arrays.
"""

from __future__ import annotations

import numpy as np

from osbc_deploy.arrays import BoolArray, IntArray
from osbc_deploy.fixedpoint.formats import NumberFormats

__all__ = ["decay", "effective_bias", "saturate", "shift", "wrap_accumulator", "wrap_current"]


def shift(total: IntArray, exponent: int) -> IntArray:
    """Shift left by `exponent`, or right (towards minus infinity) where it is negative."""
    return total << exponent if exponent >= 0 else total >> -exponent


def decay(state: IntArray, kept: IntArray, bits: int) -> IntArray:
    """Return ``state * kept / 2^bits``, rounded towards zero."""
    product = state * kept
    # Rounding a negative number towards zero: add 2^bits - 1 before the arithmetic shift.
    return np.asarray((product + (((1 << bits) - 1) & -(product < 0).astype(np.int64))) >> bits)


def wrap_current(u: IntArray, formats: NumberFormats) -> IntArray:
    """Wrap a synaptic current into ``(-2^23, 2^23]`` once, as the register does."""
    limit = formats.state_limit
    return np.where(u > limit, u - 2 * limit, np.where(u <= -limit, u + 2 * limit, u))


def saturate(v: IntArray, formats: NumberFormats) -> IntArray:
    """Clip a membrane potential to ``[-(2^23 - 1), 2^23 - 1]``."""
    return np.clip(v, 1 - formats.state_limit, formats.state_limit - 1)


def wrap_accumulator(a: IntArray, formats: NumberFormats) -> IntArray:
    """Wrap a convolution's sum to a signed number of the state's width."""
    limit = formats.state_limit
    return (a + limit) % (2 * limit) - limit


def effective_bias(mantissa: IntArray, exponent: IntArray) -> IntArray:
    """Return ``mantissa * 2^exponent`` for exponents of 0 and more."""
    return mantissa.astype(np.int64) << exponent.astype(np.int64)


def out_of_range(u: IntArray, formats: NumberFormats) -> BoolArray:
    """Tell where a current is beyond what one wrap can bring back."""
    return np.asarray(np.abs(u) > formats.state_limit)
