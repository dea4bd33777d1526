"""What each layer alone costs: one compressed layer in a network that is float otherwise."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from osbc_deploy.arrays import FloatArray, IntArray
from osbc_deploy.compress.result import CompressedNetwork, adapted
from osbc_deploy.model.graph import INPUT, Network
from osbc_deploy.model.readout import decode, evidence, shared_answers
from osbc_deploy.model.simulate import simulate
from osbc_deploy.options.notation import Readout
from osbc_deploy.verification.stages import Record

__all__ = ["Effect", "Trial", "effect", "trials"]


@dataclass(frozen=True)
class Effect:
    """What a change does to the network's answers; sums, so that parts can be added.

    Attributes
    ----------
    samples : int
    same, answered : int
        Samples that keep the float network's class, and those that have one by it or now.
    right : int or None
        Samples classified right; None without labels.
    error, signal : float
        Squares of the change of the class evidence, and of the float network's evidence.
    """

    samples: int
    same: int
    answered: int
    right: int | None
    error: float
    signal: float

    def __add__(self, other: Effect) -> Effect:
        right = None if self.right is None or other.right is None else self.right + other.right
        return Effect(
            self.samples + other.samples,
            self.same + other.same,
            self.answered + other.answered,
            right,
            self.error + other.error,
            self.signal + other.signal,
        )

    @property
    def agreement(self) -> float | None:
        """Share of answered samples that keep the float network's class; None if none are."""
        return self.same / self.answered if self.answered else None

    @property
    def output_error(self) -> float:
        """Relative RMS change of the class evidence; 0 where the float network has none."""
        return math.sqrt(self.error / self.signal) if self.signal > 0 else 0.0


@dataclass(frozen=True, eq=False)
class Trial:
    """One population's weights changed, the rest of the network float.

    Attributes
    ----------
    population : str
        The population behind the weights.
    projections : tuple of str
        Whose weights they are.
    part : {"pruned", "compressed"}
        How far the weights went.
    network : Network
    """

    population: str
    projections: tuple[str, ...]
    part: str
    network: Network

    def run(self, float_record: Record) -> FloatArray:
        """Return the output (n, T, size) for the samples of a record of the float network."""
        known = {INPUT, *self._before()}
        given = {
            name: raster.reshape(*raster.shape[:2], *self.network.shape_of(name))
            for name, raster in float_record.spikes.items()
            if name in known
        }
        spikes = given.pop(INPUT)
        done = simulate(self.network, spikes, given=given, batch_size=max(1, len(spikes)))
        return done.output

    def _before(self) -> list[str]:
        """Return the populations that the change cannot reach."""
        found: list[str] = []
        for block in self.network.blocks():
            names = [p.name for p in block]
            if self.population in names:
                break
            found += names
        return found


def trials(compressed: CompressedNetwork) -> list[Trial]:
    """Return the changes to try, by population: pruned where that was kept, and compressed."""
    original = compressed.original
    found = []
    for population in original.populations:
        afferents = original.afferents(population.name)
        if not any(p.compressible for p in afferents):
            continue
        layers = {p.name: compressed.projections[p.name] for p in afferents}
        changed = adapted(original, layers)
        pruned = {name: p.pruned for name, p in layers.items() if p.pruned is not None}
        if len(pruned) == len(layers):
            network = changed.with_weights(pruned)
            found.append(Trial(population.name, tuple(layers), "pruned", network))
        found.append(Trial(population.name, tuple(layers), "compressed", changed))
    return found


def effect(
    reference: FloatArray | IntArray,
    output: FloatArray | IntArray,
    labels: IntArray | None,
    readout: Readout,
    *,
    spiking: bool,
) -> Effect:
    """Compare two outputs (n, T, ...) of the same samples."""
    was, classes = (decode(o, readout, spiking=spiking) for o in (reference, output))
    same, answered = shared_answers(was, classes)
    before, after = evidence(reference, readout), evidence(output, readout)
    return Effect(
        samples=len(output),
        same=same,
        answered=answered,
        right=None if labels is None else int(np.count_nonzero(classes == labels)),
        error=float(((after - before).astype(np.float64) ** 2).sum()),
        signal=float((before.astype(np.float64) ** 2).sum()),
    )
