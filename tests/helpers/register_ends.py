"""Neurons whose currents and potentials come to lie right at the ends of their registers."""

from __future__ import annotations

import numpy as np

from osbc_deploy.fixedpoint.formats import NumberFormats
from osbc_deploy.fixedpoint.network import (
    FixedDense,
    FixedPointNetwork,
    FixedPopulation,
    FixedProjection,
)

__all__ = ["SATURATIONS", "WRAPS", "U", "V", "register_ends"]

TOP = 2**23
U = [TOP, TOP, 64 - TOP, TOP - 64, TOP - 64, TOP, TOP]
"""After one step: -2^23 has wrapped, 2^23 has not."""
V = [4607, 4607, 1 - TOP, 4607, 4607, 4607, 4607]
"""2^23 - 1 less 131000 * 64, which all but one of them lose as they fire."""
WRAPS, SATURATIONS = 3, 6
"""One of the potentials is 2^23 - 1 by itself."""


def register_ends(formats: NumberFormats, *, wide: bool) -> tuple[FixedPointNetwork, np.ndarray]:
    """Return a network and the spikes of a step; `wide` has sums that might leave 32 bits."""
    one, all_kept = np.ones(7, np.int64), np.array([4095, 4095, -1, -1, -1, -1, -1])
    population = FixedPopulation(
        "a", (7,), all_kept, 0 * one, 131071 * one,
        bias_mant=np.array([0, 0, -1, 63, 1, 0, 0]), bias_exp=np.array([0, 0, 6, 0, 6, 0, 0]),
        u_init=np.array([0, 0, 64 - TOP, TOP - 64, TOP - 64, -TOP // 2, -TOP // 2]),
        v_init=np.array([0, 0, 0, 0, 0, 0, 1000]),
        spiking=True, v_scale=1.0 * one, v_offset=0.0 * one, reset="subtract", drop=131000 * one,
    )  # fmt: skip
    # 8 * 128 << 7 << 6 is 2^23; of 1100 others, none fires.
    weight = np.zeros((7, 1108), np.int64)
    weight[:, :8] = np.array([128, -128, 0, 0, 0, -64, -64])[:, None]
    projections = [FixedProjection("p", "input", "a", FixedDense(weight), 8, 7)]
    if wide:
        silent = np.where(np.arange(1108) >= 8, 254, 0) * one[:, None]
        projections.append(FixedProjection("q", "input", "a", FixedDense(silent), 8, 7))
    network = FixedPointNetwork((1108,), (population,), tuple(projections), formats, "sum")
    spikes = (np.arange(1108) < 8).astype(np.uint8)[None, None]
    return network, spikes
