"""When spikes arrive, one by one."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from osbc_deploy.frameworks.norse.neurons import IF
from osbc_deploy.model.delivery import arriving, delivered, lateness
from osbc_deploy.model.graph import Dense, Network, Population, Projection

DELAYS = (None, [0, 0, 0], [2, 2, 2], [0, 3, 9])


@pytest.mark.parametrize("feedback", [False, True])
@pytest.mark.parametrize("delay", DELAYS, ids=str)
def test_every_spike_arrives_after_its_delay(delay: list[int] | None, feedback: bool) -> None:
    neurons = IF(np.ones(()), np.zeros(()))
    late = None if delay is None else np.array(delay)
    way = Projection("w", "p" if feedback else "input", "p", Dense(np.eye(3)), delay=late)
    network = Network((3,), (Population("p", (3,), neurons),), (way,))
    sent = (np.random.default_rng(0).random((2, 6, 3)) < 0.5).astype(np.uint8)
    wanted = np.zeros_like(sent)
    for sample, step, neuron in np.argwhere(sent):
        arrives = step + feedback + (0 if delay is None else delay[neuron])
        if arrives < 6:
            wanted[sample, arrives, neuron] = 1
    assert np.array_equal(delivered(network, way, sent), wanted)
    source = torch.from_numpy(sent.swapaxes(0, 1).astype(np.float32))
    steps = [arriving(source, t, lateness(network, way)).numpy() for t in range(6)]
    assert np.array_equal(np.stack(steps, axis=1), wanted)
