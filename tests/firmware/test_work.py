"""Operations of a step, by hand and by QEMU's count of instructions."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest

from osbc_deploy.chip.instructions import Costs
from osbc_deploy.chip.target import load_target
from osbc_deploy.firmware.blob import write_blob
from osbc_deploy.firmware.machine import MACHINES, built
from osbc_deploy.firmware.tables import lay_out
from osbc_deploy.firmware.work import operations_of, step_cost
from osbc_deploy.fixedpoint.formats import NumberFormats
from osbc_deploy.fixedpoint.network import (
    FixedConv,
    FixedDense,
    FixedPointNetwork,
    FixedPopulation,
    FixedProjection,
)
from osbc_deploy.testing import random_networks


def population(name: str, shape: tuple[int, ...], vth: int) -> FixedPopulation:
    one = np.ones(int(np.prod(shape)), np.int64)
    return FixedPopulation(
        name, shape, du=4095 * one, dv=0 * one, vth=vth * one, bias_mant=0 * one, bias_exp=0 * one,
        u_init=0 * one, v_init=0 * one, spiking=True, v_scale=1.0 * one, v_offset=0.0 * one,
    )  # fmt: skip


def two_layers(formats: NumberFormats) -> FixedPointNetwork:
    """A kernel of 3 x 3 on 4 x 4, to two channels; then three neurons that hear one each."""
    kernel = FixedConv(np.full((2, 1, 3, 3), 2), (1, 1), (1, 1), (1, 1), 1)
    ends = np.zeros((3, 32), np.int64)
    ends[[0, 1, 2], [0, 1, 31]] = 2
    return FixedPointNetwork(
        (1, 4, 4),
        (population("a", (2, 4, 4), 1), population("b", (3,), 100)),
        (FixedProjection("k", "input", "a", kernel, 8, 0),
         FixedProjection("l", "a", "b", FixedDense(ends), 8, 0)),
        formats, "sum",
    )  # fmt: skip


def at_rest(formats: NumberFormats, v_init: int, *, apart: bool) -> FixedPointNetwork:
    """400 neurons that keep their potential; delays take sums apart from it."""
    weight = np.full((400, 8), 2)
    made = population("a", (400,), 1000)
    return FixedPointNetwork(
        (8,), (replace(made, v_init=made.v_init + v_init),),
        (FixedProjection("w", "input", "a", FixedDense(weight, weight // 2 * apart), 8, 0),),
        formats, "sum",
    )  # fmt: skip


def test_operations_are_those_counted_by_hand(formats: NumberFormats) -> None:
    network = two_layers(formats)
    spikes = np.zeros((1, 3, 1, 4, 4), np.uint8)
    spikes[0, 0, 0, 0, 0] = 1  # a corner reaches 2 x 2 places of two channels
    spikes[0, 1, 0, 1, 1] = 1  # the middle 3 x 3
    found = operations_of(network, lay_out(network), spikes)
    expected = {
        "step": [1, 1, 1], "output": [3, 3, 3], "projection": [2, 2, 2], "kernel": [1, 1, 1],
        "population": [2, 2, 2], "block": [2, 2, 2], "word": [4 + 8] * 3, "number": [0, 0, 0],
        # What fires: 4 places of 2 channels, 2 rows of 2; then 9 of 2; then nothing.
        "kernel_spike": [1, 1, 0], "tap": [4, 9, 0], "apart": [8, 18, 0],
        "spike": [8, 18, 0], "busy_word": [1 + 4, 1 + 6, 0], "row_spike": [8, 18, 0],
        # Rows of three, zeros too, take less than lists here.
        "in_a_row": [24, 54, 0], "late": [0, 0, 0], "settled": [0, 0, 0], "varied": [0, 0, 0],
        # The potentials of b stay, those of a are back at 0 when they have fired.
        "neuron": [8 + 2, 18 + 2, 2], "idle": [24 + 1, 14 + 1, 32 + 1], "faded": [0, 2, 2],
        "direct": [35, 35, 35],
        # Codes of 2 bits, four in a byte.
        "turn": [8 / 4 + 24 / 4, 18 / 4 + 54 / 4, 0], "held": [0, 0, 0], "gathered": [0, 0, 0],
    }  # fmt: skip
    for name, counts in expected.items():
        assert np.broadcast_to(found.get(name, 0), (1, 3)).tolist() == [counts], name
    # One instruction for each operation: the sums of the lines above.
    costs = Costs.model_validate(
        {
            name: {"value": 1.0, "unit": "", "grade": "derived", "source": "s"}
            for name in Costs.model_fields
        }
    )
    done = step_cost(network, spikes, costs)
    sums = np.sum([expected[name] for name in expected], axis=0)
    assert (done.typical, done.worst) == (pytest.approx(sums.mean()), sums.max())
    # All fire: 16 sources reach 100 places of 2 channels, 32 neurons 3.
    everything = 1 + 2 + 1 + 2 + 2 + 12 + 16 + 100 + 200 + 4 + 8 + 32 + 32 * 3 + 35 + 35
    # Codes have 2 bits; states are looked at first, and all decay.
    everything += 3 + 200 // 4 + 32 * 3 // 4 + 35 + 35
    assert (done.bound, done.samples, done.steps) == (everything, 1, 3)


@pytest.mark.parametrize("name", sorted({m.core for m in MACHINES.values() if m.core}))
def test_no_step_takes_more_than_the_bound(name: str, formats: NumberFormats) -> None:
    instructions = load_target(name).instructions
    assert instructions is not None
    assert all(
        getattr(instructions.costs, cost).value > 1 for cost in ("late", "number", "settled")
    )
    for case in random_networks(25, formats, start=3000):
        done = step_cost(case.network, case.spikes, instructions.costs)
        assert done.typical <= done.worst <= done.bound, case


@pytest.mark.parametrize("name", [n for n, m in MACHINES.items() if m.counts])
def test_the_model_keeps_close_to_what_qemu_counts(name: str, formats: NumberFormats) -> None:
    machine = MACHINES[name]
    if machine.missing:
        pytest.skip(f"{', '.join(machine.missing)} cannot be found")
    instructions = load_target(machine.core).instructions
    assert instructions is not None
    case = next(c for c in random_networks(40, formats, start=2000) if "conv" in c.features)
    some = np.random.default_rng(3).random((2, 9, 1, 4, 4)) < 0.2
    runs = {"two layers": (two_layers(formats), some.astype(np.uint8))}
    runs["random"] = case.network, case.spikes
    # What most neurons do in most steps.
    for v_init, apart in itertools.product((0, 5000), (False, True)):
        network = at_rest(formats, v_init, apart=apart)
        runs[f"v = {v_init}, apart: {apart}"] = network, np.zeros((1, 4, 8), np.uint8)
    off = {}
    with built(machine) as program:
        for title, (network, spikes) in runs.items():
            blob = write_blob(network, lay_out(network))
            measured = program.run(blob, spikes, count=True).instructions
            assert measured is not None
            modelled = step_cost(network, spikes, instructions.costs)
            off[title] = modelled.typical / measured.mean() - 1
    assert max(map(abs, off.values())) < 0.15, off
