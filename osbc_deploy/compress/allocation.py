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
    "largest_allocation",
    "mixed_widths",
    "uniform_allocation",
]

_MOST_CHOICES = 1_000_000
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
    return _best([lamps_scores(weight) for weight in weights], sparsity)


def largest_allocation(weights: Sequence[FloatArray], sparsity: float) -> list[int]:
    """Return how many weights each layer keeps where the largest of all stay, whatever layer.

    Global magnitude pruning (Blalock, Gonzalez Ortiz, Frankle, Guttag 2020); for the rest see
    :func:`lamps_allocation`.
    """
    return _best([np.abs(weight.ravel().astype(np.float64)) for weight in weights], sparsity)


def _best(scores: Sequence[FloatArray], sparsity: float) -> list[int]:
    """Return how many of the best scores of all layers each has; `scores` are changed."""
    total = sum(len(score) for score in scores)
    keep = max(total - round(sparsity * total), len(scores))
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
        # Where there is nothing to lose, weights that another layer needs come first.
        values = np.sort(values / whole if whole > 0 else np.minimum(values, 0.0))[::-1]
        values[0] = np.inf
        worth.append(values)
        layer.append(np.full(len(values), number))
    chosen = np.argsort(-np.concatenate(worth), kind="stable")[:keep]
    counts = np.bincount(np.concatenate(layer)[chosen], minlength=len(sizes))
    return [int(count) for count in counts]


def mixed_widths(
    losses: Sequence[Mapping[int, float]], costs: Sequence[Mapping[int, int]], room: float
) -> list[int]:
    """Return the bits of every layer of least total loss that together cost no more than `room`.

    All choices that no other beats in both cost and loss are carried from layer to layer, so the
    result is the best there is.

    Parameters
    ----------
    losses, costs : sequence of dict
        Relative loss and cost (a whole number) of each layer by its bits.
    room : float
        At least what the cheapest bits cost.
    """
    used, lost = np.zeros(1, np.int64), np.zeros(1)
    # What the layers still to come need at least.
    rest = sum(min(cost.values()) for cost in costs)
    steps = []
    for found, cost in zip(losses, costs, strict=True):
        rest -= min(cost.values())
        widths = list(found)
        used = (used[:, None] + np.array([cost[b] for b in widths], np.int64)).ravel()
        lost = (lost[:, None] + np.array([found[b] for b in widths])).ravel()
        order = np.lexsort((lost, used))
        order = order[used[order] + rest <= room]
        least = np.minimum.accumulate(lost[order])
        order = order[np.concatenate([[True], lost[order][1:] < least[:-1]])]
        # Millions of near-equal choices add nothing; the best of all stays.
        step = len(order) // _MOST_CHOICES + 1
        order = np.concatenate([order[:-1:step], order[-1:]])
        used, lost = used[order], lost[order]
        steps.append((widths, order))
    chosen, at = [], len(lost) - 1
    for widths, order in reversed(steps):
        at, which = divmod(int(order[at]), len(widths))
        chosen.append(widths[which])
    return chosen[::-1]
