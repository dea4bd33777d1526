"""Backend and what it is held against, bit by bit: spikes, currents and potentials."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from osbc_deploy.arrays import IntArray
from osbc_deploy.backends import Backend, BackendRun
from osbc_deploy.data.samples import Samples
from osbc_deploy.fidelity import reference_of, run_first
from osbc_deploy.fixedpoint.engine import EngineRun, run
from osbc_deploy.fixedpoint.network import FixedPointNetwork
from osbc_deploy.progress import SILENT, Progress
from osbc_deploy.verification.metrics import first_divergence

__all__ = [
    "BackendComparison",
    "Bits",
    "FirstDifference",
    "compare_backend",
    "first_difference",
    "quantities",
]


@dataclass(frozen=True)
class Bits:
    """Numbers compared, and those that are not the same."""

    compared: int
    different: int


@dataclass(frozen=True)
class FirstDifference:
    """The earliest step of the first population in which engine and backend part.

    Attributes
    ----------
    population, quantity : str
        `quantity` is "spikes", "u" or "v".
    sample, step, neuron : int
        Of a verification, the neuron in the network with all neurons in.
    engine, backend : int
    """

    population: str
    quantity: str
    sample: int
    step: int
    neuron: int
    engine: int
    backend: int


@dataclass(frozen=True, eq=False)
class BackendComparison:
    """How the backend compares with the engine, or the specification with what is compiled of it.

    Attributes
    ----------
    backend, reference : str
        See :class:`osbc_deploy.fidelity.Fidelity`.
    samples, left_out : int
    restarts : int
        Times the backend hung and was started again.
    populations : dict of dict of Bits
        By population and quantity ("spikes", "u", "v"), if the backend gives them.
    diverges : dict of tuple of int
        By spiking population: for each sample the first step with a mismatch, -1 for none.
    first : FirstDifference or None
    result : ndarray (n, T, size)
        The backend's output.
    """

    backend: str
    reference: str
    samples: int
    left_out: int
    restarts: int
    populations: Mapping[str, Mapping[str, Bits]]
    diverges: Mapping[str, tuple[int, ...]]
    first: FirstDifference | None
    result: IntArray

    def mismatches(self, *quantities: str) -> int:
        """Return how many numbers of some quantities differ."""
        return sum(
            bits.different
            for found in self.populations.values()
            for quantity, bits in found.items()
            if quantity in quantities
        )

    def numbered(self, kept: Mapping[str, IntArray]) -> BackendComparison:
        """Return the same, its neuron by its number in the whole network.

        Parameters
        ----------
        kept : dict of ndarray of int
            See :class:`osbc_deploy.lower.lowering.Lowered`.
        """
        first = self.first
        if first is None or first.population not in kept:
            return self
        neuron = int(kept[first.population][first.neuron])
        return replace(self, first=replace(first, neuron=neuron))

    @property
    def compared(self) -> int:
        """Numbers that were compared."""
        return sum(b.compared for found in self.populations.values() for b in found.values())

    @property
    def different(self) -> int:
        """Numbers that differ, of all that were compared."""
        return self.mismatches("spikes", "u", "v")


def compare_backend(
    backend: Backend,
    network: FixedPointNetwork,
    samples: Samples,
    count: int,
    *,
    time_limit: float,
    progress: Progress = SILENT,
) -> BackendComparison:
    """Run samples on a backend and on the engine and compare every bit.

    Parameters and errors are those of :func:`osbc_deploy.fidelity.run_first`.
    """
    names = [p.name for p in network.populations]
    theirs, few, left_out = run_first(
        backend, network, samples, count, states=names, time_limit=time_limit, progress=progress
    )
    ours = run(network, network.input.codes(few.spikes), record=names, states=names)
    populations, diverges = {}, {}
    first = None
    for name in names:
        pairs = quantities(name, ours, theirs)
        if name == network.output.name and not network.output.spiking:
            pairs.setdefault("v", (ours.output, theirs.output))
        populations[name] = {
            quantity: Bits(a.size, int(np.count_nonzero(a != b)))
            for quantity, (a, b) in pairs.items()
        }
        if "spikes" in pairs:
            a, b = pairs["spikes"]
            diverges[name] = tuple(int(t) for t in first_divergence(a, b))
        first = first or first_difference(name, pairs)
    return BackendComparison(
        backend=backend.name,
        reference=reference_of(backend),
        samples=len(few),
        left_out=left_out,
        restarts=theirs.restarts,
        populations=populations,
        diverges=diverges,
        first=first,
        result=theirs.output,
    )


def quantities(
    name: str, ours: EngineRun, theirs: BackendRun | EngineRun
) -> dict[str, tuple[IntArray, IntArray]]:
    """Return what both runs hold of a population: u, v and spikes."""
    found = {}
    for quantity in ("u", "v", "spikes"):
        a, b = getattr(ours, quantity), getattr(theirs, quantity)
        if name in a and name in b:
            found[quantity] = (a[name], b[name])
    return found


def first_difference(
    name: str, pairs: Mapping[str, tuple[IntArray, IntArray]]
) -> FirstDifference | None:
    """Return the earliest step in which the two sides of any quantity differ."""
    places = []
    for quantity, (a, b) in pairs.items():
        differs = np.argwhere(a != b)
        if len(differs):
            # By step, then sample: what parts earliest is the cause of what follows.
            sample, step, neuron = differs[np.lexsort((differs[:, 0], differs[:, 1]))[0]]
            places.append((int(step), quantity, int(sample), int(neuron)))
    if not places:
        return None
    # Of one step, the current comes before the potential, and that before the spike.
    step, quantity, sample, neuron = min(places, key=lambda place: place[0])
    a, b = pairs[quantity]
    return FirstDifference(
        name,
        quantity,
        sample,
        step,
        neuron,
        int(a[sample, step, neuron]),
        int(b[sample, step, neuron]),
    )
