"""Poolings that are merged into weights can be taken out again, exactly, or not at all."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from osbc_deploy.errors import ChipLimitError
from osbc_deploy.fixedpoint.network import FixedConv, FixedDense, Pooling
from osbc_deploy.lower.merge import expand, inexact, pooling_of, separate
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
    # What no source holds is not tried.
    with pytest.raises(ValueError, match="not those of a pooling of 1000000000 x 1"):
        separate(merged, Pooling((10**9, 1)), shape)


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


def test_what_is_merged_is_torchs_pooling_and_convolution(rng: np.random.Generator) -> None:
    """Every spike alone, through windows that overlap, leave gaps or reach beyond the border."""
    conv2d, refused = torch.nn.functional.conv2d, 0

    def pair(low: int, high: int) -> tuple[int, int]:
        return tuple(rng.integers(low, high + 1, 2).tolist())

    for number in range(300):
        kernel, shape = pair(1, 3), (2, *pair(4, 8))
        pool = AvgPool(kernel, pair(1, 3), (kernel[0] // 2 * int(rng.integers(2)), 0))
        geometry = {"stride": (1, 1), "padding": pair(0, 2), "dilation": (1, 1)}
        if number % 2:
            geometry |= {"stride": pair(1, 2), "dilation": pair(1, 2)}
        codes = rng.integers(1, 9, (3, 2, *pair(1, 3)))
        whole = projection(Conv(codes.astype(float), **geometry), pool)
        counted = torch.nn.functional.avg_pool2d(
            torch.eye(int(np.prod(shape))).double().reshape(-1, *shape),
            pool.kernel, pool.stride, pool.padding, divisor_override=1,
        )  # fmt: skip
        try:
            expected = conv2d(counted, torch.tensor(codes).double(), **geometry)
        except RuntimeError:
            continue  # a kernel larger than what it sees
        if inexact(whole, shape):
            refused += 1
            with pytest.raises(ChipLimitError, match="a pooling that cannot be merged"):
                expand(whole, codes, shape)
            continue
        merged, divisor = expand(whole, codes, shape)
        assert isinstance(merged, FixedConv)
        found = conv2d(
            torch.eye(int(np.prod(shape))).double().reshape(-1, *shape),
            torch.tensor(merged.weight).double(), None, merged.stride, merged.padding,
            merged.dilation,
        )  # fmt: skip
        assert torch.equal(found, expected)
        assert divisor == pool.divisor
    assert refused > 50


@pytest.mark.parametrize(
    ("pool", "padding", "refused"),
    [
        # Windows of 2 tile 6 pixels; of 5 the last is left over, where a padding place lies.
        (AvgPool((2, 2), (2, 2)), (1, 1), (False, True)),
        (AvgPool((2, 2), (2, 2)), (0, 0), (False, False)),
        # Windows that overlap see from beyond the border what the first window sees, ...
        (AvgPool((3, 3), (2, 2)), (1, 0), (True, True)),
        # ... but not where they are padded themselves: a window before the first ends at -2, and
        # one behind the last begins at 5, which 6 pixels have.
        (AvgPool((3, 3), (2, 2), (1, 1)), (1, 1), (True, False)),
    ],
)
def test_a_pooling_is_refused_where_it_would_see_what_is_padded(
    pool: AvgPool, padding: tuple[int, int], refused: tuple[bool, bool]
) -> None:
    whole = projection(Conv(np.ones((1, 1, 3, 3)), padding=padding), pool)
    assert (inexact(whole, (1, 6, 6)), inexact(whole, (1, 5, 5))) == refused
