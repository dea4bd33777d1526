"""What connections say of themselves, against torch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from osbc_deploy.arrays import FloatArray
from osbc_deploy.fixedpoint.connections import KINDS
from osbc_deploy.model.connections import Connection, Conv, Dense
from osbc_deploy.model.windows import AvgPool

GEOMETRIES: list[dict[str, Any]] = [
    {},
    {"stride": (2, 1), "padding": (1, 2)},
    {"dilation": (2, 3), "padding": (0, 4)},
    {"groups": 2, "stride": (3, 2), "padding": (2, 0), "dilation": (1, 2)},
]
SHAPE = (4, 9, 8)


def conv(rng: np.random.Generator, geometry: dict[str, Any]) -> Conv:
    weight = rng.normal(size=(6, 4 // geometry.get("groups", 1), 3, 2))
    return Conv(weight * (rng.random(weight.shape) < 0.5), None, **geometry)


def applied(connection: Connection, frames: FloatArray, weight: FloatArray) -> FloatArray:
    w, x = torch.from_numpy(weight), torch.from_numpy(frames)
    if connection.convolutional:
        return functional.conv2d(x, w, **connection.geometry).numpy()
    return functional.linear(x.flatten(1), w).numpy()


@pytest.fixture(params=[None, *GEOMETRIES], ids=str)
def connection(request: pytest.FixtureRequest, rng: np.random.Generator) -> Connection:
    if request.param is None:
        weight = rng.normal(size=(5, 288))
        return Dense(weight * (rng.random(weight.shape) < 0.5))
    return conv(rng, request.param)


def test_shapes_are_torchs(connection: Connection) -> None:
    found = applied(connection, np.zeros((1, *SHAPE)), np.array(connection.weight)).shape[1:]
    assert connection.output_shape(SHAPE) == found
    weight = np.zeros(connection.weight.shape)
    fixed = KINDS[connection.kind](weight, **connection.geometry)
    assert fixed.output_shape(SHAPE) == found


def test_unfolded_rows_times_weights_are_torchs_currents(
    connection: Connection, rng: np.random.Generator
) -> None:
    frames = rng.normal(size=(3, *SHAPE))
    rows = connection.unfolded(frames)
    groups = len(rows)
    weight = connection.weight.reshape(groups, -1, connection.fan_in)
    found = np.einsum("gmi,goi->mgo", rows, weight).reshape(3, -1, len(connection.weight))
    wanted = applied(connection, frames, np.array(connection.weight))
    assert np.allclose(found.swapaxes(1, 2).reshape(wanted.shape), wanted)


def test_fan_out_counts_the_sums_that_a_spike_changes(connection: Connection) -> None:
    kept = connection.weight != 0
    one_by_one = np.eye(288).reshape(288, *SHAPE)
    reached = applied(connection, one_by_one, kept.astype(np.float64)).reshape(288, -1).sum(axis=1)
    assert np.array_equal(connection.fan_out(kept, SHAPE), reached)


@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
def test_a_pooling_after_a_convolution_is_one_convolution(
    geometry: dict[str, Any], rng: np.random.Generator
) -> None:
    pool = AvgPool((2, 1), (1, 2), divisor=3)
    first = conv(rng, geometry)
    frames = rng.normal(size=(2, *SHAPE))
    currents = torch.from_numpy(applied(first, frames, np.array(first.weight)))
    wanted = functional.avg_pool2d(currents, pool.kernel, pool.stride, divisor_override=3).numpy()
    both = first.followed_by(pool)
    assert np.allclose(applied(both, frames, np.array(both.weight)), wanted)
    assert first.shape_followed_by(pool) == both.weight.shape


@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
def test_a_slice_sees_what_changes_it(geometry: dict[str, Any], rng: np.random.Generator) -> None:
    fixed = KINDS["conv"](np.ones(conv(rng, geometry).weight.shape), **conv(rng, geometry).geometry)
    out, rows, cols = fixed.output_shape(SHAPE)
    ranges = ((out // 2, out), (rows // 2, rows), (0, max(1, cols // 2)))
    weight = torch.ones(fixed.weight.shape, dtype=torch.float64)
    source = torch.zeros((1, *SHAPE), dtype=torch.float64, requires_grad=True)
    result = functional.conv2d(source, weight, **fixed.geometry)[0]
    result[tuple(slice(*r) for r in ranges)].sum().backward()
    assert source.grad is not None
    changes = np.argwhere(source.grad[0].numpy() != 0)
    bounds = zip(changes.min(axis=0), changes.max(axis=0) + 1, strict=True)
    for (start, stop), (least, most) in zip(fixed.seen(SHAPE, ranges), bounds, strict=True):
        assert start <= least < most <= stop
    channels = fixed.seen(SHAPE, ranges)[0]
    assert channels == (changes[:, 0].min(), changes[:, 0].max() + 1)


def test_poolings_sum_their_windows_as_torch_does(rng: np.random.Generator) -> None:
    pool = AvgPool((3, 2), (2, 3), (1, 1))
    maps = rng.integers(0, 9, (2, 5, *SHAPE))
    wanted = functional.avg_pool2d(
        torch.from_numpy(maps.reshape(10, *SHAPE).astype(np.float64)),
        pool.kernel, pool.stride, pool.padding, divisor_override=1,
    ).numpy()  # fmt: skip
    found = pool.sums(maps)
    assert found.dtype == maps.dtype
    assert np.array_equal(found.reshape(wanted.shape), wanted)
    assert pool.output_shape(SHAPE) == wanted.shape[1:]
