"""Maps that lie in what gives them in blocks which repeat, and convolutions of them.

Maps of twice the size (``nn.Upsample``, ``nn.PixelShuffle``, ``nn.ConvTranspose2d`` of stride 2)
are seen in blocks of 2 x 2 places, and each block lies in one place of the smaller maps: in one
channel, or in a channel for each of its phases. A convolution of them does the same in every block,
so it is one of the smaller maps, with a channel for each phase of what it gives (W. Shi et al.,
"Real-time single image and video super-resolution using an efficient sub-pixel convolutional neural
network", CVPR 2016). Nothing is copied, and all blocks share their weights.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from osbc_deploy.arrays import FloatArray, IntArray
from osbc_deploy.limits import Allowance, array_bytes
from osbc_deploy.model.connections import Conv
from osbc_deploy.model.windows import Pair, Shape, window_count

__all__ = [
    "WEIGHT_BYTES",
    "Blocks",
    "Taps",
    "blocks_of",
    "by_phase",
    "in_phases",
    "taps_of",
    "transposed_taps",
]

WEIGHT_BYTES = 24
"""Bytes of a weight while it is put together."""
_PLACES = 40
"""Bytes of where a tap of two channels goes."""


@dataclass(frozen=True)
class Blocks:
    """Blocks along one axis.

    Attributes
    ----------
    count : int
    seen, own : int
        Places of a block, as it is seen and in what gives it.
    """

    count: int
    seen: int
    own: int


@dataclass(frozen=True)
class Taps:
    """What a layer of maps hears along one axis.

    Attributes
    ----------
    phases : int
        Places that are given for each block of them.
    step : int
        Blocks that are seen from one block that is given to the next.
    heard : tuple of (int, int, int, int)
        The phase that is given, the tap of the kernel, the phase that it sees, and how many blocks
        further on that one is.
    """

    phases: int
    step: int
    heard: tuple[tuple[int, int, int, int], ...]


def blocks_of(shape: Shape, index: IntArray) -> tuple[Blocks, Blocks]:
    """Return the smallest blocks of rows and of columns that positions in maps repeat in.

    Parameters
    ----------
    shape : tuple of int
        (C, H, W) of what gives the values.
    index : ndarray of int (c, h, w)
        Positions in it, flattened.
    """
    where = np.stack(np.unravel_index(index, shape))
    rows = _along(where, shape, 1)
    return rows, _along(where, shape, 2)


def _along(where: IntArray, shape: Shape, axis: int) -> Blocks:
    size, own = where.shape[1 + axis], shape[axis]
    most = math.gcd(size, own)
    moved = np.moveaxis(where, 1 + axis, 1)
    for count in (c for c in range(most, 1, -1) if most % c == 0):
        each = own // count
        cut = moved.reshape(3, count, size // count, *moved.shape[2:])
        first = cut[:, :1].copy()
        if (first[axis] >= each).any():
            continue
        further = np.zeros((3, count, *(1,) * (cut.ndim - 2)), np.int64)
        further[axis, :, 0, 0, 0] = each * np.arange(count)
        if (cut == first + further).all():
            return Blocks(count, size // count, each)
    return Blocks(1, size, own)


def taps_of(kernel: int, stride: int, padding: int, dilation: int, seen: int) -> Taps:
    """Return what a convolution of maps in blocks of so many places hears along an axis."""
    phases = seen // math.gcd(seen, stride)
    heard = []
    for phase in range(phases):
        for tap in range(kernel):
            further, of = divmod(stride * phase + dilation * tap - padding, seen)
            heard.append((phase, tap, of, further))
    return Taps(phases, stride * phases // seen, tuple(heard))


def transposed_taps(kernel: int, stride: int, padding: int, dilation: int, seen: int) -> Taps:
    """Return the same of a transposed convolution, whose place v gives ``stride v + d k - p``."""
    phases = stride * seen
    heard = []
    for phase in range(phases):
        for tap in range(kernel):
            for of in range(seen):
                place = phase + padding - dilation * tap - stride * of
                if place % phases == 0:
                    heard.append((phase, tap, of, place // phases))
    return Taps(phases, 1, tuple(heard))


def in_phases(shape: Shape, phases: Pair) -> tuple[Shape, IntArray]:
    """Return the shape of maps (c, h, w) as a channel for each phase, and where each place lies."""
    (channels, rows, cols), (down, right) = shape, phases
    made = (channels * down * right, rows // down, cols // right)
    index = np.arange(math.prod(shape)).reshape(channels, down, right, *made[1:])
    return made, index.transpose(0, 3, 1, 4, 2).reshape(shape)


@dataclass(frozen=True)
class _Window:
    """The window of a convolution along one axis."""

    kernel: int
    padding: int
    stride: int


def by_phase(
    weight: FloatArray,
    groups: int,
    where: tuple[Shape, IntArray],
    blocks: tuple[Blocks, Blocks],
    taps: tuple[Taps, Taps],
    size: Pair,
    memory: Allowance,
    most: float = math.inf,
) -> Conv | None:
    """Return the convolution of what gives maps that does what a layer does with them as seen.

    Parameters
    ----------
    weight : ndarray (c_out, c_in / groups, kh, kw)
    groups : int
    where : tuple of int, ndarray of int (c_in, h, w)
        The shape of what gives the maps, and their positions in it.
    blocks, taps : Blocks, Taps
        Of rows and columns.
    size : (int, int)
        Rows and columns of what the layer gives.
    memory : Allowance
        Of what asks for it.
    most : float
        Weights that it may have.

    Returns
    -------
    Conv
        Without bias, of a channel for each phase as :func:`in_phases` has them. None where the
        layer gives no whole blocks, or it takes more weights.
    """
    shape, index = where
    down, right = (one.phases for one in taps)
    if size[0] % down or size[1] % right:
        return None
    base = index[:, : blocks[0].seen, : blocks[1].seen]
    channel, row, col = np.unravel_index(base, shape)
    given, taken = len(weight) // groups, weight.shape[1]
    group = np.arange(len(index)) // taken
    # Otherwise what one group hears lies among what another does.
    apart = not shape[0] % groups
    apart = apart and bool((channel // (shape[0] // groups) == group[:, None, None]).all())
    groups_made = groups if apart else 1
    width = shape[0] // groups_made
    rows = _window(row, 1, shape[1], blocks[0], taps[0], size[0])
    cols = _window(col, 2, shape[2], blocks[1], taps[1], size[1])
    made = (len(weight) * down * right, width, rows.kernel, cols.kernel)
    if math.prod(made) > most:
        return None
    # Each tap is put where it belongs at once, for all channels.
    memory.take(array_bytes(made, WEIGHT_BYTES), array_bytes(weight.shape[:2], _PLACES))
    found = np.zeros((len(weight), down, right, *made[1:]), weight.dtype)
    # The channels that each output channel sees.
    outputs = np.arange(len(weight))[:, None]
    sees = outputs // given * taken + np.arange(taken)
    for phase, tap, of, further in taps[0].heard:
        for across, beside, at, on in taps[1].heard:
            kernel_row = rows.padding + blocks[0].own * further + row[:, of, at]
            kernel_col = cols.padding + blocks[1].own * on + col[:, of, at]
            place = (outputs, channel[sees, of, at] % width, kernel_row[sees], kernel_col[sees])
            np.add.at(found[:, phase, across], place, weight[:, :, tap, beside])
    stride, padding = (rows.stride, cols.stride), (rows.padding, cols.padding)
    return Conv(found.reshape(made), None, stride, padding, (1, 1), groups_made)


def _window(own: IntArray, axis: int, size: int, blocks: Blocks, taps: Taps, given: int) -> _Window:
    """Return a window that sees all places that any phase does, and gives so many blocks."""
    seen = np.moveaxis(own, axis, 0)
    places = [blocks.own * further + seen[of] for _, _, of, further in taps.heard]
    first = min((int(p.min()) for p in places), default=0)
    last = max((int(p.max()) for p in places), default=0)
    stride, count = blocks.own * taps.step, given // taps.phases
    # Both sides are padded alike: taps of zeros make up for that.
    padding = max(0, -first)
    padding = max(padding, last + 1 + stride * (count - 1) - size)
    kernel = padding + last + 1
    if window_count(size, kernel, stride, padding) > count:
        kernel = size + 2 * padding - stride * count + 1
    return _Window(kernel, padding, stride)
