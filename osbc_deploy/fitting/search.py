"""Choose one candidate for every layer: the Pareto front of cores and memory against loss."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from osbc_deploy.arrays import FloatArray, IntArray
from osbc_deploy.chip.sharing import Part, shared_cores
from osbc_deploy.compress.result import CompressedProjection

__all__ = ["Candidate", "Cost", "Limits", "Plan", "front_over", "pareto_plans"]

MOST_STATES = 4096
"""Partial plans kept while layers are joined; beyond that, they are thinned evenly by loss."""


@dataclass(frozen=True, eq=False)
class Candidate:
    """One way to compress a layer, with what it costs and loses.

    Attributes
    ----------
    sparsity : float
    bits : int
    cores : int
        Of its own; 0 on a chip whose core all layers share.
    words : int
        Words of memory on those cores.
    loss : float
        Membrane loss relative to removing the layer, quantization included.
    projections : tuple of CompressedProjection
        The weights themselves.
    limiting : str
        The resource that comes closest to its limit.
    fault : str
        Why the target cannot hold the layer this way; empty where it can.
    used : dict of int
        What it takes of each resource of a core that all layers share; empty where each has its
        own.
    parts : tuple of Part
        Its slices, where those of several layers may lie on one core.
    fixed : dict of int
        Of what it takes, what every network does: a runtime's code and stack.
    """

    sparsity: float
    bits: int
    cores: int
    words: int
    loss: float
    projections: tuple[CompressedProjection, ...]
    limiting: str
    fault: str = ""
    used: Mapping[str, int] = field(default_factory=dict)
    parts: tuple[Part, ...] = ()
    fixed: Mapping[str, int] = field(default_factory=dict)

    def own(self, resource: str) -> int:
        """Return what the layer itself takes of cores, words or a shared resource."""
        whole = self.used.get(resource, getattr(self, resource, 0))
        return int(whole) - self.fixed.get(resource, 0)


@dataclass(frozen=True)
class Cost:
    """What populations take, such as relays, which have no weights of the network's own.

    Attributes
    ----------
    cores : int
    words : int
    used : dict of int
    parts : tuple of Part
        See :class:`Candidate`.
    limits : dict of int
        Of a core that several layers share.
    """

    cores: int = 0
    words: int = 0
    used: Mapping[str, int] = field(default_factory=dict)
    parts: tuple[Part, ...] = ()
    limits: Mapping[str, int] = field(default_factory=dict)


_NOTHING = Cost()


@dataclass(frozen=True)
class Plan:
    """One candidate for every layer.

    Attributes
    ----------
    choices : dict of Candidate
        By layer name.
    beside : Cost
        Of what is needed whatever is chosen.
    removed : float
        Share of the hidden neurons that are removed before.
    lost : float
        What is lost with them, as relative membrane loss of the layers that heard them.
    built : Cost or None
        What the whole network takes, where it was built to know; otherwise its layers are summed.
    """

    choices: Mapping[str, Candidate]
    beside: Cost = _NOTHING
    removed: float = 0.0
    lost: float = 0.0
    built: Cost | None = None

    @cached_property
    def cores(self) -> int:
        """Cores of the whole network."""
        if self.built is not None:
            return self.built.cores
        if self.beside.limits:
            parts = [*self.beside.parts, *(p for c in self.choices.values() for p in c.parts)]
            return len(set(shared_cores(parts, self.beside.limits)))
        return self.beside.cores + sum(c.cores for c in self.choices.values())

    @property
    def words(self) -> int:
        """Words of the whole network."""
        if self.built is not None:
            return self.built.words
        return self.beside.words + sum(c.words for c in self.choices.values())

    @property
    def used(self) -> dict[str, int]:
        """What the whole network takes of each resource of a core that all layers share."""
        if self.built is not None:
            return dict(self.built.used)
        total: Counter[str] = Counter()
        for used in (self.beside.used, *(c.used for c in self.choices.values())):
            total.update(used)
        return dict(total)

    @property
    def fewer(self) -> str:
        """What the plan does without, in words that go on behind a plan."""
        return f", with {self.removed:.1%} of the hidden neurons removed" if self.removed else ""

    @property
    def loss(self) -> float:
        """Sum of the layers' relative losses, and of what was lost with neurons."""
        return self.lost + sum(c.loss for c in self.choices.values())


