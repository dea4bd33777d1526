"""Leave out neurons that make no difference: those that feed nothing, and those that never fire.

A neuron is heard if it is an output, or if a weight that is not 0 leads from it to a neuron that
is heard: what only unheard neurons hear goes too, loops among them as well. A neuron that no
weight of a firing one reaches, and that its bias does not bring to its threshold, never fires, so
that nothing is lost with it. All neurons that stay fire what they fired; not one bit changes.

Neurons of rows and columns share their channel's kernel, which places must form a grid for, so
there whole channels go. Where weights have an N:M pattern, M neurons or channels in a row stay or
go as one, so that its groups stay groups.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from osbc_deploy.arrays import BoolArray, IntArray
from osbc_deploy.deviations import Deviation
from osbc_deploy.fixedpoint.formats import LOIHI, NumberFormats
from osbc_deploy.fixedpoint.loihi import decay
from osbc_deploy.fixedpoint.network import (
    INPUT,
    FixedPointNetwork,
    FixedPopulation,
    FixedProjection,
)
from osbc_deploy.lower.lowering import Lowered

__all__ = ["heard_neurons", "needed_neurons", "part_of", "silent_neurons", "without_idle"]

_STEPS = 4096
"""After this many steps a leak has brought every potential to rest, or it is taken to go on."""

Masks = dict[str, BoolArray]
"""Neurons (n,) by population."""


def heard_neurons(network: FixedPointNetwork, stay: Mapping[str, BoolArray]) -> Masks:
    """Return the neurons from which a way of weights leads to some that stay.

    Parameters
    ----------
    network : FixedPointNetwork
    stay : dict of ndarray of bool (n,)
        By population, those among them.
    """
    heard = {p.name: stay[p.name].copy() for p in network.populations}
    waiting = [name for name, mask in heard.items() if mask.any()]
    while waiting:
        post = waiting.pop()
        for projection in network.afferents(post):
            pre = projection.pre
            if pre == INPUT:
                continue
            more = heard[pre] | projection.connection.heard(heard[post], network.shape_of(pre))
            if (more != heard[pre]).any():
                heard[pre] = more
                waiting.append(pre)
    return heard


def silent_neurons(network: FixedPointNetwork) -> Masks:
    """Return the neurons that never fire, whatever the input."""
    fires = {p.name: _fires_alone(p, network.formats) for p in network.populations}
    active = {INPUT: np.ones(int(np.prod(network.input_shape)), bool), **fires}
    waiting = [INPUT, *(name for name, mask in fires.items() if mask.any())]
    while waiting:
        pre = waiting.pop()
        for projection in network.outgoing(pre):
            reached = projection.connection.driven(active[pre], network.shape_of(pre))
            reached = reached | active[projection.post]
            if (reached != active[projection.post]).any():
                active[projection.post] = reached
                waiting.append(projection.post)
    return {p.name: ~active[p.name] for p in network.populations}


def _fires_alone(p: FixedPopulation, formats: NumberFormats) -> BoolArray:
    """Return the neurons that may fire without any input."""
    registers = p.decoded(formats)
    started = (p.u_init != 0) | (p.v_init != 0)
    if formats.arithmetic != LOIHI:
        return np.asarray(started | (registers.bias != 0) | (p.vth < 1))
    # From 0 a potential only grows, until the leak takes what the bias adds.
    v = np.maximum(registers.bias, 0)
    moves = np.ones(len(v), bool)
    for _ in range(_STEPS):
        after = decay(v, registers.kept_v, formats.decay_bits) + np.maximum(registers.bias, 0)
        moves = after != v
        if not (moves & (v <= registers.threshold)).any():
            break
        v = after
    return np.asarray(started | (v > registers.threshold) | moves | (p.vth < 0))


def without_idle(
    lowered: Lowered, together: int = 1, removed: Mapping[str, BoolArray] | None = None
) -> Lowered:
    """Return a lowered network without the neurons that make no difference to its outputs.

    Parameters
    ----------
    lowered : Lowered
    together : int
        Neurons or channels in a row, counted without `removed` ones, that stay or go as one.
    removed : dict of ndarray of bool (units,)
        By population, neurons or channels that were removed before weights were pruned.
    """
    network = lowered.network
    kept, heard = needed_neurons(network, _rows_of(network, together, removed or {}))
    if all(mask.all() for mask in kept.values()):
        return lowered
    smaller = replace(
        lowered,
        network=part_of(network, kept),
        before=network,
        kept={n: np.flatnonzero(mask) for n, mask in kept.items() if not mask.all()},
        deviations=(*lowered.deviations, *_notes(network, kept, heard)),
    )
    return replace(smaller, activity=smaller.of_kept(lowered.activity))


def _rows_of(
    network: FixedPointNetwork, together: int, removed: Mapping[str, BoolArray]
) -> dict[str, IntArray]:
    """Return the number of the row that each unit is in, by population; -1 for removed ones."""
    rows = {}
    for p in network.populations if together > 1 else ():
        stay = ~removed.get(p.name, np.zeros(p.shape[0], bool))
        rows[p.name] = np.where(stay, (np.cumsum(stay) - 1) // together, -1)
    return rows


def needed_neurons(
    network: FixedPointNetwork, rows: Mapping[str, IntArray] | None = None
) -> tuple[Masks, Masks]:
    """Return the neurons that a network cannot do without, and those that feed them.

    Parameters
    ----------
    network : FixedPointNetwork
    rows : dict of ndarray of int (units,), optional
        By population, which of its neurons or channels stay or go as one: those of a number, but
        for negative ones.
    """
    silent = silent_neurons(network)
    kept = {p.name: np.full(p.size, p is network.output) for p in network.populations}
    while True:
        # What stays for its channel's sake fires what it fired, so its input stays too.
        heard = heard_neurons(network, kept)
        wanted = {name: (mask & ~silent[name]) | kept[name] for name, mask in heard.items()}
        whole = _whole_units(network, wanted, rows or {})
        if all(np.array_equal(whole[name], kept[name]) for name in kept):
            return kept, heard
        kept = whole


def part_of(network: FixedPointNetwork, kept: Mapping[str, BoolArray]) -> FixedPointNetwork:
    """Return a network of some of its neurons, of grids whole channels."""
    units = {p.name: _units(p, kept[p.name]) for p in network.populations}
    units[INPUT] = np.ones(network.input_shape[0], bool)
    flat = {**kept, INPUT: np.ones(math.prod(network.input_shape), bool)}
    return replace(
        network,
        populations=tuple(_smaller(p, kept[p.name]) for p in network.populations),
        projections=tuple(
            replace(p, connection=p.connection.part(*_ends(p, units if _grid(p) else flat)))
            for p in network.projections
        ),
    )


def _whole_units(
    network: FixedPointNetwork, wanted: Mapping[str, BoolArray], rows: Mapping[str, IntArray]
) -> Masks:
    """Return the least that holds what is wanted and can be a network."""
    units = {p.name: _units(p, wanted[p.name]) for p in network.populations}
    for mask in units.values():
        # No population is empty.
        mask[0] |= not mask.any()
    inputs = np.ones(network.input_shape[0], bool)
    changed = True
    while changed:
        changed = False
        for name, row in rows.items():
            more = units[name] | (np.isin(row, row[units[name]]) & (row >= 0))
            changed |= bool((more != units[name]).any())
            units[name] = more
        for p in network.projections:
            if not _grid(p):
                continue
            ends = p.connection.bound(units.get(p.pre, inputs), units[p.post])
            for name, mask in zip((p.pre, p.post), ends, strict=True):
                if name in units and (mask & ~units[name]).any():
                    units[name] = units[name] | mask
                    changed = True
    return {
        p.name: np.repeat(units[p.name], p.size // len(units[p.name])) for p in network.populations
    }


def _grid(projection: FixedProjection) -> bool:
    return projection.connection.convolutional


def _ends(
    projection: FixedProjection, masks: Mapping[str, BoolArray]
) -> tuple[BoolArray, BoolArray]:
    return masks[projection.pre], masks[projection.post]


def _units(p: FixedPopulation, mask: BoolArray) -> BoolArray:
    """Return which channels of a grid, or neurons, hold some of a mask."""
    return np.asarray(mask.reshape(p.shape[0], -1).any(axis=1))


def _smaller(p: FixedPopulation, kept: BoolArray) -> FixedPopulation:
    names = ("du", "dv", "vth", "bias_mant", "bias_exp", "u_init", "v_init", "v_scale", "v_offset")
    changes = {name: getattr(p, name)[kept] for name in names}
    return replace(
        p,
        shape=(int(_units(p, kept).sum()), *p.shape[1:]),
        drop=None if p.drop is None else p.drop[kept],
        **changes,
    )


def _notes(network: FixedPointNetwork, kept: Masks, heard: Masks) -> list[Deviation]:
    notes = []
    for p in network.populations:
        gone = ~kept[p.name]
        if not gone.any():
            continue
        count, deaf = int(gone.sum()), int((gone & ~heard[p.name]).sum())
        parts = [f"nothing hears {deaf:,} of them"] * (deaf > 0)
        parts += [f"{count - deaf:,} never fire{'s' * (count - deaf == 1)}"] * (count > deaf)
        text = f"{count:,} of {p.size:,} neurons are left out, exactly: {', '.join(parts)}"
        notes.append(Deviation("lower", p.name, text))
    return notes
