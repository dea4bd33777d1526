"""How many weights and bits every layer gets, for one number that is asked of the network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from osbc_deploy.arrays import FloatArray
from osbc_deploy.compress.ranking import Ranking

__all__ = [
    "global_allocation",
    "lamps_allocation",
    "lamps_scores",
    "mixed_widths",
    "uniform_allocation",
]

_MOST_CHOICES = 5000
"""Choices carried from layer to layer; more differ in too little to matter."""


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


def lamps_allocation(weights: Sequence[FloatArray], sparsity: float) -> list[int]:
    """Return how many weights each layer keeps at one global sparsity.

    Parameters
    ----------
    weights : sequence of ndarray
    sparsity : float
        Share of all weights that is removed, in [0, 1).

    Returns
    -------
    list of int
        At least 1 for every layer; the sum is what the sparsity leaves of the network, unless
        that minimum raises it.
    """
    scores = [lamps_scores(weight) for weight in weights]
    total = sum(len(score) for score in scores)
    keep = max(total - round(sparsity * total), len(weights))
    for score in scores:
        # The layers' largest weights come first: a layer without weights would cut the network.
        score[score.argmax()] = np.inf
    flat = np.concatenate(scores)
    least = np.partition(flat, total - keep)[total - keep]
    counts = [int(np.count_nonzero(score > least)) for score in scores]
    left = keep - sum(counts)
    for number, score in enumerate(scores):
        # Equal scores go to the first layers.
        more = min(left, int(np.count_nonzero(score == least)))
        counts[number] += more
        left -= more
    return counts


def uniform_allocation(sizes: Sequence[int], sparsity: float) -> list[int]:
    """Return how many weights each layer keeps when all have the same sparsity, at least 1."""
    return [max(1, size - round(sparsity * size)) for size in sizes]


def global_allocation(
    rankings: Sequence[Ranking], wholes: Sequence[float], sizes: Sequence[int], sparsity: float
) -> list[int]:
    """Return how many weights each layer keeps so that the sum of relative losses is least.

    Weights of all layers are taken in the order of what they are worth, each layer's losses
    measured by its loss without any weight; a layer keeps at least 1.

    Parameters
    ----------
    rankings : sequence of Ranking
        With paths deep enough: what they do not hold is not kept.
    wholes : sequence of float
        Loss of each layer without any weight.
    sizes : sequence of int
        Weights of each layer.
    sparsity : float
    """
    keep = max(sum(sizes) - round(sparsity * sum(sizes)), len(sizes))
    worth, layer = [], []
    for number, (ranking, whole) in enumerate(zip(rankings, wholes, strict=True)):
        values = np.concatenate([path.value.ravel() for path in ranking.paths])
        values = np.sort(values / max(whole, 1e-300))[::-1]
        values[0] = np.inf
        worth.append(values)
        layer.append(np.full(len(values), number))
    chosen = np.argsort(-np.concatenate(worth), kind="stable")[:keep]
    counts = np.bincount(np.concatenate(layer)[chosen], minlength=len(sizes))
    return [int(count) for count in counts]


def mixed_widths(
    losses: Sequence[Mapping[int, float]], weights: Sequence[int], average: float
) -> list[int]:
    """Return the bits of every layer, `average` bits a weight or less, of least total loss.

    All choices that no other beats in both memory and loss are carried from layer to layer.

    Parameters
    ----------
    losses : sequence of dict
        Relative loss of each layer by its bits.
    weights : sequence of int
        Weights each layer stores.
    average : float
        Bits per weight over all layers.
    """
    room = average * sum(weights)
    # What the layers still to come need at least.
    least = [min(found) * count for found, count in zip(losses, weights, strict=True)]
    rest = sum(least)
    front: list[tuple[int, float, tuple[int, ...]]] = [(0, 0.0, ())]
    for found, count, needed in zip(losses, weights, least, strict=True):
        rest -= needed
        joined = sorted(
            (used + bits * count, lost + more, (*chosen, bits))
            for used, lost, chosen in front
            for bits, more in found.items()
            if used + bits * count + rest <= room
        )
        front = []
        for choice in joined:
            if not front or choice[1] < front[-1][1]:
                front.append(choice)
        # Thousands of near-equal choices add nothing; the best of all stays.
        front = front[:: len(front) // _MOST_CHOICES + 1] + front[-1:]
    return list(front[-1][2])
