"""What a verification found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from osbc_deploy.arrays import IntArray
from osbc_deploy.deployment import Deployment
from osbc_deploy.fixedpoint.engine import Activity
from osbc_deploy.intervals import wilson
from osbc_deploy.model.readout import NO_ANSWER, shared_answers
from osbc_deploy.results import Saved
from osbc_deploy.verification.bits import BackendComparison
from osbc_deploy.verification.cost import Effect
from osbc_deploy.verification.difference import Difference, Firing
from osbc_deploy.verification.gates import GateResult
from osbc_deploy.verification.metrics import holm, mcnemar
from osbc_deploy.verification.stages import Record

__all__ = ["LayerCost", "Paired", "Score", "Shown", "Step", "Verification"]


@dataclass(frozen=True, eq=False)
class Score:
    """How a stage classifies; a sample without an answer is wrong.

    Attributes
    ----------
    stage : str
    classes, float_classes : ndarray of int (n,)
        By this stage and by the float network.
    labels : ndarray of int (n,) or None
    """

    stage: str
    classes: IntArray
    float_classes: IntArray
    labels: IntArray | None

    @property
    def right(self) -> int | None:
        """Samples classified right; None without labels."""
        return None if self.labels is None else int(np.count_nonzero(self.classes == self.labels))

    @property
    def accuracy(self) -> float | None:
        """Share of samples classified right; None without labels."""
        return None if self.right is None else self.right / len(self.classes)

    @property
    def interval(self) -> tuple[float, float] | None:
        """95 % interval of the accuracy."""
        return None if self.right is None else wilson(self.right, len(self.classes))

    @property
    def no_answer(self) -> int:
        """Samples that get no class."""
        return int(np.count_nonzero(self.classes == NO_ANSWER))

    @property
    def shared(self) -> tuple[int, int]:
        """Samples that get the float network's class, and those that get one by either."""
        return shared_answers(self.classes, self.float_classes)

    @property
    def agreement(self) -> float | None:
        """Share of answered samples that get the float network's class; None if none are."""
        same, answered = self.shared
        return same / answered if answered else None


@dataclass(frozen=True)
class Paired:
    """Two stages on the same samples.

    Attributes
    ----------
    lost, won : int
        Samples that only the first, and only the second stage gets right.
    p : float
        Of the exact McNemar test.
    significant : bool
        Together with the other steps' tests; see :func:`osbc_deploy.verification.metrics.holm`.
    """

    lost: int
    won: int
    p: float
    significant: bool


@dataclass(frozen=True, eq=False)
class Step:
    """From one stage to another.

    Attributes
    ----------
    name : str
        "prune", "quantize", "compress" (both at once), "input" (real values are rounded), "lower"
        or "total".
    before, after : str
        Names of the stages.
    propagated : dict of Difference
        By population, each stage on its own spikes.
    isolated : dict of Difference
        By population, fed in the second stage with the spikes of the first.
    """

    name: str
    before: str
    after: str
    propagated: Mapping[str, Difference]
    isolated: Mapping[str, Difference]


@dataclass(frozen=True, eq=False)
class LayerCost:
    """What one population's weights cost when they alone are compressed.

    Attributes
    ----------
    population : str
    projections : tuple of str
    weights, nonzero : int
    bits : tuple of int
        Of each projection.
    pruned : Effect or None
    compressed : Effect
    """

    population: str
    projections: tuple[str, ...]
    weights: int
    nonzero: int
    bits: tuple[int, ...]
    pruned: Effect | None
    compressed: Effect


@dataclass(frozen=True, eq=False)
class Shown:
    """The sample and the neurons that are drawn.

    Attributes
    ----------
    sample : int
    label : int or None
    classes : dict of int
        By stage; :data:`osbc_deploy.model.readout.NO_ANSWER` among them.
    records : dict of Record
        By stage, of this sample alone.
    neurons, traced : dict of tuple of int
        By population: in the raster, and with their potentials.
    """

    sample: int
    label: int | None
    classes: Mapping[str, int]
    records: Mapping[str, Record]
    neurons: Mapping[str, tuple[int, ...]]
    traced: Mapping[str, tuple[int, ...]]


@dataclass(frozen=True, eq=False, repr=False)
class Verification(Saved):
    """Everything a verification found.

    Attributes
    ----------
    deployment : Deployment
    scores : tuple of Score
        By stage, in order; the backend's last, on fewer samples.
    steps : tuple of Step
    firing : dict of dict of Firing
        By stage and spiking population.
    activity : dict of Activity
        What the registers went through, by population.
    layers : tuple of LayerCost
    backend : BackendComparison or None
    shown : Shown
    tau : float
        Time constant of the van Rossum distance, in steps.
    readout : str
    findings : tuple of GateResult
        How the gates were kept.
    """

    deployment: Deployment
    scores: tuple[Score, ...]
    steps: tuple[Step, ...]
    firing: Mapping[str, Mapping[str, Firing]]
    activity: Mapping[str, Activity]
    layers: tuple[LayerCost, ...]
    backend: BackendComparison | None
    shown: Shown
    tau: float
    readout: str
    findings: tuple[GateResult, ...] = ()

    def score(self, stage: str) -> Score:
        """Return the score of a stage."""
        return next(s for s in self.scores if s.stage == stage)

    def step(self, name: str) -> Step:
        """Return a step."""
        return next(s for s in self.steps if s.name == name)

    @property
    def silenced(self) -> dict[str, int]:
        """Neurons that fire in the float network and never in fixed point, by population."""
        fixed = self.firing["fixed point"]
        return {
            name: int(np.count_nonzero((seen.counts > 0) & (fixed[name].counts == 0)))
            for name, seen in self.firing["float"].items()
        }

    @property
    def costliest(self) -> LayerCost | None:
        """The layer that alone changes the network's answers most; None if none was changed."""
        return max(self.layers, key=lambda c: c.compressed.output_error, default=None)

    @property
    def paired(self) -> dict[str, Paired]:
        """The paired tests of all steps; empty without labels."""
        counts = {}
        for step in self.steps:
            a, b = self.score(step.before), self.score(step.after)
            if a.labels is None:
                return {}
            first, second = a.classes == a.labels, b.classes == a.labels
            counts[step.name] = (
                int(np.count_nonzero(first & ~second)),
                int(np.count_nonzero(second & ~first)),
            )
        p = {name: mcnemar(*pair) for name, pair in counts.items()}
        significant = holm(p)
        return {name: Paired(*counts[name], p[name], significant[name]) for name in counts}

    @property
    def broken(self) -> tuple[GateResult, ...]:
        """The gates that were not kept."""
        return tuple(f for f in self.findings if not f.ok)
