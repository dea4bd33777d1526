"""What neurons do to their integers in a step, as named models that a target file chooses.

A model is an :class:`Arithmetic`: a specification in NumPy, what runs it fast, what its registers
hold, and where it is said how a float network becomes its integers. `formats.arithmetic` of a
network names it. Ours are found in the package, since no network can do without; others are entry
points of the group ``osbc_deploy.arithmetics``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
from typing import Any, Protocol

from osbc_deploy.arrays import IntArray
from osbc_deploy.errors import TargetError, UsageError
from osbc_deploy.fixedpoint.coding import InputFormat
from osbc_deploy.fixedpoint.formats import LOIHI, NumberFormats
from osbc_deploy.fixedpoint.network import FixedPointNetwork
from osbc_deploy.fixedpoint.record import Activity, Traces
from osbc_deploy.model.graph import Network, Population
from osbc_deploy.model.neurons import LinearDynamics
from osbc_deploy.plugins import Group

__all__ = [
    "ARITHMETICS",
    "LOIHI",
    "Arithmetic",
    "Lowering",
    "Plan",
    "arithmetic_names",
    "arithmetic_of",
]

_OURS = {
    LOIHI: "osbc_deploy.fixedpoint.plain",
    "xylo": "osbc_deploy.fixedpoint.xylo",
    "speck": "osbc_deploy.fixedpoint.speck",
}


class Plan(Protocol):
    """A network prepared to be run; used by several threads at once."""

    def batch(self, steps: int, most: int) -> int:
        """Return how many samples of this many steps go into one run, `most` at most."""

    def run(self, signal: IntArray, traces: Traces) -> Mapping[str, Activity]:
        """Run samples (S, T, input size) and fill in what is wanted."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Lowering:
    """How a float network becomes the integers of an arithmetic.

    Attributes
    ----------
    check_features : callable
        Refuses a float network whose neurons cannot compute like this, by a ChipLimitError.
    lower : callable
        See :func:`osbc_deploy.lower.lowering.lower`, which calls it.
    unmeasured : callable
        See :func:`osbc_deploy.lower.lowering.unmeasured`.
    dynamics : callable or None
        ``dynamics(population, formats)`` returns the linear system that the chip makes of a float
        population, whose kernel weights are compressed for; None where it is the neuron's own, up
        to rounding.
    check_input : callable or None
        Refuses an input that its neurons cannot take, by a ChipLimitError; None where the target's
        payloads say it all.
    gates : bool
        Whether logic gates can be lowered, by which poolings may be counted.
    """

    check_features: Callable[[Network], None]
    lower: Callable[..., Any]
    unmeasured: Callable[..., Any]
    dynamics: Callable[[Population, NumberFormats], LinearDynamics] | None = None
    check_input: Callable[[InputFormat], None] | None = None
    gates: bool = False


@dataclass(frozen=True, kw_only=True, eq=False)
class Arithmetic:
    """How the neurons of a chip compute.

    Attributes
    ----------
    name : str
        As target files and networks give it.
    most_spikes : int
        Spikes that a neuron fires in one step, at most.
    run_plain : callable
        ``run_plain(network, signal, traces, strict=...)`` is the specification, in NumPy; see
        :func:`osbc_deploy.fixedpoint.plain.run_plain`.
    plan : callable
        ``plan(network, peak, given, strict=...)`` returns the :class:`Plan` of the same bits.
    faults : callable
        Returns a line for everything in a network that the registers cannot hold.
    lowering_in : str
        The module whose ``LOWERING`` is the :class:`Lowering` to these integers. By name, as
        reading and running a network need neither it nor the solver that it imports.
    """

    name: str
    most_spikes: int
    run_plain: Callable[..., dict[str, Activity]]
    plan: Callable[..., Plan]
    faults: Callable[[FixedPointNetwork], list[str]]
    lowering_in: str

    @property
    def lowering(self) -> Lowering:
        """How a float network becomes these integers."""
        found: Lowering = import_module(self.lowering_in).LOWERING
        return found


def _accept(name: str, plugin: Any) -> Arithmetic:
    if not isinstance(plugin, Arithmetic):
        raise ValueError(f"it is a {type(plugin).__name__}, not an Arithmetic")
    if plugin.name != name:
        raise ValueError(f"its name is {plugin.name!r:.60}, its entry point's {name!r}")
    return plugin


ARITHMETICS: Group[Arithmetic] = Group(
    "osbc_deploy.arithmetics", "arithmetic", (), _accept, TargetError
)


def arithmetic_names() -> Sequence[str]:
    """Return the names of all models."""
    return [*_OURS, *(name for name in ARITHMETICS.names() if name not in _OURS)]


def arithmetic_of(formats: NumberFormats) -> Arithmetic:
    """Return the arithmetic of a chip's registers.

    Raises
    ------
    UsageError
        When no package registers one of that name.
    TargetError
        When it cannot be loaded.
    """
    return _loaded(formats.arithmetic)


@lru_cache
def _loaded(name: str) -> Arithmetic:
    if name in _OURS:
        found: Arithmetic = import_module(_OURS[name]).ARITHMETIC
        return found
    if name not in ARITHMETICS.names():
        raise UsageError(
            f"arithmetic {name!r}: is not installed (found: {', '.join(arithmetic_names())}). "
            "Install the package that registers it."
        )
    return ARITHMETICS.load(name)
