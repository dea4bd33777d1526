"""Place cores on the mesh of the chips so that spikes travel few hops.

The cost is the sum over pairs of cores of spikes times hops (a quadratic assignment problem).
The search starts from the layers in order, row by row and in a serpentine, and swaps cores (or
moves them to free places) while that helps; every swap of a core is scored at once. That gets
stuck, so swaps that cost something are tried as well (:mod:`.anneal`), in several runs where there
are few cores.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array

from osbc_deploy.arrays import IntArray
from osbc_deploy.chip.anneal import anneal
from osbc_deploy.chip.target import Target

__all__ = ["Placement", "place"]

_WORK = 2e9
"""Multiplications spent on improving a placement (some ten seconds); small meshes need far less."""
_ANNEALED = 2**28
"""Hops evaluated by annealing, in all (a second or two)."""
_STAGES, _RUNS = 400, 8
"""Thresholds of a run, and most runs."""
_NEARBY = 8
_RANDOM_TRIALS = 5
_FRACTION = 20
"""Binary digits kept of the spikes between two cores, where sums have room for them."""


@dataclass(frozen=True, eq=False)
class Placement:
    """Where every core lies.

    Attributes
    ----------
    chip : ndarray of int (cores,)
    x, y : ndarray of int (cores,)
        Position on the chip's mesh.
    spike_hops : float
        Sum of spikes times hops.
    layer_order, random_order : float
        The same for the cores in the order of the layers, and in random order (a mean).
    """

    chip: IntArray
    x: IntArray
    y: IntArray
    spike_hops: float
    layer_order: float
    random_order: float

    def routers(self, target: Target) -> tuple[IntArray, IntArray]:
        """Return the column and row of each core's router, over all chips."""
        mesh = target.mesh
        assert mesh is not None  # noqa: S101 - what was placed has a mesh
        columns, rows = mesh.cores_of_router
        chip_y, chip_x = np.divmod(self.chip, mesh.chips.value[0])
        width, height = mesh.size.value
        return (chip_x * width + self.x) // columns, (chip_y * height + self.y) // rows


def place(spikes: csr_array, target: Target, seed: int = 0) -> Placement | None:
    """Place cores on the target's mesh.

    Parameters
    ----------
    spikes : csr_array (cores, cores)
        Sent from each core (row) to each other.
    target : Target
    seed : int
        Of the random order that is reported for comparison.

    Returns
    -------
    Placement or None
        None for a target without a mesh, or with fewer places than cores.
    """
    count = spikes.shape[0]
    if target.mesh is None or count > target.cores or count == 0:
        return None
    places = _Places.of(target, count)
    both, fraction = _whole(csr_array(spikes + spikes.T), places)
    in_order = np.arange(count)
    starts = [_improve(both, start, places) for start in (in_order, places.serpentine(count))]
    starts += _annealed(both, min(starts, key=lambda order: places.cost(both, order)), places)
    best = min(starts, key=lambda order: places.cost(both, order))
    rng = np.random.default_rng(seed)
    shuffled = [
        places.cost(both, rng.permutation(places.size)[:count]) for _ in range(_RANDOM_TRIALS)
    ]
    return Placement(
        places.chip[best],
        places.x[best],
        places.y[best],
        places.cost(both, best) * fraction,
        places.cost(both, in_order) * fraction,
        sum(shuffled) * fraction / _RANDOM_TRIALS,
    )


def _whole(both: csr_array, places: _Places) -> tuple[csr_array, float]:
    """Return spikes as whole numbers of a fraction, which no sum of spikes times hops overflows.

    Sums of whole numbers are exact: equal places are equal, whoever adds up.
    """
    both.setdiag(0)
    both.eliminate_zeros()
    farthest = int(np.ptp(places.at, axis=1).sum())
    _, size = math.frexp(float(both.data.max(initial=0.0)))
    room = 62 - size - (4 * both.nnz * max(1, farthest)).bit_length()
    digits = min(_FRACTION, room)
    whole = np.rint(np.ldexp(both.data, digits)).astype(np.int64)
    made = csr_array((whole, both.indices, both.indptr), shape=both.shape)
    made.eliminate_zeros()
    return made, math.ldexp(1.0, -digits)


