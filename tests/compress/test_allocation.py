"""How one number asked of the network is shared among its layers."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from osbc_deploy.compress.allocation import (
    global_allocation,
    lamps_allocation,
    lamps_scores,
    largest_allocation,
    mixed_widths,
    uniform_allocation,
)
from osbc_deploy.compress.damping import damp
from osbc_deploy.compress.paths import allocate, path_mask
from osbc_deploy.compress.ranking import rank_rows
from osbc_deploy.compress.rows import Workspace
from osbc_deploy.compress.support import least_squares, loss
from solver_problems import problem


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
    keep = lamps_allocation(weights, sparsity)
    total = sum(sizes)
    assert sum(keep) == max(total - round(sparsity * total), len(sizes))
    assert all(1 <= k <= size for k, size in zip(keep, sizes, strict=True))
    # Scaling a layer must not matter: that is what the score is for.
    assert lamps_allocation([w * 100 for w in weights[:1]] + weights[1:], sparsity) == keep


def test_no_layer_is_left_without_weights() -> None:
    # By size alone, the first layer would have none; of equal weights the first are taken.
    weights = [np.array([0.1, -0.3, 0.2]), np.array([5.0, 4.0, -3.0, 2.0]), np.zeros(3)]
    assert largest_allocation(weights, 0.5) == [1, 3, 1]
    assert largest_allocation(weights, 0.99) == [1, 1, 1]
    assert lamps_allocation(weights, 0.99) == [1, 1, 1]
    # The same where losses decide.
    layers = [problem(1, 4, 8), problem(2, 6, 5)]
    rankings = [rank_rows(W[None], [damp(H, 0.0)], W.size, Workspace()) for W, H in layers]
    for wholes in ([1e12, 1.0], [1.0, 1e12], [0.0, 1.0]):
        found = global_allocation(rankings, wholes, [32, 30], 0.8)
        assert sum(found) == 12
        assert min(found) == 1


def test_uniform_budget_by_hand() -> None:
    assert uniform_allocation([10, 1000, 3], 0.9) == [1, 100, 1]


def test_global_budget_has_the_least_sum_of_relative_losses() -> None:
    layers = [problem(1, 4, 8), problem(2, 6, 5)]
    layers[1] = (layers[1][0] * 1000, layers[1][1])
    rankings = [rank_rows(W[None], [damp(H, 0.0)], W.size, Workspace()) for W, H in layers]
    wholes = [float(loss(W, 0 * W, H).sum()) for W, H in layers]
    sizes = [W.size for W, _ in layers]

    def left(keeps: list[int]) -> float:
        total = 0.0
        for (W, H), ranking, whole, keep in zip(layers, rankings, wholes, keeps, strict=True):
            (counts,) = allocate(ranking.paths, keep)
            mask = path_mask(ranking.paths[0], counts, W.shape[1])
            total += loss(W, least_squares(W, H, mask), H).sum() / whole
        return total

    for sparsity in (0.3, 0.6, 0.9):
        found = global_allocation(rankings, wholes, sizes, sparsity)
        keep = sum(sizes) - round(sparsity * sum(sizes))
        assert sum(found) == keep
        splits = [[k, keep - k] for k in range(1, keep) if k <= sizes[0] and keep - k <= sizes[1]]
        # The shares come from convex hulls of the paths; a split between corners may beat them.
        assert left(found) <= min(left(s) for s in splits) * 1.03 + 1e-9


@pytest.mark.parametrize("average", [1, 2, 3.5, 6, 8])
def test_mixed_widths_are_best_within_the_room_there_is(average: float) -> None:
    losses = [{b: scale * 4.0**-b for b in range(1, 9)} for scale in (1.0, 20.0, 0.1)]
    weights = [100, 100, 100]
    costs = [{b: b * weight for b in range(1, 9)} for weight in weights]
    found = mixed_widths(losses, costs, average * 300)
    room = average * 300
    assert sum(b * w for b, w in zip(found, weights, strict=True)) <= room
    best = min(
        sum(f[b] for f, b in zip(losses, bits, strict=True))
        for bits in itertools.product(range(1, 9), repeat=3)
        if 100 * sum(bits) <= room
    )
    total = sum(f[b] for f, b in zip(losses, found, strict=True))
    assert total == pytest.approx(best)


@pytest.mark.parametrize("seed", range(8))
def test_mixed_widths_are_those_of_an_exhaustive_search(seed: int) -> None:
    rng = np.random.default_rng(seed)
    widths = range(1, 9)
    # What a width takes need not rise with it: one bit is stored in two, seven in eight.
    costs = [{b: int(rng.integers(1, 40)) + b // 2 * 20 for b in widths} for _ in range(5)]
    losses = [{b: float(rng.random() / b) for b in widths} for _ in range(5)]
    room = sum(cost[3] for cost in costs)
    found = mixed_widths(losses, costs, room)
    assert sum(cost[b] for cost, b in zip(costs, found, strict=True)) <= room
    least = min(
        sum(loss[b] for loss, b in zip(losses, chosen, strict=True))
        for chosen in itertools.product(widths, repeat=5)
        if sum(cost[b] for cost, b in zip(costs, chosen, strict=True)) <= room
    )
    assert sum(loss[b] for loss, b in zip(losses, found, strict=True)) == pytest.approx(least)
