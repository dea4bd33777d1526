"""Copies of calibration samples that are moved by some pixels, where there are too few.

A dense layer fed by a camera has an input for every pixel. Where the samples have fewer time
steps in all than that, its Hessian cannot have full rank: of many directions they say nothing, and
weights that are chosen, and moved, to lose little on what they do say lose much on other samples.
A step like the one before adds none, so an image that is shown for many steps counts as one.
What the network sees when the same thing is a pixel further left is
as typical, costs no recording, and needs no label, since the float network itself says what is to
come out (shifted copies of training images: Simard, Steinkraus, Platt 2003).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from osbc_deploy.arrays import IntArray, SpikeArray
from osbc_deploy.compress.options import CompressionOptions
from osbc_deploy.compress.scene import HELD_OUT, MIN_HELD_OUT
from osbc_deploy.compress.solver_memory import check_solver_memory, run_bytes
from osbc_deploy.deviations import Deviation
from osbc_deploy.errors import UsageError
from osbc_deploy.model.graph import INPUT, Network, Projection
from osbc_deploy.model.windows import Shape

__all__ = ["Copies", "copies", "missed"]

_REACHES = (2, 1)
"""Pixels that copies are moved by at most, what is tried first. On N-MNIST's 2312-800-10 at 97 %,
100 recordings, the output's error on others is 0.103 without, 0.064 with 1, 0.053 with 2 and 0.052
with 3, at a third, half as much and twice the time of 2."""

_SMALLEST = 8
"""Pixels along each side of what is taken for a picture: a grid of taxels is none."""

_METHODS = ("osbc", "obc")
"""Those that are no baselines."""

_AS_PICTURES = "pictures as (n, T, channels, height, width), with a Flatten in front of the network"

_SHARE = 4
"""Part of the solver's memory that the samples with their copies, and their spikes, may take."""


@dataclass(frozen=True)
class Copies:
    """Which copies of calibration samples are calibrated on beside them.

    Attributes
    ----------
    reach : int
        Pixels they are moved by at most, in each direction; 0 where there are none.
    deviations : tuple of Deviation
    """

    reach: int = 0
    deviations: tuple[Deviation, ...] = ()

    def count(self, samples: int) -> int:
        """Return how many samples there are with the copies."""
        return samples + len(_order(samples)) * len(_moves(self.reach))

    def add(self, samples: SpikeArray) -> SpikeArray:
        """Return the samples (n, T, C, H, W), then their copies.

        The place of a copy and that of its sample leave the same rest when divided by
        ``HELD_OUT`` where samples judge, so that no variant is fitted to copies of those.
        """
        if not self.reach:
            return samples
        found = np.zeros((self.count(len(samples)), *samples.shape[1:]), samples.dtype)
        found[: len(samples)] = samples
        order = samples[_order(len(samples))]
        moved = found[len(samples) :].reshape(-1, *order.shape)
        for into, (down, right) in zip(moved, _moves(self.reach), strict=True):
            # What leaves the picture is lost, and nothing comes in.
            (to_y, from_y), (to_x, from_x) = _overlap(down), _overlap(right)
            into[..., to_y, to_x] = order[..., from_y, from_x]
        return found


def copies(network: Network, samples: SpikeArray, options: CompressionOptions) -> Copies:
    """Return the copies to calibrate on, where they were asked for or there are too few samples.

    Parameters
    ----------
    network : Network
    samples : ndarray (n, T, *input_shape)
    options : CompressionOptions
        By default, copies are made where weights are removed and a dense layer hears pictures of
        events that has more inputs than the samples have different steps in all; never for methods
        that are baselines.

    Raises
    ------
    UsageError
        Where copies were asked for and the samples are no pictures of events, or there is no room.
    """
    few = _few(network, samples, options)
    asked = options.augment == "shifts" and options.method in _METHODS
    if not few and not asked:
        return Copies()
    if fault := _no_picture(network.input_shape, samples):
        if asked:
            raise UsageError(f"augment: {fault}, or use augment auto or none.")
        return Copies()
    reach = next((r for r in _REACHES if _fits(network, samples, r, options)), 0)
    if not reach and asked:
        needed = _SHARE * _taken(network, samples, _REACHES[-1])
        raise UsageError(
            f"augment: copies moved by a pixel need {needed:,} bytes of solver memory, there are "
            f"{options.solver_memory:,}. Give --solver-memory that much, or use augment none."
        )
    if not reach:
        text = (
            f"{few}; in --solver-memory is no room for copies, which would be calibrated on as well"
        )
        return Copies(0, (Deviation("compress", "calibration", text),))
    found = Copies(reach)
    count = len(samples)
    text = (
        f"{found.count(count) - count:,} copies of {count} sample{'s' * (count > 1)}, moved by up "
        f"to {reach} pixel{'s' * (reach > 1)}, were calibrated on as well"
    )
    if few:
        text += f": {few}"
    return Copies(reach, (Deviation("compress", "calibration", text),))


