"""What to change where no plan keeps the budget, and what each change would cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from osbc_deploy.chip.target import Target, larger_targets
from osbc_deploy.fitting.search import Candidate, Plan
from osbc_deploy.plain_text import many

__all__ = ["Remedy", "advice", "remedies"]

_SHOWN = 5


@dataclass(frozen=True)
class Remedy:
    """A change of one layer.

    Attributes
    ----------
    layer : str
    before, after : Candidate
    """

    layer: str
    before: Candidate
    after: Candidate

    def saves(self, resource: str) -> int:
        """Return the cores or words that the change saves."""
        saved: int = getattr(self.before, resource) - getattr(self.after, resource)
        return saved

    @property
    def loss(self) -> float:
        """Relative membrane loss that the change adds."""
        return self.after.loss - self.before.loss

    def text(self, resource: str, bytes_per_word: float) -> str:
        """Return the change as a line, such as ``layer 4: 4 -> 3 bit: -2 cores, +0.30 % loss``."""
        changes = []
        if self.before.bits != self.after.bits:
            changes.append(f"{self.before.bits} -> {self.after.bits} bit")
        if self.before.sparsity != self.after.sparsity:
            changes.append(f"{self.before.sparsity:.0%} -> {self.after.sparsity:.0%} sparsity")
        saved = self.saves(resource)
        amount = (
            f"-{saved} core{'s' * (saved != 1)}"
            if resource == "cores"
            else f"-{round(saved * bytes_per_word):,} B"
        )
        return f"layer {self.layer}: {', '.join(changes)}: {amount}, {self.loss:+.2%} loss"


def remedies(
    plan: Plan, candidates: Mapping[str, Sequence[Candidate]], resource: str, excess: int
) -> list[Remedy]:
    """Return for each layer the change that saves most for its loss, and the least that suffices.

    Parameters
    ----------
    plan : Plan
    candidates : dict of sequence of Candidate
    resource : {"cores", "words"}
    excess : int
        What has to be saved.

    Returns
    -------
    list of Remedy
        Those that suffice alone first, then by loss for what they save.
    """

    def price(remedy: Remedy) -> float:
        return max(remedy.loss, 0.0) / remedy.saves(resource)

    found: list[Remedy] = []
    for name, before in plan.choices.items():
        options = [
            Remedy(name, before, after)
            for after in candidates[name]
            if not after.fault and getattr(after, resource) < getattr(before, resource)
        ]
        enough = [r for r in options if r.saves(resource) >= excess]
        for choice in (min(options, key=price, default=None), min(enough, key=price, default=None)):
            if choice is not None and choice not in found:
                found.append(choice)
    found.sort(key=lambda r: (r.saves(resource) < excess, price(r)))
    return found[:_SHOWN]


def advice(
    plan: Plan,
    candidates: Mapping[str, Sequence[Candidate]],
    target: Target,
    resource: str,
    limit: int,
    memory: int | None = None,
) -> str:
    """Return what is over, where most of it lies, and the cheapest ways out.

    Parameters
    ----------
    plan : Plan
        The cheapest that may be taken.
    candidates : dict of sequence of Candidate
        All there are, beyond those that may be taken.
    target : Target
    resource : {"cores", "words"}
    limit : int
        Of the resource.
    memory : int, optional
        Bytes that were asked for, of which `limit` are the whole words.
    """
    per_word = target.memory.word_bits.value / 8
    name, largest = max(plan.choices.items(), key=lambda pair: pair[1].own(resource))
    fixed = sum(c.fixed.get(resource, 0) for c in plan.choices.values())
    actual = getattr(plan, resource)
    if resource == "cores":
        lines = [
            f"{many(actual, 'core')} in the smallest plan{plan.fewer}, {limit} allowed "
            f"({actual - limit} over)",
            f"most are layer {name}'s: {many(largest.cores, 'core')}, limited by "
            f"{largest.limiting}",
        ]
        beside = plan.beside.cores
        least = beside + len(plan.choices)
        if limit < least and not target.memory.packs:
            # Neither remedies nor smaller layers would help.
            more = f", and {beside} of gates" if beside else ""
            allow = ("" if least == actual else f"{least} to ") + many(actual, "core")
            lines[1:] = [
                f"one layer per core set: {many(len(plan.choices), 'layer')}{more} need at least "
                f"{least} cores, for a core holds neurons of one layer; allow {allow}",
            ]
            return "\n".join(f"  - {line}" for line in lines)
    else:
        needed = round(actual * per_word)
        allowed = int(limit * per_word) if memory is None else memory
        lines = [
            f"{needed:,} B in the smallest plan{plan.fewer}, {allowed:,} B allowed "
            f"({needed - allowed:,} over)",
            f"most are layer {name}'s: {round(largest.own(resource) * per_word):,} B",
        ]
        if fixed:
            code = f"{round(fixed * per_word):,} B are the runtime's code, whatever the network"
            lines.insert(1, code)
            lines[2] = lines[2].replace("most", "most of the rest")
        if limit < fixed:
            # Neither remedies nor smaller layers would help.
            lines[2:] = [f"allow at least {needed:,} B, or take a larger chip"]
            return "\n".join(f"  - {line}" for line in lines)
    if getattr(plan, resource) < getattr(replace(plan, built=None), resource):
        # The rest of the network shows which neurons are idle.
        lines[-1] += ", with neurons that the network leaves out"
    changes = [
        r.text(resource, per_word) for r in remedies(plan, candidates, resource, actual - limit)
    ]
    lines += changes or ["no sparsity or bits of any layer help; make layers smaller"]
    if resource == "cores" and actual > target.cores:
        larger = larger_targets(target, actual)
        if larger:
            lines.append(f"target {larger[0].name} has {larger[0].cores:,} cores")
        else:
            lines.append("no system known here is that large")
    return "\n".join(f"  - {line}" for line in lines)
