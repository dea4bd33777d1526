"""What a step asks of cores and links, against loops over single spikes and published figures."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from chip_networks import network, population
from osbc_deploy.chip.mapping import layers_of, map_layers
from osbc_deploy.chip.place import Placement, place
from osbc_deploy.chip.step import Link, StepLoad, step_load
from osbc_deploy.chip.target import Target, load_target
from osbc_deploy.chip.traffic import traffic
from osbc_deploy.errors import TargetError
from osbc_deploy.fixedpoint.engine import run
from osbc_deploy.fixedpoint.network import (
    FixedConv,
    FixedDense,
    FixedPointNetwork,
    FixedProjection,
)

LOIHI1 = load_target("loihi1")


def small_cores(target: Target, neurons: int) -> Target:
    """Return the chip with cores of fewer neurons, so that layers are cut."""
    caps = target.memory.caps
    fact = caps.neurons.model_copy(update={"value": neurons})
    memory = target.memory.model_copy(update={"caps": caps.model_copy(update={"neurons": fact})})
    return target.model_copy(update={"memory": memory})


def drawn(rng: np.random.Generator) -> tuple[Any, dict[str, np.ndarray]]:
    """Return a convolution, a sparse and a dense layer, with spikes of a step."""
    conv = FixedConv(2 * rng.integers(0, 2, (4, 2, 3, 3)), (2, 1), (1, 0), (1, 1), 1)
    a = population("a", conv.output_shape((2, 8, 7)))
    sparse = FixedDense(2 * (rng.random((40, a.size)) < 0.05))
    net = network(
        (2, 8, 7),
        (conv, a, 8),
        (sparse, population("b", (40,), 14), 8),
        # The first neuron of b says nothing, but dense axons hold it.
        (FixedDense(np.full((9, 40), 2) * (np.arange(40) > 0)), population("c", (9,)), 8),
    )
    sizes = {"input": 2 * 8 * 7} | {p.name: p.size for p in net.populations}
    return net, {name: (rng.random(n) < 0.4).astype(float) for name, n in sizes.items()}


def test_loads_are_those_of_single_spikes(rng: np.random.Generator) -> None:
    net, spikes = drawn(rng)
    spikes["b"][0] = 1.0
    target, layers = small_cores(LOIHI1, 16), layers_of(net)
    mapping = map_layers(layers, target)
    # One population was sorted by its 14 thresholds, of which a core holds 7.
    assert any(core.listed for core in mapping.cores)
    sent = traffic(mapping, layers, spikes)
    placed = place(sent, target)
    assert placed is not None
    load = step_load(mapping, layers, spikes, placed, target)
    at = {}
    for core in mapping.cores:
        shape = net.shape_of(core.population)
        at.update({(core.population, n): core.index for n in core.members(shape).tolist()})
    synaptic, received = np.zeros(len(mapping.cores)), np.zeros(len(mapping.cores))
    conv = net.projections[0].connection
    for projection in net.projections:
        shape = net.shape_of(projection.pre)
        for pre in np.flatnonzero(spikes[projection.pre]).tolist():
            reached = set()
            for post in range(net.shape_of(projection.post)[0] if projection.pre != "input" else 0):
                core = mapping.cores[at[projection.post, post]]
                if projection.connection.weight[post, pre] or core.usage.encoding == "dense":
                    synaptic[core.index] += 1
                    reached.add(core.index)
            received[list(reached)] += 1
            if projection.pre == "input":
                _, row, column = np.unravel_index(pre, shape)
                out = conv.output_shape(shape)
                for f, y, x in itertools.product(*map(range, out)):
                    i, j = row - (2 * y - 1), column - x
                    if 0 <= i < 3 and 0 <= j < 3:
                        post = int(np.ravel_multi_index((f, y, x), out))
                        synaptic[at["a", post]] += 1
    assert load.synaptic.tolist() == synaptic.tolist()
    assert load.received.tolist() == received.tolist()
    assert load.updates.tolist() == [core.neurons for core in mapping.cores]
    assert mapping.cores[at["c", 0]].usage.encoding == "dense"
    # Where cores lie close together, and anywhere: ways go round corners there.
    anywhere = rng.permutation(16 * 8)[: len(mapping.cores)]
    scattered = replace(placed, x=anywhere % 16, y=anywhere // 16)
    for places in (placed, scattered):
        load = step_load(mapping, layers, spikes, places, target)
        hops = check_links(load, sent, places)
        assert load.columns + load.rows == hops
        assert places is scattered or hops == placed.spike_hops
    assert load.columns > 0 < load.rows


def check_links(load: StepLoad, sent: Any, placed: Placement) -> float:
    """Hold links against spikes that walk one by one; return all hops."""
    # Every spike walked along its row, then along its column; four cores share a router.
    links: dict[Any, float] = {}
    for a, b in itertools.product(range(sent.shape[0]), repeat=2):
        here = [int(placed.x[a]) // 2, int(placed.y[a]) // 2]
        there = [int(placed.x[b]) // 2, int(placed.y[b]) // 2]
        for axis in (0, 1):
            while here[axis] != there[axis]:
                before = tuple(here)
                here[axis] += 1 if there[axis] > here[axis] else -1
                link = before, tuple(here)
                links[link] = links.get(link, 0.0) + sent[a, b]
    links = {ends: carried for ends, carried in links.items() if carried}
    assert {(link.source, link.sink): link.spikes for link in load.links} == links
    assert load.links[0].spikes == max(links.values())
    return sum(links.values())


def test_time_and_energy_are_events_times_published_figures() -> None:
    # Davies et al. 2018, Table 2: 23.6 pJ and 3.5 ns a synaptic operation, 81 pJ and 8.4 ns an
    # active update (52 pJ an inactive one), 1.7 pJ a spike, 3 and 4 pJ a hop, barrier 465 ns.
    two = np.array([100.0, 10.0]), np.array([20.0, 700.0]), np.array([3.0, 4.0])
    load = StepLoad(*two, columns=5.0, rows=6.0, links=(), placed=True)
    time, energy = load.time(LOIHI1), load.energy(LOIHI1)
    assert time is not None
    assert energy is not None
    assert load.busiest(LOIHI1) == 1
    assert time.parts["core"] == pytest.approx((10 * 3.5 + 700 * 8.4) * 1e-9)
    assert time.bottleneck == "core"
    assert time.total == pytest.approx((10 * 3.5 + 700 * 8.4 + 465) * 1e-9)
    spent = 110 * 23.6 + 720 * 81 + 7 * 1.7 + 5 * 3 + 6 * 4
    assert energy.total == pytest.approx(spent)
    assert energy.idle_saves == pytest.approx(720 * (81 - 52))
    # The longer of the slowest core and the fullest link, at 3.44 spikes a nanosecond, is waited
    # for.
    for carried, waited in ((344.0, 10 * 3.5 + 700 * 8.4), (34400.0, 10000.0)):
        full = replace(load, links=(Link((0, 0), (1, 0), carried),))
        time = full.time(LOIHI1)
        assert time is not None
        assert time.parts["link"] == pytest.approx(carried / 3.44e9)
        assert time.total == pytest.approx((waited + 465) * 1e-9)
        assert time.bottleneck == ("core" if waited < 10000 else "link")
    # No figure of Loihi 2 is public: the busiest core is that with the most operations.
    assert load.time(load_target("loihi2")) is None
    assert load.energy(load_target("loihi2")) is None
    assert load.busiest(load_target("loihi2")) == 1


def test_layers_that_share_a_core_take_their_turns_on_it() -> None:
    net = network(
        (6,),
        (FixedDense(np.full((5, 6), 2)), population("a", (5,)), 8),
        (FixedDense(np.full((3, 5), 2)), population("b", (3,)), 8),
    )
    target, layers = load_target("loihi1-shared"), layers_of(net)
    mapping = map_layers(layers, target)
    assert mapping.cores_used == 1 < len(mapping.cores)
    spikes = {"input": np.ones(6), "a": np.array([1.0, 0.0, 1.0, 0.0, 0.0]), "b": np.ones(3)}
    load = step_load(mapping, layers, spikes, None, target)
    assert load.updates.tolist() == [5 + 3]
    assert load.synaptic.tolist() == [6 * 5 + 2 * 3]


def test_figures_in_another_unit_are_refused(tmp_path: Any) -> None:
    path = tmp_path / "slow.toml"
    path.write_text(
        'schema = 1\ninherits = "loihi1"\nname = "slow"\n[time]\n'
        'barrier = { value = 0.465, unit = "us", grade = "published", source = "davies" }\n'
    )
    with pytest.raises(TargetError, match="barrier is in 'us', ns needed"):
        load_target(path)


def test_cores_of_a_router_fill_the_mesh(tmp_path: Any) -> None:
    path = tmp_path / "odd.toml"
    path.write_text(
        'schema = 1\ninherits = "loihi1"\nname = "odd"\n[mesh]\n'
        'tile = { value = [3, 2], unit = "cores", grade = "assumed", source = "davies" }\n'
    )
    with pytest.raises(TargetError, match=r"mesh.size \[16, 8\] is no whole number of tiles"):
        load_target(path)


def test_spikes_and_events_are_those_of_sanafe() -> None:
    """What SANA-FE 2.2.9 said of this network; ``benchmarks/sanafe_crosscheck.py`` asks it."""
    after, before = np.indices((18, 7))
    forward = FixedDense(2 * ((after + before) ** 2 % 61 - 18))
    again = FixedDense(-18 * np.eye(18, k=1))
    readout = FixedDense(80 * (np.indices((5, 18)).sum(axis=0) % 3 == 0))
    a, b = population("a", (18,)), population("b", (5,))
    a = replace(a, dv=200 * np.arange(18), vth=a.vth * 0 + 150)
    b = replace(b, dv=b.dv * 0 + 900, vth=b.vth * 0 + 170, reset="subtract", drop=[170] * 5)
    net = FixedPointNetwork(
        (7,),
        (a, b),
        (
            FixedProjection("w", "input", "a", forward, 8, 0),
            FixedProjection("again", "a", "a", again, 8, 0),
            FixedProjection("out", "a", "b", readout, 8, 0),
        ),
        LOIHI1.number_formats,
        "sum",
    )
    given = np.add.outer(3 * np.arange(20), 5 * np.arange(7)) % 4 == 0
    done = run(net, given[None], record=["a", "b"])
    spikes = {"input": given.astype(float)}
    spikes |= {name: done.spikes[name][0].astype(float) for name in ("a", "b")}
    fired_a = [0, 2048, 4352, 0, 1088, 2176, 4352, 0, 1088, 2048, 4352, 8192, 1088, 2176, 4352, 0]
    fired_a += [1088, 2048, 4352, 0]
    fired_b = [0, 0, 0, 0, 0, 0, 18, 0, 9, 0, 0, 0, 4, 0, 18, 0, 9, 0, 0, 0]
    for name, fired in (("a", fired_a), ("b", fired_b)):
        assert [int("".join(str(int(n)) for n in step), 2) for step in spikes[name]] == fired
    # Two neurons a core, so that spikes travel; the sum of all steps.
    target, layers = small_cores(LOIHI1, 2), layers_of(net)
    mapping = map_layers(layers, target)
    total = {name: counts.sum(axis=0) for name, counts in spikes.items()}
    placed = place(traffic(mapping, layers, total), target)
    load = step_load(mapping, layers, total, placed, target)
    assert load.synaptic.sum() == 630 + 71
    assert load.received.sum() == 71
    assert (load.columns, load.rows) == (19, 0)
