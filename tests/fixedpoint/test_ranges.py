"""What registers hold, by their widths: 12 bits for decays, 17 for thresholds, 13 for biases."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from osbc_deploy.fixedpoint.formats import NumberFormats
from osbc_deploy.fixedpoint.network import (
    FixedDense,
    FixedPointNetwork,
    FixedPopulation,
    FixedProjection,
)
from osbc_deploy.fixedpoint.ranges import faults


def network(formats: NumberFormats, **registers: int) -> FixedPointNetwork:
    plain = dict.fromkeys(("du", "dv", "bias_mant", "bias_exp", "u_init", "v_init"), 0) | {"vth": 9}
    values: dict[str, Any] = {k: np.full(2, v) for k, v in (plain | registers).items()}
    one = np.ones(2)
    population = FixedPopulation("p", (2,), **values, spiking=True, v_scale=one, v_offset=0 * one)
    projection = FixedProjection("a", "input", "p", FixedDense(np.full((2, 3), 2)), 8, 0)
    return FixedPointNetwork((3,), (population,), (projection,), formats, "sum")


@pytest.mark.parametrize(
    ("register", "low", "high"),
    [
        # du acts as du + 1: its last value forgets everything, and -1 is Lava's "keeps all".
        ("du", -1, 4095),
        ("dv", 0, 4095),
        ("vth", 0, 131071),
        ("bias_mant", -4096, 4095),
        ("bias_exp", 0, 7),
        ("u_init", -8388607, 8388607),
        ("v_init", -8388607, 8388607),
    ],
)
def test_registers_hold_their_bits_and_no_more(
    register: str, low: int, high: int, formats: NumberFormats
) -> None:
    for value in (low, high):
        assert faults(network(formats, **{register: value})) == []
    for value in (low - 1, high + 1):
        expected = f"p.{register}: {value} to {value}, allowed {low} to {high}"
        assert faults(network(formats, **{register: value})) == [expected]
