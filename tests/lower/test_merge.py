"""Poolings that are merged into weights can be taken out again, exactly, or not at all."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from osbc_deploy.fixedpoint.network import FixedConv, FixedDense, Pooling
from osbc_deploy.lower.merge import expand, pooling_of, separate
from osbc_deploy.model.graph import AvgPool, Conv, Dense, Projection


def projection(connection: Any, pool: AvgPool | None) -> Projection:
    return Projection("w", "a", "b", connection, pool)


@pytest.mark.parametrize("window", [(2, 2), (4, 4), (3, 2)])
@pytest.mark.parametrize(
    "geometry",
    [
        {},
        {"padding": (1, 2)},
        {"stride": (2, 1), "dilation": (2, 3)},
        {"groups": 2, "padding": (2, 0)},
    ],
)
def test_a_kernel_is_what_it_was(window: tuple[int, int], geometry: Any, rng: Any) -> None:
    codes = rng.integers(-127, 128, (6, 4 // geometry.get("groups", 1), 3, 2))
    codes[0, 0, 0] = 0
    whole = projection(Conv(codes.astype(float), **geometry), AvgPool(window, window))
    shape = (4, 6 * window[0], 7 * window[1])
    merged, _ = expand(whole, codes, shape)
    pooling = pooling_of(whole)
    assert pooling is not None
    plain = separate(merged, pooling, shape)
    assert isinstance(plain, FixedConv)
    assert np.array_equal(plain.weight, codes)
    conv = whole.connection
    assert isinstance(conv, Conv)
    for name in ("stride", "padding", "dilation", "groups"):
        assert getattr(plain, name) == getattr(conv, name)


@pytest.mark.parametrize("shape", [(3, 8, 8), (3, 9, 11)])
def test_a_matrix_is_what_it_was(shape: tuple[int, int, int], rng: Any) -> None:
    pool = AvgPool((2, 2), (2, 2))
    codes = rng.integers(-127, 128, (5, int(np.prod(pool.output_shape(shape)))))
    whole = projection(Dense(codes.astype(float)), pool)
    merged, _ = expand(whole, codes, shape)
    assert np.array_equal(separate(merged, Pooling((2, 2)), shape).weight, codes)
    wrong = np.array(merged.weight)
    wrong[0, 1] += 1
    with pytest.raises(ValueError, match="not those of a pooling of 2 x 2"):
        separate(FixedDense(wrong), Pooling((2, 2)), shape)
    with pytest.raises(ValueError, match="not those of a pooling of 4 x 4"):
        separate(merged, Pooling((4, 4)), shape)


@pytest.mark.parametrize(
    "change",
    [
        {"stride": (2, 1)},
        {"padding": (1, 0)},
        {"dilation": (2, 2)},
        {"weight": np.arange(64).reshape(1, 1, 8, 8)},
        {"weight": np.ones((1, 1, 8, 7), int)},
    ],
)
def test_a_kernel_that_no_such_pooling_made_is_told(change: Any) -> None:
    merged = FixedConv(np.ones((1, 1, 8, 8), int), (2, 2), (0, 0), (1, 1), 1)
    assert separate(merged, Pooling((2, 2)), (1, 16, 16)).weight.shape == (1, 1, 4, 4)
    with pytest.raises(ValueError, match="not those of a pooling"):
        separate(replace(merged, **change), Pooling((2, 2)), (1, 16, 16))
    with pytest.raises(ValueError, match="not those of a pooling"):
        separate(merged, Pooling((10**9, 10**9)), (1, 16, 16))


@pytest.mark.parametrize(
    "pool",
    [None, AvgPool((3, 3), (2, 2)), AvgPool((2, 2), (3, 3)), AvgPool((2, 2), (2, 2), (1, 1))],
)
def test_only_windows_that_tile_are_written_down(pool: AvgPool | None) -> None:
    assert pooling_of(projection(Dense(np.ones((2, 8))), pool)) is None
