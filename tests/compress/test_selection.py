"""Selection against brute force, numpy and hand calculations."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from osbc_deploy.compress import selection
from osbc_deploy.compress.damping import damp
from osbc_deploy.compress.elimination import eliminate
from osbc_deploy.compress.forward import choose
from osbc_deploy.compress.moments import Moments
from osbc_deploy.compress.paths import Path, allocate, path_mask
from osbc_deploy.compress.patterns import Pattern, input_order, n_of_m_mask, output_order
from osbc_deploy.compress.ranking import rank_rows
from osbc_deploy.compress.rows import Workspace
from osbc_deploy.compress.selection import select_forward, select_hybrid
from osbc_deploy.compress.support import least_squares, loss
from osbc_deploy.errors import UsageError
from solver_problems import Array, best_on, problem


def brute_force_removals(w: Array, H: Array, among: tuple[int, ...]) -> list[int]:
    """Remove the weight whose best replacement by the others is cheapest, again and again."""
    support, order = among, []
    while support:
        costs = {p: best_on(w, H, tuple(i for i in support if i != p)) for p in support}
        gone = min(costs, key=lambda p: costs[p])
        order.append(gone)
        support = tuple(i for i in support if i != gone)
    return order


def brute_force_additions(w: Array, H: Array, count: int) -> list[int]:
    chosen: tuple[int, ...] = ()
    while len(chosen) < count:
        rest = [p for p in range(len(w)) if p not in chosen]
        chosen = (*chosen, min(rest, key=lambda p: best_on(w, H, (*chosen, p))))
    return list(chosen)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), n=st.integers(1, 8))
def test_elimination_order_is_brute_force_order(seed: int, n: int) -> None:
    W, H = problem(seed, 3, n)
    path = eliminate(W, H)
    for row in range(3):
        assert path.order[row, ::-1].tolist() == brute_force_removals(W[row], H, tuple(range(n)))


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), n=st.integers(1, 8), data=st.data())
def test_forward_and_hybrid_orders_are_brute_force_orders(
    seed: int, n: int, data: st.DataObject
) -> None:
    W, H = problem(seed, 3, n)
    k = data.draw(st.integers(1, n))
    forward, hybrid = select_forward(W, H, k), select_hybrid(W, H, k)
    for row in range(3):
        chosen = brute_force_additions(W[row], H, k)
        assert forward.order[row].tolist() == chosen
        assert hybrid.order[row, ::-1].tolist() == brute_force_removals(W[row], H, tuple(chosen))


def one_by_one(c: Array, H: Array, count: int, candidates: int | None = None) -> list[int]:
    """Add the column with the largest drop again and again, as defined, in NumPy.

    With `candidates`, only so many for each column still to come stay after a quarter and a half.
    """
    c, d, factor = c.copy(), np.diagonal(H).copy(), np.zeros((count, len(c)))
    chosen: list[int] = []
    gone = np.zeros(len(c), bool)
    for step in range(count):
        worth = c * c / np.maximum(d, 1e-12)
        worth[chosen] = -1.0
        worth[gone] = -2.0
        left = 0 if candidates is None else candidates * (count - step)
        if step in (count // 4, count // 2) and 0 < left < 0.8 * (~gone).sum():
            gone[np.argsort(-worth, kind="stable")[left:]] = True
            worth[gone] = -2.0
        p = int(worth.argmax())
        row = (H[p] - factor[:step, p] @ factor[:step]) / np.sqrt(d[p])
        c -= c[p] / np.sqrt(d[p]) * row
        d -= row * row
        factor[step] = row
        chosen.append(p)
    return chosen


@pytest.mark.parametrize(("n", "k", "spread"), [(700, 420, 1.0), (900, 450, 0.3), (1200, 300, 3.0)])
def test_steps_foreseen_are_those_of_single_steps(n: int, k: int, spread: float) -> None:
    # Large enough that steps are foreseen, where the factor is more than a cache holds.
    rng = np.random.default_rng(n)
    X = rng.normal(size=(2 * n, n)) * rng.gamma(1.0, spread, n)
    X += rng.normal(size=(2 * n, 1))
    H = X.T @ X + np.eye(n)
    for w in rng.normal(size=(2, n)):
        order = np.empty(k, np.int64)
        choose(H @ w, H, np.full(n, 1e-12), np.empty((k, n)), order, n)
        assert order.tolist() == one_by_one(H @ w, H, k)


def test_columns_that_are_worth_least_are_left_out_twice() -> None:
    rng = np.random.default_rng(8)
    X = rng.normal(size=(300, 240)) + 2.0 * rng.normal(size=(300, 1))
    H = X.T @ X + np.eye(240)
    w = rng.normal(size=240)
    found = {}
    for candidates in (1, 2, 240):
        order = np.empty(80, np.int64)
        choose(H @ w, H, np.full(240, 1e-12), np.empty((80, 240)), order, candidates)
        found[candidates] = order.tolist()
        assert found[candidates] == one_by_one(H @ w, H, 80, candidates)
    assert found[1] != found[2] != found[240]


def test_a_column_that_another_makes_valuable_is_not_overlooked() -> None:
    # Of each pair the second says nothing of the target by itself, and as much as the first beside
    # it: it is not among the best until that is chosen, and then it is the best of all.
    pairs, k = 500, 700
    size = np.random.default_rng(0).permutation(np.linspace(1.0, 2.0, pairs))
    H = np.kron(np.eye(pairs), np.array([[2.0, 1.0], [1.0, 1.0]]))
    c = np.kron(size, np.array([1.0, -0.01]))
    order = np.empty(k, np.int64)
    choose(c.copy(), H, np.full(2 * pairs, 1e-12), np.empty((k, 2 * pairs)), order, 2 * pairs)
    falling = np.argsort(-size)
    expected = np.stack([2 * falling, 2 * falling + 1], axis=1).ravel()
    assert order.tolist() == expected[:k].tolist() == one_by_one(c, H, k)


def test_of_equal_columns_the_first_is_chosen_first() -> None:
    n, k = 700, 500
    size = np.repeat([1.0, 3.0, 2.0, 3.0, 1.0], n // 5)
    order = np.empty(k, np.int64)
    choose(size.copy(), np.eye(n), np.full(n, 1e-12), np.empty((k, n)), order, n)
    assert order.tolist() == np.argsort(-size, kind="stable")[:k].tolist()
    order[:] = -1
    choose(np.zeros(n), np.eye(n), np.full(n, 1e-12), np.empty((k, n)), order, n)
    assert order.tolist() == list(range(k))


def test_a_column_that_comes_to_be_as_good_as_those_behind_it_goes_first() -> None:
    # Twenty times: a column that is worth nothing until the one behind it is chosen, and then just
    # as much as that and three others. All numbers are whole, or halves.
    levels, first, others = 20, 250, 300
    n = 5 * levels + first + others
    H, c, expected = np.eye(n), np.ones(n), list(range(5 * levels, 5 * levels + first))
    c[expected] = 2000.0 - np.arange(first)
    for level in range(levels):
        hidden, key, equal = 2 * level, 2 * level + 1, 2 * levels + 3 * level + np.arange(3)
        H[hidden, hidden], H[key, key], H[hidden, key], H[key, hidden] = 2.0, 4.0, 2.0, 2.0
        c[hidden], c[key], c[equal] = 0.0, 2.0 * (90 - level), 90.0 - level
        expected += [key, hidden, *equal.tolist()]
    order = np.empty(len(expected), np.int64)
    choose(c.copy(), H, np.full(n, 1e-12), np.empty((len(order), n)), order, n)
    assert order.tolist() == expected


def test_numbers_that_are_none_end_in_a_choice() -> None:
    n, k = 600, 400
    order = np.empty(k, np.int64)
    choose(np.full(n, np.nan), np.eye(n), np.full(n, 1e-12), np.empty((k, n)), order, n)
    assert ((order >= 0) & (order < n)).all()


def step_by_step(W: Array, H: Array) -> tuple[Array, Array]:
    """Eliminate with the inverse updated at every step (Frantar, Singh, Alistarh 2022, alg. 1)."""
    order, rise = np.empty(W.shape, int), np.empty(W.shape)
    for r, row in enumerate(W):
        w, inverse, alive = row.copy(), np.linalg.inv(H), list(range(len(row)))
        for step in range(len(row)):
            p = min(alive, key=lambda i: w[i] ** 2 / inverse[i, i])
            order[r, step], rise[r, step] = p, w[p] ** 2 / inverse[p, p]
            w -= w[p] / inverse[p, p] * inverse[:, p]
            inverse -= np.outer(inverse[:, p], inverse[p]) / inverse[p, p]
            alive.remove(p)
    return order[:, ::-1], rise[:, ::-1]


def test_of_equal_weights_the_first_is_removed_first() -> None:
    W = np.array([[1.0, 2.0, 1.0, 2.0, 1.0], [3.0, 3.0, 3.0, 3.0, 3.0]])
    path = eliminate(W, np.eye(5))
    assert path.order[:, ::-1].tolist() == [[0, 2, 4, 1, 3], [0, 1, 2, 3, 4]]


def test_blocks_of_removals_give_the_order_of_single_ones() -> None:
    # More weights than three blocks, so the inverse is updated and compacted on the way.
    W, H = problem(3, 3, 210)
    path = eliminate(W, H)
    order, rise = step_by_step(W, H)
    assert np.array_equal(path.order, order)
    assert np.allclose(path.drop, rise, rtol=1e-7)


@pytest.mark.parametrize("select", ["eliminate", "forward", "hybrid"])
def test_drops_add_up_to_the_loss_of_the_rest(select: str) -> None:
    W, H = problem(2, 5, 90)
    k = 90 if select == "eliminate" else 50
    choose = {"forward": select_forward, "hybrid": select_hybrid}
    path = eliminate(W, H) if select == "eliminate" else choose[select](W, H, k)
    whole = loss(W, 0 * W, H)
    for kept in range(0, k + 1, 5):
        mask = path_mask(path, np.full(5, kept), 90)
        measured = loss(W, least_squares(W, H, mask), H)
        predicted = whole - path.drop[:, :kept].sum(axis=1)
        assert np.allclose(predicted, measured, rtol=1e-6, atol=1e-9 * whole.max())
    assert (np.diff(path.value, axis=1) <= 0).all()
    assert (path.value >= path.drop).all()


def test_few_candidates_lose_hardly_more_than_exact_elimination(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(selection, "_NARROW_WORK", 0.0)
    W, H = problem(3, 16, 400)
    path = select_hybrid(W, H, 40)
    assert all(len(set(row)) == 40 for row in path.order.tolist())
    few, all_of_them = (
        loss(W, least_squares(W, H, path_mask(p, np.full(16, 32), 400)), H).sum()
        for p in (path, eliminate(W, H))
    )
    assert few < 1.01 * all_of_them


def test_rows_do_not_know_of_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where candidates are given up, and inputs differ in size by orders of magnitude."""
    monkeypatch.setattr(selection, "_NARROW_WORK", 0.0)
    rng = np.random.default_rng(1)
    heard = rng.normal(size=(40, 300)) * rng.permutation(np.geomspace(1e-9, 1.0, 300))
    W, H = rng.normal(size=(6, 300)), heard.T @ heard
    whole = select_forward(W, H, 20)
    for row in range(6):
        alone = select_forward(W[row : row + 1], H, 20)
        assert alone.order[0].tolist() == whole.order[row].tolist()


