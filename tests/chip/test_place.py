"""Placement and traffic against loops over single spikes."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_array

from chip_networks import network, population
from osbc_deploy.chip.mapping import layers_of, map_layers
from osbc_deploy.chip.place import Placement, place
from osbc_deploy.chip.target import Target, load_target
from osbc_deploy.chip.traffic import operations, traffic
from osbc_deploy.fixedpoint.network import FixedConv, FixedDense


def board(cores: int, size: list[int], chips: list[int], chip_hops: int = 4) -> Target:
    """Return a system with meshes of the given sizes."""
    target = load_target("kapoho-point")
    change = lambda fact, value: fact.model_copy(update={"value": value})  # noqa: E731
    chip = target.chip.model_copy(
        update={
            "cores": change(target.chip.cores, cores),
            "chips": change(target.chip.chips, chips[0] * chips[1]),
        }
    )
    mesh = target.mesh.model_copy(
        update={
            "size": change(target.mesh.size, size),
            "chips": change(target.mesh.chips, chips),
            "chip_hops": change(target.mesh.chip_hops, chip_hops),
        }
    )
    return target.model_copy(update={"chip": chip, "mesh": mesh})


def hops(found: Placement, target: Target, a: int, b: int) -> int:
    """Walk from core to core: inside a chip one hop a step, across its edge what that costs."""
    across = target.mesh.chips.value[0]
    width, height = target.mesh.size.value
    ends = []
    for core in (a, b):
        row, column = divmod(int(found.chip[core]), across)
        ends.append((column, int(found.x[core]), row, int(found.y[core])))
    (ca, xa, ra, ya), (cb, xb, rb, yb) = ends
    steps = abs(ca * width + xa - cb * width - xb) + abs(ra * height + ya - rb * height - yb)
    return steps + (target.mesh.chip_hops.value - 1) * (abs(ca - cb) + abs(ra - rb))


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_no_two_cores_share_a_place_and_the_cost_is_what_the_spikes_travel(seed: int) -> None:
    rng = np.random.default_rng(seed)
    size, chips = rng.integers(1, 5, 2).tolist(), rng.integers(1, 3, 2).tolist()
    cores = int(rng.integers(1, size[0] * size[1] + 1))
    target = board(cores, size, chips)
    count = int(rng.integers(1, cores * chips[0] * chips[1] + 1))
    sent = rng.integers(0, 9, (count, count)) * (rng.random((count, count)) < 0.4)
    found = place(csr_array(sent.astype(float)), target)
    assert found is not None
    spots = set(zip(found.chip.tolist(), found.x.tolist(), found.y.tolist(), strict=True))
    assert len(spots) == count
    assert found.chip.max() < chips[0] * chips[1]
    assert (found.y * size[0] + found.x < cores).all()
    walked = sum(
        sent[a, b] * hops(found, target, a, b)
        for a, b in itertools.product(range(count), repeat=2)
        if a != b
    )
    assert found.spike_hops == pytest.approx(walked)
    assert found.spike_hops <= found.layer_order


@pytest.mark.parametrize("seed", range(6))
def test_eight_cores_are_placed_as_well_as_any_way(seed: int) -> None:
    rng = np.random.default_rng(seed)
    sent = rng.integers(0, 20, (8, 8)) * (rng.random((8, 8)) < 0.5)
    every = np.array(list(itertools.permutations(range(9), 8)), np.int16)
    x, y = every % 3, every // 3
    best = sum(
        sent[a, b] * (np.abs(x[:, a] - x[:, b]) + np.abs(y[:, a] - y[:, b]))
        for a, b in itertools.permutations(range(8), 2)
    ).min()
    found = place(csr_array(sent.astype(float)), board(9, [3, 3], [1, 1]))
    assert found is not None
    assert found.spike_hops == best


@pytest.mark.parametrize("size", [1e-300, 2.0**-30, 1.0, 1e12, 1e300])
def test_spikes_of_any_number_are_placed_alike(size: float) -> None:
    rng = np.random.default_rng(0)
    sent = rng.integers(0, 20, (12, 12)) * (rng.random((12, 12)) < 0.3)
    target = board(16, [4, 4], [1, 1])
    one = place(csr_array(sent.astype(float)), target)
    other = place(csr_array(sent * size), target)
    assert one is not None
    assert other is not None
    small = size < 2.0**-20
    assert other.spike_hops == (0.0 if small else pytest.approx(one.spike_hops * size, rel=1e-6))


def test_a_chain_of_a_hundred_layers_is_placed_next_to_next() -> None:
    count = 100
    sent = np.zeros((count, count))
    sent[np.arange(count - 1), np.arange(1, count)] = 7.0
    found = place(csr_array(sent), load_target("loihi2"))
    assert found is not None
    assert found.spike_hops == 7.0 * (count - 1)
    assert found.layer_order > found.spike_hops
    assert found.random_order > found.layer_order


def test_more_cores_than_places_and_chips_without_a_mesh_have_no_placement() -> None:
    assert place(csr_array((121, 121)), load_target("loihi2")) is None
    assert place(csr_array((1, 1)), load_target("speck")) is None


def stack(rng: np.random.Generator) -> Any:
    conv = FixedConv(2 * (rng.random((6, 3, 3, 2)) < 0.5), (2, 1), (1, 0), (1, 2), 1)
    shape = (3, 9, 8)
    a = population("a", conv.output_shape(shape))
    b = population("b", (30,))
    return network(
        shape,
        (conv, a, 4),
        (FixedDense(2 * (rng.random((30, a.size)) < 0.02)), b, 4),
        (FixedDense(np.full((5, 30), 2)), population("c", (5,)), 4),
    )


def split(name: str, **caps: int) -> Target:
    target = load_target(name)
    known = target.memory.caps
    changed = {
        key: getattr(known, key).model_copy(update={"value": value}) for key, value in caps.items()
    }
    memory = target.memory.model_copy(update={"caps": known.model_copy(update=changed)})
    return target.model_copy(update={"memory": memory})


def test_traffic_and_operations_are_those_of_single_spikes(rng: np.random.Generator) -> None:
    net = stack(rng)
    target = split("loihi2", neuron_state=60)
    layers = layers_of(net)
    mapping = map_layers(layers, target)
    assert len(mapping.cores) > 4
    spikes = {
        "input": rng.integers(0, 4, 3 * 9 * 8).astype(float),
        **{p.name: rng.integers(0, 4, p.size).astype(float) for p in net.populations},
    }
    conv = net.projections[0].connection
    # The convolution as a matrix, neuron by neuron.
    matrix = np.zeros((net.populations[0].size, 3 * 9 * 8), int)
    matrix_stored = np.zeros_like(matrix)
    out = net.populations[0].shape
    for f, y, x in itertools.product(*map(range, out)):
        for c, i, j in itertools.product(range(3), range(3), range(2)):
            sy, sx = 2 * y - 1 + i, x + 2 * j
            if 0 <= sy < 9 and 0 <= sx < 8:
                at = (
                    np.ravel_multi_index((f, y, x), out),
                    np.ravel_multi_index((c, sy, sx), (3, 9, 8)),
                )
                matrix_stored[at] = 1
                matrix[at] = conv.weight[f, c, i, j] != 0
    found = operations(mapping, layers, spikes)
    assert found["a"].useful == (matrix @ spikes["input"]).sum()
    assert found["a"].performed == (matrix_stored @ spikes["input"]).sum()
    for name, pre, projection in (("b", "a", net.projections[1]), ("c", "b", net.projections[2])):
        weight = projection.connection.weight != 0
        assert found[name].useful == (weight @ spikes[pre]).sum()
    assert found["c"].performed == 5 * spikes["b"].sum()
    sent = traffic(mapping, layers, spikes).toarray()
    for core in mapping.cores:
        for other in mapping.cores:
            expected = 0.0
            for projection in net.projections:
                if (projection.pre, projection.post) == (core.population, other.population):
                    tile = np.zeros(net.shape_of(projection.pre), bool)
                    tile[tuple(slice(*r) for r in core.ranges)] = True
                    rows = slice(*other.ranges[0])
                    reached = (projection.connection.weight[rows] != 0).any(axis=0)
                    if other.usage.encoding == "dense":
                        reached |= True
                    expected = float(spikes[projection.pre][tile.ravel() & reached].sum())
            assert sent[core.index, other.index] == expected


def test_a_synthetic_network_of_many_layers_spreads_over_chips(rng: np.random.Generator) -> None:
    layers = [
        (FixedDense(2 * (rng.random((400, 400)) < 0.1)), population(f"p{i}", (400,)), 8)
        for i in range(60)
    ]
    net = network((400,), *layers)
    target = split("kapoho-point", synapses=2000)
    parts = layers_of(net)
    mapping = map_layers(parts, target)
    assert mapping.fits
    assert mapping.cores_used > 120
    spikes = {p.name: rng.poisson(2.0, p.size).astype(float) for p in net.populations}
    found = place(traffic(mapping, parts, spikes), target)
    assert found is not None
    assert found.chip.max() >= 1
    assert found.spike_hops < 0.8 * found.layer_order < found.random_order
