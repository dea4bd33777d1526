"""LAMPS's shares of the weights or the global ones: whichever serve the network's output better.

LAMPS looks at weights alone, the global allocation at what losing them costs. Both are tried on the
float network: layers are pruned for the samples that do not judge, and the rest judge by the error
of the network's output. LAMPS stays unless the other's error is smaller by more than the standard
error of the difference, and by a fifth: what tuning does afterwards may turn smaller ones over.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias

import numpy as np

from osbc_deploy.arrays import FloatArray
from osbc_deploy.compress.allocation import global_allocation, lamps_allocation
from osbc_deploy.compress.layer import prune_layer, rank_layer
from osbc_deploy.compress.problem import LayerProblem
from osbc_deploy.compress.ranking import Ranking
from osbc_deploy.compress.rows import Workspace
from osbc_deploy.compress.tuning import preferred

__all__ = ["Judge", "better_shares", "global_shares"]

_LESS = 0.8
"""Of LAMPS's error. On a convolutional network 0.73 to 0.97 before tuning was 0.85 to 1.18 after
it; on spiking transformers, at 0.60 to 0.75, less was lost after it too."""

Judge: TypeAlias = Callable[[Mapping[str, FloatArray]], FloatArray]
"""From the pruned weights (groups, rows, fan_in) of each layer to the error of each sample."""


def better_shares(
    problems: Mapping[str, LayerProblem],
    sparsity: float,
    errors_of: Judge,
    space: Workspace,
) -> tuple[dict[str, int], str]:
    """Return how many weights each layer keeps, and what was tried.

    Parameters
    ----------
    problems : dict of LayerProblem
        Of each layer, from samples that do not judge.
    sparsity : float
        Share of all weights that is removed.
    errors_of : callable
        What judges.
    space : Workspace
    """
    lamps = _lamps(problems, sparsity)
    by_loss, rankings = global_shares(problems, sparsity, space, lamps)
    if by_loss == lamps:
        return lamps, "LAMPS, whose shares are the global ones"
    shares = {"LAMPS": lamps, "global": by_loss}
    errors = {}
    for name, keep in shares.items():
        errors[name] = errors_of(
            {
                layer: np.stack(prune_layer(p, keep[layer], rankings[layer], space=space).weights)
                for layer, p in problems.items()
            }
        )
    taken = _taken(errors)
    lost = ", ".join(f"{each.mean():.4f} with {name}" for name, each in errors.items())
    held = f"the output's error on {len(errors[taken])} held-out samples"
    return shares[taken], f"{taken}: {held} is {lost}"


def global_shares(
    problems: Mapping[str, LayerProblem],
    sparsity: float,
    space: Workspace,
    lamps: Mapping[str, int] | None = None,
) -> tuple[dict[str, int], dict[str, Ranking]]:
    """Return how many weights each layer keeps by loss, and the rankings that tell.

    A layer is ranked for as many weights as LAMPS leaves it, and for more where it keeps all of
    those: the more, the longer it takes. `lamps` is that where it is known.
    """
    deep = dict(lamps or _lamps(problems, sparsity))
    rankings = {name: rank_layer(p, deep[name], space) for name, p in problems.items()}
    sizes = [p.size for p in problems.values()]
    wholes = [p.whole for p in problems.values()]
    while True:
        found = global_allocation(list(rankings.values()), wholes, sizes, sparsity)
        keep = dict(zip(problems, found, strict=True))
        short = [n for n in keep if keep[n] > deep[n] and rankings[n].partial]
        if not short:
            return keep, rankings
        for name in short:
            deep[name] = min(problems[name].size, max(keep[name], 2 * deep[name]))
            rankings[name] = rank_layer(problems[name], deep[name], space)


def _taken(errors: Mapping[str, FloatArray]) -> str:
    """Return what serves better, LAMPS in doubt."""
    taken = preferred(errors)
    return taken if errors[taken].mean() < _LESS * errors["LAMPS"].mean() else "LAMPS"


def _lamps(problems: Mapping[str, LayerProblem], sparsity: float) -> dict[str, int]:
    found = lamps_allocation([p.original for p in problems.values()], sparsity)
    return dict(zip(problems, found, strict=True))
