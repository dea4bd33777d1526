"""Convolutions by phases, against torch's own layers on maps that are drawn at random."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from osbc_deploy.frameworks.layout import whole_of
from osbc_deploy.frameworks.phases import (
    Blocks,
    blocks_of,
    by_phase,
    in_phases,
    taps_of,
    transposed_taps,
)
from osbc_deploy.limits import Allowance
from osbc_deploy.model.connections import Conv

MEMORY = Allowance("test", remedy="None")
Array = np.ndarray[Any, Any]


def convolved(x: Array, conv: Conv) -> Array:
    weight = torch.from_numpy(conv.weight.copy())
    out = functional.conv2d(
        torch.from_numpy(x)[None], weight, None, conv.stride, conv.padding, 1, conv.groups
    )
    return np.asarray(out[0].numpy())


def seen(x: Array, index: Array) -> torch.Tensor:
    return torch.from_numpy(x.ravel()[index])[None]


def test_blocks_of_layouts_by_hand() -> None:
    whole = whole_of((3, 4, 6)).index
    assert blocks_of((3, 4, 6), whole) == (Blocks(4, 1, 1), Blocks(6, 1, 1))
    larger = whole.repeat(2, axis=1).repeat(3, axis=2)
    assert blocks_of((3, 4, 6), larger) == (Blocks(4, 2, 1), Blocks(6, 3, 1))
    # Every other row is left out.
    assert blocks_of((3, 4, 6), whole[:, ::2])[0] == Blocks(2, 1, 2)
    # Columns in another order do not repeat.
    assert blocks_of((3, 4, 6), whole[:, :, ::-1])[1] == Blocks(1, 6, 6)


def test_where_phases_lie_is_torchs_pixel_shuffle() -> None:
    shape, index = in_phases((3, 4, 6), (2, 2))
    assert shape == (12, 2, 3)
    x = torch.arange(72.0).reshape(1, *shape)
    assert np.array_equal(functional.pixel_shuffle(x, 2)[0].numpy(), index)


def test_convolutions_of_enlarged_maps_are_torchs() -> None:
    rng, compared = np.random.default_rng(0), 0
    shape = (4, 6, 6)
    for times, kernel, stride, padding, groups in itertools.product(
        (1, 2, 3), (1, 2, 3, 5), (1, 2, 3), (0, 1, 2), (1, 2)
    ):
        index = whole_of(shape).index.repeat(times, axis=1).repeat(times, axis=2)
        x, weight = rng.random(shape), rng.random((6, 4 // groups, kernel, kernel))
        theirs = functional.conv2d(
            seen(x, index), torch.from_numpy(weight), None, stride, padding, 1, groups
        )[0].numpy()
        blocks = blocks_of(shape, index)
        taps = taps_of(kernel, stride, padding, 1, times)
        size = (theirs.shape[1], theirs.shape[2])
        conv = by_phase(weight, groups, (shape, index), blocks, (taps, taps), size, MEMORY)
        assert (conv is None) == (size[0] % taps.phases != 0)
        if conv is None:
            continue
        assert conv.groups == groups
        _, where = in_phases(theirs.shape, (taps.phases, taps.phases))
        assert np.allclose(convolved(x, conv).ravel()[where], theirs, rtol=1e-12)
        compared += 1
    assert compared > 100


def test_transposed_convolutions_of_maps_by_phases_are_torchs() -> None:
    rng, compared = np.random.default_rng(1), 0
    for times, kernel, stride, padding, dilation in itertools.product(
        (1, 2), (1, 2, 3, 4), (1, 2, 3), (0, 1, 2), (1, 2)
    ):
        shape, index = in_phases((4, 6, 6), (times, times))
        x, weight = rng.random(shape), rng.random((4, 3, kernel, kernel))
        length = (6 - 1) * stride - 2 * padding + dilation * (kernel - 1) + 1
        if length < 1:
            continue
        theirs = functional.conv_transpose2d(
            seen(x, index), torch.from_numpy(weight), None, stride, padding, 0, 1, dilation
        )[0].numpy()
        blocks = blocks_of(shape, index)
        taps = transposed_taps(kernel, stride, padding, dilation, times)
        turned = weight.swapaxes(0, 1)
        size = (length, length)
        conv = by_phase(turned, 1, (shape, index), blocks, (taps, taps), size, MEMORY)
        assert (conv is None) == (length % (times * stride) != 0)
        if conv is None:
            continue
        _, where = in_phases(theirs.shape, (taps.phases, taps.phases))
        assert np.allclose(convolved(x, conv).ravel()[where], theirs, rtol=1e-12)
        compared += 1
    assert compared > 40


def test_more_weights_than_allowed_are_none() -> None:
    index = whole_of((4, 6, 6)).index
    blocks, taps = blocks_of((4, 6, 6), index), taps_of(3, 1, 1, 1, 1)
    weight = np.ones((2, 4, 3, 3))
    given = (weight, 1, ((4, 6, 6), index), blocks, (taps, taps), (6, 6), MEMORY)
    assert by_phase(*given, most=71) is None
    found = by_phase(*given, most=72)
    assert found is not None
    assert found.weight.shape == (2, 4, 3, 3)
