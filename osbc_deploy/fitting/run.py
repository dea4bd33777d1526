"""Find the plan of least loss within a budget, and deploy it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from osbc_deploy.chip.target import Target
from osbc_deploy.compress.options import CompressionOptions
from osbc_deploy.compress.result import CompressedNetwork
from osbc_deploy.compress.thinning import least_loss, least_share, thinned, worths
from osbc_deploy.deployment import Deployment
from osbc_deploy.deviations import Deviation
from osbc_deploy.errors import FitError
from osbc_deploy.fitting.accuracy import AccuracyLimit
from osbc_deploy.fitting.level import Level, limits_of
from osbc_deploy.fitting.resources import check_budget, room_for
from osbc_deploy.fitting.search import Plan, front_over
from osbc_deploy.fitting.tuned import tuned_plan
from osbc_deploy.job import Job, VerbCall, prepare, verb
from osbc_deploy.options import FitBudget, FitOptions
from osbc_deploy.pipeline import finish
from osbc_deploy.plain_text import many
from osbc_deploy.progress import Progress
from osbc_deploy.provenance import request
from osbc_deploy.results import Saved

__all__ = ["FitBudget", "FitResult", "fit"]

REMOVED = (0.25, 0.5, 0.65, 0.75, 0.8, 0.84, 0.88, 0.94)
"""Shares of the hidden neurons that ``fit`` tries to do without, up to the most that may go."""


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
        """Whether the deployed network takes the cores and words that were predicted.

        Less where neurons were left out that feed nothing, which shows when all layers are there.
        """
        mapping = self.deployment.mapping
        built, planned = (mapping.cores_used, mapping.words), (self.plan.cores, self.plan.words)
        if self.deployment.lowered.kept:
            return all(a <= b for a, b in zip(built, planned, strict=True))
        return built == planned

    @property
    def prediction(self) -> str:
        """How what was built compares with the prediction, in words."""
        mapping = self.deployment.mapping
        spared = self.plan.words - mapping.words
        if (mapping.cores_used, spared) == (self.plan.cores, 0):
            return "as predicted"
        fewer = self.plan.cores - mapping.cores_used
        if fewer >= 0 and spared >= 0:
            # Registers whose numbers calibration made smaller may take narrower tables, and
            # neurons that feed nothing are left out.
            text = f"{spared * mapping.word_bits // 8:,} B less than predicted"
            return text + (f", on {many(fewer, 'core')} less" if fewer else "")
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
    """Search neurons, and sparsity and bits of every layer, for the least loss within a budget.

    Every layer is compressed for real at every point of a grid and costed with the target's own
    memory model; the layers' choices are then joined, and more sparsities tried around the best
    plan. The same is done without a share of the hidden neurons, as long as that may be better,
    and with no more of them than the RAM of a microcontroller holds. Its layers are tuned as
    :func:`osbc_deploy.deploy` does, within the budget. What cannot be kept is an error that names
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
    options = CompressionOptions(
        sparsity=call.max_sparsity, bits=max(bits), method=call.method, tune=call.tune,
        augment=call.augment,
    )  # fmt: skip
    job = prepare(call, request(fit, FitOptions, call))
    check_budget(budget, job.chip)
    options = replace(options, dynamics=job.dynamics)
    accuracy = None if budget.accuracy_drop is None else AccuracyLimit(job, budget.accuracy_drop)
    found = _searched(job, options, budget, bits, accuracy, call.max_removed, progress)
    level, plan = found.level, found.plan
    resource = "cores" if budget.cores is not None else "words"
    front = tuple(front_over(found.plans, resource))
    compressed = level.compressed(plan)
    if call.tune:
        limits = limits_of(budget, job.chip)
        built, tuned = tuned_plan(
            plan,
            level.job,
            compressed.options,
            limits,
            level.apart,
            level.times,
            shared=level.shared,
            progress=progress,
        )
        over = _beyond(budget, level, tuned, accuracy)
        if not limits.keep(built):
            over = "take more cores or memory"
        if not over:
            plan = built
            compressed = replace(tuned, deviations=tuned.deviations + level.notes)
        else:
            text = f"tuned, the network would {over} than allowed, so it is not tuned"
            note = Deviation("compress", "all layers", text)
            compressed = replace(compressed, deviations=(*compressed.deviations, note))
    if level.less is not None:
        compressed = level.less.whole(compressed)
    deployment = finish(job, compressed, progress=progress)
    return FitResult(budget, plan, front, resource, deployment)


