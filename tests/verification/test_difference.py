"""Differences of a population and its firing, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from osbc_deploy.verification.difference import difference, firing
from osbc_deploy.verification.stages import Record


def record(spikes: list[list[int]], v: list[list[float]]) -> Record:
    """One sample, a row for each neuron of population "a"."""
    raster = np.array(spikes, np.uint8).T[None]
    return Record({"a": raster}, {"a": np.array(v).T[None]}, raster)


def test_potentials_count_where_neither_fires() -> None:
    # Steps 1 (the reference fires), 2 (the other does) and 3 (both do) say nothing of v.
    one = record([[0, 1, 0, 1, 0]], [[3.0, 90.0, 80.0, 70.0, 5.0]])
    other = record([[0, 0, 1, 1, 0]], [[4.0, 10.0, 20.0, 30.0, 7.0]])
    found = difference(one, other, "a", np.array([1.0]), 5.0)
    assert (found.error, found.signal) == (1.0 + 4.0, 4.0 + 16.0)
    assert (found.mismatches, found.neuron_steps, found.first) == (2, 5, (1,))
    assert found.membrane == pytest.approx(0.5)
    # Of a readout every step counts.
    readouts = [Record({}, r.v, r.output) for r in (one, other)]
    found = difference(*readouts, "a", np.array([1.0]), 5.0)
    assert found.error == 1.0 + 80.0**2 + 60.0**2 + 40.0**2 + 4.0


def test_silent_is_never_and_saturated_is_always() -> None:
    raster = [[0, 0, 0, 0], [0, 1, 0, 0], [1, 1, 0, 1], [1, 1, 1, 1]]
    found = firing(record(raster, [[0.0] * 4] * 4), "a")
    assert found.counts.tolist() == [0, 1, 3, 4]
    assert (found.silent, found.saturated, found.rate) == (1, 1, 0.5)
    twice = found + found
    assert (twice.silent, twice.saturated, twice.rate) == (1, 1, 0.5)
