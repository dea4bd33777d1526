"""Spikes kept a bit each are those that were written."""

from __future__ import annotations

import numpy as np
import pytest

import float_networks as nets
from osbc_deploy.model.raster import PackedSpikes, part_of, peak_of_raster
from osbc_deploy.model.simulate import simulate


@pytest.mark.parametrize("shape", [(5, 3, 7), (4, 2, 2, 3, 3), (3, 1, 8)])
def test_what_is_written_is_read(shape: tuple[int, ...], rng: np.random.Generator) -> None:
    spikes = (rng.random(shape) < 0.4).astype(np.uint8)
    packed = PackedSpikes(shape)
    packed[0:2] = spikes[0:2]
    packed[2 : len(spikes)] = spikes[2:]
    assert packed.bits.nbytes == shape[0] * -(-np.prod(shape[1:]) // 8)
    assert np.array_equal(packed[:], spikes)
    assert np.array_equal(packed[1], spikes[1])
    assert np.array_equal(part_of(packed, slice(1, None, 2))[:], spikes[1::2])
    assert peak_of_raster(packed) == 1
    assert len(packed) == len(spikes)


def test_a_run_with_little_memory_gives_the_same_spikes(rng: np.random.Generator) -> None:
    net = nets.recurrent()
    x = nets.spikes(3, 20, 9, *net.input_shape)
    names = {p.name for p in net.populations}
    whole = simulate(net, x, record=names, exact=True)
    little = simulate(net, x, pack=names, exact=True, memory=1, output=False)
    assert little.output.shape[0] == 0
    assert little.rates == whole.rates
    assert little.packed.keys() == whole.spikes.keys()
    for name, spikes in whole.spikes.items():
        assert np.array_equal(little.packed[name][:], spikes)
    # Given back, they are what the rest of the network hears.
    first = net.populations[0].name
    if first in little.packed:
        again = simulate(net, x, given={first: little.packed[first]}, exact=True)
        assert np.array_equal(again.output, whole.output)
