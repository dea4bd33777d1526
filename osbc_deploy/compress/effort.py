"""What the compression of a network takes, known before it starts.

Work is counted from shapes, and from how many weights LAMPS leaves to each layer, in operations of
four kinds; how many of each kind a second holds is measured on the machine at hand (:mod:`.pace`).
So the counts are the same everywhere, and the seconds are those of here and now.
"""

from __future__ import annotations

import math

import numpy as np

from osbc_deploy.compress.allocation import lamps_allocation, uniform_allocation
from osbc_deploy.compress.hessian import groups_of, rows_of
from osbc_deploy.compress.matching import RATE_STEPS, keeps_currents, rated_samples
from osbc_deploy.compress.options import CompressionOptions
from osbc_deploy.compress.ranking import expected_work
from osbc_deploy.compress.sampling import CHUNK, ROWS_PER_INPUT, rows_wanted
from osbc_deploy.compress.scene import HELD_OUT
from osbc_deploy.compress.solver_memory import hessian_bytes, matrices_of, run_bytes
from osbc_deploy.compress.support import SPARSE
from osbc_deploy.compress.tuning import CODED_WAYS, FEW_BITS, PULLS
from osbc_deploy.compress.work import Effort, LayerEffort, Work
from osbc_deploy.model.graph import Network, Population, Projection

__all__ = ["effort_of"]

_STEP = 14
"""Passes over a population's activity that a step takes: neuron, copies, counts, bits."""

_FIRED = 7
"""The same of a step whose currents are known."""

_TRACE = 1.5
"""The same of a filtered and rounded spike, in the cache."""

_TAKEN = 16
"""The same of a spike that is taken as it was, from its bit."""

_UNFOLD = 2
"""The same of a number of an unfolded row."""

_SUMMED = 6
"""The same of a number of the Hessian, for each product of rows that is added to it."""

_SCALES = 12
"""Scales tried for each row."""

_SORTED = 300
"""Passes that sorting a layer's weights three times takes: for its share, its rows, its mask."""

_PRODUCT = 4.0
"""Multiplications of a weight with an entry of the Hessian, slices counted."""


def effort_of(
    network: Network,
    samples: int,
    steps: int,
    options: CompressionOptions,
    *,
    tuned: bool,
) -> Effort:
    """Count what a compression takes.

    Where losses decide how many weights each layer keeps, layers are counted as by LAMPS.

    Parameters
    ----------
    network : Network
    samples, steps : int
        For calibration.
    options : CompressionOptions
    tuned : bool
        Whether variants are tried.
    """
    once = {p.name: _simulated(network, p) * steps for p in network.populations}
    taken = {
        p.name: Work(passes=float(_TAKEN) * steps * _heard(network, p)) for p in network.populations
    }
    keep = _kept(network, options)
    names = list(once)
    behind = {
        name: sum((once[n] for n in names[number:]), Work()) for number, name in enumerate(names)
    }
    found = []
    for population in network.trained:
        name = population.name
        work, coding, rows, of = _solved(network, population, samples, steps, keep[name], options)
        work += coding
        solves, cross, ways = 1, 1, 0
        if options.method == "magnitude" and not options.joint:
            size = _outputs(network, population) * _fan_in(network, population)
            rounded = (_SORTED + 10.0 * _SCALES) * size
            traced = 2.0 * samples * steps * _heard(network, population)
            work, rows = Work(passes=traced + rounded), 0
        elif tuned:
            cross = 1 if population is network.populations[0] else 2
            biased = any(p.connection.bias is not None for p in network.afferents(name))
            solves = cross * (1 + biased)
            ways = CODED_WAYS if 1 < options.bits <= FEW_BITS else 0
        shifts = population.neuron.spiking and population.neuron.reset_rule().kind == "zero"
        judged = solves * (2 if shifts else 1) + ways if tuned else 0
        solved = _moments(network, population, rows, samples, steps) * (1.5 * cross)
        if tuned:
            work = work * (solves + 1) + coding * ways
            work += _pulled(network, population) * ((cross - 1.0) * solves / cross)
            work += (behind[name] + taken[name]) * (judged * samples / HELD_OUT)
            if shifts:
                few = rated_samples(samples, steps, population)
                runs, more = RATE_STEPS, 0
                if keeps_currents(network, population, (few, steps), options.solver_memory):
                    runs, more = 1, RATE_STEPS
                searched = (once[name] + taken[name]) * runs
                searched += Work(passes=float(_FIRED) * steps * population.size) * more
                work += searched * ((solves + ways + 1.0) * few)
            work += (once[name] + taken[name]) * samples
        matrices = matrices_of(options, tuned=tuned)
        found.append(
            LayerEffort(
                " + ".join(p.name for p in network.afferents(name)),
                _outputs(network, population),
                _fan_in(network, population),
                rows,
                of,
                work + solved,
                hessian_bytes(network, population, matrices, steps) if rows else 0,
            )
        )
    run = sum(once.values(), Work()) * samples
    return Effort(
        samples, steps, run, run_bytes(network, samples, steps, tuned=tuned), tuple(found)
    )


