"""The solver against brute force, numpy and hand calculations."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from osbc_deploy.compress.budget import lamps_budget, lamps_scores
from osbc_deploy.compress.quantize import choose_scales, levels, quantize_rows, round_to_grid
from osbc_deploy.compress.solver import (
    allocate,
    damp,
    eliminate,
    least_squares,
    loss,
    path_mask,
    select_forward,
)

Array = np.ndarray[Any, Any]


def problem(seed: int, rows: int, n: int) -> tuple[Array, Array]:
    rng = np.random.default_rng(seed)
    x = (rng.random((60, n)) < 0.4) @ (np.eye(n) + 0.3 * rng.random((n, n)))
    return rng.normal(size=(rows, n)), 2 * x.T @ x / 60 + 0.01 * np.eye(n)


def best_on(w: Array, H: Array, support: tuple[int, ...]) -> float:
    """Loss of one row with the best weights on a support, by numpy's own solver."""
    index = list(support)
    best = np.zeros_like(w)
    if index:
        best[index] = np.linalg.solve(H[np.ix_(index, index)], (H @ w)[index])
    return float((w - best) @ H @ (w - best))


def brute_force_removals(w: Array, H: Array) -> list[int]:
    """Remove the weight whose best replacement by the others is cheapest, again and again."""
    support = tuple(range(len(w)))
    order = []
    while support:
        costs = {p: best_on(w, H, tuple(i for i in support if i != p)) for p in support}
        gone = min(costs, key=lambda p: costs[p])
        order.append(gone)
        support = tuple(i for i in support if i != gone)
    return order


def brute_force_additions(w: Array, H: Array) -> list[int]:
    chosen: tuple[int, ...] = ()
    while len(chosen) < len(w):
        rest = [p for p in range(len(w)) if p not in chosen]
        chosen = (*chosen, min(rest, key=lambda p: best_on(w, H, (*chosen, p))))
    return list(chosen)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), n=st.integers(1, 8))
def test_elimination_order_is_brute_force_order(seed: int, n: int) -> None:
    W, H = problem(seed, 3, n)
    path = eliminate(W, H)
    for row in range(3):
        assert path.order[row, ::-1].tolist() == brute_force_removals(W[row], H)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), n=st.integers(1, 8))
def test_forward_order_is_brute_force_order(seed: int, n: int) -> None:
    W, H = problem(seed, 3, n)
    path = select_forward(W, H, n)
    for row in range(3):
        assert path.order[row].tolist() == brute_force_additions(W[row], H)


@pytest.mark.parametrize("select", ["eliminate", "forward"])
def test_values_add_up_to_the_loss_of_the_rest(select: str) -> None:
    W, H = problem(2, 5, 8)
    path = eliminate(W, H) if select == "eliminate" else select_forward(W, H, 8)
    assert np.allclose(path.drop.sum(axis=1), loss(W, 0 * W, H), rtol=1e-9)
    for kept in range(9):
        mask = path_mask(path, np.full(5, kept), 8)
        measured = loss(W, least_squares(W, H, mask), H)
        assert np.allclose(path.drop[:, kept:].sum(axis=1), measured, rtol=1e-7, atol=1e-10)
    assert (np.diff(path.value, axis=1) <= 0).all()
    assert (path.value >= path.drop).all()


def test_no_mask_of_the_same_size_beats_elimination_by_much() -> None:
    W, H = problem(4, 6, 8)
    kept = path_mask(eliminate(W, H), np.full(6, 4), 8)
    ours = loss(W, least_squares(W, H, kept), H)
    best = [min(best_on(w, H, s) for s in itertools.combinations(range(8), 4)) for w in W]
    assert (ours >= np.array(best) - 1e-9).all()
    assert ours.sum() <= 1.3 * sum(best)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), n=st.integers(2, 12))
def test_least_squares_is_numpys(seed: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(40, n))
    W, mask = rng.normal(size=(4, n)), rng.random((4, n)) < 0.6
    solved = least_squares(W, x.T @ x, mask)
    for row in range(4):
        expected = np.zeros(n)
        expected[mask[row]] = np.linalg.lstsq(x[:, mask[row]], x @ W[row], rcond=None)[0]
        assert np.allclose(solved[row], expected, atol=1e-8)


def test_loss_is_the_measured_change_of_the_response() -> None:
    rng = np.random.default_rng(1)
    x, W, W2 = rng.normal(size=(50, 7)), rng.normal(size=(3, 7)), rng.normal(size=(3, 7))
    measured = ((x @ (W - W2).T) ** 2).sum(axis=0)
    assert np.allclose(loss(W, W2, x.T @ x), measured, rtol=1e-10)


