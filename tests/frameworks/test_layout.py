"""Where what is seen lies, against what torch makes of the same values."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from osbc_deploy.frameworks.layout import Layout, spread, summed, whole_of
from osbc_deploy.model.graph import AvgPool, Connection

Array = np.ndarray[Any, Any]


def applied(operation: AvgPool | Connection | None, values: Array) -> Array:
    """Return what an operation makes of one sample, as torch computes it."""
    if operation is None:
        return values
    x = torch.from_numpy(values).double()[None]
    if isinstance(operation, AvgPool):
        window = (operation.kernel, operation.stride, operation.padding)
        return torch.nn.functional.avg_pool2d(
            x, *window, divisor_override=operation.divisor
        ).numpy()[0]
    weight = torch.tensor(np.array(operation.weight)).double()
    if operation.convolutional:
        g = operation.geometry
        more = (None, g["stride"], g["padding"], g["dilation"], g["groups"])
        return torch.nn.functional.conv2d(x, weight, *more).numpy()[0]
    return torch.nn.functional.linear(x.flatten(1), weight).numpy()[0]


def see(layout: Layout, values: Array) -> Array:
    return values.ravel()[layout.index]


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_what_is_spread_is_what_broadcasting_gives(data: st.DataObject) -> None:
    shape = data.draw(st.tuples(*[st.integers(1, 4)] * 3))
    ones = data.draw(st.tuples(*[st.booleans()] * 3))
    small = tuple(1 if one else size for one, size in zip(ones, shape, strict=True))
    # Tokens, heads and whatever else turns the axes: of both in the same way.
    order = data.draw(st.permutations(range(3)))
    source = Layout(small, whole_of(small).index.transpose(order))
    target = Layout(shape, whole_of(shape).index.transpose(order))
    rng = np.random.default_rng(0)
    values = rng.random(small)
    found = see(target, applied(spread(source, target), values))
    assert np.array_equal(found, np.broadcast_to(see(source, values), target.seen))


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_sums_along_any_axes_that_are_seen(data: st.DataObject) -> None:
    channels, heads, rows, cols = data.draw(st.tuples(*[st.integers(1, 3)] * 4))
    shape = (channels * heads, rows, cols)
    order = data.draw(st.permutations(range(4)))
    layout = Layout(
        shape, whole_of(shape).index.reshape(heads, channels, rows, cols).transpose(order)
    )
    axes = data.draw(st.sets(st.integers(0, 3), min_size=1))
    # Every so many channels are no block of them.
    if order.index(0) in axes and order.index(1) not in axes and heads > 1 and channels > 1:
        with pytest.raises(ValueError, match="no whole windows"):
            summed(layout, tuple(axes), keep=False, mean=False)
        return
    keep, mean = data.draw(st.booleans()), data.draw(st.booleans())
    operation, after = summed(layout, tuple(sorted(axes)), keep=keep, mean=mean)
    values = np.random.default_rng(0).integers(0, 2, shape).astype(float)
    wanted = see(layout, values).sum(axis=tuple(axes), keepdims=keep)
    wanted = wanted / (math.prod(layout.seen[a] for a in axes) if mean else 1)
    assert np.allclose(see(after, applied(operation, values)), wanted, rtol=1e-12)


def test_flat_values_are_spread_and_summed_by_matrices() -> None:
    flat = whole_of((6,), (2, 3))
    column = whole_of((2,), (2, 1))
    values = np.arange(6.0)
    assert see(flat, applied(spread(column, flat), np.array([7.0, 8.0]))).tolist() == [
        [7, 7, 7],
        [8, 8, 8],
    ]
    operation, after = summed(flat, (1,), keep=True, mean=True)
    assert see(after, applied(operation, values)).ravel().tolist() == pytest.approx([1.0, 4.0])


def test_what_lies_otherwise_is_no_convolution() -> None:
    turned = Layout((2, 3, 3), whole_of((2, 3, 3)).index.transpose(0, 2, 1))
    with pytest.raises(ValueError, match="lie otherwise; only masks of whole channels"):
        spread(turned, whole_of((2, 3, 3)))


def test_a_map_of_channels_leaves_places_where_they_are() -> None:
    tokens = Layout((4, 2, 3), whole_of((4, 6)).index.T)
    assert tokens.has_channels(-1)
    assert not tokens.has_channels(0)
    after = tokens.with_channels(5, -1)
    assert after.shape == (5, 2, 3)
    assert np.array_equal(after.index, np.arange(30).reshape(5, 6).T)
    values = np.arange(4.0)
    assert np.array_equal(see(tokens, tokens.values(values)), np.broadcast_to(values, (6, 4)))
