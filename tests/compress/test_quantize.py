"""Codes on the grid, scales, and error feedback against the algorithm as published."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from osbc_deploy.compress.quantize import (
    choose_scales,
    quantize_rows,
    round_to_grid,
    search_scales,
    windows,
)
from osbc_deploy.compress.rows import Workspace
from osbc_deploy.compress.support import least_squares, loss
from solver_problems import Array, problem

LARGEST = {1: 1, 2: 1, 3: 3, 4: 7, 5: 15, 6: 31, 7: 63, 8: 127}
"""The largest code of every width: symmetric grids, and one bit is the sign alone."""


def nearest(w: Array, scale: Array, bits: int) -> Array:
    """Return the nearest codes."""
    top = LARGEST[bits]
    return np.where(w < 0, -1.0, 1.0) if bits == 1 else np.clip(np.rint(w / scale), -top, top)


def scales_of(W: Array, mask: Array, H: Array, bits: int, groups: int) -> Array:
    return choose_scales(*search_scales(W, mask, np.diagonal(H), bits), groups)


def gptq(W: Array, H: Array, scale: Array, bits: int) -> Array:
    """Quantize with explicit updates through the inverse (Frantar et al. 2022, GPTQ, eq. 2-3)."""
    order = np.argsort(-np.diagonal(H), kind="stable")
    U = np.linalg.cholesky(np.linalg.inv(H[np.ix_(order, order)])).T
    w, codes = W[:, order].copy(), np.zeros_like(W)
    for i in range(W.shape[1]):
        codes[:, i] = nearest(w[:, i], scale, bits)
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
    assert np.abs(codes.astype(int)).max(initial=0) <= LARGEST[bits]
    assert not codes[~mask].any()
    assert (scale > 0).all()
    assert len(np.unique(scale)) <= groups
    assert np.allclose(lost, loss(pruned, codes * scale[:, None], H), rtol=1e-6, atol=1e-12)
    if bits == 1:
        assert (codes[mask] != 0).all()


@pytest.mark.parametrize(
    ("bits", "full", "codes"),
    [
        # Of -9.0, -2.6, -0.5, -0.4, 0.0, 0.4, 0.6, 2.5 and 9.0 on a grid of steps of 1.
        (1, False, [-1, -1, -1, -1, 1, 1, 1, 1, 1]),
        (1, True, [-1, -1, -1, -1, 1, 1, 1, 1, 1]),
        (2, False, [-1, -1, 0, 0, 0, 0, 1, 1, 1]),
        (2, True, [-2, -2, 0, 0, 0, 0, 1, 1, 1]),
        (3, False, [-3, -3, 0, 0, 0, 0, 1, 2, 3]),
        (3, True, [-4, -3, 0, 0, 0, 0, 1, 2, 3]),
        (4, False, [-7, -3, 0, 0, 0, 0, 1, 2, 7]),
        (4, True, [-8, -3, 0, 0, 0, 0, 1, 2, 7]),
        (5, False, [-9, -3, 0, 0, 0, 0, 1, 2, 9]),
    ],
)
def test_codes_by_hand(bits: int, full: bool, codes: list[int]) -> None:
    w = np.array([[-9.0, -2.6, -0.5, -0.4, 0.0, 0.4, 0.6, 2.5, 9.0]])
    assert round_to_grid(w, np.ones(1), bits, full=full).tolist() == [codes]
    # Inputs that have nothing in common feed nothing back.
    H = np.eye(9)
    for polish in (False, True):
        for mask in (np.ones((1, 9), bool), np.arange(9)[None] != 4):
            found, _ = quantize_rows(w, H, mask, [np.ones(1)], [bits], polish=polish, full=full)
            assert found[0].tolist() == (mask * np.array(codes)).tolist()
    if bits == 1:
        # A weight of 0 that is kept is stored too, whoever else is.
        few = np.arange(9)[None] % 2 == 0
        found, _ = quantize_rows(w, H, few, [np.ones(1)], [1])
        assert found[0, 0, 4] == 1


def descent(W: Array, H: Array, codes: Array, scale: Array, bits: int) -> Array:
    """Try every code for one weight after the other, three times over."""
    found = codes.astype(float)
    grid = range(-LARGEST[bits], LARGEST[bits] + 1)
    for row in range(len(W)):
        for i in [*np.argsort(np.diagonal(H), kind="stable")] * 3:
            if codes[row, i] or bits > 1:
                losses = []
                for code in grid:
                    found[row, i] = code
                    d = W[row] - found[row] * scale[row]
                    losses.append(d @ H @ d)
                found[row, i] = grid[int(np.argmin(losses))]
    return found


@pytest.mark.parametrize("support", ["whole", "rows that differ"])
def test_codes_descend_to_where_brute_force_does(support: str) -> None:
    moved = 0
    for seed in range(8):
        W, H = problem(seed, 4, 12)
        # The more inputs have in common, the more one code makes up for another.
        H += 3 * np.ones((12, 12))
        mask = np.ones(W.shape, bool)
        if support != "whole":
            # A row of its own support is a smaller problem.
            mask[:, seed % 12] = mask[0, 3] = False
        scale = np.full(4, 0.4)
        (fed,), _ = quantize_rows(W, H, mask, [scale], [3], polish=False)
        (codes,), _ = quantize_rows(W, H, mask, [scale], [3])
        for row in range(4):
            on = np.flatnonzero(mask[row])
            part = np.s_[row : row + 1]
            block = H[np.ix_(on, on)]
            expected = descent(W[part, on], block, fed[part, on], scale[part], 3)
            assert codes[part, on].tolist() == expected.tolist()
        moved += int((codes != fed).sum())
    assert moved >= 5


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
            near = nearest(V, scale[:, None], bits) * mask * scale[:, None]
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


def test_known_codes_are_polished_and_others_walked_for() -> None:
    for seed in range(6):
        W, H = problem(seed, 4, 12)
        H += 3 * np.ones((12, 12))
        mask = np.ones(W.shape, bool)
        mask[:, seed], mask[0, 3] = False, False
        scale = np.full(4, 0.4)
        known = np.array([True, False, True, False])
        started = np.random.default_rng(seed).integers(-3, 4, W.shape) * mask
        (codes,), _ = quantize_rows(
            W, H, mask, [scale], [3], walked=(started[None].astype(np.int8), known)
        )
        for row in range(4):
            on = np.flatnonzero(mask[row])
            w, block = W[row : row + 1, on], H[np.ix_(on, on)]
            own = scale[row : row + 1]
            begun = started[row : row + 1, on] if known[row] else gptq(w, block, own, 3)
            assert codes[row, on].tolist() == descent(w, block, begun, own, 3)[0].tolist()
        # Nothing to polish: what is not known of them, their losses, is walked for.
        known_or_not = [
            quantize_rows(W, H, mask, [scale], [3], polish=False, walked=walked)
            for walked in ((started[None].astype(np.int8), known), None)
        ]
        for found, plain in zip(*known_or_not, strict=True):
            assert np.array_equal(found, plain)


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
    error = lambda s: (np.diagonal(H) * (W - s * nearest(W, s, 3)) ** 2).sum()  # noqa: E731
    top = np.abs(W).max() / 3
    assert error(scale[0]) <= min(error(np.array(top * f)) for f in (1.0, 0.5, 0.25))
    assert error(scale[0]) < error(np.array(top))


def test_what_changes_nothing_makes_no_scale_larger() -> None:
    # Removed, of no importance, or in a row of its own: 6 is the largest weight that counts.
    W = np.array([[1.0, -6.0, 100.0, 0.5], [2.0, 3.0, 0.25, 50.0]])
    mask = np.array([[True, True, True, True], [True, True, True, False]])
    candidates, errors = search_scales(W, mask, np.array([1.0, 1.0, 0.0, 1.0]), 3)
    assert candidates[0] == 6.0 / 3
    assert errors[:, 0].tolist() == [1.0 + 0.25, 0.0 + 1.0]


def test_some_candidate_is_about_as_good_as_any_scale() -> None:
    rng = np.random.default_rng(0)
    W = rng.normal(size=(8, 60))
    # Rows of other sizes, and weights far beyond the others that hardly matter.
    W[4:] *= 2.0 ** -np.arange(4, 8)[:, None]
    importance = np.ones(60)
    importance[0] = 1e-7
    W[:, 0] = 20 * np.abs(W[:, 1:]).max(axis=1)
    mask = np.ones(W.shape, bool)
    for bits, most in ((2, 1.1), (3, 1.1), (4, 1.2)):
        candidates, errors = search_scales(W, mask, importance, bits)
        assert (np.diff(candidates) < 0).all()
        for row, found in zip(W, errors, strict=True):
            fine = np.abs(row).max() / LARGEST[bits] * 2.0 ** -np.linspace(0, 10, 2000)[:, None]
            every = importance * (row - fine * nearest(row, fine, bits)) ** 2
            assert found.min() < most * every.sum(axis=1).min()


def test_the_candidates_that_are_tried_hold_the_best_with_feedback() -> None:
    for seed in range(3):
        W, H = problem(seed, 24, 40)
        mask = np.ones(W.shape, bool)
        for bits in (2, 3, 4):
            candidates, errors = search_scales(W, mask, np.diagonal(H), bits)
            every = [np.full(24, scale) for scale in candidates]
            lost = quantize_rows(W, H, mask, every, [bits] * len(every), polish=False)[1].T
            tried = windows(errors)
            assert tried.shape == (24, 12)
            best = np.take_along_axis(lost, tried, axis=1).min(axis=1)
            assert best.sum() < 1.001 * lost.min(axis=1).sum()


def test_scales_are_exchanged_while_that_helps() -> None:
    # The middle scale serves both rows best alone (2 + 2), and neither of two is it (0 + 0).
    errors = np.array([[0.0, 2.0, 9.0], [9.0, 2.0, 0.0]])
    assert choose_scales(np.array([4.0, 2.0, 1.0]), errors, 1).tolist() == [2.0, 2.0]
    assert choose_scales(np.array([4.0, 2.0, 1.0]), errors, 2).tolist() == [4.0, 1.0]