@dataclass(frozen=True, eq=False)
class _Places:
    """All places of as many chips as are needed, in the order of chips and rows.

    Attributes
    ----------
    chip, x, y : ndarray of int (places,)
    at : ndarray of int (4, places)
        Column and row of the router over all chips, and the chip's column and row times the extra
        hops of a crossing: the hops between places are the sum of the differences.
    """

    chip: IntArray
    x: IntArray
    y: IntArray
    at: IntArray

    @classmethod
    def of(cls, target: Target, count: int) -> _Places:
        """Return the places of the chips that this many cores need."""
        mesh = target.mesh
        assert mesh is not None  # noqa: S101 - the caller has looked
        per_chip = target.chip.cores.value
        (width, height), (across, _) = mesh.size.value, mesh.chips.value
        chip, local = np.divmod(np.arange(-(-count // per_chip) * per_chip), per_chip)
        y, x = np.divmod(local, width)
        chip_y, chip_x = np.divmod(chip, across)
        extra = mesh.chip_hops.value - 1
        columns, rows = mesh.cores_of_router
        at = np.stack(
            [
                (chip_x * width + x) // columns,
                (chip_y * height + y) // rows,
                chip_x * extra,
                chip_y * extra,
            ]
        )
        return cls(chip, x, y, at)

    @property
    def size(self) -> int:
        """Number of places."""
        return len(self.chip)

    def between(self, place: int, others: IntArray) -> IntArray:
        """Return the hops from one place to others."""
        return np.asarray(np.abs(self.at[:, others] - self.at[:, [place]]).sum(axis=0))

    def nearby(self) -> IntArray:
        """Return the places near each place (places, k), the nearest first."""
        near = min(_NEARBY, self.size - 1)
        found = np.empty((self.size, near), np.int64)
        everywhere = np.arange(self.size)
        for place in range(self.size):
            hops = self.between(place, everywhere)
            hops[place] = hops.max() + 1
            found[place] = np.argsort(hops, kind="stable")[:near]
        return found

    def cost(self, spikes: csr_array, order: IntArray) -> int:
        """Return spikes times hops, `spikes` being symmetric and each pair counted once."""
        pairs = spikes.tocoo()
        source, sink = order[pairs.coords[0]], order[pairs.coords[1]]
        hops = np.abs(self.at[:, source] - self.at[:, sink]).sum(axis=0)
        return int((pairs.data * hops).sum()) // 2

    def serpentine(self, count: int) -> IntArray:
        """Return the first places row by row, every other row from the right."""
        run = np.where(self.y % 2 == 0, self.x, -self.x)
        order: IntArray = np.lexsort((run, self.y, self.chip))
        return order[:count]


def _annealed(spikes: csr_array, start: IntArray, places: _Places) -> list[IntArray]:
    """Return what annealing makes of a placement, in as many runs as there is work for."""
    count = len(start)
    if places.size < 2 or spikes.nnz == 0:
        return []
    # A swap looks at the neighbors of two cores.
    look = 2 * spikes.nnz / count + 8
    swaps = count * (count + 4)
    runs = max(1, min(_RUNS, int(_ANNEALED / (look * _STAGES * swaps))))
    swaps = max(1, min(swaps, int(_ANNEALED / (look * _STAGES * runs))))
    nearby = places.nearby()
    found = []
    for run in range(runs):
        order = start.astype(np.int64)
        holder = np.full(places.size, -1)
        holder[order] = np.arange(count)
        anneal(
            spikes.indptr.astype(np.int64), spikes.indices.astype(np.int64), spikes.data,
            places.at, nearby, order, holder, _STAGES, swaps, run + 1,
        )  # fmt: skip
        found.append(_improve(spikes, order, places))
    return found


def _improve(spikes: csr_array, start: IntArray, places: _Places) -> IntArray:
    """Swap cores while the cost falls; the best swap of one core after the other.

    Moving core i from p to q and what lies at q to p changes the cost by
    ``C_i(q) - C_i(p) + C_k(p) - C_k(q) + 2 s_ik d(p, q)`` with ``C_i(q) = sum_j s_ij d(q, p_j)``.
    """
    count, size = len(start), places.size
    order: IntArray = start.copy()
    holder = np.full(size, -1)
    holder[order] = np.arange(count)
    indptr, indices, data = spikes.indptr, spikes.indices, spikes.data
    # C_k at each core's own place, kept up to date with every move.
    own = np.array(
        [
            data[indptr[k] : indptr[k + 1]]
            @ places.between(order[k], order[indices[indptr[k] : indptr[k + 1]]])
            for k in range(count)
        ]
    )
    work, improved = 0, True
    while improved and work < _WORK:
        improved = False
        for i in range(count):
            neighbors = indices[indptr[i] : indptr[i + 1]]
            if len(neighbors) == 0:
                continue
            weight: IntArray = data[indptr[i] : indptr[i + 1]]
            p = order[i]
            # C_i(q) for all q: a sum over the neighbors of distances along each axis.
            there = _to_all(places, order[neighbors], weight)
            from_p = places.between(p, order)
            # C_k(p) for every other core k: distances from p, weighted by what k exchanges.
            back = spikes @ from_p
            delta = there - own[i]
            occupied = holder >= 0
            k = holder[occupied]
            delta[occupied] += back[k] - own[k]
            delta[order[neighbors]] += 2 * weight * from_p[neighbors]
            delta[p] = 0
            q = int(delta.argmin())
            work += len(data) + 4 * size + len(neighbors)
            if delta[q] < 0:
                improved = True
                other = int(holder[q])
                holder[q], holder[p] = i, other
                for core, end in ((i, q), (other, p))[: 2 if other >= 0 else 1]:
                    part = slice(indptr[core], indptr[core + 1])
                    near, sent = indices[part], data[part]
                    before = places.between(order[core], order[near])
                    own[near] += sent * (places.between(end, order[near]) - before)
                    order[core] = end
                for core in (i, other)[: 2 if other >= 0 else 1]:
                    part = slice(indptr[core], indptr[core + 1])
                    own[core] = data[part] @ places.between(order[core], order[indices[part]])
    return order


def _to_all(places: _Places, at: IntArray, weight: IntArray) -> IntArray:
    """Return the weighted hops from some places to every place.

    Along each axis the weighted distance is the same for all places of a coordinate, so it is
    computed once for each coordinate.
    """
    total: IntArray = np.zeros(places.size, np.int64)
    for axis in places.at:
        low = axis.min()
        span = np.arange(low, axis.max() + 1)
        distance = np.abs(span[:, None] - axis[at][None]) @ weight
        total += distance[axis - low]
    return total
