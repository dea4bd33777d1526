"""Which neurons are drawn: those named, or the most active and the most different."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from osbc_deploy.arrays import FloatArray, IntArray
from osbc_deploy.errors import UsageError
from osbc_deploy.model.graph import Network
from osbc_deploy.verification.stages import Record

__all__ = ["choose_neurons", "parse_neurons", "traced_neurons"]

_RASTER = 16
_TRACES = 2


def parse_neurons(texts: Sequence[str], network: Network) -> dict[str, tuple[int, ...]]:
    """Read ``LAYER:3,7`` choices; a population may be called by its layer or by its own name.

    Raises
    ------
    UsageError
        For all that are malformed, unknown or out of range, at once.
    """
    sizes = {p.name: p.size for p in network.populations}
    layers = {network.afferents(name)[0].name: name for name in sizes}
    faults: list[str] = []
    found: dict[str, tuple[int, ...]] = {}
    for text in texts:
        name, _, listed = str(text).rpartition(":")
        try:
            neurons = [int(part) for part in listed.split(",")]
        except ValueError:
            neurons = []
        if not name or not neurons:
            faults.append(f"{text!r} is not of the form LAYER:3,7")
        elif (population := layers.get(name, name)) not in sizes:
            faults.append(f"{name!r} is not a layer ({', '.join(layers)})")
        elif outside := [n for n in neurons if not 0 <= n < sizes[population]]:
            faults.append(
                f"{name} has neurons 0 to {sizes[population] - 1}, not "
                f"{', '.join(map(str, outside))}"
            )
        else:
            found[population] = tuple(dict.fromkeys((*found.get(population, ()), *neurons)))
    if faults:
        raise UsageError(f"--neurons: {'; '.join(faults)}. Give neurons that exist.")
    return found


def choose_neurons(
    named: Mapping[str, tuple[int, ...]], reference: Record, other: Record
) -> dict[str, tuple[int, ...]]:
    """Return the neurons of each population to draw, in their order.

    Half of them are the most active in the reference, half the ones that differ most.
    """
    found = {}
    for name in reference.v:
        active, different = _activity(reference, name), _difference(reference, other, name)
        size = len(active)
        if name in named:
            found[name] = named[name]
        elif size <= _RASTER:
            found[name] = tuple(range(size))
        else:
            half = _RASTER // 2
            first = _largest(different)[:half]
            rest = [n for n in _largest(active) if n not in first][: _RASTER - half]
            found[name] = tuple(sorted((*first, *rest)))
    return found


def traced_neurons(
    named: Mapping[str, tuple[int, ...]],
    chosen: Mapping[str, tuple[int, ...]],
    reference: Record,
    other: Record,
) -> dict[str, tuple[int, ...]]:
    """Return the neurons whose potentials are drawn: those named, or two of the chosen."""
    found = {}
    for name, neurons in chosen.items():
        if name in named:
            found[name] = neurons
            continue
        index = np.array(neurons)
        different = _difference(reference, other, name)[index]
        active = _activity(reference, name)[index]
        order = dict.fromkeys((_largest(different)[0], *_largest(active)))
        found[name] = tuple(neurons[k] for k in list(order)[:_TRACES])
    return found


def _largest(values: FloatArray | IntArray) -> list[int]:
    return [int(n) for n in np.argsort(-values, kind="stable")]


def _activity(record: Record, name: str) -> FloatArray:
    """Return spikes of each neuron; of a readout, its potential at the end."""
    if name in record.spikes:
        return np.asarray(record.spikes[name].sum(axis=(0, 1), dtype=np.float64))
    return np.asarray(record.v[name][:, -1].sum(axis=0, dtype=np.float64))


def _difference(reference: Record, other: Record, name: str) -> FloatArray:
    """Return how much each neuron differs: by spikes first, then by its potential."""
    error = ((other.v[name].astype(np.float64) - reference.v[name]) ** 2).sum(axis=(0, 1))
    if name not in reference.spikes:
        return np.asarray(error)
    spikes = (reference.spikes[name] != other.spikes[name]).sum(axis=(0, 1))
    return np.asarray(spikes + error / (1.0 + error.max()))
