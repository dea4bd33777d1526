"""Find the plan of least loss within a budget, and deploy it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from osbc_deploy.accuracy import lost_share
from osbc_deploy.arrays import IntArray
from osbc_deploy.chip.pooling import counted_poolings
from osbc_deploy.chip.target import Target
from osbc_deploy.compress.calibration import Statistics, collect
from osbc_deploy.compress.network import assemble
from osbc_deploy.compress.options import CompressionOptions, LayerChoice
from osbc_deploy.compress.problem import LayerProblem
from osbc_deploy.compress.ranking import Ranking
from osbc_deploy.compress.result import CompressedNetwork
from osbc_deploy.compress.shared import Shared
from osbc_deploy.data.samples import Samples
from osbc_deploy.deployment import Deployment
from osbc_deploy.deviations import Deviation
from osbc_deploy.errors import FidelityError, FitError
from osbc_deploy.fitting.candidates import (
    BITS,
    SPARSITIES,
    cost_beside,
    finer_sparsities,
    layer_candidates,
    layer_ranking,
    left_out,
)
from osbc_deploy.fitting.remedies import advice
from osbc_deploy.fitting.resources import check_budget, most_of, quick_enough, within_resources
from osbc_deploy.fitting.search import Candidate, Plan, front_over, pareto_plans
from osbc_deploy.fitting.tuned import Limits, tuned_plan
from osbc_deploy.job import Job, VerbCall, prepare, verb
from osbc_deploy.lower.counting import kept_apart
from osbc_deploy.lower.timing import timing
from osbc_deploy.model.graph import Network, Population
from osbc_deploy.model.readout import NO_ANSWER, decode
from osbc_deploy.model.simulate import simulate
from osbc_deploy.options import FitBudget, FitOptions
from osbc_deploy.pipeline import finish, lowered_for
from osbc_deploy.progress import Progress, task
from osbc_deploy.provenance import request
from osbc_deploy.results import Saved

__all__ = ["FitBudget", "FitResult", "fit"]

_ROUNDS = 2
"""Times that sparsities are looked at more finely around the best plan: to 1/16 of the grid."""


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
    def prediction(self) -> str:
        """How what was built compares with the prediction, in words."""
        mapping = self.deployment.mapping
        spared = self.plan.words - mapping.words
        if self.as_predicted:
            return "as predicted"
        if mapping.cores_used == self.plan.cores and spared > 0:
            # Registers whose numbers calibration made smaller may take narrower tables.
            return f"{spared * mapping.word_bits // 8:,} B less than predicted"
        return "NOT as predicted"

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
    memory model; the layers' choices are then joined, and more sparsities tried around the best
    plan. Its layers are tuned as :func:`osbc_deploy.deploy` does, within the budget. What cannot be
    kept is an error that names the layer, the resource, the excess and the cheapest remedies.

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
    options = CompressionOptions(
        sparsity=call.max_sparsity, bits=max(bits), method=call.method, tune=call.tune
    )
    job = prepare(call, request(fit, FitOptions, call))
    check_budget(budget, job.chip)
    options = replace(options, dynamics=job.dynamics)
    shared = Shared(options.solver_memory)
    statistics = collect(job.network, job.typical.spikes, options, shared=shared, progress=progress)
    notes = tuple(left_out(statistics.problems))
    statistics = replace(statistics, deviations=statistics.deviations + notes)
    apart = kept_apart(job.network, counted_poolings(job.network, job.chip, options))
    times = timing(apart.network)
    beside = cost_beside(apart.network, job.chip, times)
    accuracy = None if budget.accuracy_drop is None else _Accuracy(job, budget.accuracy_drop)
    layers = [
        _Layer(problem, population, layer_ranking(problem))
        for problem, population in zip(statistics.problems, apart.network.trained, strict=True)
    ]
    candidates: dict[str, list[Candidate]] = {layer.name: [] for layer in layers}

    def add(asked: Mapping[str, tuple[Sequence[float], Sequence[int]]]) -> None:
        """Compress each layer at more sparsities and widths."""
        with task(progress, "candidates", sum(len(grid) for grid, _ in asked.values())):
            for layer in layers:
                sparsities, widths = asked[layer.name]
                candidates[layer.name] += layer_candidates(
                    layer.problem,
                    apart,
                    layer.population,
                    job.chip,
                    times,
                    ranking=layer.ranking,
                    progress=progress,
                    sparsities=sparsities,
                    bits=widths,
                )

    def best() -> tuple[list[Plan], Plan]:
        """Return all plans that nothing beats, and the one that the budget asks for."""
        allowed = {
            name: [c for c in found if c.bits in bits and c.sparsity <= call.max_sparsity]
            for name, found in candidates.items()
        }
        plans = pareto_plans(allowed, beside)
        if not plans:
            raise FitError(_no_plan(allowed, job.chip))
        feasible = _within(plans, candidates, budget, job.chip)
        feasible = quick_enough(
            feasible,
            budget.instructions,
            lambda plan: _worst_step(job, _compressed(plan, job, options, statistics)),
            progress,
        )
        if accuracy is None:
            return plans, min(feasible, key=lambda p: (p.loss, p.words))

        def drop(plan: Plan) -> float:
            return accuracy.drop(_compressed(plan, job, options, statistics).network)

        return plans, _smallest(feasible, drop, accuracy.allowed, progress)

    add(dict.fromkeys(candidates, (SPARSITIES, BITS)))
    plans, plan = best()
    # Each look at accuracy takes simulations.
    for _ in range(_ROUNDS if accuracy is None else 1):
        add({layer.name: layer.finer(candidates[layer.name], plan) for layer in layers})
        plans, plan = best()
    resource = "cores" if budget.cores is not None else "words"
    front = tuple(front_over(plans, resource))
    compressed = _compressed(plan, job, options, statistics)
    if call.tune:
        limits = _limits(budget, job.chip)
        built, tuned = tuned_plan(
            plan, job, compressed.options, limits, apart, times, shared=shared, progress=progress
        )
        over = _beyond(budget, job, tuned, accuracy)
        if not over:
            plan = built
            compressed = replace(tuned, deviations=tuned.deviations + notes)
        else:
            text = f"tuned, the network would {over} than allowed, so it is not tuned"
            note = Deviation("compress", "all layers", text)
            compressed = replace(compressed, deviations=(*compressed.deviations, note))
    deployment = finish(job, compressed, progress=progress)
    return FitResult(budget, plan, front, resource, deployment)


@dataclass(frozen=True, eq=False)
class _Layer:
    """The weights into a population, with what the search needs of them."""

    problem: LayerProblem
    population: Population
    ranking: Ranking | None

    @property
    def name(self) -> str:
        return self.problem.afferents[0].name

    def finer(self, tried: Sequence[Candidate], plan: Plan) -> tuple[list[float], list[int]]:
        """Return sparsities around that of a plan, and the widths next to its own."""
        chosen = plan.choices[self.name]
        widths = sorted(BITS)
        place = widths.index(chosen.bits)
        grid = finer_sparsities(self.problem, [c.sparsity for c in tried], chosen.sparsity)
        return grid, widths[max(0, place - 1) : place + 2]


def _beyond(
    budget: FitBudget, job: Job, tuned: CompressedNetwork, accuracy: _Accuracy | None
) -> str:
    """Return what a tuned network does beyond the budget: other codes fire other spikes."""
    if accuracy is not None and accuracy.drop(tuned.network) > accuracy.allowed:
        return "lose more samples"
    if budget.instructions is not None and _worst_step(job, tuned) > budget.instructions:
        return "take more instructions in a step"
    return ""


def _worst_step(job: Job, compressed: CompressedNetwork) -> float:
    """Return the modelled instructions of the longest step of the calibration samples."""
    found = job.steps(lowered_for(job, compressed).network)
    return 0.0 if found is None else found.worst


def _limits(budget: FitBudget, chip: Target) -> Limits:
    cores = min(budget.cores or chip.cores, chip.cores)
    used = most_of(budget, chip)
    if budget.memory is None:
        return Limits(cores, used=used)
    return Limits(cores, budget.memory * 8 // chip.memory.word_bits.value, used)


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
    plans = within_resources(plans, candidates, budget, chip)
    limits = _limits(budget, chip)
    cores = limits.cores
    feasible = [p for p in plans if p.cores <= cores]
    if not feasible:
        cheapest = front_over(plans, "cores")[0]
        raise FitError(
            f"nothing fits {cores} core{'s' * (cores != 1)} of {chip.name}:\n"
            + advice(cheapest, candidates, chip, "cores", cores)
        )
    if budget.memory is not None:
        words = int(limits.words)
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


class _Accuracy:
    """Whether a network loses no more samples than allowed.

    The calibration samples and the evaluated ones must both keep it.

    Raises
    ------
    FidelityError
        When the float network classifies nothing that could be lost.
    """

    def __init__(self, job: Job, allowed: float) -> None:
        self.allowed = allowed + 1e-9
        self._job = job
        self._data = list({id(s): s for s in (job.typical, job.evaluated)}.values())
        self._before = [self._classes(job.network, s) for s in self._data]
        pairs = zip(self._data, self._before, strict=True)
        silent = [s.name for s, was in pairs if (was == NO_ANSWER).all()]
        if silent:
            raise FidelityError(
                f"accuracy drop: the float network gives no class to any sample of "
                f"{', '.join(silent)}, so none can be lost. Check its weights and data, or leave "
                "the limit out."
            )

    def _classes(self, network: Network, samples: Samples) -> IntArray:
        output = simulate(network, samples.spikes, exact=True).output
        return decode(output, self._job.readout, spiking=network.output.neuron.spiking)

    def drop(self, network: Network) -> float:
        """Return the share of samples that a network loses, of those that lose more."""
        return max(
            lost_share(was, self._classes(network, s), s.labels)
            for s, was in zip(self._data, self._before, strict=True)
        )


def _smallest(
    feasible: Sequence[Plan], drop: Callable[[Plan], float], allowed: float, progress: Progress
) -> Plan:
    """Return the plan with the fewest words that loses no more accuracy than allowed.

    It is found by bisection, taking accuracy to grow as loss falls.

    Raises
    ------
    FitError
        When even the plan of least loss loses more.
    """
    front = front_over(feasible, "words")
    with task(progress, "accuracy", int(np.ceil(np.log2(len(front)))) + 1):
        best = drop(front[-1])
        progress.advance()
        if best > allowed:
            raise FitError(
                f"the best plan within the budget loses {best:.2%} of the samples, "
                f"{allowed:.2%} are allowed ({best - allowed:.2%} over). It takes "
                f"{front[-1].cores} cores; allow more cores or memory, more bits, or a larger "
                "drop."
            )
        low, high = -1, len(front) - 1
        while high - low > 1:
            middle = (low + high) // 2
            if drop(front[middle]) <= allowed:
                high = middle
            else:
                low = middle
            progress.advance()
    return front[high]
