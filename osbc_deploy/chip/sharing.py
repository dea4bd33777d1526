"""Several layers on one core, where the target says that its cores can do that."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

__all__ = ["Part", "shared_cores"]


@dataclass(frozen=True)
class Part:
    """What one slice takes of a core.

    Attributes
    ----------
    used : dict of int
        Of every resource; on a core that several share, tables lie one behind the other.
    delay_bits : int
        Of its synapses; a core has one width for all.
    """

    used: Mapping[str, int]
    delay_bits: int


def shared_cores(parts: Sequence[Part], limits: Mapping[str, int]) -> list[int]:
    """Return a core for every part, few in all: the largest first, each where there is room.

    Parameters
    ----------
    parts : sequence of Part
        Each alone is within the limits, or gets a core of its own.
    limits : dict of int
        Of a core.

    Returns
    -------
    list of int
        Cores are numbered in the order of their first parts.
    """
    bins: list[tuple[int, Counter[str]]] = []
    found = [0] * len(parts)
    # Shares are compared as whole numbers, so that no machine orders them otherwise.
    most = {name: max(1, limit) for name, limit in limits.items()}
    sizes = [max((used << 32) // most[n] for n, used in part.used.items()) for part in parts]
    for number in sorted(range(len(parts)), key=lambda n: (-sizes[n], n)):
        part = parts[number]
        free = (place for place, core in enumerate(bins) if _takes(*core, part, limits))
        place = next(free, len(bins))
        if place == len(bins):
            bins.append((part.delay_bits, Counter()))
        bins[place][1].update(part.used)
        found[number] = place
    order = {place: number for number, place in enumerate(dict.fromkeys(found))}
    return [order[place] for place in found]


def _takes(delay_bits: int, used: Counter[str], part: Part, limits: Mapping[str, int]) -> bool:
    room = all(used[name] + more <= limits[name] for name, more in part.used.items())
    return room and delay_bits == part.delay_bits
