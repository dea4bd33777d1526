"""Codes on the grid, scales, and error feedback against the algorithm as published."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from osbc_deploy.compress.quantize import (
    choose_scales,
    levels,
    quantize_rows,
    round_to_grid,
    search_scales,
)
from osbc_deploy.compress.rows import Workspace
from osbc_deploy.compress.support import least_squares, loss
from solver_problems import Array, problem


def scales_of(W: Array, mask: Array, H: Array, bits: int, groups: int) -> Array:
    return choose_scales(*search_scales(W, mask, np.diagonal(H), bits), groups)


def gptq(W: Array, H: Array, scale: Array, bits: int) -> Array:
    """Quantize with explicit updates through the inverse (Frantar et al. 2022, GPTQ, eq. 2-3)."""
    order = np.argsort(-np.diagonal(H), kind="stable")
    U = np.linalg.cholesky(np.linalg.inv(H[np.ix_(order, order)])).T
    w, codes = W[:, order].copy(), np.zeros_like(W)
    for i in range(W.shape[1]):
        codes[:, i] = round_to_grid(w[:, i], scale, bits)
        error = (w[:, i] - codes[:, i] * scale) / U[i, i]
        w[:, i:] -= error[:, None] * U[i, i:]
    result = np.empty_like(codes)
    result[:, order] = codes
    return result


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    bits=st.integers(1, 8),
    groups=st.integers(1, 8),
    density=st.sampled_from([0.1, 0.5, 1.0]),
)
def test_codes_lie_on_the_grid_and_only_on_the_support(
    seed: int, bits: int, groups: int, density: float
) -> None:
    W, H = problem(seed % 1000, 6, 9)
    mask = np.random.default_rng(seed).random(W.shape) < density
    pruned = least_squares(W, H, mask)
    scale = scales_of(pruned, mask, H, bits, groups)
    (codes,), (lost,) = quantize_rows(pruned, H, mask, [scale], [bits])
    assert codes.dtype == np.int8
    assert np.abs(codes.astype(int)).max(initial=0) <= levels(bits)
    assert not codes[~mask].any()
    assert (scale > 0).all()
    assert len(np.unique(scale)) <= groups
    assert np.allclose(lost, loss(pruned, codes * scale[:, None], H), rtol=1e-6, atol=1e-12)
    if bits == 1:
        assert (codes[mask] != 0).all()


def test_feedback_is_gptqs() -> None:
    W, H = problem(11, 12, 150)
    mask = np.ones(W.shape, bool)
    for bits in (2, 4):
        scale = scales_of(W, mask, H, bits, 12)
        (codes,), _ = quantize_rows(W, H, mask, [scale], [bits], polish=False)
        assert np.array_equal(codes, gptq(W, H, scale, bits))


def test_error_feedback_beats_rounding_and_polishing_never_hurts() -> None:
    W, H = problem(11, 40, 60)
    for density in (1.0, 0.5):
        mask = np.random.default_rng(1).random(W.shape) < density
        V = least_squares(W, H, mask)
        for bits in (1, 2, 3, 4):
            scale = scales_of(V, mask, H, bits, 40)
            near = round_to_grid(V, scale[:, None], bits) * mask * scale[:, None]
            fed = quantize_rows(V, H, mask, [scale], [bits], polish=False)[1]
            polished = quantize_rows(V, H, mask, [scale], [bits])[1]
            assert fed.sum() < 0.85 * loss(V, near, H).sum()
            assert (polished <= fed * (1 + 1e-9)).all()


def test_no_single_code_can_be_improved() -> None:
    W, H = problem(12, 3, 12)
    mask = np.ones(W.shape, bool)
    scale = scales_of(W, mask, H, 3, 3)
    (codes,), (lost,) = quantize_rows(W, H, mask, [scale], [3])
    for row in range(3):
        for i in range(12):
            for code in range(-3, 4):
                other = codes[row].astype(float)
                other[i] = code
                d = W[row] - other * scale[row]
                assert d @ H @ d >= lost[row] - 1e-9


def test_quantizing_a_support_equals_quantizing_the_smaller_problem() -> None:
    W, H = problem(12, 5, 10)
    support = np.array([0, 2, 3, 7, 9])
    mask = np.zeros(W.shape, bool)
    mask[:, support] = True
    mask[4, 7] = False
    scale = np.full(5, 0.3)
    (codes,), _ = quantize_rows(W, H, mask, [scale], [3])
    for row in range(5):
        index = np.flatnonzero(mask[row])
        (small,), _ = quantize_rows(
            W[row : row + 1, index],
            H[np.ix_(index, index)],
            np.ones((1, len(index)), bool),
            [scale[:1]],
            [3],
        )
        assert np.array_equal(codes[row, index], small[0])
    alone, _ = quantize_rows(W, H, mask, [scale], [3], Workspace(memory=1))
    assert np.array_equal(alone[0], codes)


def test_widths_and_scales_share_the_work_but_not_the_result() -> None:
    W, H = problem(12, 5, 20)
    mask = np.random.default_rng(2).random(W.shape) < 0.6
    scales = [np.full(5, 0.3), np.full(5, 0.1)]
    together, lost = quantize_rows(W * mask, H, mask, scales, [3, 5])
    for k, bits in enumerate((3, 5)):
        alone, lost_alone = quantize_rows(W * mask, H, mask, [scales[k]], [bits])
        assert np.array_equal(together[k], alone[0])
        assert np.allclose(lost[k], lost_alone[0])


def test_searched_scale_is_best_of_the_candidates() -> None:
    W, H = problem(13, 1, 30)
    mask = np.ones(W.shape, bool)
    scale = scales_of(W, mask, H, 3, 1)
    error = lambda s: (np.diagonal(H) * (W - s * round_to_grid(W, s, 3)) ** 2).sum()  # noqa: E731
    top = np.abs(W).max() / levels(3)
    assert error(scale[0]) <= min(error(np.array(top * f)) for f in (1.0, 0.5, 0.25))
    assert error(scale[0]) < error(np.array(top))
