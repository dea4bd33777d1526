"""Remove whole hidden neurons, of convolutions whole channels, before weights are pruned.

A neuron is worth what its removal costs the layers behind it: block elimination over all of their
rows (:func:`.patterns.input_order`), relative to what all of their weights are worth. Neurons are
then removed across layers, those first that cost least for the state they take. Weights behind what
is gone are solved again, layer by layer, with the cross term and the bias of :mod:`.tuning`. Of
several ways to share the removed neurons among layers, the one with the least error of the
network's output on held-out calibration samples is taken, and the weights stay as they were where
that serves the output better.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from osbc_deploy.arrays import BoolArray, FloatArray, SpikeArray
from osbc_deploy.compress.activity import ACTIVITY, active
from osbc_deploy.compress.augmentation import copies
from osbc_deploy.compress.calibration import float_run, scene_of
from osbc_deploy.compress.cutting import Thinned, Units, between, cut, units_of
from osbc_deploy.compress.kernels import factorized, invert
from osbc_deploy.compress.options import CompressionOptions
from osbc_deploy.compress.patterns import input_order
from osbc_deploy.compress.problem import LayerProblem, settled_bias
from osbc_deploy.compress.scene import HELD_OUT, MIN_HELD_OUT
from osbc_deploy.compress.shared import Shared
from osbc_deploy.compress.tuning import restored
from osbc_deploy.deviations import Deviation
from osbc_deploy.model.graph import INPUT, Network, Population, Projection
from osbc_deploy.model.raster import Raster, part_of
from osbc_deploy.progress import SILENT, Progress, task

__all__ = ["Worth", "irremovable", "least_loss", "least_share", "thinned", "worths"]

Fits: TypeAlias = Callable[[Mapping[str, int]], bool]
"""Whether this many neurons, by population, fit."""


@dataclass(frozen=True, eq=False)
class Worth:
    """What the units of a population are worth to the layers that it feeds.

    Attributes
    ----------
    population : Population
    values : ndarray (units,)
        Relative membrane loss of the layers behind, when a unit goes after all that are worth less.
    """

    population: Population
    values: FloatArray

    @property
    def each(self) -> int:
        """Neurons of a unit."""
        return self.population.size // len(self.values)


def worths(network: Network, problems: Sequence[LayerProblem]) -> dict[str, Worth]:
    """Return what the units of all populations that can lose some are worth.

    Parameters
    ----------
    network : Network
    problems : sequence of LayerProblem
        Of all trained populations.
    """
    by_name = {p.afferents[0].post: p for p in problems}
    found: dict[str, Worth] = {}
    for population in network.populations:
        if not _removable(network, population):
            continue
        units = population.shape[0]
        total = np.zeros(units)
        for post in dict.fromkeys(p.post for p in network.projections if p.pre == population.name):
            total += _missed(by_name[post], population.name, units)
        found[population.name] = Worth(population, total)
    return found


def _removable(network: Network, population: Population) -> bool:
    """Tell whether single units of a population can go: trained weights all around, no groups."""
    around = [p for p in network.projections if population.name in (p.pre, p.post)]
    exact = {p.name for p in network.populations if p.neuron.exact}
    return (
        population is not network.output
        and population.name not in exact
        and any(p.pre == population.name for p in around)
        and all(p.compressible and p.connection.groups == 1 and p.post not in exact for p in around)
    )


def irremovable(network: Network, found: Mapping[str, Worth]) -> Iterator[Deviation]:
    """Name the hidden populations that cannot lose a neuron, which :func:`worths` leaves out."""
    for population in network.populations:
        name = population.name
        if population is network.output or population.neuron.exact:
            continue
        if name not in found:
            text = (
                "no neuron can be removed: what it hears or what hears it is a gate, a convolution "
                "in groups, or not trained"
            )
        elif len(found[name].values) == 1:
            text = f"no neuron can be removed: the one {_unit(population)} stays"
        else:
            continue
        yield Deviation("compress", name, text)


def _unit(population: Population) -> str:
    return "channel" if len(population.shape) > 1 else "neuron"


def _missed(problem: LayerProblem, pre: str, units: int) -> FloatArray:
    """Return what one layer misses of each unit of a population, relative to all its weights."""
    (W,), (d,) = problem.blocks, problem.damped
    H = d.whole()
    inverse = np.empty_like(H)
    invert(factorized(H.copy()), inverse)
    missed = np.zeros(units)
    start = 0
    for projection in problem.afferents:
        part = slice(start, start + projection.connection.fan_in)
        start = part.stop
        if projection.pre != pre:
            continue
        own = H
        if len(problem.afferents) > 1:
            # What the other inputs can make up for is no loss.
            own = np.empty((part.stop - part.start,) * 2)
            invert(factorized(inverse[part, part].copy()), own)
        order, rise = input_order(W[:, part], own, projection.connection.fan_in // units)
        missed[order] += np.maximum.accumulate(rise[::-1])[::-1]
    return missed / problem.whole if problem.whole > 0 else missed


def shares(found: Mapping[str, Worth], share: float) -> Iterator[Units]:
    """Yield ways to remove a share of the neurons, the plainest last: what stays, by population.

    Parameters
    ----------
    found : dict of Worth
    share : float
        Of all neurons of these populations.
    """
    wanted = share * sum(w.population.size for w in found.values())
    for power in (1.0, 0.5):
        entries = sorted(
            (float(value) ** power / w.each, name, unit)
            for name, w in found.items()
            for unit, value in enumerate(w.values)
        )
        stay = {name: np.ones(len(w.values), bool) for name, w in found.items()}
        gone = 0
        for _, name, unit in entries:
            if gone >= wanted - 1e-6:
                break
            if stay[name].sum() > 1:
                stay[name][unit] = False
                gone += found[name].each
        yield stay
    yield {
        name: _most(w.values, max(1, round((1.0 - share) * len(w.values))))
        for name, w in found.items()
    }


def _most(values: FloatArray, count: int) -> BoolArray:
    stay = np.zeros(len(values), bool)
    stay[np.argsort(-values, kind="stable")[:count]] = True
    return stay


def least_share(network: Network, found: Mapping[str, Worth], fits: Fits) -> float:
    """Return the least share of the neurons without which those that are left fit.

    Of the first way of :func:`shares`; 1 where none do.
    """
    total = sum(worth.population.size for worth in found.values())
    if not total or fits(_sizes(network, {})):
        return 0.0
    low, high = 0, total
    while high - low > 1:
        middle = (low + high) // 2
        if fits(_sizes(network, next(shares(found, middle / total)))):
            high = middle
        else:
            low = middle
    return high / total


def _sizes(network: Network, units: Units) -> dict[str, int]:
    """Return the neurons that stay, by population."""
    return {
        p.name: p.size // p.shape[0] * int(units[p.name].sum()) if p.name in units else p.size
        for p in network.populations
    }


def _ways(network: Network, found: Mapping[str, Worth], share: float, fits: Fits) -> list[Units]:
    """Return the different ways to remove a share of the neurons: those that fit, if any do."""
    every = {p.name: np.ones(p.shape[0], bool) for p in network.populations}
    ways = [{**every, **units} for units in shares(found, share)]
    by_bytes = {tuple(m.tobytes() for m in units.values()): units for units in ways}
    different: list[Units] = list(by_bytes.values())
    return [units for units in different if fits(_sizes(network, units))] or different


def least_loss(found: Mapping[str, Worth], share: float) -> float:
    """Return the least loss of a share of the neurons, counted as :attr:`.Thinned.loss`."""
    return lost_with(found, next(shares(found, share)))


def lost_with(found: Mapping[str, Worth], units: Units) -> float:
    """Return the relative membrane losses of what is gone, added."""
    return sum(float(w.values[~units[name]].sum()) for name, w in found.items())


def thinned(
    network: Network,
    calibration: SpikeArray,
    options: CompressionOptions,
    found: Mapping[str, Worth],
    share: float,
    *,
    fits: Fits = lambda _: True,
    shared: Shared | None = None,
    progress: Progress = SILENT,
) -> Thinned:
    """Return a network without a share of its hidden neurons.

    Parameters
    ----------
    network : Network
    calibration : ndarray of uint8 (n, T, *input_shape)
    options : CompressionOptions
    found : dict of Worth
        From :func:`worths`.
    share : float
    fits : callable, optional
        Whether so many neurons of each population fit: of the ways to remove the share only those
        are taken whose neurons do, if any.
    shared : Shared, optional
    """
    tried: list[Thinned] = []
    # Fewer than can judge are not made enough by copies.
    enough = len(calibration) >= HELD_OUT * MIN_HELD_OUT
    calibration = copies(network, calibration, options).add(calibration)
    asked = _ways(network, found, share, fits)
    with task(progress, "neurons", len(asked)):
        for units in asked:
            lost = lost_with(found, units)
            for again in (True, False):
                whole, error = _solved(
                    network, calibration, options, units, shared or Shared(),
                    again=again, enough=enough,
                )  # fmt: skip
                tried.append(Thinned(network, cut(whole, units), units, lost, error))
            progress.advance()
    return min(tried, key=lambda t: t.error)


def _solved(
    network: Network,
    calibration: SpikeArray,
    options: CompressionOptions,
    units: Units,
    shared: Shared,
    *,
    again: bool,
    enough: bool,
) -> tuple[Network, float]:
    """Return the network with nothing from and to what is gone, and the output's held-out error.

    The weights behind are solved `again` where there are `enough` samples, or as they were.
    """
    space, memory = options.space(), options.solver_memory // ACTIVITY
    run = shared.take(
        ("float run", len(calibration)),
        lambda: float_run(network, calibration, 64, SILENT, space=space),
    )
    judges = slice(HELD_OUT - 1, None, HELD_OUT)
    arriving: dict[str, Raster] = {INPUT: calibration}
    changed = network
    lost = False
    for population in network.populations:
        afferents = network.afferents(population.name)
        weights = {p.name: p.connection.weight for p in afferents}
        biases = {p.name: p.connection.bias for p in afferents if p.connection.bias is not None}
        if again and lost and enough and all(p.compressible for p in afferents):
            scene = scene_of(
                network, population, calibration, run, arriving, options, SILENT, shared
            )
            problem = restored(scene)
            solved = _split(afferents, problem.blocks)
            weights |= solved
            bias = settled_bias(problem, problem.blocks)
            if bias is not None:
                biases[afferents[0].name] = bias
        for p in afferents:
            pre, post = units_of(network, units, p.pre), units[p.post]
            weights[p.name] = between(weights[p.name], pre, post)
            if p.name in biases:
                biases[p.name] = biases[p.name] * post
        changed = changed.with_weights(
            {name: w.astype(network.dtype) for name, w in weights.items()},
            {name: b.astype(network.dtype) for name, b in biases.items()},
        )
        lost = lost or not units[population.name].all()
        if lost and population is not network.output:
            after = active(
                changed,
                calibration,
                space,
                pack={population.name},
                given=arriving,
                until=population.name,
                output=False,
                memory=memory,
            )
            arriving |= after.packed
        elif population is not network.output and population.name in run.packed:
            arriving[population.name] = run.packed[population.name]
    part = judges if enough else slice(None)
    given = {name: part_of(raster, part) for name, raster in arriving.items()}
    done = active(changed, calibration[part], space, given=given, memory=memory)
    got = done.output.sum(axis=1, dtype=np.float64).reshape(len(done.output), -1)
    wanted = run.output[part].sum(axis=1, dtype=np.float64).reshape(got.shape)
    square = float((wanted**2).sum(axis=1).mean())
    return changed, float(((got - wanted) ** 2).sum(axis=1).mean()) / (square or 1.0)


def _split(afferents: Sequence[Projection], blocks: FloatArray) -> dict[str, FloatArray]:
    """Return weights (groups, rows, fan_in) by projection, in their shapes."""
    found, start = {}, 0
    for p in afferents:
        stop = start + p.connection.fan_in
        found[p.name] = blocks[:, :, start:stop].reshape(p.connection.weight.shape)
        start = stop
    return found
