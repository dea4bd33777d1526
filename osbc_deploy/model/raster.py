"""Spikes of many samples, a bit each."""

from __future__ import annotations

import math
from typing import TypeAlias

import numpy as np

from osbc_deploy.arrays import InputArray, SpikeArray, peak_of

__all__ = ["PackedSpikes", "Raster", "part_of", "peak_of_raster"]


class PackedSpikes:
    """Spikes (n, T, *shape), 0 or 1, in an eighth of the memory.

    Samples are read and written as arrays of uint8.

    Parameters
    ----------
    shape : tuple of int
    bits : ndarray of uint8 (n, bytes), optional
        What is in it; no spikes by default.
    """

    def __init__(self, shape: tuple[int, ...], bits: SpikeArray | None = None) -> None:
        self.shape = shape
        each = -(-math.prod(shape[1:]) // 8)
        self.bits: SpikeArray = np.zeros((shape[0], each), np.uint8) if bits is None else bits

    def __len__(self) -> int:
        return self.shape[0]

    def __setitem__(self, samples: slice, spikes: SpikeArray) -> None:
        self.bits[samples] = np.packbits(spikes.reshape(len(spikes), -1), axis=1)

    def __getitem__(self, samples: int | slice) -> SpikeArray:
        bits = self.bits[samples]
        count = math.prod(self.shape[1:])
        spikes = np.unpackbits(bits, axis=-1, count=count)
        return spikes.reshape(*bits.shape[:-1], *self.shape[1:])

    def part(self, samples: slice) -> PackedSpikes:
        """Return some of the samples, still packed."""
        bits = self.bits[samples]
        return PackedSpikes((len(bits), *self.shape[1:]), bits)


Raster: TypeAlias = InputArray | PackedSpikes
"""What populations send, (n, T, *shape)."""


def part_of(raster: Raster, samples: slice) -> Raster:
    """Return some of the samples without a copy."""
    return raster.part(samples) if isinstance(raster, PackedSpikes) else raster[samples]


def peak_of_raster(raster: Raster) -> int | float:
    """Return the largest size of a value; of packed spikes, 1."""
    return 1 if isinstance(raster, PackedSpikes) else peak_of(raster)
