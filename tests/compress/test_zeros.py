"""Weights that are zero in the model stay zero: what another tool pruned is not filled up again."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import float_networks as nets
from osbc_deploy.compress import CompressionOptions, compress
from osbc_deploy.compress.hessian import membrane_moments
from osbc_deploy.compress.problem import pose
from osbc_deploy.compress.selection import select_forward, select_hybrid
from osbc_deploy.model.graph import Network
from solver_problems import best_on, problem

SHARE = 0.8


def pruned(net: Network, seed: int = 0) -> Network:
    """Return a network without most of its weights, drawn at random."""
    rng = np.random.default_rng(seed)
    weights = {p.name: p.connection.weight for p in net.projections}
    return net.with_weights(
        {name: w * (rng.random(w.shape) >= SHARE).astype(w.dtype) for name, w in weights.items()}
    )


@pytest.mark.parametrize("build", [nets.mlp, nets.convolutions, nets.residual])
@pytest.mark.parametrize(
    ("sparsity", "bits", "more"),
    [
        (0.0, 4, {}),
        (0.0, 8, {"tune": False}),
        (0.0, 1, {"tune": False}),
        (0.5, 4, {"allocation": "uniform"}),
        (0.9, 4, {"allocation": "global"}),
        (0.9, 2, {"method": "paper", "tune": False}),
        (0.9, 4, {"method": "magnitude"}),
        (0.5, 4, {"pattern": "2:4", "tune": False}),
    ],
)
def test_zeros_stay(build: object, sparsity: float, bits: int, more: dict[str, object]) -> None:
    net = pruned(build())  # type: ignore[operator]
    options = CompressionOptions(sparsity=sparsity, bits=bits, **more)  # type: ignore[arg-type]
    done = compress(net, nets.spikes(4, 50, 10, *net.input_shape), options)
    given = 0
    for p in net.projections:
        found, there = done.projections[p.name], p.connection.weight != 0
        given += np.count_nonzero(there)
        assert not found.codes[~there].any()
        assert not found.pruned[~there].any()
        if sparsity < SHARE and "pattern" not in more:
            # Another share of zeros than was asked for: all that the model has.
            assert found.kept == np.count_nonzero(there)
    if options.method != "magnitude":
        said = [
            d.message for d in done.deviations if "zero in the model and stay zero" in d.message
        ]
        assert len(said) == len({p.post for p in net.projections})
    if "pattern" not in more:
        wanted = min(given, net.weights - round(sparsity * net.weights))
        kept = sum(p.kept for p in done.projections.values())
        # What is allocated by loss may leave out what loses nothing.
        assert kept == wanted or (options.allocation == "global" and kept < wanted)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), n=st.integers(2, 8), data=st.data())
def test_selection_among_the_given_is_brute_force(seed: int, n: int, data: st.DataObject) -> None:
    W, H = problem(seed, 3, n)
    may = np.array(data.draw(st.lists(st.booleans(), min_size=3 * n, max_size=3 * n)))
    may = may.reshape(3, n)
    W = W * may
    k = data.draw(st.integers(1, n))
    forward, hybrid = (select(W, H, k, given=may) for select in (select_forward, select_hybrid))
    for row in range(3):
        some = np.flatnonzero(may[row])
        added: tuple[int, ...] = ()
        while len(added) < min(k, len(some)):
            rest = [int(p) for p in some if p not in added]
            added = (*added, min(rest, key=lambda p: best_on(W[row], H, (*added, p))))
        count = len(added)
        assert tuple(forward.order[row, :count]) == added
        assert set(hybrid.order[row, :count]) == set(added)
        for path in (forward, hybrid):
            assert not path.drop[row, count:].any()
            none, best = best_on(W[row], H, ()), best_on(W[row], H, added)
            assert path.drop[row].sum() == pytest.approx(none - best, rel=1e-6, abs=1e-12)


def test_the_target_of_the_cross_term_has_the_same_zeros() -> None:
    """Least squares on the weights that there are, by NumPy, of what arrives now."""
    rng = np.random.default_rng(3)
    net = pruned(nets.mlp(sizes=(12, 9, 4)))
    (projection, _), population = net.projections, net.populations[0]
    before = (rng.random((30, 8, 12)) < 0.4).astype(np.uint8)
    now = np.where(rng.random(before.shape) < 0.2, 1 - before, before).astype(np.uint8)
    moments = membrane_moments([projection], None, [now], [before])
    found = pose([projection], population, moments, damping=0.0).blocks[0]
    x, y = (s.reshape(-1, 12).astype(float) for s in (now, before))
    for row, w in enumerate(projection.connection.weight.astype(float)):
        there = np.flatnonzero(w)
        best, *_ = np.linalg.lstsq(x[:, there], y @ w, rcond=None)
        assert np.allclose(found[row, there], best, atol=1e-9)
        assert not np.delete(found[row], there).any()
