"""What is lost on rows and samples that were held out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from osbc_deploy.arrays import FloatArray
from osbc_deploy.compress.exact import product
from osbc_deploy.compress.moments import Moments
from osbc_deploy.compress.problem import LayerProblem
from osbc_deploy.compress.result import CompressedProjection
from osbc_deploy.compress.support import loss
from osbc_deploy.deviations import Deviation

__all__ = [
    "enough_rows",
    "held_out_loss",
    "held_out_note",
    "layer_loss",
    "more_rows",
    "target_loss",
]

_GAP = 0.015
"""How much more may be lost on rows held out. What a solution from few rows gains on those it was
made for, it loses on others, so half of this is what more rows could save."""

_MORE_ROWS = 4
"""Times as many rows are drawn where a layer lost too much on others."""


def held_out_loss(problem: LayerProblem, layer: Sequence[CompressedProjection]) -> float | None:
    """Return the relative loss of a solved layer on the rows held out; None where none are."""
    held = problem.moments.held
    if held is None:
        return None
    hessian = held.centred()[0] if problem.free_bias else held.hessian
    lost = whole = 0.0
    for W, V, H in zip(problem.blocks, _weights(problem, layer), hessian, strict=True):
        target = product(W, H)
        whole += float((target * W).sum())
        lost += float(loss(W, V, H, target).sum())
    return lost / whole if whole > 0 else 0.0


def enough_rows(held: float | None, layer: Sequence[CompressedProjection]) -> bool:
    """Tell whether a layer loses no more on rows held out than few rows explain.

    Parameters
    ----------
    held : float or None
        See :func:`held_out_loss`.
    layer : sequence of CompressedProjection
    """
    return held is None or held <= (1.0 + _GAP) * layer[0].relative_loss["total"]


def more_rows(problem: LayerProblem, rows_per_input: int) -> int:
    """Return how many rows for every input to draw, where that many were not enough."""
    few: int = problem.moments.rows // problem.blocks.shape[2]
    return _MORE_ROWS * max(few, rows_per_input)


def held_out_note(
    held: float | None, moments: Moments, layer: Sequence[CompressedProjection]
) -> tuple[Deviation, ...]:
    """Say what a layer loses on the rows held out of its moments, if there are any."""
    if held is None or moments.held is None:
        return ()
    text = (
        f"loss {held:.4f} on {moments.held.rows:,} rows held out, "
        f"{layer[0].relative_loss['total']:.4f} on those of its Hessian"
    )
    return (Deviation("compress", layer[0].name, text),)


def target_loss(problem: LayerProblem, held: Moments) -> float:
    """Return ``|M X' w* - M X w|^2`` less ``|M X w|^2``, of targets that are not compressed yet."""
    return _lost(problem, held, problem.blocks)


def layer_loss(
    problem: LayerProblem, held: Moments, layer: Sequence[CompressedProjection]
) -> float:
    """Return the same of a compressed layer."""
    return _lost(problem, held, _weights(problem, layer))


def _lost(problem: LayerProblem, held: Moments, weights: FloatArray) -> float:
    hessian, cross = held.centred() if problem.free_bias else (held.hessian, held.cross)
    total = 0.0
    for group, W in enumerate(weights):
        float_side = hessian[group] if cross is None else cross[group].T
        left = product(W, hessian[group]) - 2.0 * product(problem.original[group], float_side)
        total += float((W * left).sum())
    return total


def _weights(problem: LayerProblem, layer: Sequence[CompressedProjection]) -> FloatArray:
    groups, rows = problem.blocks.shape[:2]
    return np.concatenate([p.weight.reshape(groups, rows, -1) for p in layer], axis=2)