def test_single_precision_candidates_keep_exact_losses() -> None:
    # Large enough for candidates to be compared in single precision.
    W, H = problem(5, 64, 500)
    path = select_hybrid(W, H, 200)
    mask = path_mask(path, np.full(64, 120), 500)
    predicted = loss(W, 0 * W, H) - path.drop[:, :120].sum(axis=1)
    assert np.allclose(predicted, loss(W, least_squares(W, H, mask), H), rtol=1e-6)
    exact = eliminate(W, H).drop[:, 120:].sum()
    assert predicted.sum() <= 1.02 * exact


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


@pytest.mark.parametrize("near", [1.0, 1e-3, 1e-6, 0.0])
def test_loss_of_few_weights_with_a_known_target_is_the_measured_change(near: float) -> None:
    rng = np.random.default_rng(2)
    x, W = rng.normal(size=(90, 40)), rng.normal(size=(6, 40))
    kept = rng.random(W.shape) < 0.2
    W *= np.where(kept, 1.0, near)
    W2 = W * kept
    W2[:2] *= 1.0 + 0.1 * near
    measured = ((x @ (W - W2).T) ** 2).sum(axis=0)
    found = loss(W, W2, x.T @ x, W @ (x.T @ x))
    assert np.allclose(found, measured, rtol=1e-7, atol=0)


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


