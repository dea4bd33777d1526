"""Cut layers into slices so that no capacity of a core is exceeded.

A core holds neurons of one layer, unless the target says that layers share cores. A dense layer is
cut into consecutive slices, of its neurons sorted by their parameters where that takes fewer, a
convolution into tiles of rows, columns and channels. The fewest cores are taken for which every
slice fits, then the fewest replicated axons, then the emptiest fullest core. Where not even single
neurons fit, that is reported as a fault, with the coarsest cut the sums of the resources would
allow.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import maximum_bipartite_matching

from osbc_deploy.arrays import IntArray
from osbc_deploy.chip.layers import Layer, Ranges, Usage
from osbc_deploy.chip.memory import MemoryBase
from osbc_deploy.chip.sharing import Part, shared_cores
from osbc_deploy.chip.target import Target

__all__ = ["Assignment", "arrange", "cut"]

Slice = tuple[Ranges, Usage]

_EXHAUSTIVE_PAIRS = 2000
"""Up to this many possible slices of a dense layer, the best cut is found exactly."""
_BALANCE = 32
"""The fullest core of a dense layer is at most a 32nd fuller than it needs to be."""


@dataclass(frozen=True, eq=False)
class Assignment:
    """The slices of one layer.

    Attributes
    ----------
    slices : tuple of (ranges, Usage)
    lower_bound : int
        Cores that no cut can do without.
    faults : tuple of str
    order : ndarray of int (n,) or None
        Neurons of a layer that was sorted, in the order that `slices` count them in.
    cores : tuple of int or None
        Of every slice, where layers share cores or the chip decides; otherwise each has its own.
    """

    slices: tuple[Slice, ...]
    lower_bound: int
    faults: tuple[str, ...] = ()
    order: IntArray | None = None
    cores: tuple[int, ...] | None = None


def arrange(layers: tuple[Layer, ...], target: Target) -> list[Assignment]:
    """Give every layer its slices, in the way the target's cores are used."""
    memory = target.memory
    if memory.arrangement == "together":
        return [
            _uncut(layer, memory, core=0, lower_bound=int(number == 0))
            for number, layer in enumerate(layers)
        ]
    if memory.arrangement == "one each":
        return _one_each(layers, memory, target.cores)
    found: dict[str, Assignment] = {}
    # From the output backwards: how many cores a layer's spikes go to is known by then.
    for layer in reversed(layers):
        found[layer.name] = cut(replace(layer, fan_out=_fan_out(layer, layers, found)), memory)
    parts = [found[layer.name] for layer in layers]
    return _packed(layers, parts, memory) if memory.packs else parts


