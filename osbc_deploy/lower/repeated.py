"""N:M patterns that a pooling breaks when it is merged into the weights behind it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from osbc_deploy.arrays import IntArray
from osbc_deploy.deviations import Deviation
from osbc_deploy.fixedpoint.network import FixedPointNetwork
from osbc_deploy.model.graph import Projection

__all__ = ["broken_patterns"]


def broken_patterns(
    projections: Sequence[Projection], network: FixedPointNetwork, n: int, m: int
) -> Iterator[Deviation]:
    """Say where the chip's weights do not have the pattern that those of the model's layers have.

    A merged pooling repeats each weight over its window, and that is what stands in a row then.

    Parameters
    ----------
    projections : sequence of Projection
        Of the float network.
    network : FixedPointNetwork
        With all neurons in.
    n, m : int
        At most `n` weights that are not 0 of every `m` in a row.
    """
    merged = {
        p.name
        for p in projections
        if p.compressible and p.pool is not None and p.pool.kernel != (1, 1)
    }
    for projection in network.projections:
        if projection.name not in merged:
            continue
        weight = projection.connection.weight
        most = _fullest(weight.reshape(len(weight), -1), m)
        if most > n:
            yield Deviation(
                "lower",
                projection.name,
                f"pattern {n}:{m} does not hold on the chip, where up to {most} of {m} weights in "
                "a row are not 0: the pooling merged into them repeats each over its window",
            )


def _fullest(rows: IntArray, m: int) -> int:
    """Return how many weights of a group of `m` in a row are not 0, at most."""
    starts = np.arange(0, rows.shape[1], m)
    return int(np.add.reduceat(rows != 0, starts, axis=1, dtype=np.int64).max(initial=0))
