"""Convolutions in a row as one, against torch running one after the other."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from osbc_deploy.frameworks.convolved import (
    behind_constant,
    border_fault,
    convolved,
    convolved_matrix,
    convolved_shape,
)
from osbc_deploy.model.graph import Conv

Array = np.ndarray[Any, Any]


def applied(conv: Conv, x: Array, constant: Array | None = None) -> Array:
    g = conv.geometry
    bias = None if constant is None else torch.from_numpy(constant)
    result = torch.nn.functional.conv2d(
        torch.from_numpy(x), torch.tensor(np.array(conv.weight)), bias, g["stride"], g["padding"],
        g["dilation"], g["groups"],
    )  # fmt: skip
    return result.numpy()


@st.composite
def pairs(draw: st.DrawFn, most: int = 3) -> tuple[Conv, Conv, tuple[int, int, int]]:
    """Two convolutions of any geometry, and a source that both of them take."""

    def two(low: int, high: int) -> tuple[int, int]:
        return draw(st.integers(low, high)), draw(st.integers(low, high))

    rng = np.random.default_rng(draw(st.integers(0, 999)))
    groups = draw(st.sampled_from([1, 2, 3, 4])), draw(st.sampled_from([1, 2, 3, 4]))
    middle = 12 if draw(st.booleans()) else groups[0] * groups[1]
    sizes = (middle, draw(st.integers(1, 2))), (groups[1] * draw(st.integers(1, 2)), 0)
    made = [
        Conv(
            # No weight is 0, so that whatever is seen shows.
            rng.random((out, width or middle // group, *two(1, 3))) + 0.1,
            None, two(1, most), two(0, 3), two(1, most), group,
        )
        for (out, width), group in zip(sizes, groups, strict=True)
    ]  # fmt: skip
    shape = (sizes[0][1] * groups[0], *two(1, 9))
    assume(min(made[0].output_shape(shape)) > 0)
    assume(min(made[1].output_shape(made[0].output_shape(shape))) > 0)
    return made[0], made[1], shape


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.filter_too_much])
@given(pairs())
def test_one_convolution_gives_what_two_in_a_row_do(
    drawn: tuple[Conv, Conv, tuple[int, int, int]],
) -> None:
    first, second, shape = drawn
    assume(not border_fault(first, second, shape, constant=False))
    both = convolved(first, second)
    assert both.weight.shape == convolved_shape(first, second)
    x = np.random.default_rng(1).random((2, *shape))
    constant = np.random.default_rng(2).random(len(first.weight))
    np.testing.assert_allclose(applied(both, x), applied(second, applied(first, x)), rtol=1e-10)
    if not border_fault(first, second, shape, constant=True):
        after = applied(second, applied(first, x, constant))
        found = applied(both, x, behind_constant(second, constant))
        np.testing.assert_allclose(found, after, rtol=1e-10)


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.filter_too_much])
@given(pairs(most=1))
def test_what_is_refused_differs_at_the_border(
    drawn: tuple[Conv, Conv, tuple[int, int, int]],
) -> None:
    first, second, shape = drawn
    assume(border_fault(first, second, shape, constant=False))
    x = np.ones((1, *shape))
    assert not np.allclose(applied(convolved(first, second), x), applied(second, applied(first, x)))


@settings(max_examples=100, deadline=None)
@given(pairs())
def test_padding_the_first_in_place_of_the_second_makes_them_one(
    drawn: tuple[Conv, Conv, tuple[int, int, int]],
) -> None:
    first, second, shape = drawn
    padding = [p + s * q for p, s, q in zip(first.padding, first.stride, second.padding)]  # noqa: B905
    moved = Conv(first.weight, None, first.stride, (padding[0], padding[1]), first.dilation,
                 first.groups)  # fmt: skip
    bare = Conv(second.weight, None, second.stride, (0, 0), second.dilation, second.groups)
    assert not border_fault(moved, bare, shape, constant=True)
    # Of the shape that it had.
    assert bare.output_shape(moved.output_shape(shape)) == second.output_shape(
        first.output_shape(shape)
    )


@settings(max_examples=200, deadline=None)
@given(pairs())
def test_a_matrix_behind_a_convolution_is_one_matrix(
    drawn: tuple[Conv, Conv, tuple[int, int, int]],
) -> None:
    first, _, shape = drawn
    rng = np.random.default_rng(3)
    x, behind = rng.random((2, *shape)), rng.random((3, math.prod(first.output_shape(shape))))
    found = x.reshape(2, -1) @ convolved_matrix(first, behind, shape).T
    np.testing.assert_allclose(found, applied(first, x).reshape(2, -1) @ behind.T, rtol=1e-10)


def conv(out: int, width: int, kernel: int, **more: Any) -> Conv:
    return Conv(np.ones((out, width, kernel, kernel)), **more)


@pytest.mark.parametrize(
    ("first", "second", "shape"),
    [
        # MobileNet's block, and one in groups whose second convolution mixes whole groups.
        (conv(8, 1, 3, groups=8), conv(16, 8, 1), (16, 8, 3, 3)),
        (conv(8, 1, 3, groups=8), conv(16, 4, 1, groups=2), (16, 4, 3, 3)),
        (conv(8, 1, 3, groups=8), conv(16, 1, 3, groups=8), (16, 1, 5, 5)),
        # A stride of 2 takes every other place, whatever follows.
        (conv(4, 2, 1, stride=(2, 2)), conv(5, 4, 3), (5, 2, 3, 3)),
        (conv(4, 2, 2, stride=(2, 2)), conv(5, 4, 3), (5, 2, 6, 6)),
    ],
)
def test_weights_that_two_become(first: Conv, second: Conv, shape: tuple[int, ...]) -> None:
    assert convolved_shape(first, second) == convolved(first, second).weight.shape == shape