def missed(network: Network, samples: SpikeArray, options: CompressionOptions) -> str | None:
    """Say where copies may be missed, because samples that are flat may be pictures.

    Parameters
    ----------
    network : Network
    samples : ndarray (n, T, *input_shape)
    options : CompressionOptions
    """
    flat = len(network.input_shape) < 3 and math.prod(network.input_shape) >= _SMALLEST**2
    if not flat or options.augment != "auto" or samples.dtype.kind == "f":
        return None
    few = _few(network, samples, options)
    return few and (
        f"{few}. If the samples were pictures, copies moved by pixels would be calibrated on as "
        f"well: give {_AS_PICTURES}, or augment none where they are none"
    )


def _few(network: Network, samples: SpikeArray, options: CompressionOptions) -> str | None:
    """Warn where the samples are too few for a dense layer fed by them.

    Rounding alone changes weights too little for it to matter.
    """
    layer = _hearing(network)
    if options.augment == "none" or options.method not in _METHODS or not _prunes(options):
        return None
    if layer is None:
        return None
    inputs, steps = layer.connection.fan_in, 0
    for sample in samples:
        flat = sample.reshape(len(sample), -1)
        steps += 1 + int((flat[1:] != flat[:-1]).any(axis=1).sum())
        if steps >= inputs:
            return None
    which = "" if steps == len(samples) * samples.shape[1] else "different "
    return f"{steps:,} {which}steps in all are few for {inputs:,} inputs of a neuron"


def _prunes(options: CompressionOptions) -> bool:
    return max((options.sparsity, *(c.sparsity for c in options.layers.values()))) > 0


def _hearing(network: Network) -> Projection | None:
    """Return the dense layer of most inputs among those fed by the network's input itself."""
    dense = [
        p
        for p in network.projections
        if p.pre == INPUT and not p.connection.convolutional and p.compressible
    ]
    return max(dense, key=lambda p: p.connection.fan_in, default=None)


def _no_picture(shape: Shape, samples: SpikeArray) -> str | None:
    """Say why samples cannot be moved by pixels, and what to do."""
    if len(shape) != 3 or min(shape[1:]) < _SMALLEST:
        return (
            f"samples of {' x '.join(map(str, shape))} are no pictures of channels, height and "
            f"width, {_SMALLEST} pixels or more along each side. Give {_AS_PICTURES}"
        )
    if samples.dtype.kind == "f":
        return (
            "samples are real values, of which nothing says what comes in from the side. Give "
            "whole numbers, such as counts"
        )
    return None


def _fits(network: Network, samples: SpikeArray, reach: int, options: CompressionOptions) -> bool:
    if _taken(network, samples, reach) > options.solver_memory // _SHARE:
        return False
    if options.augment == "shifts":
        return True
    # What nobody asked for must not be why a layer is refused.
    many = Copies(reach).count(len(samples)), samples.shape[1]
    try:
        check_solver_memory(network, many, options, tuned=True, together=True)
    except UsageError:
        return False
    return True


def _taken(network: Network, samples: SpikeArray, reach: int) -> int:
    """Return what samples and copies take, and the spikes of all populations."""
    count = Copies(reach).count(len(samples))
    spikes = run_bytes(network, count, samples.shape[1], tuned=True)
    return count * (samples.nbytes // len(samples)) + spikes


def _order(count: int) -> IntArray:
    """Return the samples in the order of their copies: whole rounds of the parts that are judged.

    A few samples at the end have no copies, so that the copies of all others fall to the part of
    their sample. Where samples are too few for any to judge, all have.
    """
    whole = count - count % HELD_OUT if count >= HELD_OUT * MIN_HELD_OUT else count
    return np.roll(np.arange(whole), -(count % HELD_OUT) if whole < count else 0)


def _moves(reach: int) -> list[tuple[int, int]]:
    """Return by how many pixels down and to the right copies are moved."""
    steps = range(-reach, reach + 1)
    return [(down, right) for down in steps for right in steps if (down, right) != (0, 0)]


def _overlap(by: int) -> tuple[slice, slice]:
    """Return where values go, and where they come from."""
    if by == 0:
        return slice(None), slice(None)
    kept, lost = slice(abs(by), None), slice(None, -abs(by))
    return (kept, lost) if by > 0 else (lost, kept)
