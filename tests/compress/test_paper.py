"""The published recipe, against the equations of its sources written out step by step."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import float_networks as nets
from osbc_deploy.compress import CompressionOptions, compress
from osbc_deploy.compress.traces import membrane_kernel
from osbc_deploy.errors import UsageError

PAPER = CompressionOptions(method="paper", sparsity=0.6, bits=3, scale_groups=100)


def published(
    W: np.ndarray, H: np.ndarray, keep: int, bits: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pruned weights, codes and scales: OBC for the mask, then GPTQ, as the papers have them."""
    rows, n = W.shape
    H = H + 0.01 * np.diagonal(H).mean() * np.eye(n)
    order, rise = np.zeros((rows, n), int), np.zeros((rows, n))
    for r in range(rows):
        w, left = W[r].copy(), list(range(n))
        for step in range(n):
            inverse = np.linalg.inv(H[np.ix_(left, left)])
            score = w[left] ** 2 / np.diagonal(inverse)
            p = int(score.argmin())
            order[r, step], rise[r, step] = left[p], score[p]
            w[left] -= w[left][p] / inverse[p, p] * inverse[:, p]
            del left[p]
    # The smallest losses of the whole layer go, each row's in its order.
    worth = np.maximum.accumulate(rise, axis=1)[:, ::-1]
    stay = np.zeros(rows * n, bool)
    stay[np.argsort(-worth.ravel(), kind="stable")[:keep]] = True
    mask = np.zeros((rows, n), bool)
    pruned = np.zeros((rows, n))
    for r in range(rows):
        mask[r, order[r, ::-1][stay.reshape(rows, n)[r]]] = True
        s = np.flatnonzero(mask[r])
        pruned[r, s] = np.linalg.solve(H[np.ix_(s, s)], H[s] @ W[r])
    scale = 2 * np.abs(W).max(axis=1) / (2**bits - 1)
    columns = np.argsort(np.diagonal(np.linalg.inv(H)), kind="stable")
    U = np.linalg.cholesky(np.linalg.inv(H[np.ix_(columns, columns)])).T
    left, codes = pruned[:, columns].copy(), np.zeros((rows, n))
    for i, c in enumerate(columns):
        codes[:, c] = np.clip(np.rint(left[:, i] / scale), -(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
        codes[~mask[:, c], c] = 0
        error = (left[:, i] - codes[:, c] * scale) / U[i, i]
        left[:, i:] -= error[:, None] * U[i, i:]
    return pruned, codes, scale


def test_every_number_is_that_of_the_papers_steps() -> None:
    net = nets.mlp(sizes=(14, 9, 6, 4))
    x = nets.spikes(4, 30, 12, 14, rate=0.4)
    done = compress(net, x, replace(PAPER, allocation="uniform"))
    first = net.projections[0]
    kernel = membrane_kernel(net.populations[0].neuron.dynamics(), 12)
    trace = np.einsum("ts,nsi->nti", kernel, x.astype(float)).reshape(-1, 14)
    H = 2 * trace.T @ trace / len(trace)
    W = first.connection.weight.astype(float)
    layer = done.projections[first.name]
    assert layer.pruned is not None
    pruned, codes, scale = published(W, H, W.size - round(0.6 * W.size), 3)
    assert np.array_equal(layer.pruned != 0, pruned != 0)
    assert np.allclose(layer.pruned, pruned, rtol=1e-3, atol=1e-4)
    assert np.allclose(layer.scale, scale)
    assert np.array_equal(layer.codes, codes)
    assert layer.codes.min() == -4
    assert (layer.damping, layer.selection, layer.threshold) == (0.01, "elimination", 1.0)
    assert layer.bias is None


def test_nothing_is_tuned_and_shared_scales_are_said() -> None:
    net = nets.mlp(sizes=(14, 9, 6, 4))
    x = nets.spikes(4, 50, 8, 14, rate=0.4)
    few = compress(net, x, replace(PAPER, scale_groups=2, bits=4))
    assert all(p.tried == {} and p.chosen == "plain" for p in few.projections.values())
    layer = few.projections[net.projections[0].name]
    assert len(np.unique(layer.scale)) == 2
    largest = np.abs(net.projections[0].connection.weight).max(axis=1)
    assert (7.5 * layer.scale >= largest * (1 - 1e-9)).all()
    said = [d.message for d in few.deviations if d.subject == layer.name]
    assert said == ["9 outputs share 2 scales on this chip; the published recipe has one for each"]


@pytest.mark.parametrize("more", [{"mixed": True}, {"pattern": "2:4"}])
def test_what_the_recipe_lacks_is_refused(more: dict[str, object]) -> None:
    with pytest.raises(UsageError, match="is not supported by method paper"):
        CompressionOptions(method="paper", **more)  # type: ignore[arg-type]
