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
    """Where the rows that the weights of all afferents are multiplied with lie in their maps.

    Parameters
    ----------
    afferents : sequence of Projection
    shapes : sequence of tuple of int
        Of what arrives at each, before a pooling.
    device : str
    """

    def __init__(
        self, afferents: Sequence[Projection], shapes: Sequence[Shape], device: str
    ) -> None:
        import torch

        self._pools = [projection.pool for projection in afferents]
        self._places = []
        for projection, arriving in zip(afferents, shapes, strict=True):
            pool = projection.pool
            shape = arriving if pool is None else pool.output_shape(arriving)
            # A map of its own indices, unfolded, says where everything lies; padding is 0.
            indices = np.arange(1, np.prod(shape) + 1, dtype=np.float64).reshape(1, *shape)
            places = projection.connection.unfolded(indices).astype(np.int64)
            self._places.append(torch.from_numpy(places).to(device))

    def pooled(self, maps: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Return maps (n, *shape) with poolings summed."""
        pairs = zip(maps, self._pools, strict=True)
        return [x if pool is None else pooled(x, pool, divisor=1) for x, pool in pairs]

    def rows(self, maps: Sequence[torch.Tensor], frames: slice) -> Rows:
        """Return all rows (groups, frames * places, fan_in) of some of the maps, pooled."""
        import torch

        found = [
            _flat(x[frames])[:, places].transpose(0, 1)
            for x, places in zip(maps, self._places, strict=True)
        ]
        return torch.cat([x.reshape(len(x), -1, x.shape[3]) for x in found], dim=2)

    def rows_at(self, maps: Sequence[torch.Tensor], frames: torch.Tensor, at: torch.Tensor) -> Rows:
        """Return rows (groups, m, fan_in), each of one of the maps (m,) at one place (m,)."""
        import torch

        pairs = zip(maps, self._places, strict=True)
        return torch.cat([_flat(x)[frames[:, None], places[:, at]] for x, places in pairs], dim=2)


def _flat(maps: torch.Tensor) -> torch.Tensor:
    """Return maps (n, ...) as (n, 1 + size), a 0 in front."""
    import torch

    return torch.nn.functional.pad(maps.reshape(len(maps), -1), (1, 0))


def filtered(dynamics: LinearDynamics | None, spikes: torch.Tensor, unit: float) -> torch.Tensor:
    """Return spikes (n, T, ...) as the membrane sees them, in whole units, a power of two."""
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

    return torch.tensor(raster[samples]).to(device).double()


class Products:
    """Sums of products of rows, kept on the device for as long as they are exact there.

    Parameters
    ----------
    groups, fan_in : int
    cross : bool
    """

    def __init__(self, groups: int, fan_in: int, *, cross: bool) -> None:
        square, vector = (groups, fan_in, fan_in), (groups, fan_in)
        shapes: list[tuple[int, ...]] = [square, vector, (1,)]
        self._sums = [WholeSum(s) for s in shapes + ([square, vector] if cross else [])]
        self._recent: list[torch.Tensor] = []
        self._bound = 0

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
        found = [x.mT @ x, m @ x, (m @ m)[None]]
        if y is not None:
            found += [x.mT @ y, m @ y]
        if self._bound + bound > 2**FLOAT_BITS:
            self._settle()
        self._bound += bound
        if not self._recent:
            self._recent = found
            return
        for total, value in zip(self._recent, found, strict=True):
            total.add_(value)

    def _settle(self) -> None:
        # Nothing may have come since: then there is nothing to add.
        for total, value in zip(self._sums, self._recent, strict=False):
            total.add(value.cpu().numpy(), self._bound)
        self._recent, self._bound = [], 0

    def finish(self) -> list[WholeSum]:
        """Return the sums of squares, of rows and of weights, then the crosses."""
        self._settle()
        return self._sums