def test_rows_that_want_more_are_looked_at_more_deeply(monkeypatch: pytest.MonkeyPatch) -> None:
    W, H = problem(10, 40, 120)
    W[7] *= 50
    monkeypatch.setattr("osbc_deploy.compress.ranking._EXACT_WORK", 0.0)
    damped = damp(H, 0.0)
    ranking = rank_rows(W[None], [damped], 40 * 5, Workspace())
    assert ranking.selection == "hybrid"
    (counts,) = allocate(ranking.paths, 40 * 5)
    # Fifty times its weights make this row worth nearly the whole budget.
    assert counts[7] > 80
    assert [len(set(row)) for row in ranking.paths[0].order] == [
        ranking.paths[0].order.shape[1]
    ] * 40
    mask = path_mask(ranking.paths[0], counts, 120)
    left = (
        loss(W, 0 * W, H).sum() - ranking.paths[0].drop[mask_order(ranking.paths[0], counts)].sum()
    )
    assert np.isclose(left, loss(W, least_squares(W, H, mask), H).sum(), rtol=1e-6)


def mask_order(path: Path, counts: Array) -> Array:
    return np.arange(path.order.shape[1])[None] < counts[:, None]


def test_damping_is_raised_and_reported_when_the_hessian_is_singular() -> None:
    H = np.ones((4, 4))
    H[3] = H[:, 3] = 0.0
    fine = damp(H, 0.01)
    assert fine.attempts == 1
    assert fine.live.tolist() == [0, 1, 2]
    assert fine.dead == 1
    assert np.allclose(fine.H, H[:3, :3] + 0.01 * np.eye(3))
    for fraction in (0.0, 1e-12, 1e-9):
        raised = damp(np.ones((4, 4)), fraction)
        assert raised.attempts > 1
        assert raised.damping > 1e-8
        np.linalg.cholesky(raised.H)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    n=st.integers(1, 60),
    rows=st.integers(1, 20),
    fraction=st.sampled_from([0.0, 1e-10, 1e-7, 1e-4, 0.03]),
)
def test_what_is_damped_enough_has_a_factor(seed: int, n: int, rows: int, fraction: float) -> None:
    rng = np.random.default_rng(seed)
    # Fewer rows than inputs, which differ by orders of magnitude.
    x = rng.normal(size=(rows, n)) * 10.0 ** rng.uniform(-5, 5, n)
    damped = damp(x.T @ x, fraction)
    pivots = np.diagonal(np.linalg.cholesky(damped.H)) ** 2
    assert pivots.min() > 0.5e-7 * np.diagonal(damped.H).max()