def _packed(
    layers: tuple[Layer, ...], found: list[Assignment], memory: MemoryBase
) -> list[Assignment]:
    """Let slices of several layers share cores."""
    limits = memory.limits()
    parts = [
        Part(usage.used, layer.delay_bits)
        for layer, part in zip(layers, found, strict=True)
        for _, usage in part.slices
    ]
    cores = iter(shared_cores(parts, limits))
    least: Counter[str] = Counter()
    for layer in layers:
        least.update(memory.least(layer))
    lower = max(1, *(-(-used // limits[name]) for name, used in least.items()))
    return [
        replace(
            part,
            cores=tuple(next(cores) for _ in part.slices),
            # A bound of all layers together, counted once.
            lower_bound=lower if number == 0 else 0,
        )
        for number, part in enumerate(found)
    ]


def _uncut(layer: Layer, memory: MemoryBase, core: int, lower_bound: int) -> Assignment:
    usage = memory.cost(layer, layer.whole)
    return Assignment(((layer.whole, usage),), lower_bound, cores=(core,))


def _one_each(layers: tuple[Layer, ...], memory: MemoryBase, cores: int) -> list[Assignment]:
    """Match layers with cores that hold them; those without one go to the cores left."""
    usages = [memory.cost(layer, layer.whole) for layer in layers]
    able = np.array(
        [[not usage.excess(memory.core_limits(core)) for core in range(cores)] for usage in usages]
    )
    match = maximum_bipartite_matching(csr_array(able), perm_type="column").tolist()
    free = [core for core in range(cores) if core not in match]
    # Beyond the last core there are only numbers, for the report to count.
    spare = iter([*free, *range(cores, cores + len(layers))])
    match = [core if core >= 0 else next(spare) for core in match]
    return [
        Assignment(((layer.whole, usage),), 1, cores=(core,))
        for layer, usage, core in zip(layers, usages, match, strict=True)
    ]


def _fan_out(layer: Layer, layers: tuple[Layer, ...], found: dict[str, Assignment]) -> IntArray:
    """Return how many cores each neuron's spikes go to, of the layers that are cut."""
    cores = np.zeros(layer.size, np.int64)
    for post in layers:
        if post.name not in found or all(a.pre != layer.name for a in post.afferents):
            continue
        part = found[post.name]
        heard = (post if part.order is None else post.ordered(part.order)).afferents
        for number, afferent in enumerate(heard):
            if afferent.pre == layer.name:
                for ranges, usage in part.slices:
                    cores += afferent.sources(ranges, stored=usage.keeps_zeros(number))
    # The host reads the output; a recurrent layer is not cut yet and counts as one core.
    return np.maximum(cores, 1)


def cut(layer: Layer, memory: MemoryBase) -> Assignment:
    """Cut one layer into the fewest slices that fit."""
    limits = memory.limits()
    lower = max(1, *(-(-used // limits[name]) for name, used in memory.least(layer).items()))
    lower = min(lower, layer.size)

    def fits(usage: Usage) -> bool:
        return not usage.excess(limits)

    whole = (layer.whole, memory.cost(layer, layer.whole))
    if fits(whole[1]):
        return Assignment((whole,), lower)
    single, neuron = _smallest(layer, memory)
    if not fits(single):
        text = "; ".join(
            f"{name} {used:,} exceeds {limit:,} ({used - limit:,} over)"
            for name, (used, limit) in single.excess(limits).items()
        )
        fault = (
            f"{layer}: a core cannot hold neuron {neuron} alone: {text}. Prune its inputs, "
            "use fewer bits, or put a smaller layer before it"
        )
        coarse = tuple(
            (ranges, memory.cost(layer, ranges))
            for ranges in _product([_even(layer.shape[0], lower), *([r] for r in layer.whole[1:])])
        )
        return Assignment(coarse, lower, (fault,))
    if len(layer.shape) > 1:
        return Assignment(tuple(_tiles(layer, memory, fits, lower)), lower)
    best = Assignment(tuple(_linear(layer, memory, fits, lower)), lower)
    for order in _orders(layer):
        if len(best.slices) > lower:
            slices = _linear(layer.ordered(order), memory, fits, lower)
            if len(slices) < len(best.slices):
                best = Assignment(tuple(slices), lower, order=order)
    return best


def _orders(layer: Layer) -> list[IntArray]:
    """Return the neurons sorted by decays, then thresholds, and the other way round.

    A core holds so many sets of parameters; neurons of a set then lie beside each other. What is
    sorted already is left out.
    """
    sets, decays, thresholds = layer.neuron_sets, layer.decay_sets, layer.threshold_sets
    orders = [np.lexsort((sets, thresholds, decays))]
    other = np.lexsort((sets, decays, thresholds))
    if not np.array_equal(other, orders[0]):
        orders.append(other)
    return [order for order in orders if (np.diff(order) < 0).any()]


def _smallest(layer: Layer, memory: MemoryBase) -> tuple[Usage, int]:
    """Return the usage of the most demanding neuron on a core of its own."""
    if len(layer.shape) > 1:
        # The center of a convolution sees all of its window.
        at = tuple((n // 2, n // 2 + 1) for n in layer.shape)
        return memory.cost(layer, at), int(np.ravel_multi_index([r[0] for r in at], layer.shape))
    inputs = sum(
        (np.count_nonzero(a.nonzero, axis=1) for a in layer.afferents), np.zeros(layer.size, int)
    )
    worst = int(np.argmax(inputs))
    return memory.cost(layer, ((worst, worst + 1),)), worst


def _by_traffic(slices: list[Slice]) -> tuple[int, int]:
    return sum(u.axons for _, u in slices), max(u.words for _, u in slices)


def _linear(
    layer: Layer, memory: MemoryBase, fits: Callable[[Usage], bool], lower: int
) -> list[Slice]:
    """Cut a dense layer into consecutive slices."""
    size = layer.size
    if size * (size + 1) // 2 <= _EXHAUSTIVE_PAIRS:
        return _exhaustive(layer, memory, fits)
    filled = _filled(layer, memory, fits)
    options = [filled]
    # A slice may need less of one resource than a part of it, when its encoding changes; then
    # equal slices can do with fewer.
    for count in range(lower, len(filled) + 1):
        even = [(r, memory.cost(layer, r)) for r in _ranges(size, count)]
        if all(fits(usage) for _, usage in even):
            options.append(even)
            break
    # Slices as even as these can hardly be evened out; otherwise the lowest peak that needs no
    # more of them is looked for by halving.
    count = min(len(slices) for slices in options)
    options = [slices for slices in options if len(slices) == count]
    low = min(sum(usage.words for _, usage in slices) for slices in options) // count
    high = min(max(usage.words for _, usage in slices) for slices in options)
    while high - low > max(1, high // _BALANCE):
        middle = (low + high) // 2
        trial = _filled(layer, memory, fits, most_words=middle, most_slices=count)
        if trial:
            options.append(trial)
            high = middle
        else:
            low = middle
    return min(options, key=_by_traffic)


def _filled(
    layer: Layer,
    memory: MemoryBase,
    fits: Callable[[Usage], bool],
    *,
    most_words: int | None = None,
    most_slices: int | None = None,
) -> list[Slice]:
    """Fill core after core; the fewest slices there are, as usage only grows with the slice.

    Returns nothing where a neuron alone exceeds `most_words`, or `most_slices` are not enough.
    """
    slices: list[Slice] = []
    start, guess = 0, max(1, layer.size // (most_slices or 8))
    while start < layer.size:
        if most_slices is not None and len(slices) == most_slices:
            return []
        most = layer.size - start

        # From the previous slice's length: doubled until it fails, then halved.
        low, high = 0, most + 1
        probe = min(guess, most)
        best: Usage | None = None
        while high - low > 1:
            found = memory.cost(layer, ((start, start + probe),))
            if fits(found) and (most_words is None or found.words <= most_words):
                low, best = probe, found
            else:
                high = probe
            probe = min(2 * low, most) if high > most else (low + high) // 2
        if best is None:
            return []
        slices.append((((start, start + low),), best))
        start, guess = start + low, low
    return slices


def _exhaustive(layer: Layer, memory: MemoryBase, fits: Callable[[Usage], bool]) -> list[Slice]:
    """Return the best of all cuts into consecutive slices, by dynamic programming.

    For every end, the best way to cover the neurons before it has the fewest slices, then the
    fewest axons, then the lowest peak; each is a sum or a maximum, so the best is made of bests.
    """
    size = layer.size
    best: list[tuple[tuple[int, int, int], list[Slice]] | None] = [((0, 0, 0), [])]
    for stop in range(1, size + 1):
        found = None
        # Long slices first: they leave the fewest others, and what takes more is not looked at.
        for start in range(stop):
            before = best[start]
            if before is None:
                continue
            (count, axons, peak), slices = before
            if found is not None and (count + 1, axons, peak) > found[0]:
                continue
            usage = memory.cost(layer, ((start, stop),))
            key = (count + 1, axons + usage.axons, max(peak, usage.words))
            # Of equals the shortest slice.
            if fits(usage) and (found is None or key <= found[0]):
                found = (key, [*slices, (((start, stop),), usage)])
        best.append(found)
    whole = best[size]
    return whole[1] if whole is not None else []


def _tiles(
    layer: Layer, memory: MemoryBase, fits: Callable[[Usage], bool], lower: int
) -> list[Slice]:
    """Cut a convolution into the fewest even tiles that fit."""
    for count in range(lower, layer.size + 1):
        fitting = []
        for parts in _factorizations(count, layer.shape):
            slices = []
            for ranges in _product(
                [_even(size, part) for size, part in zip(layer.shape, parts, strict=True)]
            ):
                usage = memory.cost(layer, ranges)
                if not fits(usage):
                    break
                slices.append((ranges, usage))
            else:
                fitting.append(slices)
        if fitting:
            return min(fitting, key=_by_traffic)
    return []


def _ranges(size: int, parts: int) -> Iterator[Ranges]:
    return (((start, stop),) for start, stop in _even(size, parts))


def _even(size: int, parts: int) -> list[tuple[int, int]]:
    """Cut an axis into `parts` consecutive ranges, all of the same size but the last."""
    step = -(-size // parts)
    return [(start, min(start + step, size)) for start in range(0, size, step)]


def _factorizations(count: int, shape: tuple[int, ...]) -> list[tuple[int, ...]]:
    """Return the ways to cut an n-dimensional shape into exactly `count` pieces."""
    if len(shape) == 1:
        return [(count,)] if len(_even(shape[0], count)) == count else []
    ways = []
    for rest in _divisors(count):
        first = count // rest
        if first <= shape[0] and len(_even(shape[0], first)) == first:
            ways += [(first, *tail) for tail in _factorizations(rest, shape[1:])]
    return ways


def _divisors(count: int) -> list[int]:
    return [d for d in range(1, count + 1) if count % d == 0]


def _product(axes: list[list[tuple[int, int]]]) -> list[Ranges]:
    tiles: list[Ranges] = [()]
    for axis in axes:
        tiles = [(*tile, part) for tile in tiles for part in axis]
    return tiles
