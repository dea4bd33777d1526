"""What a linear layer without neurons behind it becomes: potentials that nothing resets.

Its answer in a time step is a current. Whoever reads the classes takes the sum of these over time,
the largest or the last. Neurons that neither leak nor fire hold the sum, so it is read once, at the
end; neurons that keep nothing hold the current itself.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np

from osbc_deploy.arrays import FloatArray
from osbc_deploy.errors import UnsupportedModelError
from osbc_deploy.model.graph import Network, Population, Projection
from osbc_deploy.model.neurons import LinearDynamics, Neuron, State, Where
from osbc_deploy.model.readout import check_readout
from osbc_deploy.options.notation import Readout, outputs_per_class

__all__ = ["Answer", "Leaking", "read_by"]


@dataclass(frozen=True, eq=False)
class Answer(Neuron):
    """Potentials that are the answer of a linear layer.

    Attributes
    ----------
    constant : ndarray
        What the layer adds once to a sum over time; in every step where it is of one.
    keeps : {"sum", "step"}
        Whether the potential is the sum of all steps so far, or the current of one.
    """

    constant: FloatArray
    keeps: str = "sum"

    spiking: ClassVar[bool] = False
    states: ClassVar[tuple[str, ...]] = ("v",)

    @property
    def equation(self) -> str:  # type: ignore[override]
        return "v += x" if self.keeps == "sum" else "v = x + constant"

    @property
    def v_init(self) -> FloatArray:
        return self.constant if self.keeps == "sum" else np.zeros(())

    def dynamics(self) -> LinearDynamics:
        one, zero = np.ones(()), np.zeros(())
        if self.keeps == "sum":
            return LinearDynamics(None, one, one, zero)
        return LinearDynamics(None, zero, one, self.constant.astype(np.float64))

    def step(self, p: State, state: State, x: Any, where: Where) -> tuple[Any, State]:
        v = state["v"] + x if self.keeps == "sum" else x + p["constant"]
        return v, {"v": v}

    def read_by(self, readout: Readout) -> tuple[Answer, Readout]:
        if readout in ("last", "max"):
            return replace(self, keeps="step"), readout
        return replace(self, keeps="sum"), "last"


@dataclass(frozen=True, eq=False)
class Leaking(Neuron):
    """Potentials that are the answer, of which a share is left in each step: a leaky sum.

    Attributes
    ----------
    decay : ndarray
        The share, from 0 to 1.
    start : ndarray
        Where they begin, and stay without input: what is added behind a leaky sum.
    """

    decay: FloatArray
    start: FloatArray = field(default_factory=lambda: np.zeros(()))

    spiking: ClassVar[bool] = False
    states: ClassVar[tuple[str, ...]] = ("v",)
    equation: ClassVar[str] = "v = decay v + x"

    @property
    def v_init(self) -> FloatArray:
        return self.start

    def dynamics(self) -> LinearDynamics:
        return LinearDynamics(None, self.decay.astype(np.float64), np.ones(()), np.zeros(()))

    def step(self, p: State, state: State, x: Any, where: Where) -> tuple[Any, State]:
        v = p["decay"] * state["v"] + x
        return v, {"v": v}


def read_by(network: Network, readout: Readout) -> tuple[Network, Readout]:
    """Return a network whose outputs hold what a readout of the model's answer asks for.

    Returns
    -------
    network : Network
        With a vote of linear outputs added up in their weights, which is the same.
    readout : str
        Of the outputs as they are then.

    Raises
    ------
    UsageError
        For a vote that does not divide the outputs.
    """
    output = network.output
    share = outputs_per_class(readout)
    neuron, left = output.neuron.read_by(readout)
    if neuron is output.neuron:
        return network, readout
    check_readout(readout, output.size)
    network = network.with_neurons({output.name: neuron})
    return (network if share == 1 else _gathered(network, share)), left


def _gathered(network: Network, share: int) -> Network:
    """Return a network whose outputs are sums of `share` outputs in a row."""
    output = network.output
    if len(output.shape) != 1:
        raise UnsupportedModelError(
            f"network: a vote of {share} outputs in a row, whose shape is {output.shape}",
            [f"{output.name}: holds channels in rows and columns"],
            "Flatten them.",
        )
    size = output.size // share
    constant = output.neuron.parameters["constant"]
    if constant.size > 1:
        constant = _summed(constant, share)
    elif share > 1:
        constant = constant * share
    last = Population(output.name, (size,), replace(output.neuron, constant=constant))  # type: ignore[call-arg]
    projections = tuple(
        _voting(p, share) if p.post == output.name else p for p in network.projections
    )
    populations = (*network.populations[:-1], last)
    return replace(network, populations=populations, projections=projections, readout="sum")


def _voting(projection: Projection, share: int) -> Projection:
    connection = projection.connection
    bias = None if connection.bias is None else _summed(connection.bias, share)
    weight = _summed(connection.weight, share)
    return replace(projection, connection=replace(connection, weight=weight, bias=bias))


def _summed(values: FloatArray, share: int) -> FloatArray:
    """Return sums of `share` values in a row along the first axis, added in their order."""
    groups = values.reshape(-1, share, *values.shape[1:])
    total = np.zeros((len(groups), *values.shape[1:]))
    for number in range(share):
        total += groups[:, number]
    return total.astype(values.dtype)
