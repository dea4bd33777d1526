"""Sums over rows in torch, on whatever device: the same bits as on the CPU.

Traces are filtered by single multiplications and additions in double precision, each rounded alike
everywhere, and rounded to whole numbers, whose products and sums are exact in any order.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from osbc_deploy.compress.exact import FLOAT_BITS, WholeSum
from osbc_deploy.compress.sampling import constants
from osbc_deploy.model.currents import pooled
from osbc_deploy.model.graph import Projection
from osbc_deploy.model.neurons import LinearDynamics
from osbc_deploy.model.raster import Raster
from osbc_deploy.model.windows import Shape

if TYPE_CHECKING:
    import torch

__all__ = ["Products", "Unfolding", "filtered", "on"]

Rows: TypeAlias = "torch.Tensor"


class Unfolding:
    """Where the rows that a connection's weights are multiplied with lie in a map.

    Parameters
    ----------
    projection : Projection
    shape : tuple of int
        Of what arrives, before a pooling.
    device : str
    """

    def __init__(self, projection: Projection, shape: Shape, device: str) -> None:
        self._pool, self._device = projection.pool, device
        if self._pool is not None:
            shape = self._pool.output_shape(shape)
        # A map of its own indices, unfolded, says where everything lies; padding is 0.
        indices = np.arange(1, np.prod(shape) + 1, dtype=np.float64).reshape(1, *shape)
        self._places = projection.connection.unfolded(indices).astype(np.int64)

    def pooled(self, maps: torch.Tensor) -> torch.Tensor:
        """Return maps (n, *shape) with poolings summed."""
        return maps if self._pool is None else pooled(maps, self._pool, divisor=1)

    def rows(self, maps: torch.Tensor, places: Any = slice(None)) -> torch.Tensor:
        """Return the rows (groups, n * places, fan_in) of maps (n, ...) of poolings summed."""
        import torch

        index = torch.from_numpy(self._places[:, places]).to(self._device)
        flat = torch.nn.functional.pad(maps.reshape(len(maps), -1), (1, 0))
        found = flat[:, index].transpose(0, 1)
        return found.reshape(len(index), -1, index.shape[2])


def filtered(dynamics: LinearDynamics | None, spikes: torch.Tensor, unit: float) -> torch.Tensor:
    """Return spikes (n, T, ...) as the membrane sees them, in whole units."""
    import torch

    decay_u, decay_v, gain = constants(dynamics)
    trace = torch.empty_like(spikes)
    u = torch.zeros_like(spikes[:, 0])
    v = torch.zeros_like(u)
    for t in range(spikes.shape[1]):
        u = decay_u * u + spikes[:, t]
        v = decay_v * v + gain * u
        trace[:, t] = v
    return torch.round(trace / unit)


def on(device: str, raster: Raster, samples: Any) -> torch.Tensor:
    """Return what populations send in some samples in double precision, on a device."""
    import torch

    return torch.from_numpy(np.ascontiguousarray(raster[samples])).to(device).double()


class Products:
    """Sums of products of rows, moved to the CPU before they could need more digits.

    Parameters
    ----------
    groups, fan_in : int
    cross : bool
    """

    def __init__(self, groups: int, fan_in: int, *, cross: bool) -> None:
        square, vector = (groups, fan_in, fan_in), (groups, fan_in)
        shapes: list[tuple[int, ...]] = [square, vector, (1,)]
        self.sums = [WholeSum(s) for s in shapes + ([square, vector] if cross else [])]

    def add(self, x: Rows, y: Rows | None, m: Rows, top: int) -> None:
        """Add products of rows (groups, n, fan_in) whose numbers are at most `top`.

        Parameters
        ----------
        x, y : torch.Tensor
        m : torch.Tensor (n,)
        top : int
        """
        bound = x.shape[1] * top**2
        if bound > 2**FLOAT_BITS and x.shape[1] > 1:
            half = x.shape[1] // 2
            for part in (slice(0, half), slice(half, None)):
                self.add(x[:, part], None if y is None else y[:, part], m[part], top)
            return
        found: Sequence[torch.Tensor] = [x.mT @ x, m @ x, (m @ m)[None]]
        if y is not None:
            found = [*found, x.mT @ y, m @ y]
        for total, value in zip(self.sums, found, strict=True):
            total.add(value.cpu().numpy(), bound)
