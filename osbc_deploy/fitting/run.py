"""Find the plan of least loss within a budget, and deploy it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from osbc_deploy.accuracy import lost_share
from osbc_deploy.arrays import IntArray
from osbc_deploy.chip.pooling import counted_poolings
from osbc_deploy.chip.target import Target
from osbc_deploy.compress.calibration import Statistics, collect
from osbc_deploy.compress.network import assemble
from osbc_deploy.compress.options import CompressionOptions, LayerChoice
from osbc_deploy.compress.result import CompressedNetwork
from osbc_deploy.data.samples import Samples
from osbc_deploy.deployment import Deployment
from osbc_deploy.deviations import Deviation
from osbc_deploy.errors import FidelityError, FitError
from osbc_deploy.fitting.candidates import (
    SPARSITIES,
    affordable_sparsities,
    cost_beside,
    layer_candidates,
)
from osbc_deploy.fitting.remedies import advice
from osbc_deploy.fitting.search import Candidate, Plan, front_over, pareto_plans
from osbc_deploy.job import Job, VerbCall, prepare, verb
from osbc_deploy.lower.counting import Apart, kept_apart
from osbc_deploy.lower.timing import Timing, timing
from osbc_deploy.model.graph import Network
from osbc_deploy.model.readout import NO_ANSWER, decode
from osbc_deploy.model.simulate import simulate
from osbc_deploy.options import FitBudget, FitOptions
from osbc_deploy.pipeline import finish
from osbc_deploy.progress import Progress, task
from osbc_deploy.provenance import request
from osbc_deploy.results import Saved

__all__ = ["FitBudget", "FitResult", "fit"]


@dataclass(frozen=True, eq=False, repr=False)
class FitResult(Saved):
    """A plan, deployed.

    Attributes
    ----------
    budget : FitBudget
    plan : Plan
    front : tuple of Plan
        Unbeaten in `resource` and loss, the cheapest first.
    resource : {"cores", "words"}
    deployment : Deployment
    """

    budget: FitBudget
    plan: Plan
    front: tuple[Plan, ...]
    resource: str
    deployment: Deployment

    @property
    def as_predicted(self) -> bool:
        """Whether the deployed network takes the cores and words that were predicted."""
        mapping = self.deployment.mapping
        return (mapping.cores_used, mapping.words) == (self.plan.cores, self.plan.words)

    @property
    def lost(self) -> float:
        """Share of evaluated samples lost in fixed point; without labels, of changed classes."""
        accuracy = self.deployment.accuracy
        if accuracy.float_ is None or accuracy.fixed_point is None:
            return 0.0 if accuracy.agreement is None else 1.0 - accuracy.agreement
        return accuracy.float_ - accuracy.fixed_point

    @property
    def keeps_accuracy(self) -> bool:
        """Whether no more accuracy is lost than the budget allows."""
        allowed = self.budget.accuracy_drop
        return allowed is None or self.lost <= allowed + 1e-9


@dataclass(frozen=True, kw_only=True)
class FitCall(FitOptions, VerbCall):
    """The arguments of :func:`fit`."""

    options: FitOptions | None = None


@verb(FitCall, FitOptions)
def fit(call: FitCall) -> FitResult:
    """Search sparsity and bits of every layer for the least loss within a budget, and deploy.

    Every layer is compressed for real at every point of a grid and costed with the target's own
    memory model; the layers' choices are then joined. What cannot be kept is an error that names
    the layer, the resource, the excess and the cheapest remedies.

    Takes what :func:`osbc_deploy.deploy` takes, but the options of
    :class:`osbc_deploy.FitOptions`; without a `budget`, the target's cores are it.

    Returns
    -------
    FitResult

    Raises
    ------
    FitError
        When no plan keeps the budget.
    OsbcError
        As :func:`osbc_deploy.deploy`.
    """
    budget, bits, progress = call.budget or FitBudget(), call.bits, call.progress
    options = CompressionOptions(sparsity=call.max_sparsity, bits=max(bits), method=call.method)
    job = prepare(call, request(fit, FitOptions, call))
    statistics = collect(job.network, job.typical.spikes, options, progress=progress)
    notes = tuple(_left_out(statistics))
    statistics = replace(statistics, deviations=statistics.deviations + notes)
    apart = kept_apart(job.network, counted_poolings(job.network, job.chip, options))
    times = timing(apart.network)
    candidates = _candidates(job, apart, statistics, times, progress)
    allowed = {
        name: [c for c in found if c.bits in bits and c.sparsity <= call.max_sparsity]
        for name, found in candidates.items()
    }
    plans = pareto_plans(allowed, cost_beside(apart.network, job.chip, times))
    if not plans:
        raise FitError(_no_plan(allowed, job.chip))
    feasible = _within(plans, candidates, budget, job.chip)
    resource = "cores" if budget.cores is not None else "words"
    if budget.accuracy_drop is None:
        plan = min(feasible, key=lambda p: (p.loss, p.words))
    else:
        plan = _smallest(feasible, job, options, statistics, budget.accuracy_drop, progress)
    deployment = finish(job, _compressed(plan, job, options, statistics), progress=progress)
    return FitResult(budget, plan, tuple(front_over(plans, resource)), resource, deployment)


def _left_out(statistics: Statistics) -> Iterator[Deviation]:
    """Say which points of the grid were too costly to try."""
    for problem in statistics.problems:
        missing = set(SPARSITIES) - set(affordable_sparsities(problem))
        if missing and problem.compressible:
            yield Deviation(
                "compress",
                problem.name,
                f"too large to rank densely, so fit did not try {min(missing):.0%} to "
                f"{max(missing):.0%} sparsity",
            )


def _candidates(
    job: Job, apart: Apart, statistics: Statistics, times: Timing, progress: Progress
) -> dict[str, list[Candidate]]:
    network = apart.network
    found = {}
    with task(progress, "candidates", len(statistics.problems) * len(SPARSITIES)):
        for problem, population in zip(statistics.problems, network.trained, strict=True):
            found[problem.afferents[0].name] = layer_candidates(
                problem,
                apart,
                population,
                job.chip,
                times,
                progress=progress,
            )
    return found


def _no_plan(allowed: Mapping[str, Sequence[Candidate]], chip: Target) -> str:
    lines = [f"  - {found[-1].fault}" for found in allowed.values() if all(c.fault for c in found)]
    return (
        f"no sparsity up to the one allowed, and none of the bits, fits {chip.name}:\n"
        + "\n".join(lines)
        + "\nAllow fewer bits or more sparsity, or make these layers smaller."
    )


def _within(
    plans: Sequence[Plan],
    candidates: Mapping[str, Sequence[Candidate]],
    budget: FitBudget,
    chip: Target,
) -> list[Plan]:
    """Return the plans within cores and memory.

    Raises
    ------
    FitError
        When there is none.
    """
    cores = min(budget.cores or chip.cores, chip.cores)
    feasible = [p for p in plans if p.cores <= cores]
    if not feasible:
        cheapest = front_over(plans, "cores")[0]
        raise FitError(
            f"nothing fits {cores} cores of {chip.name}:\n"
            + advice(cheapest, candidates, chip, "cores", cores)
        )
    if budget.memory is not None:
        words = budget.memory * 8 // chip.memory.word_bits.value
        cheapest = front_over(feasible, "words")[0]
        feasible = [p for p in feasible if p.words <= words]
        if not feasible:
            raise FitError(
                f"nothing fits {budget.memory:,} B of {chip.name}:\n"
                + advice(cheapest, candidates, chip, "words", words, budget.memory)
            )
    return feasible


def _compressed(
    plan: Plan, job: Job, options: CompressionOptions, statistics: Statistics
) -> CompressedNetwork:
    chosen = replace(
        options,
        scale_groups=job.scale_groups,
        layers={name: LayerChoice(c.sparsity, c.bits) for name, c in plan.choices.items()},
    )
    results = {p.name: p for c in plan.choices.values() for p in c.projections}
    return assemble(job.network, results, chosen, statistics)


def _smallest(
    feasible: Sequence[Plan],
    job: Job,
    options: CompressionOptions,
    statistics: Statistics,
    allowed: float,
    progress: Progress,
) -> Plan:
    """Return the plan with the fewest words that loses no more accuracy than allowed.

    The calibration samples and the evaluated ones must both keep it. The plan is found by
    bisection, taking accuracy to grow as loss falls.

    Raises
    ------
    FitError
        When even the plan of least loss loses more.
    FidelityError
        When the float network classifies nothing that could be lost.
    """
    front = front_over(feasible, "words")
    data = {id(s): s for s in (job.typical, job.evaluated)}.values()

    def classes(network: Network, samples: Samples) -> IntArray:
        output = simulate(network, samples.spikes, exact=True).output
        return decode(output, job.readout, spiking=network.output.neuron.spiking)

    before = [classes(job.network, s) for s in data]
    silent = [s.name for s, was in zip(data, before, strict=True) if (was == NO_ANSWER).all()]
    if silent:
        raise FidelityError(
            f"accuracy drop: the float network gives no class to any sample of "
            f"{', '.join(silent)}, so none can be lost. Check its weights and data, or leave the "
            "limit out."
        )

    def drop(plan: Plan) -> float:
        network = _compressed(plan, job, options, statistics).network
        return max(
            lost_share(was, classes(network, s), s.labels)
            for s, was in zip(data, before, strict=True)
        )

    with task(progress, "accuracy", int(np.ceil(np.log2(len(front)))) + 1):
        best = drop(front[-1])
        progress.advance()
        if best > allowed + 1e-9:
            raise FitError(
                f"the best plan within the budget loses {best:.2%} of the samples, "
                f"{allowed:.2%} are allowed ({best - allowed:.2%} over). It takes "
                f"{front[-1].cores} cores; allow more cores or memory, more bits, or a larger "
                "drop."
            )
        low, high = -1, len(front) - 1
        while high - low > 1:
            middle = (low + high) // 2
            if drop(front[middle]) <= allowed + 1e-9:
                high = middle
            else:
                low = middle
            progress.advance()
    return front[high]
