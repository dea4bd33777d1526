"""What a device will count, by the engine: the same bits, so the same counts."""

from __future__ import annotations

import numpy as np

from osbc_deploy.arrays import IntArray
from osbc_deploy.firmware.blob import write_blob
from osbc_deploy.firmware.read import Blob, read_blob
from osbc_deploy.firmware.tables import lay_out
from osbc_deploy.fixedpoint.engine import run
from osbc_deploy.fixedpoint.network import FixedPointNetwork
from osbc_deploy.model.readout import NO_ANSWER, decode, evidence
from osbc_deploy.telemetry.record import BUCKETS, IDENTITY_BYTES, LayerCounts, Window, place_of

__all__ = ["blob_of", "count_window", "count_windows"]


def count_window(
    network: FixedPointNetwork, payloads: IntArray, *, sequence: int = 0, boots: int = 0
) -> Window:
    """Count samples as the runtime does, in counters that do not stop.

    Parameters
    ----------
    network : FixedPointNetwork
    payloads : ndarray (n, T, *input_shape)
        What the network's input takes; see :meth:`.InputFormat.codes`.
    sequence, boots : int
        Of the record.

    Raises
    ------
    FidelityError
        When a current leaves the chip's range, which a device counts as a fault.
    """
    return _counted(network, blob_of(network), payloads, sequence, boots)


def count_windows(network: FixedPointNetwork, payloads: IntArray, size: int) -> list[Window]:
    """Count window after window of this many samples; a remainder is left out.

    See :func:`count_window`.
    """
    blob = blob_of(network)
    return [
        _counted(network, blob, payloads[start : start + size], number, 0)
        for number, start in enumerate(range(0, len(payloads) - size + 1, size))
    ]


def blob_of(network: FixedPointNetwork) -> Blob:
    """Return the network as a device has it, read back from its blob."""
    return read_blob(write_blob(network, lay_out(network)))


def _counted(
    network: FixedPointNetwork, blob: Blob, payloads: IntArray, sequence: int, boots: int
) -> Window:
    names = [p.name for p in network.populations]
    done = run(network, payloads, record=names)
    layers = []
    for name, part in zip(names, blob.populations, strict=True):
        seen, spikes = done.activity[name], done.spikes.get(name)
        # A readout has potentials alone.
        each = np.zeros(len(payloads), np.int64) if spikes is None else _of_samples(spikes)
        fired = 0 if spikes is None else int(np.count_nonzero(spikes.any(axis=(0, 1))))
        places = [place_of(int(count), part.fields["count_unit"]) for count in each]
        layers.append(
            LayerCounts(int(each.sum()), fired, seen.wraps, seen.saturations, _histogram(places))
        )
    found = decode(done.output, network.readout, spiking=network.output.spiking)
    said = evidence(done.output, network.readout)[found != NO_ANSWER]
    margins: list[int] = []
    if said.shape[1] > 1:
        best = np.sort(said, axis=1)
        margins = [place_of(int(m), blob.facts["margin_unit"]) for m in best[:, -1] - best[:, -2]]
    return Window(
        blob.identity[:IDENTITY_BYTES],
        sequence,
        len(payloads),
        boots,
        int(np.count_nonzero(found == NO_ANSWER)),
        0,
        _histogram(margins),
        tuple(layers),
        tuple(int(np.count_nonzero(found == c)) for c in range(blob.classes)),
    )


def _of_samples(spikes: IntArray) -> IntArray:
    return np.asarray(spikes.reshape(len(spikes), -1).sum(axis=1, dtype=np.int64))


def _histogram(places: list[int]) -> tuple[int, ...]:
    return tuple(places.count(place) for place in range(BUCKETS))