@dataclass(frozen=True, eq=False)
class _Found:
    """The best plan so far, of the network it is a plan of, and all others."""

    level: Level
    plan: Plan
    plans: list[Plan]


def _searched(
    job: Job,
    options: CompressionOptions,
    budget: FitBudget,
    bits: Sequence[int],
    accuracy: AccuracyLimit | None,
    max_removed: float,
    progress: Progress,
) -> _Found:
    """Search the network, and what is left of it without some of its hidden neurons.

    More neurons are removed as long as that can still be what the budget asks for: what is lost
    with them alone is less than the best plan loses, or keeps the accuracy.

    Raises
    ------
    FitError
        When no plan keeps the budget.
    """
    best: _Found | None = None
    failures: list[FitError] = []
    whole = Level(job, options, budget, bits, accuracy, progress=progress)
    values = worths(job.network, whole.statistics.problems) if max_removed else {}
    fits = room_for(job.network, budget, job.chip)
    # Where neurons do not fit whatever their weights, fewer than must go are not tried.
    needed = least_share(job.network, values, fits)
    grid = [0.0, *(share for share in REMOVED if share < max_removed and values)]
    grid += [max_removed] * bool(values)
    if needed <= max_removed:
        grid = [needed, *(share for share in grid if share > needed)]
    else:
        # The most that may go says what is missing.
        grid = [0.0, *grid[1:][-1:]]
    for removed in grid:
        level = whole
        if removed:
            if best and accuracy is None and least_loss(values, removed) >= best.plan.loss:
                break
            less = thinned(
                job.network, job.typical.spikes, options, values, removed,
                fits=fits, shared=whole.shared, progress=progress,
            )  # fmt: skip
            if accuracy is not None and (lost := accuracy.drop(less.network)) > accuracy.allowed:
                text = _too_few(job.chip, removed, lost, accuracy, failures)
                failures.append(FitError(text, min((e.excess for e in failures), default=math.inf)))
                break
            smaller = replace(job, network=less.network)
            own = replace(options, dynamics=smaller.dynamics)
            level = Level(
                smaller,
                own,
                budget,
                bits,
                accuracy,
                removed=removed,
                less=less,
                lost=least_loss(values, removed),
                progress=progress,
            )
        try:
            plans, plan = level.search()
        except FitError as error:
            failures.append(error)
            continue
        if best is None:
            best = _Found(level, plan, plans)
        else:
            better = plan.words < best.plan.words if accuracy else plan.loss < best.plan.loss
            both = best.plans + plans
            best = _Found(level, plan, both) if better else replace(best, plans=both)
    if best is None:
        # What came closest; of what no number says, the network of fewest neurons.
        raise min(reversed(failures), key=lambda error: error.excess)
    return best


def _too_few(
    chip: Target,
    removed: float,
    lost: float,
    accuracy: AccuracyLimit,
    failures: Sequence[FitError],
) -> str:
    """Return why a network is refused that loses too much without some of its neurons."""
    text = (
        f"{lost:.2%} of the samples are lost, {accuracy.allowed:.2%} are allowed "
        f"({lost - accuracy.allowed:.2%} over)"
    )
    if failures:
        # What stands against more neurons was said of the network that has them.
        return (
            f"{min(failures, key=lambda error: error.excess)}\n  - without {removed:.1%} of the "
            f"hidden neurons, where less is taken, {text}; allow a larger drop, or a larger budget"
        )
    return (
        f"{removed:.1%} of the hidden neurons do not fit {chip.name} within the budget; without "
        f"them {text}. Allow a larger drop or more RAM, or take a larger chip."
    )


def _beyond(
    budget: FitBudget, level: Level, tuned: CompressedNetwork, accuracy: AccuracyLimit | None
) -> str:
    """Return what a tuned network does beyond the budget: other codes fire other spikes."""
    if accuracy is not None and accuracy.drop(tuned.network) > accuracy.allowed:
        return "lose more samples"
    if budget.instructions is not None and level.worst_step(tuned) > budget.instructions:
        return "take more instructions in a step"
    return ""
