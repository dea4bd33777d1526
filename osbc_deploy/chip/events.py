"""What events of a chip cost, as data of a target: energy and time, with how they were found."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from osbc_deploy.chip.facts import Fact, Strict, facts_of

__all__ = ["Basis", "Energy", "Time"]

Basis = Literal["measured", "simulated", "modelled"]
_Amount = Annotated[float, Field(gt=0, le=1e12)]


class _Events(Strict):
    """Facts of one unit, which are multiplied with counts: others would be taken for it."""

    unit: ClassVar[str]

    @model_validator(mode="after")
    def _in_the_unit(self) -> _Events:
        needed = {name: "1/s" if name == "link_rate" else self.unit for name, _ in facts_of(self)}
        wrong = [
            f"{name} is in {fact.unit!r:.20}, {needed[name]} needed"
            for name, fact in facts_of(self)
            if fact.unit != needed[name]
        ]
        if wrong:
            raise ValueError("; ".join(wrong))
        return self


class Energy(_Events):
    """What events cost, in pJ; only with a source.

    Attributes
    ----------
    basis : {"measured", "simulated", "modelled"}
        How its source found the figures.
    synaptic_operation, neuron_update, idle_update : Fact
        A weight that a spike meets; a neuron in a step, and one that has nothing to do in it.
    spike, column_hop, row_hop : Fact
        A spike on its way to a core, and each router it passes along a row and along a column of
        the mesh.
    instruction : Fact
        Of a processor.
    """

    unit: ClassVar[str] = "pJ"

    basis: Basis = "modelled"
    synaptic_operation: Fact[_Amount] | None = None
    neuron_update: Fact[_Amount] | None = None
    idle_update: Fact[_Amount] | None = None
    spike: Fact[_Amount] | None = None
    column_hop: Fact[_Amount] | None = None
    row_hop: Fact[_Amount] | None = None
    instruction: Fact[_Amount] | None = None


class Time(_Events):
    """How long events take, in ns; only with a source.

    Attributes
    ----------
    basis : {"measured", "simulated", "modelled"}
        How its source found the figures.
    synaptic_operation, neuron_update : Fact
        As for :class:`Energy`, one after the other on a core.
    barrier : Fact
        After every step, until all cores know that it is over.
    link_rate : Fact
        Spikes that a link of the mesh carries, in 1/s.
    """

    unit: ClassVar[str] = "ns"

    basis: Basis = "modelled"
    synaptic_operation: Fact[_Amount]
    neuron_update: Fact[_Amount]
    barrier: Fact[_Amount]
    link_rate: Fact[_Amount] | None = None
