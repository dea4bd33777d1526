"""What a projection delivers, and when: its source's spikes, late by feedback and delays."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import numpy as np
from numpy.typing import NDArray

from osbc_deploy.arrays import IntArray
from osbc_deploy.model.graph import Network, Projection

if TYPE_CHECKING:
    import torch

__all__ = ["arriving", "delivered", "lateness"]

T = TypeVar("T", bound=np.generic)


def lateness(network: Network, projection: Projection) -> int | IntArray:
    """Return the steps that spikes arrive late: one number, or one for each neuron (n_pre,)."""
    feedback = int(network.is_feedback(projection))
    if projection.delay is None or not projection.delay.size:
        return feedback
    late = projection.delay + feedback
    return int(late[0]) if (late == late[0]).all() else late


def delivered(network: Network, projection: Projection, raster: NDArray[T]) -> NDArray[T]:
    """Return the raster (n, T, *source shape) that a projection delivers, step by step."""
    late = lateness(network, projection)
    if isinstance(late, int) and late == 0:
        return raster
    flat = raster.reshape(*raster.shape[:2], -1)
    late = np.broadcast_to(late, flat.shape[2:])
    found = np.zeros_like(flat)
    for steps in np.unique(late):
        here = late == steps
        # A delay beyond the last step delivers nothing.
        found[:, steps:, here] = flat[:, : max(0, flat.shape[1] - steps), here]
    return found.reshape(raster.shape)


def arriving(source: torch.Tensor, t: int, late: int | IntArray) -> torch.Tensor:
    """Return what arrives at step t of activity (T, n, *shape) that need not be complete yet."""
    import torch

    if isinstance(late, int):
        return source[t - late] if t >= late else torch.zeros_like(source[0])
    flat = source.flatten(2)
    when = torch.from_numpy(t - late)
    arrived = flat[when.clamp(min=0), :, torch.arange(len(late))]
    # Not a product: what a population has yet to send is memory that may hold anything.
    arrived = torch.where((when >= 0)[:, None], arrived, torch.zeros_like(arrived))
    return arrived.T.reshape(source.shape[1:])
