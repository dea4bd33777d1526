"""Poolings are merged or counted, whichever takes less of the target: both built and mapped."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from osbc_deploy.chip.mapping import map_network
from osbc_deploy.chip.pooling import counted_poolings
from osbc_deploy.chip.target import load_target
from osbc_deploy.compress.network import compress
from osbc_deploy.compress.options import CompressionOptions
from osbc_deploy.formats.nir.neurons import LIF
from osbc_deploy.lower.lowering import lower
from osbc_deploy.model.graph import AvgPool, Conv, Dense, Network, Population, Projection

CHIP = load_target("loihi2-sim")
ZERO, ONE = np.zeros(()), np.ones(())
OPTIONS = CompressionOptions(sparsity=0.0, bits=8, method="magnitude", tune=False)


def network(fans: int, side: int = 8, *, beside: bool = False) -> Network:
    """A convolution, and a matrix behind the pooling of whole maps."""
    rng = np.random.default_rng(0)
    lif = LIF(0.4 * ONE, ONE, ZERO, 0.15 * ONE, ZERO)
    shape = (16, side, side)
    first = Conv(rng.normal(0.1, 1, (16, 2, 3, 3)), padding=(1, 1))
    pool = AvgPool((side, side), (side, side))
    net = Network(
        (2, side, side),
        (Population("a", shape, lif), Population("d", (fans,), lif)),
        (
            Projection("to a", "input", "a", first),
            Projection("to d", "a", "d", Dense(rng.normal(0.1, 1, (fans, 16))), pool),
        ),
    )
    if not beside:
        return net
    # What hears the same windows shares their gates.
    more = Projection("to e", "a", "e", Dense(rng.normal(0.1, 1, (fans, 16))), pool)
    last = Projection("to f", "d", "f", Dense(rng.normal(0.1, 1, (4, fans))))
    also = Projection("e to f", "e", "f", Dense(rng.normal(0.1, 1, (4, fans))))
    return replace(
        net,
        populations=(*net.populations, Population("e", (fans,), lif), Population("f", (4,), lif)),
        projections=(*net.projections, more, last, also),
    )


def cores(net: Network, counted: Any) -> int:
    x = (np.random.default_rng(1).random((2, 4, *net.input_shape)) < 0.2).astype(np.uint8)
    done = compress(net, x, OPTIONS)
    fixed = lower(done, x, CHIP.number_formats, counted=counted).network
    mapping = map_network(fixed, CHIP)
    return mapping.cores_used if mapping.fits else 2**30


@pytest.mark.parametrize(
    ("net", "best"),
    [
        (network(10), set()),
        (network(150), set()),
        (network(2000), {"to d"}),
        (network(500, beside=True), {"to d", "to e"}),
    ],
    ids=["few", "some", "many", "shared"],
)
def test_what_takes_fewer_cores_is_taken(net: Network, best: set[str]) -> None:
    found = counted_poolings(net, CHIP, OPTIONS)
    ways = [set(), {"to d"}, *([{"to d", "to e"}] if "to e" in best else [])]
    built = {frozenset(way): cores(net, way) for way in ways}
    assert found == best
    assert built[found] == min(built.values()) < 2**30
    assert found == set() or built[frozenset()] > built[found]