@dataclass(frozen=True)
class Limits:
    """What a whole network may take.

    Attributes
    ----------
    cores : int
    words : float
        Of memory; infinite without a limit.
    used : dict of int
        Of each resource of a core that all layers share.
    """

    cores: int
    words: float = math.inf
    used: Mapping[str, int] = field(default_factory=dict)

    def keep(self, plan: Plan) -> bool:
        """Return whether a plan keeps them."""
        within = all(plan.used.get(name, 0) <= most for name, most in self.used.items())
        return within and plan.cores <= self.cores and plan.words <= self.words


def pareto_plans(
    candidates: Mapping[str, Sequence[Candidate]], beside: Cost = _NOTHING
) -> list[Plan]:
    """Return the plans that no other plan beats in cores, words and loss at once.

    Layers are joined one after the other and beaten partial plans dropped, which is exact as all
    three are sums; only more than `MOST_STATES` partial plans are thinned.

    Parameters
    ----------
    candidates : dict of sequence of Candidate
        By layer name; those with a fault are left out.
    beside : Cost
        Of what every plan needs.

    Returns
    -------
    list of Plan
        By loss, the lowest first; empty when some layer has no candidate without a fault.
    """
    names = list(candidates)
    usable = {name: [c for c in candidates[name] if not c.fault] for name in names}
    if not all(usable.values()):
        return []
    cores, words, loss = np.zeros(1, np.int64), np.zeros(1, np.int64), np.zeros(1)
    back: list[tuple[IntArray, IntArray]] = []
    for name in names:
        options = usable[name]
        all_cores = (cores[:, None] + np.array([c.cores for c in options])).ravel()
        all_words = (words[:, None] + np.array([c.words for c in options])).ravel()
        all_loss = (loss[:, None] + np.array([c.loss for c in options])).ravel()
        keep = _unbeaten(all_cores, all_words, all_loss)
        back.append((keep // len(options), keep % len(options)))
        cores, words, loss = all_cores[keep], all_words[keep], all_loss[keep]
    return [Plan(_trace(names, usable, back, end), beside) for end in range(len(loss))]


def _unbeaten(cores: IntArray, words: IntArray, loss: FloatArray) -> IntArray:
    """Return the points no other is at least as good as in everything, by loss."""
    kept: list[int] = []
    # From the fewest cores up, `floor` is the front of words against loss of all before.
    floor_words, floor_loss = np.zeros(0), np.zeros(0)
    for count in np.unique(cores):
        group = np.flatnonzero(cores == count)
        group = group[np.lexsort((loss[group], words[group]))]
        best = np.minimum.accumulate(loss[group])
        falls = np.ones(len(group), bool)
        falls[1:] = best[1:] < best[:-1]
        group = group[falls]
        position = np.searchsorted(floor_words, words[group], side="right")
        below = np.concatenate([[np.inf], floor_loss])[position]
        group = group[loss[group] < below]
        kept.extend(group.tolist())
        merged_words = np.concatenate([floor_words, words[group]])
        merged_loss = np.concatenate([floor_loss, loss[group]])
        order = np.lexsort((merged_loss, merged_words))
        floor_words = merged_words[order]
        floor_loss = np.minimum.accumulate(merged_loss[order])
    keep = np.array(kept)[np.argsort(loss[kept], kind="stable")]
    if len(keep) > MOST_STATES:
        keep = keep[np.unique(np.linspace(0, len(keep) - 1, MOST_STATES).round().astype(int))]
    return np.asarray(keep)


def _trace(
    names: Sequence[str],
    usable: Mapping[str, Sequence[Candidate]],
    back: Sequence[tuple[IntArray, IntArray]],
    end: int,
) -> dict[str, Candidate]:
    chosen = {}
    for name, (previous, option) in zip(reversed(names), reversed(back), strict=True):
        chosen[name] = usable[name][int(option[end])]
        end = int(previous[end])
    return {name: chosen[name] for name in names}


def front_over(plans: Iterable[Plan], resource: str) -> list[Plan]:
    """Return the plans unbeaten in one resource ("cores" or "words") and loss, cheapest first."""
    front: list[Plan] = []
    for plan in sorted(plans, key=lambda p: (getattr(p, resource), p.loss, p.words)):
        if not front or plan.loss < front[-1].loss:
            front.append(plan)
    return front
