"""Networks of given weights whose neurons only matter by their number."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from osbc_deploy.chip.target import load_target
from osbc_deploy.fixedpoint.network import (
    FixedDense,
    FixedPointNetwork,
    FixedPopulation,
    FixedProjection,
)


def dense_stack(weights: Iterable[np.ndarray], bits: int = 8) -> FixedPointNetwork:
    """Return a stack of dense layers, each (n_post, n_pre), of neurons that are all alike."""
    populations, projections, pre = [], [], "input"
    for number, weight in enumerate(weights):
        size = len(weight)
        zero, name = np.zeros(size, np.int32), f"p{number}"
        projections.append(FixedProjection(f"w{number}", pre, name, FixedDense(weight), bits, 0))
        populations.append(
            FixedPopulation(
                name=name,
                shape=(size,),
                du=zero,
                dv=zero,
                vth=zero + 100,
                bias_mant=zero,
                bias_exp=zero,
                u_init=zero,
                v_init=zero,
                spiking=True,
                v_scale=np.ones(size),
                v_offset=np.zeros(size),
            )
        )
        pre = name
    inputs = projections[0].connection.weight.shape[1]
    formats = load_target("loihi2").number_formats
    return FixedPointNetwork((inputs,), tuple(populations), tuple(projections), formats, "sum")
