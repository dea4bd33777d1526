"""What measured spikes cost: traffic between cores, and synaptic operations."""

from __future__ import annotations

from collections.abc import Mapping as MappingOf
from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_array, csr_array

from osbc_deploy.arrays import FloatArray
from osbc_deploy.chip.layers import Layer
from osbc_deploy.chip.mapping import Mapping

__all__ = ["Operations", "operations", "traffic"]


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
        for afferent in layer.afferents:
            if afferent.pre not in owner:
                continue
            fired, at = spikes[afferent.pre], owner[afferent.pre]
            for core in by_layer[layer.name]:
                reached = afferent.sources(core.ranges, stored=core.usage.encoding != "sparse")
                sent = np.bincount(at[reached], weights=fired[reached], minlength=size)
                sources = np.flatnonzero(sent)
                rows.append(sources)
                columns.append(np.full(len(sources), core.index))
                values.append(sent[sources])
    if not rows:
        return csr_array((size, size))
    entries = (np.concatenate(values), (np.concatenate(rows), np.concatenate(columns)))
    return csr_array(coo_array(entries, shape=(size, size)))


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
        for afferent in layer.afferents:
            fired = spikes[afferent.pre]
            connection = afferent.connection
            if connection.convolutional:
                every = np.ones_like(afferent.nonzero)
                performed += float(fired @ connection.fan_out(every, afferent.pre_shape))
                useful += float(fired @ connection.fan_out(afferent.nonzero, afferent.pre_shape))
                continue
            for core in by_layer[layer.name]:
                nonzero = float(fired @ afferent.fan_in(core.ranges[0]))
                useful += nonzero
                stored = core.usage.encoding != "sparse"
                performed += float(fired.sum() * core.neurons) if stored else nonzero
        found[layer.name] = Operations(performed, useful)
    return found
