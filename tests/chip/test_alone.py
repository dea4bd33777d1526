"""Layers counted one by one take what the whole deployed network takes."""

from __future__ import annotations

import norse.torch as norse
import numpy as np
import pytest
import torch
from torch import nn

import float_networks as nets
import osbc_deploy
from osbc_deploy.chip.alone import map_alone
from osbc_deploy.chip.mapping import map_network
from osbc_deploy.chip.target import load_target
from osbc_deploy.deployment import Deployment
from osbc_deploy.lower.counting import kept_apart
from osbc_deploy.lower.timing import timing


def deployed(bits: int, *, mixed: bool) -> Deployment:
    torch.manual_seed(0)
    model = norse.SequentialState(
        nn.Conv2d(2, 6, 3, padding=1),
        norse.LIFBoxCell(),
        nn.Conv2d(6, 6, 3),
        norse.LIFBoxCell(),
        nn.Flatten(),
        nn.Linear(216, 20),
        norse.LIFBoxCell(),
        nn.Linear(20, 4),
        norse.LICell(),
    )
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(4.0)
    return osbc_deploy.deploy(
        model,
        calibration=nets.spikes(5, 16, 8, 2, 8, 8),
        target="loihi2",
        sparsity=0.5,
        bits=bits,
        mixed=mixed,
        tune=False,
        backend_samples=0,
    )


@pytest.mark.parametrize("bits", [2, 4])
def test_widths_that_are_shared_lose_less_in_the_same_memory(bits: int) -> None:
    plain, shared = (deployed(bits, mixed=mixed) for mixed in (False, True))
    losses = [
        sum(p.relative_loss["total"] for p in done.compressed.projections.values())
        for done in (plain, shared)
    ]
    assert shared.mapping.words <= plain.mapping.words
    assert losses[1] <= losses[0] + 1e-12
    found = {p.bits for p in shared.compressed.projections.values()}
    assert found != {bits}
    network, target = plain.compressed.original, load_target("loihi2")
    alone = [
        map_alone(
            kept_apart(network),
            population,
            [plain.compressed.projections[p.name] for p in network.afferents(population.name)],
            target,
            timing(network),
        )
        for population in network.populations
    ]
    # Alone, nobody knows which neurons nothing hears.
    whole = map_network(plain.lowered.whole, target)
    assert sum(mapping.words for mapping in alone) == whole.words
    assert np.sum([mapping.cores_used for mapping in alone]) == whole.cores_used
