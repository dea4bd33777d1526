"""What steps take on a processor, as data of a target: instructions of each operation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from pydantic import Field

from osbc_deploy.chip.facts import Fact, Strict

__all__ = ["Costs", "Instructions"]

_Cost = Fact[Annotated[float, Field(ge=0, le=1e6)]]


class Costs(Strict):
    """Instructions of each operation of the C runtime.

    Attributes
    ----------
    step, output, projection, kernel, population, block, summed : Fact
        Of a step itself, of each number of its answer, of each projection in it (of a convolution
        more), of each population, and of each run of neurons that share their registers, more for
        each projection whose sums are not added to the state itself.
    word, busy_word, number : Fact
        Four sources that are looked at together, more where any of them fires, and one that is
        looked at alone.
    listed_spike, row_spike, kernel_spike, tap : Fact
        A spike on its way through lists, rows or a kernel, and each place of a kernel it reaches.
    listed, in_a_row, apart, turn, late : Fact
        A synapse of each: in a list, in a row, of a kernel; more for each byte of their codes; and
        one with a delay.
    idle, neuron, direct, faded, collected, gathered : Fact
        A neuron without input and state, and any other; more for one whose sums are added to the
        state itself, again where that was not 0 before, for one that is not idle and has its sums
        apart, and for all of a population that has these of several projections, shifts them or
        has registers of its own.
    held, current, varied, more, spike, settled : Fact
        More for a neuron whose current outlives a step, again where it is not idle, where it has
        registers of its own, for each projection beyond the first, where it fires; and one that
        takes the long way.
    """

    step: _Cost
    output: _Cost | None = None
    projection: _Cost
    kernel: _Cost
    population: _Cost
    block: _Cost
    summed: _Cost | None = None
    word: _Cost
    busy_word: _Cost
    number: _Cost
    listed_spike: _Cost
    row_spike: _Cost
    kernel_spike: _Cost
    tap: _Cost
    listed: _Cost
    in_a_row: _Cost
    apart: _Cost
    turn: _Cost | None = None
    late: _Cost
    idle: _Cost
    neuron: _Cost
    direct: _Cost | None = None
    faded: _Cost | None = None
    collected: _Cost | None = None
    gathered: _Cost | None = None
    held: _Cost | None = None
    current: _Cost
    varied: _Cost
    more: _Cost
    spike: _Cost
    settled: _Cost

    def of(self, operations: Mapping[str, float]) -> float:
        """Return the instructions of given numbers of operations, by name."""
        return float(sum(self.each(name) * n for name, n in operations.items()))

    def each(self, name: str) -> float:
        """Return the instructions of an operation; those that a target leaves out take none."""
        fact: Fact[float] | None = getattr(self, name)
        return 0.0 if fact is None else fact.value


class Instructions(Strict):
    """How long a processor takes.

    Attributes
    ----------
    clock : Fact
        Instructions in a second, at one for each cycle.
    costs : Costs
    """

    clock: Fact[Annotated[float, Field(gt=0, le=1e12)]]
    costs: Costs
