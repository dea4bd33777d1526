"""What measured spikes cost: traffic between cores, and synaptic operations."""

from __future__ import annotations

from collections.abc import Mapping as MappingOf
from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_array, csr_array

from osbc_deploy.arrays import FloatArray, IntArray
from osbc_deploy.chip.layers import Afferent, Layer
from osbc_deploy.chip.mapping import Mapping
from osbc_deploy.fixedpoint.network import FixedConv

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
    by_layer = mapping.by_population()
    owner = {}
    for layer in layers:
        place = np.empty(layer.shape, np.int64)
        for core in by_layer[layer.name]:
            place[tuple(slice(*r) for r in core.ranges)] = core.index
        owner[layer.name] = place.ravel()
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
    by_layer = mapping.by_population()
    for layer in layers:
        performed = useful = 0.0
        for afferent in layer.afferents:
            fired = spikes[afferent.pre]
            if isinstance(afferent.connection, FixedConv):
                performed += float(
                    fired @ _conv_fan_out(afferent, afferent.connection, stored=True)
                )
                useful += float(fired @ _conv_fan_out(afferent, afferent.connection, stored=False))
                continue
            for core in by_layer[layer.name]:
                nonzero = float(fired @ afferent.fan_in(core.ranges[0]))
                useful += nonzero
                stored = core.usage.encoding != "sparse"
                performed += float(fired.sum() * core.neurons) if stored else nonzero
        found[layer.name] = Operations(performed, useful)
    return found


def _conv_fan_out(afferent: Afferent, conv: FixedConv, *, stored: bool) -> IntArray:
    """Return the synapses of every source neuron (channels x rows x columns, flattened)."""
    out_channels, per_group, kh, kw = conv.weight.shape
    share = out_channels // conv.groups
    kept = np.ones_like(afferent.nonzero) if stored else afferent.nonzero
    # (input channels, kh, kw): output channels that each kernel position leads to.
    leads = kept.reshape(conv.groups, share, per_group, kh, kw).sum(axis=1)
    _, rows, cols = conv.output_shape(afferent.pre_shape)
    valid = [
        _reached(size, k, stride, padding, dilation, out)
        for size, k, stride, padding, dilation, out in zip(
            afferent.pre_shape[1:],
            (kh, kw),
            conv.stride,
            conv.padding,
            conv.dilation,
            (rows, cols),
            strict=True,
        )
    ]
    each = np.einsum("cij,yi,xj->cyx", leads.reshape(-1, kh, kw), *valid)
    return np.asarray(each.ravel())


def _reached(
    size: int, kernel: int, stride: int, padding: int, dilation: int, outputs: int
) -> IntArray:
    """Return (size, kernel) of 0 and 1: whether a source meets an output at a kernel position."""
    output, off = np.divmod(
        np.arange(size)[:, None] + padding - dilation * np.arange(kernel)[None], stride
    )
    return np.asarray(((off == 0) & (output >= 0) & (output < outputs)).astype(np.int64))
