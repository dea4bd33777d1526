"""What measured spikes cost: traffic between cores, and synaptic operations."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Mapping as MappingOf
from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_array, csr_array

from osbc_deploy.arrays import FloatArray
from osbc_deploy.chip.layers import Layer
from osbc_deploy.chip.mapping import Core, Mapping

__all__ = ["Operations", "operations", "operations_on_cores", "traffic"]


def traffic(
    mapping: Mapping, layers: tuple[Layer, ...], spikes: MappingOf[str, FloatArray]
) -> csr_array:
    """Return the spikes sent from core to core.

    A spike is sent once to every core that holds a synapse of its neuron. Input from outside the
    chip is left out: where it enters is not public.

    Parameters
    ----------
    mapping : Mapping
    layers : tuple of Layer
    spikes : dict of ndarray (n,)
        Of every neuron, by population.

    Returns
    -------
    csr_array (cores, cores)
        Row: source.
    """
    layers = mapping.as_cut(layers)
    by_layer = mapping.by_population()
    owner = {}
    for layer in layers:
        owner[layer.name] = np.empty(layer.size, np.int64)
        for core in by_layer[layer.name]:
            owner[layer.name][core.members(layer.shape)] = core.index
    size = max((core.index for core in mapping.cores), default=-1) + 1
    rows, columns, values = [], [], []
    for layer in layers:
        for number, afferent in enumerate(layer.afferents):
            if afferent.pre not in owner:
                continue
            fired, at = spikes[afferent.pre], owner[afferent.pre]
            for core in by_layer[layer.name]:
                reached = afferent.sources(core.ranges, stored=core.usage.keeps_zeros(number))
                sent = np.bincount(at[reached], weights=fired[reached], minlength=size)
                sources = np.flatnonzero(sent)
                rows.append(sources)
                columns.append(np.full(len(sources), core.index))
                values.append(sent[sources])
    if not rows:
        return csr_array((size, size))
    entries = (np.concatenate(values), (np.concatenate(rows), np.concatenate(columns)))
    return csr_array(coo_array(entries, shape=(size, size)))


def operations_on_cores(
    mapping: Mapping, layers: tuple[Layer, ...], spikes: MappingOf[str, FloatArray]
) -> FloatArray:
    """Return the synaptic operations of every core (cores,), zeros of dense axons included.

    Parameters are those of :func:`operations`, whose ``performed`` is the sum.
    """
    found = np.zeros(max((core.index for core in mapping.cores), default=-1) + 1)
    by_layer = mapping.by_population()
    for layer in mapping.as_cut(layers):
        for number in range(len(layer.afferents)):
            for core, met in _met(layer, number, by_layer[layer.name], spikes):
                found[core.index] += met
    return found


def _met(
    layer: Layer, number: int, cores: list[Core], spikes: MappingOf[str, FloatArray]
) -> Iterator[tuple[Core, float]]:
    """Yield the stored synapses of an afferent that spikes meet on each of a layer's cores."""
    afferent = layer.afferents[number]
    fired = spikes[afferent.pre]
    connection = afferent.connection
    if connection.convolutional:
        every = np.ones(connection.weight.shape)
        met = connection.total(fired[None].astype(np.float64), every, afferent.pre_shape)
        for core in cores:
            yield core, float(met[0, core.members(layer.shape)].sum())
        return
    for core in cores:
        if core.usage.keeps_zeros(number):
            yield core, float(fired.sum() * core.neurons)
        else:
            yield core, float(fired @ afferent.fan_in(core.ranges[0]))


@dataclass(frozen=True)
class Operations:
    """Events of a run.

    Attributes
    ----------
    performed : float
        Synaptic operations on stored synapses, zeros of dense axons included.
    useful : float
        Those on weights that are not zero.
    """

    performed: float
    useful: float


def operations(
    mapping: Mapping, layers: tuple[Layer, ...], spikes: MappingOf[str, FloatArray]
) -> dict[str, Operations]:
    """Return the synaptic operations into every layer.

    Parameters
    ----------
    mapping : Mapping
    layers : tuple of Layer
    spikes : dict of ndarray (n,)
        Of every neuron, by population; the input's under ``"input"``.
    """
    found = {}
    layers = mapping.as_cut(layers)
    by_layer = mapping.by_population()
    for layer in layers:
        performed = useful = 0.0
        for number, afferent in enumerate(layer.afferents):
            fired = spikes[afferent.pre]
            connection = afferent.connection
            if connection.convolutional:
                useful += float(fired @ connection.fan_out(afferent.nonzero, afferent.pre_shape))
            else:
                useful += float(fired @ afferent.fan_in((0, layer.size)))
            performed += sum(met for _, met in _met(layer, number, by_layer[layer.name], spikes))
        found[layer.name] = Operations(performed, useful)
    return found
