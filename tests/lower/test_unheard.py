"""Neurons that make no difference are left out, and no bit changes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from osbc_deploy.fixedpoint.engine import run
from osbc_deploy.fixedpoint.network import (
    FixedPointNetwork,
)
from osbc_deploy.lower.unheard import needed_neurons, part_of
from osbc_deploy.testing.networks import random_networks


def _thinned(network: FixedPointNetwork, seed: int) -> FixedPointNetwork:
    """Take whole rows and columns of weights away, as pruning does, and some biases."""
    rng = np.random.default_rng(seed)
    projections = []
    for p in network.projections:
        weight = p.connection.weight.copy()
        weight[rng.random(weight.shape[0]) < 0.3] = 0
        weight[:, rng.random(weight.shape[1]) < 0.4] = 0
        projections.append(replace(p, connection=replace(p.connection, weight=weight)))
    populations = []
    for q in network.populations:
        calm = rng.random(q.size) < 0.5
        changes = {
            name: np.where(calm, 0, getattr(q, name)) for name in ("bias_mant", "u_init", "v_init")
        }
        populations.append(replace(q, **changes))
    return replace(network, populations=tuple(populations), projections=tuple(projections))


def test_random_networks_fire_the_same_without_them() -> None:
    gone = 0
    for number, case in enumerate(random_networks(60, start=3)):
        network = _thinned(case.network, number)
        kept, _ = needed_neurons(network)
        smaller = part_of(network, kept)
        names = [p.name for p in network.populations]
        whole = run(network, case.spikes, record=names, states=names, strict=False)
        part = run(smaller, case.spikes, record=names, states=names, strict=False)
        assert (part.output == whole.output).all()
        for name in names:
            for a, b in ((whole.v, part.v), (whole.u, part.u), (whole.spikes, part.spikes)):
                if name in a:
                    assert (a[name][..., kept[name]] == b[name]).all()
            gone += int((~kept[name]).sum())
    assert gone > 200
