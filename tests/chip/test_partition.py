"""Mapping: every neuron on one core, no capacity exceeded, and as few cores as possible."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from osbc_deploy.chip.partition import map_network
from osbc_deploy.chip.target import Target, load_target
from osbc_deploy.fixedpoint.network import (
    FixedConv,
    FixedDense,
    FixedPointNetwork,
    FixedPopulation,
    FixedProjection,
)

TARGET = load_target("loihi2")


def population(name: str, shape: tuple[int, ...], groups: int = 1) -> FixedPopulation:
    size = int(np.prod(shape))
    zero = np.zeros(size, np.int32)
    return FixedPopulation(
        name,
        shape,
        zero + 4095,
        zero,
        100 + np.arange(size) % groups,
        zero,
        zero,
        zero,
        zero,
        True,
        np.ones(size),
        np.zeros(size),
    )


def network(
    input_shape: tuple[int, ...], *layers: tuple[Any, FixedPopulation, int]
) -> FixedPointNetwork:
    projections, pre = [], "input"
    for connection, post, bits in layers:
        projections.append(FixedProjection(f"to {post.name}", pre, post.name, connection, bits, 0))
        pre = post.name
    return FixedPointNetwork(
        input_shape,
        tuple(p for _, p, _ in layers),
        tuple(projections),
        TARGET.number_formats,
        "sum",
    )


def covered(mapping: Any, p: FixedPopulation) -> np.ndarray:
    count = np.zeros(p.shape, int)
    for core in mapping.cores:
        if core.population == p.name:
            count[tuple(slice(*r) for r in core.ranges)] += 1
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
    first, last = mapping.cores[0].resources, mapping.cores[-1].resources
    assert first.axon_in == 784
    assert first.synapses == 784 * 14  # 43 neurons: ceil((43 * 20 + 10) / 64) = 14
    assert (last.axon_in, last.neuron_state, last.synapses, last.axon_map) == (64, 10, 256, 10)
    assert last.total == 64 + 1 + 10 + 256 + 10


def test_sparse_pays_for_what_is_there_and_is_chosen_when_cheaper(rng: Any) -> None:
    weight = 2 * rng.integers(1, 100, (100, 300)) * (rng.random((100, 300)) < 0.05)
    weight[:, 7] = 0
    mapping = map_network(network((300,), (FixedDense(weight), population("a", (100,)), 8)), TARGET)
    (core,) = mapping.cores
    assert core.encoding == "sparse"
    nonzero = np.count_nonzero(weight, axis=0)
    assert core.axons == np.count_nonzero(nonzero)
    assert core.synapses == nonzero.sum()
    expected = sum(-(-(int(n) * 20 + 10) // 64) for n in nonzero if n)
    assert core.resources.synapses == expected
    dense = map_network(
        network((300,), (FixedDense(weight | 2), population("a", (100,)), 8)), TARGET
    )
    assert {c.encoding for c in dense.cores} == {"dense"}


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
    assert all(c.resources.axon_in == 2 for c in cores)
    # 18 rows of 16 channels in 4 bits: ceil(74 / 64) = 2 words; every tile holds all kernels.
    assert all(c.resources.synapses == 36 for c in cores)
    assert all(c.resources.axon_map == c.neurons for c in cores)


def test_axons_towards_a_convolution_are_counted_by_pixel() -> None:
    conv = FixedConv(np.full((8, 8, 3, 3), 2), (1, 1), (1, 1), (1, 1), 1)
    a, b = population("a", (8, 6, 5)), population("b", (8, 6, 5))
    mapping = map_network(network((8, 6, 5), (conv, a, 4), (conv, b, 4)), TARGET)
    assert [c.resources.axon_map for c in mapping.cores] == [30, 240]


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
    assert [c.axons for c in mapping.cores] == [4 * 21 * 20] * 2


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    n_post=st.integers(1, 40),
    n_pre=st.integers(1, 60),
    density=st.sampled_from([0.02, 0.3, 1.0]),
    words=st.sampled_from([30, 60, 200]),
)
def test_any_dense_layer_is_covered_once_within_caps_and_no_fewer_cores_would_do(
    seed: int, n_post: int, n_pre: int, density: float, words: int
) -> None:
    rng = np.random.default_rng(seed)
    weight = 2 * rng.integers(1, 100, (n_post, n_pre)) * (rng.random((n_post, n_pre)) < density)
    p = population("a", (n_post,), 3)
    target = replace_target_pool(small(synapses=words, neuron_state=15), 4000)
    mapping = map_network(network((n_pre,), (FixedDense(weight), p, 5)), target)
    assert (covered(mapping, p) == 1).all()
    assert mapping.lower_bound <= len(mapping.cores)
    if mapping.fits:
        # No even cut into fewer pieces fits, whatever the encoding of each piece.
        for pieces in range(mapping.lower_bound, len(mapping.cores)):
            step = -(-n_post // pieces)
            worst = max(
                min(slice_words(weight[i : i + step], 5, sparse) for sparse in (True, False))
                for i in range(0, n_post, step)
            )
            assert worst > words or step > 15


def slice_words(weight: np.ndarray, bits: int, sparse: bool) -> int:
    counts = [int(np.count_nonzero(c)) if sparse else len(c) for c in weight.T]
    return sum(-(-(n * (bits + 12) + 10) // 64) for n in counts if n)


def small(**caps: int) -> Target:
    changed = {
        name: replace_value(getattr(TARGET.core.caps, name), v)
        for name, v in caps.items()
        if name != "cores"
    }
    core = TARGET.core.model_copy(update={"caps": TARGET.core.caps.model_copy(update=changed)})
    chip = TARGET.chip
    if "cores" in caps:
        chip = chip.model_copy(update={"cores": replace_value(chip.cores, caps["cores"])})
    return TARGET.model_copy(update={"core": core, "chip": chip})


def replace_value(fact: Any, value: int) -> Any:
    return fact.model_copy(update={"value": value})


def test_too_many_cores_is_said_with_the_numbers() -> None:
    net = network((50,), (FixedDense(np.full((90, 50), 2)), population("a", (90,)), 8))
    mapping = map_network(net, small(neuron_state=10, cores=4))
    assert not mapping.fits
    assert mapping.excesses() == ["chip: 9 cores needed, 4 available (5 over)"]


def test_what_no_cut_can_help_is_said_with_resource_and_excess() -> None:
    net = network((50,), (FixedDense(np.full((90, 50), 2)), population("a", (90,)), 8))
    mapping = map_network(net, small(axon_in=40))
    assert not mapping.fits
    assert any("axon_in 50 exceeds 40 (10 over)" in line for line in mapping.excesses())


@pytest.mark.parametrize("groups", [8, 9])
def test_neuron_groups_are_limited_per_core(groups: int) -> None:
    net = network((5,), (FixedDense(np.full((90, 5), 2)), population("a", (90,), groups), 8))
    mapping = map_network(net, TARGET)
    assert mapping.fits
    assert max(c.resources.neuron_groups for c in mapping.cores) <= 8
    assert (len(mapping.cores) > 1) == (groups > 8)


def test_limiting_resource_is_the_fullest() -> None:
    net = network((50,), (FixedDense(np.full((90, 50), 2)), population("a", (90,)), 8))
    mapping = map_network(net, replace_target_pool(small(synapses=2000), 4000))
    core = mapping.cores[0]
    name, share = mapping.limiting(core)
    assert name == "synapses"
    assert share == core.resources.synapses / 2000


def replace_target_pool(target: Target, words: int) -> Target:
    core = target.core.model_copy(
        update={"pool_words": replace_value(target.core.pool_words, words)}
    )
    return target.model_copy(update={"core": core})
