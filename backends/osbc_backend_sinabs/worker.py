"""The child process that runs sinabs: ``python -m osbc_backend_sinabs.worker FOLDER``.

A layer is torch's convolution or matrix of the chip's integers, sinabs' ``IAF`` behind it with the
chip's threshold and lower bound, and ``SumPool2d`` where a pooling was merged into the weights,
which are taken apart again. Sums are in double precision, so that none is rounded.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

from osbc_deploy.arrays import IntArray
from osbc_deploy.child import answer
from osbc_deploy.fixedpoint.network import INPUT, FixedPointNetwork, FixedProjection
from osbc_deploy.lower.merge import separate

__all__ = ["run"]


def run(network: FixedPointNetwork, spikes: IntArray) -> dict[str, IntArray]:
    """Run samples (n, T, *input_shape).

    Returns
    -------
    dict of ndarray (n, T, size)
        By "s" or "v" and the number of the population.
    """
    import torch
    from sinabs.activation import MembraneReset, MembraneSubtract
    from sinabs.layers import IAF

    n, steps = spikes.shape[:2]
    fired: dict[str, Any] = {INPUT: torch.from_numpy(spikes.astype(np.float64))}
    found = {}
    floor = -network.formats.state_limit
    with torch.no_grad():
        for number, p in enumerate(network.populations):
            (projection,) = network.afferents(p.name)
            sent = fired[projection.pre].flatten(0, 1)
            arrived = _layer(projection, network)(sent)
            bias = torch.from_numpy(p.bias_mant.reshape(p.shape).astype(np.float64))
            neurons = IAF(
                spike_threshold=torch.tensor(float(p.vth[0]), dtype=torch.float64),
                reset_fn=MembraneSubtract() if p.reset == "subtract" else MembraneReset(),
                min_v_mem=torch.tensor(float(floor), dtype=torch.float64),
                record_states=True,
            )
            out = neurons((arrived + bias).unflatten(0, (n, steps)))
            fired[p.name] = out.double()
            for what, values, kind in (
                ("s", out, np.uint8),
                ("v", neurons.recordings["v_mem"], np.int32),
            ):
                whole = values.flatten(2).numpy()
                found[f"{what}{number}"] = whole.astype(kind)
                if not np.array_equal(found[f"{what}{number}"], whole):
                    raise ValueError(f"{what} of {p.name} reaches {whole.max():g}")
    return found


def _layer(projection: FixedProjection, network: FixedPointNetwork) -> Any:
    """Return the pooling and the weights of a projection as torch and sinabs compute them."""
    import torch
    from sinabs.layers import SumPool2d

    shape, pooling = network.shape_of(projection.pre), projection.pooling
    connection = projection.connection
    layers: list[Any] = []
    if pooling is not None:
        connection = separate(connection, pooling, shape)
        layers.append(SumPool2d(pooling.window))
    codes = connection.weight.astype(np.float64) * 2.0**projection.weight_exp
    weight = torch.from_numpy(codes)
    if connection.convolutional:
        geometry = connection.geometry

        def convolved(x: Any) -> Any:
            return torch.nn.functional.conv2d(x, weight, **geometry)

        layers.append(convolved)
    else:
        layers.append(lambda x: torch.nn.functional.linear(x.flatten(1), weight))

    def through(x: Any) -> Any:
        for layer in layers:
            x = layer(x)
        return x

    return through


if __name__ == "__main__":
    sys.exit(answer(run))