def _kept(network: Network, options: CompressionOptions) -> dict[str, int]:
    """Return how many weights each population keeps."""
    sizes, weights = {}, {}
    for population in network.trained:
        afferents = network.afferents(population.name)
        sizes[population.name] = size = sum(p.connection.weight.size for p in afferents)
        chosen = [options.layers[p.name] for p in afferents if p.name in options.layers]
        if chosen:
            sizes[population.name] = max(1, size - round(chosen[0].sparsity * size))
        elif all(p.compressible for p in afferents):
            weights[population.name] = np.concatenate(
                [p.connection.weight.ravel() for p in afferents]
            )
    if options.allocation == "uniform" or options.method == "magnitude" or len(weights) < 2:
        found = uniform_allocation([w.size for w in weights.values()], options.sparsity)
    else:
        found = lamps_allocation(list(weights.values()), options.sparsity)
    return sizes | dict(zip(weights, found, strict=True))


def _simulated(network: Network, population: Population) -> Work:
    """Return the work of one step of a population."""
    # Two exact parts, in maps that the cache does not hold as it does those of the measurement.
    parts = 3 if network.dtype == "float32" else 6
    afferents = network.afferents(population.name)
    currents = sum(parts * network.multiplications(p) for p in afferents)
    return Work(currents=float(currents), passes=float(_STEP * population.size))


def _places(network: Network, projection: Projection) -> int:
    return rows_of(projection, (1, 1, *network.shape_of(projection.pre)))


def _fan_in(network: Network, population: Population) -> int:
    return sum(p.connection.fan_in for p in network.afferents(population.name))


def _outputs(network: Network, population: Population) -> int:
    return len(network.afferents(population.name)[0].connection.weight)


def _heard(network: Network, population: Population) -> int:
    return sum(math.prod(network.shape_of(p.pre)) for p in network.afferents(population.name))


def _solved(
    network: Network,
    population: Population,
    samples: int,
    steps: int,
    keep: int,
    options: CompressionOptions,
) -> tuple[Work, Work, int, int]:
    """Return the work of pruning without moments, that of codes, and the rows of the Hessian."""
    afferents = network.afferents(population.name)
    groups, n = groups_of(afferents), _fan_in(network, population)
    outputs = _outputs(network, population)
    of = samples * steps * max(_places(network, p) for p in afferents)
    wanted = None
    if afferents[0].connection.convolutional:
        wanted = rows_wanted(groups, n, of, ROWS_PER_INPUT)
    rows = of if wanted is None else min(of, wanted)
    size = outputs * n
    k = keep / outputs
    # Targets, and two losses where not few are left.
    products = _PRODUCT * (1 if keep <= SPARSE * size else 3) * size * n
    loops = 0.0
    if keep < size:
        loops += expected_work(groups, outputs // groups, n, keep, exact=options.method == "paper")
        loops += outputs * k**3 / 3.0
        codes = Work(
            passes=3.0 * _SCALES * size, loops=outputs * (k**3 / 6.0 + _SCALES * 2.0 * k**2)
        )
    else:
        # A factor for the scales that are tried and one for the codes, by one thread.
        codes = Work(
            passes=10.0 * _SCALES * size,
            products=float(_SCALES + 6) * size * n,
            loops=2.0 * groups * n**3 / 3.0,
        )
    return Work(products=products, loops=loops), codes, rows, of


def _pulled(network: Network, population: Population) -> Work:
    """Return the work of the targets that a cross term is tried with."""
    groups, n = groups_of(network.afferents(population.name)), _fan_in(network, population)
    outputs = _outputs(network, population)
    # Targets and what they lose on held-out samples, and a factor of what they are held by.
    solved = Work(products=1.5 * _PRODUCT * outputs * n * n, loops=groups * n**3 / 3.0)
    return (solved + Work(loops=float(outputs) * n * n)) * len(PULLS)


def _moments(network: Network, population: Population, rows: int, samples: int, steps: int) -> Work:
    """Return the work of adding up the moments of rows."""
    if not rows:
        return Work()
    afferents = network.afferents(population.name)
    groups, n = groups_of(afferents), _fan_in(network, population)
    traced = _TRACE * samples * steps * _heard(network, population)
    unfolded = float(_UNFOLD) * rows * groups * n
    added = float(_SUMMED) * groups * n * n * (rows / CHUNK + 1.0)
    return Work(passes=traced + unfolded + added, products=float(rows) * groups * n * n)