def test_damping_makes_up_for_the_digits_that_a_free_bias_takes() -> None:
    # Spikes in all of many steps but a few: less than 1e-8 of their mean square is variation.
    rng, n, steps, gaps = np.random.default_rng(0), 400, 10**9, 8
    size = rng.uniform(0.5, 1.5, n)
    there = rng.integers(0, 2, (gaps, n)).astype(float)
    both, one = steps - gaps + there.T @ there, steps - gaps + there.sum(axis=0)
    drift = (2.0 / steps * size * one)[None]
    moments = Moments(
        (2.0 / steps * np.outer(size, size) * both)[None], None, drift, drift, 2.0, 1, 1
    )
    (centred,), _ = moments.centred()
    damped = damp(centred, 1e-6)
    pivots = np.diagonal(np.linalg.cholesky(damped.H)) ** 2
    assert pivots.min() > 0.5e-7 * np.diagonal(damped.H).max()


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    n=st.integers(1, 30),
    m=st.integers(2, 6),
    dead=st.floats(0, 1),
    data=st.data(),
)
def test_n_of_m_masks_are_valid_and_full(
    seed: int, n: int, m: int, dead: float, data: st.DataObject
) -> None:
    W, H = problem(seed, 3, n)
    n_of = data.draw(st.integers(1, m - 1))
    live = np.flatnonzero(np.random.default_rng(seed).random(n) >= dead)
    mask = n_of_m_mask(W, H[np.ix_(live, live)], live, Pattern("n:m", n_of, m))
    for start in range(0, n, m):
        group = mask[:, start : start + m]
        assert (group.sum(axis=1) == min(n_of, group.shape[1])).all()
        # Weights on dead inputs only take the places live ones leave.
        alive = np.isin(np.arange(start, min(start + m, n)), live)
        assert (group[:, alive].sum(axis=1) == min(n_of, int(alive.sum()))).all()


