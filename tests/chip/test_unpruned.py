"""What a network takes with all weights in, by hand."""

from __future__ import annotations

import itertools
import math

from float_networks import mlp
from osbc_deploy.pipeline import finish
from verified import SIZES, compressed, job


def test_all_weights_and_neurons_in_the_same_bits() -> None:
    net = mlp(sizes=SIZES)
    work = job(net)
    done = finish(work, compressed(net, work, sparsity=0.9, bits=4))
    cores = done.mapping.cores
    assert len(cores) == len(SIZES) - 1
    names = ("synapses", "axon_in", "neuron_groups", "neuron_state", "axon_map")
    taken = sum(core.usage.used[name] for core in cores for name in names)
    # A dense axon is a record of (4 + 12) bits for each neuron behind a header of 10, in words of
    # 64, and has an entry. Each threshold is a group.
    pairs = list(itertools.pairwise(SIZES))
    whole = sum(pre * (math.ceil((post * 16 + 10) / 64) + 1) for pre, post in pairs)
    whole += sum(len(set(p.vth.tolist())) for p in done.lowered.whole.populations)
    each = cores[0].usage.used
    whole += sum(SIZES[1:]) * (each["neuron_state"] + each["axon_map"]) // cores[0].neurons
    assert done.footprint.neurons < done.unpruned.neurons == sum(SIZES[1:])
    assert done.unpruned.bytes == done.footprint.bytes + 8 * (whole - taken)
    assert done.unpruned.bytes > 3 * done.footprint.bytes
