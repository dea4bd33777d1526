"""Budgets of flash, RAM and instructions, which all layers share."""

from __future__ import annotations

from typing import Any

import pytest

import float_networks as nets
from osbc_deploy.chip.target import load_target
from osbc_deploy.errors import FitError, UsageError
from osbc_deploy.fitting.resources import (
    check_budget,
    most_of,
    quick_enough,
    room_for,
    within_resources,
)
from osbc_deploy.fitting.search import Candidate, Cost, Plan
from osbc_deploy.options import FitBudget
from osbc_deploy.progress import SILENT

CHIP = load_target("cortex-m4")


def candidate(flash: int, ram: int, loss: float) -> Candidate:
    nothing: Any = None
    return Candidate(0.5, 4, 0, flash, loss, nothing, "flash", used={"flash": flash, "ram": ram})


def plan(*parts: Candidate) -> Plan:
    beside = Cost(cores=1, words=1000, used={"flash": 1000, "ram": 100})
    return Plan({f"l{n}": part for n, part in enumerate(parts)}, beside)


def test_layers_add_up_on_the_core_that_they_share() -> None:
    both = plan(candidate(3000, 40, 0.1), candidate(500, 60, 0.2))
    assert (both.cores, both.words, both.used) == (1, 4500, {"flash": 4500, "ram": 200})


def test_plans_are_those_within_flash_and_ram() -> None:
    choices = [candidate(9000, 40, 0.1), candidate(3000, 40, 0.3)]
    plans, candidates = [plan(c) for c in choices], {"l0": choices}
    assert within_resources(plans, candidates, FitBudget(), CHIP) == plans
    assert within_resources(plans, candidates, FitBudget(flash=9999), CHIP) == plans[1:]
    with pytest.raises(
        FitError, match=r"(?s)3,999 B of flash on cortex-m4:\n.*4,000 B in the smallest plan"
    ):
        within_resources(plans, candidates, FitBudget(flash=3999), CHIP)
    with pytest.raises(
        FitError, match=r"139 B of RAM on cortex-m4: 140 B in the .*1 over.*fewer neurons"
    ):
        within_resources(plans, candidates, FitBudget(ram=139), CHIP)
    # More than the chip has is not there.
    room = CHIP.memory.limits()
    assert most_of(FitBudget(flash=2**40, ram=7), CHIP) == {"flash": room["flash"], "ram": 7}
    assert most_of(FitBudget(), load_target("loihi2")) == {}


@pytest.mark.parametrize(("decay", "bytes_each"), [(1e-5, 5), (2e-4, 9)])
def test_neurons_have_room_by_what_registers_keep(decay: float, bytes_each: int) -> None:
    """1/4096 of a current is the least that is kept: 16 neurons beside the stack and a word."""
    neuron = nets.CubaLIF((1 - decay) * nets.ONE, 0.2 * nets.ONE, nets.ZERO, nets.ONE, nets.ZERO)
    network = nets.network((4,), (nets.dense(0, 16, 4), neuron))
    needed = 1024 + 4 + 16 * bytes_each
    assert room_for(network, FitBudget(ram=needed), CHIP)({"p0": 16})
    assert not room_for(network, FitBudget(ram=needed - 1), CHIP)({"p0": 16})


def test_the_most_words_that_are_quick_enough_are_kept() -> None:
    plans = [plan(candidate(1000 * n, 0, 1.0 / n)) for n in range(1, 10)]

    def instructions(one: Plan) -> float:
        return one.words / 10

    kept = quick_enough(plans, 600, instructions, SILENT)
    assert sorted(p.words for p in kept) == [2000, 3000, 4000, 5000, 6000]
    assert quick_enough(plans, None, instructions, SILENT) == plans
    assert len(quick_enough(plans, 10**6, instructions, SILENT)) == len(plans)
    with pytest.raises(FitError, match=r"200 a step of the smallest plan.*199 allowed \(1 over\)"):
        quick_enough(plans, 199, instructions, SILENT)


def test_limits_of_microcontrollers_are_refused_elsewhere() -> None:
    check_budget(FitBudget(flash=1, ram=1, instructions=1), CHIP)
    check_budget(FitBudget(cores=1), load_target("loihi2"))
    with pytest.raises(UsageError, match="--flash, --instructions: are of microcontrollers"):
        check_budget(FitBudget(flash=1, instructions=1), load_target("loihi2"))
