"""What of a record is watched: a channel for each count, and its histograms."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from osbc_deploy.arrays import FloatArray, IntArray
from osbc_deploy.telemetry.record import Window

__all__ = ["Channel", "Stream", "stream_of"]


@dataclass(frozen=True)
class Channel:
    """A number or a histogram of every record.

    Attributes
    ----------
    what : str
        ``spikes``, ``fired``, ``clipped``, ``counts`` of a layer; ``silent``, ``answers``,
        ``margins`` of the whole network.
    layer : str
        The layer of the user's model; empty for the network.
    """

    what: str
    layer: str = ""

    @property
    def name(self) -> str:
        """What people call it."""
        return f"{self.layer}: {self.what}" if self.layer else self.what


@dataclass(frozen=True, eq=False)
class Stream:
    """Records as numbers.

    Attributes
    ----------
    channels : tuple of Channel
    values : ndarray (n, C)
        By sample; `fired` by record.
    grains : ndarray (C,)
        What one count more changes.
    histogram_channels : tuple of Channel
    histograms : tuple of ndarray of int (n, K)
    """

    channels: tuple[Channel, ...]
    values: FloatArray
    grains: FloatArray
    histogram_channels: tuple[Channel, ...]
    histograms: tuple[IntArray, ...]


def stream_of(windows: Sequence[Window], layers: Sequence[str]) -> Stream:
    """Return records as numbers.

    Parameters
    ----------
    windows : sequence of Window
        Of one network, with samples in each.
    layers : sequence of str
        Names, in the order of the network's populations.
    """
    samples = np.array([w.samples for w in windows], float)
    each = float(np.median(samples)) if len(windows) else 1.0
    channels: list[Channel] = []
    columns: list[FloatArray] = []
    grains: list[float] = []
    histogram_channels: list[Channel] = []
    histograms: list[IntArray] = []

    def add(channel: Channel, counts: Sequence[int], *, by_sample: bool = True) -> None:
        column = np.array(counts, float)
        channels.append(channel)
        columns.append(column / samples if by_sample else column)
        grains.append(1 / each if by_sample else 1.0)

    def add_histogram(channel: Channel, counts: Sequence[Sequence[int]]) -> None:
        table = np.array(counts, np.int64).reshape(len(windows), -1)
        if table.shape[1] > 1:
            histogram_channels.append(channel)
            histograms.append(table)

    for number, layer in enumerate(layers):
        seen = [w.layers[number] for w in windows]
        clipped = [c.clipped_currents + c.clipped_potentials for c in seen]
        add(Channel("spikes", layer), [c.spikes for c in seen])
        add(Channel("fired", layer), [c.fired for c in seen], by_sample=False)
        add(Channel("clipped", layer), clipped)
        add_histogram(Channel("counts", layer), [c.counts for c in seen])
    add(Channel("silent"), [w.silent for w in windows])
    add_histogram(Channel("answers"), [[*w.answers, w.silent] for w in windows])
    add_histogram(Channel("margins"), [w.margins for w in windows])
    return Stream(
        tuple(channels),
        np.stack(columns, axis=1),
        np.array(grains),
        tuple(histogram_channels),
        tuple(histograms),
    )
