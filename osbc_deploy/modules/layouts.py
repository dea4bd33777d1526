"""Where samples and time steps are in what a layer is given.

A layer may be called once for each step, or with all steps merged into the batch, with time or
samples first and tokens or windows beside them. Nothing says which; but of samples that are the
same, a layer sees the same, and nothing that it sees depends on later steps. So a way of taking its
input apart is the right one when it keeps to both on batches that were made to tell.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from osbc_deploy.arrays import FloatArray

__all__ = ["TIMELESS", "Layout", "layouts_of", "same"]

_TOLERANCE = 1e-4
"""Difference between what is the same, as part of the largest."""

Order = Literal["time first", "samples first", "timeless"]


@dataclass(frozen=True)
class Layout:
    """How the calls of one use of a weight become (samples, steps, ...).

    Attributes
    ----------
    order : str
        Of a call that holds all steps; "timeless" where there is no time axis that can be told.
    calls : tuple of (int, int)
        First call of it and distance to the next one, of all calls of that weight.
    stepped : bool
        Whether each call is a step.
    """

    order: Order
    first: int
    stride: int
    stepped: bool

    def rows(self, calls: Sequence[torch.Tensor], samples: int, steps: int) -> FloatArray:
        """Return what was seen, (samples * m, steps, ...), m places or tokens of a sample.

        Without a time axis, (all, 1, ...).
        """
        mine = calls[self.first :: self.stride] if self.stepped else [calls[self.first]]
        if self.order == "timeless":
            whole = mine[0] if len(mine) == 1 else torch.cat(list(mine))
            return _array(whole)[:, None]
        if self.stepped:
            return np.stack([_array(call) for call in mine[:steps]], axis=1)
        array = _array(mine[0])
        if self.order == "time first":
            cut = array.reshape(steps, -1, *array.shape[1:])
            return np.ascontiguousarray(np.moveaxis(cut, 0, 1))
        cut = array.reshape(samples, steps, -1, *array.shape[1:])
        return np.moveaxis(cut, 1, 2).reshape(-1, steps, *array.shape[1:])


TIMELESS = Layout("timeless", 0, 1, stepped=True)
"""All calls together, each row for itself."""


def layouts_of(
    before: Sequence[torch.Tensor], late: Sequence[torch.Tensor], samples: int, steps: int
) -> list[Layout]:
    """Return how the calls of a weight are to be taken apart, one layout for each use of it.

    Parameters
    ----------
    before : sequence of torch.Tensor (rows, ...)
        What it was multiplied with in a batch whose first two samples are the same.
    late : sequence of torch.Tensor
        The same where another last time step was given.
    samples, steps : int
        Of these batches; they differ.
    """
    if [c.shape for c in before] != [c.shape for c in late]:
        return [TIMELESS]
    count = len(before)
    if count % steps == 0:
        uses = count // steps
        # Within each step in turn, or in a loop over time for each use of it.
        for first, stride in ((1, uses), (steps, 1)):
            each = [Layout("time first", n * first, stride, stepped=True) for n in range(uses)]
            if all(_holds(layout, before, late, samples, steps) for layout in each):
                return each
    whole: list[Layout] = []
    for number in range(count):
        found = (Layout(o, number, count, stepped=False) for o in ("time first", "samples first"))
        whole += [next((c for c in found if _holds(c, before, late, samples, steps)), TIMELESS)]
    return whole if TIMELESS not in whole else [TIMELESS]


def _holds(
    layout: Layout,
    before: Sequence[torch.Tensor],
    late: Sequence[torch.Tensor],
    samples: int,
    steps: int,
) -> bool:
    """Tell whether equal samples look equal, and earlier steps do not know the last one."""
    mine = before[layout.first :: layout.stride][:steps] if layout.stepped else []
    unit = samples if layout.stepped else samples * steps
    shown = mine if layout.stepped else [before[layout.first]]
    if any(len(c) % unit or c.shape != shown[0].shape for c in shown):
        return False
    one, other = (layout.rows(calls, samples, steps) for calls in (before, late))
    by_sample = one.reshape(samples, -1, *one.shape[1:])
    return same(by_sample[0], by_sample[1]) and same(one[:, :-1], other[:, :-1])


def same(one: FloatArray, other: FloatArray) -> bool:
    """Tell whether two arrays differ by rounding alone."""
    # A library may multiply equal samples in different orders.
    scale = float(np.abs(one).max(initial=0.0))
    return bool((np.abs(one - other) <= _TOLERANCE * scale).all())


def _array(tensor: torch.Tensor) -> FloatArray:
    # NumPy has no bfloat16.
    wide = tensor if tensor.dtype in (torch.float32, torch.float64) else tensor.float()
    found: FloatArray = wide.numpy()
    return found
