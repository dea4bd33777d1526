"""What events of a chip cost, as data of a target: energy and time, with how they were found."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from osbc_deploy.chip.facts import Fact, Strict

__all__ = ["Basis", "Energy", "Time"]

Basis = Literal["measured", "simulated", "modelled"]
_Amount = Annotated[float, Field(gt=0)]


class Energy(Strict):
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

    basis: Basis = "modelled"
    synaptic_operation: Fact[_Amount] | None = None
    neuron_update: Fact[_Amount] | None = None
    idle_update: Fact[_Amount] | None = None
    spike: Fact[_Amount] | None = None
    column_hop: Fact[_Amount] | None = None
    row_hop: Fact[_Amount] | None = None
    instruction: Fact[_Amount] | None = None


class Time(Strict):
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

    basis: Basis = "modelled"
    synaptic_operation: Fact[_Amount]
    neuron_update: Fact[_Amount]
    barrier: Fact[_Amount]
    link_rate: Fact[_Amount] | None = None
