"""The search over one network: the float one, or what is left of it without some neurons."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from osbc_deploy.chip.pooling import counted_poolings
from osbc_deploy.chip.target import Target
from osbc_deploy.compress.calibration import collect
from osbc_deploy.compress.cutting import Thinned
from osbc_deploy.compress.network import assemble
from osbc_deploy.compress.options import CompressionOptions, LayerChoice
from osbc_deploy.compress.problem import LayerProblem
from osbc_deploy.compress.ranking import Ranking
from osbc_deploy.compress.result import CompressedNetwork
from osbc_deploy.compress.shared import Shared
from osbc_deploy.errors import FitError
from osbc_deploy.fitting.accuracy import AccuracyLimit, smallest
from osbc_deploy.fitting.built import by_sparsity, kept_when_built, mapped
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
from osbc_deploy.fitting.resources import most_of, quick_enough, within_resources
from osbc_deploy.fitting.search import Candidate, Cost, Limits, Plan, front_over, pareto_plans
from osbc_deploy.job import Job
from osbc_deploy.lower.counting import kept_apart
from osbc_deploy.lower.timing import timing
from osbc_deploy.model.graph import Population
from osbc_deploy.options import FitBudget
from osbc_deploy.pipeline import lowered_for
from osbc_deploy.progress import Progress, task

__all__ = ["Level", "limits_of"]

_ROUNDS = 2
"""Times that the grid of sparsities is refined around the best plan: to 1/16 of a step."""


class Level:
    """All plans of one network.

    Parameters
    ----------
    job : Job
        Of that network.
    options : CompressionOptions
    budget : FitBudget
    bits : sequence of int
        Widths that may be taken.
    accuracy : AccuracyLimit or None
    removed : float
        Share of the hidden neurons that the network is without.
    less : Thinned or None
        How it was made, where it is without some.
    lost : float
        The least that is lost with them, as :class:`.Plan` counts.
    progress : Progress
    """

    def __init__(
        self,
        job: Job,
        options: CompressionOptions,
        budget: FitBudget,
        bits: Sequence[int],
        accuracy: AccuracyLimit | None,
        *,
        removed: float = 0.0,
        less: Thinned | None = None,
        lost: float = 0.0,
        progress: Progress,
    ) -> None:
        self.job, self.options, self.budget, self.bits = job, options, budget, bits
        self.lost = lost
        self.accuracy, self.removed, self.less, self.progress = accuracy, removed, less, progress
        self.shared = Shared(options.solver_memory)
        found = collect(
            job.network, job.typical.spikes, options, shared=self.shared, progress=progress
        )
        self.notes = tuple(left_out(found.problems))
        self.statistics = replace(found, deviations=found.deviations + self.notes)
        self.apart = kept_apart(job.network, counted_poolings(job.network, job.chip, options))
        self.times = timing(self.apart.network)
        self._layers: list[_Layer] = []
        self._candidates: dict[str, list[Candidate]] = {}

    def search(self) -> tuple[list[Plan], Plan]:
        """Return all plans that nothing beats, and the one that the budget asks for.

        Raises
        ------
        FitError
            When none keeps it.
        """
        self._layers = [
            _Layer(problem, population, layer_ranking(problem))
            for problem, population in zip(
                self.statistics.problems, self.apart.network.trained, strict=True
            )
        ]
        self._candidates = {layer.name: [] for layer in self._layers}
        self._add(dict.fromkeys(self._candidates, (SPARSITIES, sorted(set(self.bits)))))
        plans, plan = self._best()
        # Each look at accuracy takes simulations.
        for _ in range(_ROUNDS if self.accuracy is None else 1):
            finer = {
                k.name: k.finer(self._candidates[k.name], plan, self.bits) for k in self._layers
            }
            self._add(finer)
            plans, plan = self._best()
        return plans, plan

    def _add(self, asked: Mapping[str, tuple[Sequence[float], Sequence[int]]]) -> None:
        """Compress each layer at more sparsities and widths."""
        with task(self.progress, "candidates", sum(len(grid) for grid, _ in asked.values())):
            for layer in self._layers:
                sparsities, widths = asked[layer.name]
                self._candidates[layer.name] += layer_candidates(
                    layer.problem,
                    self.apart,
                    layer.population,
                    self.job.chip,
                    self.times,
                    ranking=layer.ranking,
                    progress=self.progress,
                    sparsities=sparsities,
                    bits=widths,
                )

    def _best(self) -> tuple[list[Plan], Plan]:
        allowed = {
            name: [c for c in found if c.bits in self.bits and c.sparsity <= self.options.sparsity]
            for name, found in self._candidates.items()
        }
        beside = cost_beside(self.apart.network, self.job.chip, self.times)
        plans = self._plans(allowed, beside)
        limits = limits_of(self.budget, self.job.chip)
        feasible = [plan for plan in plans if limits.keep(plan)]
        if not feasible:
            plans, feasible = self._built(plans, allowed, beside, limits)
        feasible = quick_enough(
            feasible,
            self.budget.instructions,
            lambda plan: self.worst_step(self.compressed(plan)),
            self.progress,
        )
        if (accuracy := self.accuracy) is None:
            return plans, min(feasible, key=lambda p: (p.loss, p.words))

        def drop(plan: Plan) -> float:
            return accuracy.drop(self.compressed(plan).network)

        return plans, smallest(feasible, drop, accuracy.allowed, self.progress)

    def _plans(self, candidates: Mapping[str, Sequence[Candidate]], beside: Cost) -> list[Plan]:
        return [self._without(plan) for plan in pareto_plans(candidates, beside)]

    def _without(self, plan: Plan) -> Plan:
        return replace(plan, removed=self.removed, lost=self.lost)

    def _built(
        self,
        plans: list[Plan],
        allowed: Mapping[str, Sequence[Candidate]],
        beside: Cost,
        limits: Limits,
    ) -> tuple[list[Plan], list[Plan]]:
        """Return all plans, and those that keep the limits once they are built.

        Raises
        ------
        FitError
            When none of those that take least does; it says what they take.
        """
        named = bool(plans)
        if not named:
            # A layer that has no room alone may have it without its idle neurons.
            whole = {n: [replace(c, fault="") for c in found] for n, found in allowed.items()}
            plans = self._plans(whole, beside)
        fronts = [front_over(plans, resource) for resource in ("words", "cores")]
        fronts.append([self._without(plan) for plan in by_sparsity(allowed, beside)])
        feasible, least = kept_when_built(
            fronts, limits, lambda plan: mapped(self.job, self.compressed(plan))
        )
        if feasible:
            return plans if named else feasible, feasible
        mapping = least[0][1]
        if helps := mapping.remedy():
            lines = "\n".join(f"  - {line}" for line in mapping.misfits())
            raise FitError(f"nothing fits {self.job.chip.name}:\n{lines}\n{helps}.")
        if not named:
            more = min(self.bits) > min(BITS) or self.options.sparsity < max(SPARSITIES)
            raise FitError(_no_plan(allowed, self.job.chip, more))
        # A width that is advised may not have been allowed, and so not been tried.
        tried = {c.bits for found in self._candidates.values() for c in found}
        if others := [bits for bits in BITS if bits not in tried]:
            self._add(dict.fromkeys(self._candidates, (SPARSITIES, others)))
        _within([p for p, _ in least], self._candidates, self.budget, self.job.chip)
        # One of them is within the limits, so it is a core of it that does not hold its part.
        over = next(line for _, built in least for line in built.misfits())
        raise FitError(f"nothing fits {self.job.chip.name}: {over}.")

    def compressed(self, plan: Plan) -> CompressedNetwork:
        """Return the network as a plan compresses it."""
        chosen = replace(
            self.options,
            scale_groups=self.job.scale_groups,
            layers={name: LayerChoice(c.sparsity, c.bits) for name, c in plan.choices.items()},
        )
        results = {p.name: p for c in plan.choices.values() for p in c.projections}
        return assemble(self.job.network, results, chosen, self.statistics)

    def worst_step(self, compressed: CompressedNetwork) -> float:
        """Return the modelled instructions of the longest step of the calibration samples."""
        found = self.job.steps(lowered_for(self.job, compressed).network)
        return 0.0 if found is None else found.worst


@dataclass(frozen=True, eq=False)
class _Layer:
    """The weights into a population, with what the search needs of them."""

    problem: LayerProblem
    population: Population
    ranking: Ranking | None

    @property
    def name(self) -> str:
        return self.problem.afferents[0].name

    def finer(
        self, tried: Sequence[Candidate], plan: Plan, allowed: Sequence[int]
    ) -> tuple[list[float], list[int]]:
        """Return sparsities around that of a plan, and the widths next to its own."""
        chosen = plan.choices[self.name]
        widths = sorted(BITS)
        place = widths.index(chosen.bits)
        grid = finer_sparsities(self.problem, [c.sparsity for c in tried], chosen.sparsity)
        return grid, [b for b in widths[max(0, place - 1) : place + 2] if b in allowed]


def limits_of(budget: FitBudget, chip: Target) -> Limits:
    """Return what a budget allows the whole network on a chip."""
    cores = min(budget.cores or chip.cores, chip.cores)
    used = most_of(budget, chip)
    if budget.memory is None:
        return Limits(cores, used=used)
    return Limits(cores, budget.memory * 8 // chip.memory.word_bits.value, used)


def _no_plan(allowed: Mapping[str, Sequence[Candidate]], chip: Target, more: bool) -> str:
    lines = [f"  - {found[-1].fault}" for found in allowed.values() if all(c.fault for c in found)]
    remedy = "Allow fewer bits or more sparsity, or make" if more else "Make"
    return (
        f"no sparsity up to the one allowed, and none of the bits, fits {chip.name}:\n"
        + "\n".join(lines)
        + f"\n{remedy} these layers smaller."
    )


def _within(
    plans: Sequence[Plan],
    candidates: Mapping[str, Sequence[Candidate]],
    budget: FitBudget,
    chip: Target,
) -> None:
    """Make sure that some plans are within cores, memory and what all layers share.

    Raises
    ------
    FitError
        When none is.
    """
    plans = within_resources(plans, candidates, budget, chip)
    limits = limits_of(budget, chip)
    cores = limits.cores
    feasible = [p for p in plans if p.cores <= cores]
    if not feasible:
        cheapest = front_over(plans, "cores")[0]
        raise FitError(
            f"nothing fits {cores} core{'s' * (cores != 1)} of {chip.name}:\n"
            + advice(cheapest, candidates, chip, "cores", cores),
            cheapest.cores / cores - 1,
        )
    if budget.memory is not None:
        words = int(limits.words)
        cheapest = front_over(feasible, "words")[0]
        if cheapest.words > words:
            raise FitError(
                f"nothing fits {budget.memory:,} B of {chip.name}:\n"
                + advice(cheapest, candidates, chip, "words", words, budget.memory),
                cheapest.words / max(words, 1) - 1,
            )
