"""How many weights every layer keeps: LAMPS scores, cut at one global level."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from osbc_deploy.arrays import FloatArray

__all__ = ["lamps_budget", "lamps_scores"]


def lamps_scores(weight: FloatArray) -> FloatArray:
    """Return the layer-adaptive magnitude score of every weight, flattened.

    The score of a weight is its square over the sum of the squares of all weights of the layer
    that are not smaller (Lee, Park, Mo, Ahn, Shin 2021, eq. 3); the largest weight scores 1.
    """
    square = weight.ravel().astype(np.float64) ** 2
    order = np.argsort(square, kind="stable")
    tail = np.cumsum(square[order][::-1])[::-1]
    scores = np.empty_like(square)
    scores[order] = square[order] / np.where(tail > 0, tail, 1.0)
    return scores


def lamps_budget(weights: Sequence[FloatArray], sparsity: float) -> list[int]:
    """Return how many weights each layer keeps at one global sparsity.

    Parameters
    ----------
    weights : sequence of ndarray
    sparsity : float
        Share of all weights that is removed, in [0, 1).

    Returns
    -------
    list of int
        At least 1 for every layer; the sum is the global budget unless that minimum raises it.
    """
    scores = [lamps_scores(weight) for weight in weights]
    total = sum(len(score) for score in scores)
    keep = max(total - round(sparsity * total), len(weights))
    layer = np.repeat(np.arange(len(scores)), [len(score) for score in scores])
    # The layers' largest weights come first: a layer without weights would cut the network.
    best = np.concatenate([np.arange(len(score)) == score.argmax() for score in scores])
    order = np.lexsort((-np.concatenate(scores), ~best))[:keep]
    return [max(1, int(count)) for count in np.bincount(layer[order], minlength=len(scores))]
