"""What a compression takes is counted as one counts by hand, and said before any work."""

from __future__ import annotations

import numpy as np
import pytest

import float_networks as nets
from osbc_deploy.compress import CompressionOptions, compress
from osbc_deploy.compress.effort import effort_of
from osbc_deploy.compress.pace import measured_pace
from osbc_deploy.compress.work import Work
from osbc_deploy.progress import Silent


class Listening(Silent):
    def __init__(self) -> None:
        self.said: list[str] = []

    def plan(self, text: str, seconds: float) -> None:
        self.said.append(text)

    def start(self, title: str, total: int) -> None:
        self.said.append(title)


def test_the_plan_comes_before_any_work_and_stays_with_the_result() -> None:
    network = nets.mlp(bias=True)
    x = (np.random.default_rng(0).random((12, 6, *network.input_shape)) < 0.4).astype(np.uint8)
    listening = Listening()
    done = compress(network, x, CompressionOptions(tune=False), progress=listening)
    plan, *tasks = listening.said
    assert plan.startswith("plan: about ")
    assert "calibrate" in tasks
    assert done.spent is not None
    assert done.spent.taken > 0
    assert done.spent.expected > 0
    sizes = [p.connection.weight.shape for p in network.weighted]
    assert [(p.outputs, p.inputs) for p in done.spent.plan.layers] == sizes
    # A dense layer sees a row in every step of every sample.
    assert {p.rows for p in done.spent.plan.layers} == {12 * 6}
    for projection in network.weighted:
        assert projection.name in plan


@pytest.mark.parametrize("tuned", [False, True])
def test_work_grows_as_what_it_counts(tuned: bool) -> None:
    network = nets.mlp(bias=True)
    options = CompressionOptions(tune=tuned)
    once, twice = (effort_of(network, n, 6, options, tuned=tuned) for n in (50, 100))
    assert twice.run.currents == 2 * once.run.currents
    # Nothing is solved with more samples that was not with fewer.
    assert twice.work.loops == once.work.loops
    by_size = effort_of(
        network, 50, 6, CompressionOptions(tune=False, method="magnitude"), tuned=False
    )
    assert by_size.work.loops == 0
    assert {p.rows for p in by_size.layers} == {0}


def test_currents_count_once_where_they_are_kept_while_a_threshold_is_searched() -> None:
    network = nets.mlp(sizes=(30, 20, 10, 4), bias=False)
    roomy, tight = (
        effort_of(network, 50, 6, CompressionOptions(bits=8, solver_memory=room), tuned=True)
        for room in (2**30, 1)
    )
    # Five more runs of all 50 samples in two exact parts or three (float64: six), for the plain
    # variant, for the cross term that the first layer does not have, and for what is taken.
    parts = 3 if network.dtype == "float32" else 6
    spiking = [p.size for p in network.populations if p.neuron.spiking]
    assert spiking[:2] == [20, 10]
    more = (
        5 * 50 * 6 * parts * (30 * 20 * 2 + 20 * 10 * 3 + (10 * 4 * 3 if len(spiking) == 3 else 0))
    )
    assert tight.work.currents - roomy.work.currents == more


def test_what_keeps_all_weights_is_factored_for_its_scales_and_its_codes() -> None:
    network = nets.mlp(sizes=(200, 100, 50), bias=False)
    options = CompressionOptions(sparsity=0.0, tune=False)
    # A Cholesky factor takes n^3 / 6 multiplications, by one of two threads.
    expected = 2 * 2 * sum(p.connection.fan_in**3 / 6 for p in network.weighted)
    assert effort_of(network, 50, 6, options, tuned=False).work.loops == pytest.approx(expected)


def test_layers_are_counted_with_the_weights_that_lamps_leaves_them() -> None:
    network = nets.mlp(sizes=(200, 100, 50), bias=False)
    first = network.projections[0]
    weight = np.full_like(first.connection.weight, 1e-6)
    weight[0] = 1.0
    network = network.with_weights({first.name: weight})
    lamps, uniform = (
        effort_of(network, 50, 6, CompressionOptions(tune=False, allocation=how), tuned=False)
        for how in ("lamps", "uniform")
    )
    # One row of a hundred is worth anything in the first layer, so the second keeps more.
    (few, more), (tenth, other) = ([p.work.loops for p in e.layers] for e in (lamps, uniform))
    assert few < tenth
    assert more > other


def test_seconds_are_operations_over_pace() -> None:
    pace = Work(currents=10.0, passes=4.0, products=2.0, loops=1.0)
    assert (Work(currents=5.0, loops=3.0) + Work(products=1.0)).seconds(pace) == 0.5 + 3.0 + 0.5
    measured = measured_pace(1)
    assert min(measured.currents, measured.passes, measured.products, measured.loops) > 1e6
