"""Mapping: every neuron on one core, no capacity exceeded, and as few cores as possible."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chip_networks import network, population
from osbc_deploy.chip.layers import Layer
from osbc_deploy.chip.mapping import layers_of, map_network
from osbc_deploy.chip.partition import cut
from osbc_deploy.chip.target import Target, load_target
from osbc_deploy.fixedpoint.network import (
    FixedConv,
    FixedDense,
    FixedPopulation,
)

TARGET = load_target("loihi2")


def covered(mapping: Any, p: FixedPopulation) -> np.ndarray:
    count = np.zeros(p.size, int)
    for core in mapping.cores:
        if core.population == p.name:
            count[core.members(p.shape)] += 1
    return count


def test_mnist_of_the_compiler_table() -> None:
    # 784-128-64-10 in 8 bits: the compiler puts the first layer on three cores of 50 at most.
    full = lambda n, m: FixedDense(np.full((n, m), 2))  # noqa: E731
    net = network(
        (784,),
        (full(128, 784), population("a", (128,)), 8),
        (full(64, 128), population("b", (64,)), 8),
        (full(10, 64), population("c", (10,)), 8),
    )
    mapping = map_network(net, TARGET)
    assert [c.population for c in mapping.cores] == ["a", "a", "a", "b", "c"]
    assert [c.index for c in mapping.cores] == list(range(5))
    assert mapping.fits
    first, last = mapping.cores[0].usage.used, mapping.cores[-1].usage.used
    assert first["axon_in"] == 784
    assert first["synapses"] == 784 * 14  # 43 neurons: ceil((43 * 20 + 10) / 64) = 14
    assert last == {
        "axon_in": 64,
        "neuron_groups": 1,
        "neuron_state": 10,
        "synapses": 256,
        "axon_map": 10,
        "axon_mem": 0,
        "total": 64 + 1 + 10 + 256 + 10,
    }


def test_sparse_pays_for_what_is_there_and_is_chosen_when_cheaper(rng: Any) -> None:
    weight = 2 * rng.integers(1, 100, (100, 300)) * (rng.random((100, 300)) < 0.05)
    weight[:, 7] = 0
    mapping = map_network(network((300,), (FixedDense(weight), population("a", (100,)), 8)), TARGET)
    (core,) = mapping.cores
    assert core.usage.encoding == "sparse"
    nonzero = np.count_nonzero(weight, axis=0)
    assert core.usage.axons == np.count_nonzero(nonzero)
    assert core.usage.synapses == nonzero.sum()
    expected = sum(-(-(int(n) * 20 + 10) // 64) for n in nonzero if n)
    assert core.usage.used["synapses"] == expected
    dense = map_network(
        network((300,), (FixedDense(weight | 2), population("a", (100,)), 8)), TARGET
    )
    assert {c.usage.encoding for c in dense.cores} == {"dense"}


def test_convolution_tiles_cover_every_neuron_once_within_all_caps() -> None:
    conv = FixedConv(np.full((16, 2, 3, 3), 2), (1, 1), (1, 1), (1, 1), 1)
    last = FixedDense(2 * (np.arange(10 * 16 * 30 * 32).reshape(10, -1) % 16 == 0))
    a, b = population("a", (16, 30, 32)), population("b", (10,))
    mapping = map_network(network((2, 30, 32), (conv, a, 4), (last, b, 4)), TARGET)
    assert (covered(mapping, a) == 1).all()
    assert (covered(mapping, b) == 1).all()
    assert mapping.fits
    cores = [c for c in mapping.cores if c.population == "a"]
    assert len(cores) == 4  # 15360 neurons, 4095 each
    assert all(c.usage.used["axon_in"] == 2 for c in cores)
    # 18 rows of 16 channels in 4 bits: ceil(74 / 64) = 2 words; every tile holds all kernels.
    assert all(c.usage.used["synapses"] == 36 for c in cores)
    assert all(c.usage.used["axon_map"] == c.neurons for c in cores)


def test_axons_towards_a_convolution_are_counted_by_pixel() -> None:
    conv = FixedConv(np.full((8, 8, 3, 3), 2), (1, 1), (1, 1), (1, 1), 1)
    a, b = population("a", (8, 6, 5)), population("b", (8, 6, 5))
    mapping = map_network(network((8, 6, 5), (conv, a, 4), (conv, b, 4)), TARGET)
    assert [c.usage.used["axon_map"] for c in mapping.cores] == [30, 240]


def test_of_all_cuts_the_one_with_the_fewest_replicated_axons_is_taken() -> None:
    # 8 x 40 x 20 neurons need two cores; halving the rows replicates one row pair of the input,
    # halving the columns two longer ones, halving the channels everything.
    conv = FixedConv(np.full((8, 4, 3, 3), 2), (1, 1), (1, 1), (1, 1), 1)
    p = population("a", (8, 40, 20))
    mapping = map_network(network((4, 40, 20), (conv, p, 4)), TARGET)
    assert [c.ranges for c in mapping.cores] == [
        ((0, 8), (0, 20), (0, 20)),
        ((0, 8), (20, 40), (0, 20)),
    ]
    assert [c.usage.axons for c in mapping.cores] == [4 * 21 * 20] * 2


def by_hand(core: Any, connection: Any, p: FixedPopulation, bits: int) -> dict[str, int]:
    """Count what a slice uses, weight by weight, from the published rules."""
    tile = tuple(slice(*r) for r in core.ranges)
    members = core.members(p.shape)
    groups = len(set(p.vth[members].tolist()))
    neurons = int(np.prod([stop - start for start, stop in core.ranges]))
    if isinstance(connection, FixedConv):
        rows = connection.weight[tile[0]].reshape(core.ranges[0][1] - core.ranges[0][0], -1).T
        odd = len(rows[0]) & (len(rows[0]) - 1) != 0
        words = sum(-(-(len(row) * bits + 10) // 64) + odd for row in rows)
        axons = 2
    else:
        columns = connection.weight[members].T
        stored = {
            "dense": [len(c) for c in columns],
            "sparse": [k for c in columns if (k := int(np.count_nonzero(c)))],
        }[core.usage.encoding]
        words = sum(-(-(n * (bits + 12) + 10) // 64) for n in stored)
        axons = len(stored)
    used = {
        "axon_in": axons,
        "neuron_groups": groups,
        "neuron_state": neurons,
        "synapses": words,
        "axon_map": core.usage.used["axon_map"],
        "axon_mem": 0,
    }
    return {**used, "total": sum(used.values())}


def naive_cores(layer: Layer, limits: dict[str, int]) -> int:
    """Return how many cores equal consecutive slices along the first axis need, or 0 for never.

    The number starts at the largest ratio of use to capacity and grows until nothing is exceeded,
    as compilers do it.
    """
    whole = TARGET.memory.cost(layer, layer.whole).used
    parts = max(-(-whole[name] // limits[name]) for name in limits)
    for count in range(parts, layer.shape[0] + 1):
        step = -(-layer.shape[0] // count)
        slices = [
            ((start, min(start + step, layer.shape[0])), *layer.whole[1:])
            for start in range(0, layer.shape[0], step)
        ]
        if not any(TARGET.memory.cost(layer, r).excess(limits) for r in slices):
            return len(slices)
    return 0


@settings(max_examples=80, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_random_stacks_keep_every_cap_on_no_more_cores_than_equal_slices(seed: int) -> None:
    rng = np.random.default_rng(seed)
    shape: tuple[int, ...] = (int(rng.integers(1, 4)), *rng.integers(4, 12, 2).tolist())
    pre, layers = shape, []
    for number in range(rng.integers(1, 4)):
        bits, groups = int(rng.choice([1, 3, 8])), int(rng.integers(1, 4))
        if len(pre) == 3 and rng.random() < 0.6:
            conv = FixedConv(
                np.ones(
                    (int(rng.integers(1, 9)), pre[0], *np.minimum(rng.integers(1, 4, 2), pre[1:]))
                ),
                (int(rng.integers(1, 3)), 1),
                (1, int(rng.integers(0, 2))),
                (1, 1),
                1,
            )
            post, connection = conv.output_shape(pre), conv
        else:
            post = (int(rng.integers(1, 150)),)
            shown = rng.random((post[0], int(np.prod(pre)))) < rng.choice([0.03, 0.3, 1.0])
            connection = FixedDense(2 * shown * rng.integers(1, 99, shown.shape))
        layers.append((connection, population(f"p{number}", post, groups), bits))
        pre = post
    net = network(shape, *layers)
    caps = {
        "axon_in": int(rng.integers(60, 700)),
        "synapses": int(rng.integers(60, 2000)),
        "neuron_state": int(rng.integers(20, 200)),
        "neuron_groups": int(rng.integers(1, 4)),
    }
    target = replace_target_pool(small(**caps), int(rng.integers(2000, 4000)))
    mapping = map_network(net, target)
    limits = target.memory.limits()
    for (connection, p, bits), layer in zip(layers, layers_of(net), strict=True):
        assert (covered(mapping, p) == 1).all()
        cores = [c for c in mapping.cores if c.population == p.name]
        for core in cores:
            assert core.usage.used == by_hand(core, connection, p, bits)
        part = cut(layer, target.memory)
        naive = naive_cores(layer, limits)
        if naive:
            assert not part.faults
            assert len(cores) <= naive
            assert part.lower_bound <= len(cores)
            for core in cores:
                assert all(core.usage.used[name] <= limits[name] for name in limits)


@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_small_dense_layers_get_the_best_of_all_cuts(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n_post, n_pre = int(rng.integers(1, 10)), int(rng.integers(1, 20))
    shown = rng.random((n_post, n_pre)) < rng.choice([0.1, 0.5, 1.0])
    net = network((n_pre,), (FixedDense(2 * shown), population("a", (n_post,), 2), 6))
    target = small(synapses=int(rng.integers(3, 40)), neuron_groups=int(rng.integers(1, 3)))
    (layer,) = layers_of(net)
    limits = target.memory.limits()
    best = None
    # As they stand, and sorted by their groups where that takes fewer slices.
    for each in (layer, layer.ordered(np.argsort(layer.neuron_sets, kind="stable"))):
        keys = []
        for marks in itertools.product([False, True], repeat=n_post - 1):
            ends = [0, *(i + 1 for i, mark in enumerate(marks) if mark), n_post]
            usages = [target.memory.cost(each, ((a, b),)) for a, b in itertools.pairwise(ends)]
            if not any(u.excess(limits) for u in usages):
                axons, words = sum(u.axons for u in usages), max(u.words for u in usages)
                keys.append((len(usages), axons, words))
        if keys and (best is None or min(keys)[0] < best[0]):
            best = min(keys)
    found = cut(layer, target.memory)
    if best is None:
        assert found.faults
    else:
        slices = [u for _, u in found.slices]
        key = (len(slices), sum(u.axons for u in slices), max(u.words for u in slices))
        assert key == best


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_small_convolutions_get_the_best_of_all_even_tilings(seed: int) -> None:
    rng = np.random.default_rng(seed)
    channels, pre = int(rng.integers(1, 6)), (2, *rng.integers(2, 7, 2).tolist())
    conv = FixedConv(np.ones((channels, 2, 2, 2)), (1, 1), (0, 1), (1, 1), 1)
    post = conv.output_shape(pre)
    net = network(pre, (conv, population("a", post), 6))
    target = small(neuron_state=int(rng.integers(2, 30)), synapses=int(rng.integers(16, 40)))
    (layer,) = layers_of(net)
    best = None
    steps = [sorted({-(-n // k) for k in range(1, n + 1)}) for n in post]
    for step in itertools.product(*steps):
        axes = [
            [(i, min(i + s, n)) for i in range(0, n, s)] for n, s in zip(post, step, strict=True)
        ]
        usages = [target.memory.cost(layer, r) for r in itertools.product(*axes)]
        if not any(u.excess(target.memory.limits()) for u in usages):
            key = (len(usages), sum(u.axons for u in usages), max(u.words for u in usages))
            best = key if best is None else min(best, key)
    slices = [u for _, u in cut(layer, target.memory).slices]
    assert best == (len(slices), sum(u.axons for u in slices), max(u.words for u in slices))


def small(**caps: int) -> Target:
    cores = caps.pop("cores", None)
    changed = {
        name: replace_value(getattr(TARGET.memory.caps, name), v) for name, v in caps.items()
    }
    memory = TARGET.memory.model_copy(
        update={"caps": TARGET.memory.caps.model_copy(update=changed)}
    )
    chip = TARGET.chip
    if cores is not None:
        chip = chip.model_copy(update={"cores": replace_value(chip.cores, cores)})
    return TARGET.model_copy(update={"memory": memory, "chip": chip})


def replace_value(fact: Any, value: int) -> Any:
    return fact.model_copy(update={"value": value})


def test_too_many_cores_is_said_with_the_numbers() -> None:
    net = network((50,), (FixedDense(np.full((90, 50), 2)), population("a", (90,)), 8))
    mapping = map_network(net, small(neuron_state=10, cores=4))
    assert not mapping.fits
    assert mapping.excesses() == ["chip: 9 cores needed, 4 available (5 over)"]


def test_what_no_cut_can_help_is_said_with_neuron_resource_and_remedy() -> None:
    net = network((50,), (FixedDense(np.full((90, 50), 2)), population("a", (90,)), 8))
    mapping = map_network(net, small(axon_in=40))
    assert not mapping.fits
    assert (
        "layer to a: a core cannot hold neuron 0 alone: axon_in 50 exceeds 40 (10 over)"
        in (mapping.excesses()[0])
    )
    assert "Prune its inputs" in mapping.excesses()[0]


@pytest.mark.parametrize("groups", [8, 9])
def test_neuron_groups_are_limited_per_core(groups: int) -> None:
    net = network((5,), (FixedDense(np.full((90, 5), 2)), population("a", (90,), groups), 8))
    mapping = map_network(net, TARGET)
    assert mapping.fits
    assert max(c.usage.used["neuron_groups"] for c in mapping.cores) <= 8
    assert (len(mapping.cores) > 1) == (groups > 8)


def alternating(p: FixedPopulation, sets: int) -> FixedPopulation:
    """Return neurons whose decays take turns."""
    return replace(p, dv=100 * (np.arange(p.size) % sets))


def test_neurons_are_sorted_by_their_parameters_where_that_takes_fewer_cores(rng: Any) -> None:
    # 8 sets of parameters a core: a row of 150 neurons of 12 sets in turn breaks every 8.
    weight = 2 * rng.integers(1, 50, (150, 20))
    first = alternating(population("a", (150,)), 12)
    second = FixedDense(2 * (rng.random((90, 150)) < 0.1)), population("b", (90,), 3), 8
    net = network((20,), (FixedDense(weight), first, 8), second)
    mapping = map_network(net, TARGET)
    cores = [c for c in mapping.cores if c.population == "a"]
    assert -(-150 // 8) == 19
    assert len(cores) == 2
    members = [c.members((150,)) for c in cores]
    assert sorted(np.concatenate(members).tolist()) == list(range(150))
    for core, chosen in zip(cores, members, strict=True):
        assert core.usage.used["neuron_groups"] == len({n % 12 for n in chosen.tolist()}) <= 8
        assert core.slice.endswith(" sorted")
        assert core.as_dict(64)["listed"] == chosen.tolist()
    # What needs no more cores as it stands is left as it stands.
    eight = alternating(population("a", (150,)), 8)
    assert map_network(network((20,), (FixedDense(weight), eight, 8)), TARGET).cores[0].slice == (
        "0:150"
    )
    # Loihi 1 holds 31 sets of decays and 7 thresholds: here only thresholds first take two cores.
    both = replace(alternating(population("a", (336,)), 12), vth=100 + np.arange(336) // 12 % 14)
    many = FixedDense(2 * rng.integers(1, 50, (336, 20)))
    found = map_network(network((20,), (many, both, 8)), load_target("loihi1"))
    assert found.fits
    assert found.cores_used == found.lower_bound == 2


def test_limiting_resource_is_the_fullest() -> None:
    net = network((50,), (FixedDense(np.full((90, 50), 2)), population("a", (90,)), 8))
    mapping = map_network(net, replace_target_pool(small(synapses=2000), 4000))
    core = mapping.cores[0]
    name, share = core.limiting()
    assert name == "synapses"
    assert share == core.usage.used["synapses"] / 2000


def replace_target_pool(target: Target, words: int) -> Target:
    memory = target.memory.model_copy(
        update={"pool_words": replace_value(target.memory.pool_words, words)}
    )
    return target.model_copy(update={"memory": memory})