def test_allocation_takes_the_largest_values_of_all_rows() -> None:
    W, H = problem(9, 10, 8)
    W[3] *= 20
    path = eliminate(W, H)
    (kept,) = allocate([path], 25)
    assert kept.sum() == 25
    assert kept[3] == 8
    inside = [path.value[r, : kept[r]].min(initial=np.inf) for r in range(10)]
    outside = [path.value[r, kept[r] :].max(initial=0) for r in range(10)]
    assert min(inside) >= max(outside)


def test_damping_is_raised_and_reported_when_the_hessian_is_singular() -> None:
    H = np.ones((4, 4))
    H[3] = H[:, 3] = 0.0
    fine = damp(H, 0.01)
    assert fine.attempts == 1
    assert fine.dead.tolist() == [False, False, False, True]
    assert np.allclose(fine.H[:3, :3], H[:3, :3] + 0.01 * np.eye(3))
    bad = np.array([[1.0, 2.0], [2.0, 1.0]])
    raised = damp(bad, 0.01)
    assert raised.attempts > 1
    assert raised.damping > 0.01
    np.linalg.cholesky(raised.H)


def test_lamps_scores_by_hand() -> None:
    # Squares 1, 4, 9: 1/14, 4/13, 9/9.
    scores = lamps_scores(np.array([-2.0, 1.0, 3.0]))
    assert np.allclose(scores, [4 / 13, 1 / 14, 1.0])


@settings(max_examples=50, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    sizes=st.lists(st.integers(1, 40), min_size=1, max_size=4),
    sparsity=st.floats(0, 0.999),
)
def test_budget_keeps_the_global_share_and_something_of_every_layer(
    seed: int, sizes: list[int], sparsity: float
) -> None:
    rng = np.random.default_rng(seed)
    weights = [rng.normal(size=size) * 10 ** rng.uniform(-3, 3) for size in sizes]
    keep = lamps_budget(weights, sparsity)
    total = sum(sizes)
    assert sum(keep) == max(total - round(sparsity * total), len(sizes))
    assert all(1 <= k <= size for k, size in zip(keep, sizes, strict=True))
    # Scaling a layer must not matter: that is what the score is for.
    assert lamps_budget([w * 100 for w in weights[:1]] + weights[1:], sparsity) == keep


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
    scale = choose_scales(pruned, mask, np.diagonal(H), bits, groups)
    codes = quantize_rows(pruned, H, mask, scale, bits)
    assert codes.dtype == np.int8
    assert np.abs(codes.astype(int)).max(initial=0) <= levels(bits)
    assert not codes[~mask].any()
    assert (scale > 0).all()
    assert len(np.unique(scale)) <= groups
    if bits == 1:
        assert (codes[mask] != 0).all()


def test_error_feedback_beats_rounding_to_nearest() -> None:
    W, H = problem(11, 40, 60)
    mask = np.ones(W.shape, bool)
    for bits in (2, 3, 4):
        scale = choose_scales(W, mask, np.diagonal(H), bits, 40)
        near = round_to_grid(W, scale[:, None], bits) * scale[:, None]
        fed = quantize_rows(W, H, mask, scale, bits) * scale[:, None]
        assert loss(W, fed, H).sum() < 0.8 * loss(W, near, H).sum()


def test_quantizing_a_support_equals_quantizing_the_smaller_problem() -> None:
    W, H = problem(12, 5, 10)
    support = np.array([0, 2, 3, 7, 9])
    mask = np.zeros(W.shape, bool)
    mask[:, support] = True
    scale = np.full(5, 0.3)
    small = quantize_rows(W[:, support], H[np.ix_(support, support)], mask[:, support], scale, 3)
    assert np.array_equal(quantize_rows(W, H, mask, scale, 3)[:, support], small)
    # Rows in batches of one give the same codes as all rows at once.
    assert np.array_equal(quantize_rows(W, H, mask, scale, 3, workspace=1)[:, support], small)


def test_searched_scale_is_best_of_the_candidates() -> None:
    W, H = problem(13, 1, 30)
    mask = np.ones(W.shape, bool)
    scale = choose_scales(W, mask, np.diagonal(H), 3, 1)
    error = lambda s: (np.diagonal(H) * (W - s * round_to_grid(W, s, 3)) ** 2).sum()  # noqa: E731
    top = np.abs(W).max() / levels(3)
    assert error(scale[0]) <= min(error(np.array(top * f)) for f in (1.0, 0.5, 0.25))
    assert error(scale[0]) < error(np.array(top))