def test_n_of_m_groups_begin_with_each_projection() -> None:
    W, H = problem(3, 5, 11)
    mask = n_of_m_mask(W, H, np.arange(11), Pattern("n:m", 2, 4), (5, 6))
    for start, stop in ((0, 4), (4, 5), (5, 9), (9, 11)):
        assert (mask[:, start:stop].sum(axis=1) == min(2, stop - start)).all()


def test_n_of_m_equals_brute_force() -> None:
    W, H = problem(6, 4, 8)
    mask = n_of_m_mask(W, H, np.arange(8), Pattern("n:m", 2, 4))
    for row, w in enumerate(W):
        support = tuple(range(8))
        while len(support) > 4:
            free = [p for p in support if sum(i // 4 == p // 4 for i in support) > 2]
            gone = min(free, key=lambda p: best_on(w, H, tuple(i for i in support if i != p)))
            support = tuple(i for i in support if i != gone)
        assert tuple(np.flatnonzero(mask[row])) == support


@pytest.mark.parametrize("unit", [1, 2])
def test_whole_inputs_leave_in_brute_force_order(unit: int) -> None:
    W, H = problem(8, 3, 8)
    order, drop = input_order(W, H, unit)
    left, gone, losses = list(range(8 // unit)), [], []

    def cost(units: list[int]) -> float:
        support = tuple(u * unit + i for u in units for i in range(unit))
        return sum(best_on(w, H, support) for w in W)

    while left:
        p = min(left, key=lambda u: cost([v for v in left if v != u]))
        losses.append(cost([v for v in left if v != p]) - cost(left))
        left.remove(p)
        gone.append(p)
    assert order[::-1].tolist() == gone
    assert np.allclose(drop[::-1], losses, rtol=1e-8)


def test_whole_outputs_are_worth_their_potential() -> None:
    W, H = problem(8, 5, 6)
    order, drop = output_order(W, H)
    worth = [w @ H @ w for w in W]
    assert order.tolist() == sorted(range(5), key=lambda r: -worth[r])
    assert np.allclose(drop, sorted(worth, reverse=True))


@pytest.mark.parametrize("text", ["4:2", "2:2", "0:4", "2:", "blocks", ""])
def test_a_pattern_that_makes_no_sense_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="N:M with 0 < N < M"):
        Pattern.parse(text)


def test_batches_and_threads_change_nothing() -> None:
    W, H = problem(11, 23, 80)
    whole = eliminate(W, H)
    for space in (Workspace(memory=1), Workspace(threads=1), Workspace(threads=3)):
        part = eliminate(W, H, space)
        assert np.array_equal(part.order, whole.order)
        assert np.array_equal(part.drop, whole.drop)


def test_single_precision_chooses_about_as_well_where_layers_are_large(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Each of the n k^2 / 2 multiplications of 1,000 rows counts twice: 1000 * 200 * 70^2 < 10^9.
    assert selection._precision((1000, 200), 70) is np.float64
    assert selection._precision((1000, 200), 71) is np.float32
    W, H = problem(5, 20, 60)
    paths = {}
    for name, most in (("double", 1e9), ("single", 0.0)):
        monkeypatch.setattr(selection, "_SINGLE_WORK", most)
        paths[name] = select_hybrid(W, H, 20)
    lost = {
        name: sum(best_on(w, H, tuple(chosen)) for w, chosen in zip(W, path.order, strict=True))
        for name, path in paths.items()
    }
    assert lost["single"] < 1.001 * lost["double"]
