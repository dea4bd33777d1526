"""Verify what was read from a module against the module's own forward pass.

The order in which a user's module calls its layers is in its code, not in its structure. Layers
are therefore read in the order they were registered, and the result is accepted only if the
module itself gives the same output on real samples.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import nn

from osbc_deploy.arrays import FloatArray, SpikeArray
from osbc_deploy.network.graph import Network
from osbc_deploy.network.simulate import simulate

__all__ = ["agrees"]

_TOLERANCE = 1e-4
"""Relative difference allowed for potentials, which folding rounds differently."""


def agrees(module: nn.Module, network: Network, spikes: SpikeArray) -> str | None:
    """Tell how a module computes what the network computes, or None if it does not.

    Tried are a call per time step with and without state, and one call with the whole input, time
    first or samples first; its answer may be all outputs or their sum, mean, maximum or last.

    Parameters
    ----------
    module : torch.nn.Module
    network : Network
        As read from the module.
    spikes : ndarray of uint8 (n, T, ...)
        Real samples; the network's output must not be silent on them.

    Returns
    -------
    str or None
        Such as "one call per time step".
    """
    ours = np.moveaxis(simulate(network, spikes).output, 1, 0)
    if not ours.any():
        return None
    x = torch.from_numpy(np.moveaxis(spikes, 1, 0).astype(network.dtype))
    training = module.training
    module.eval()
    try:
        with torch.no_grad():
            for how, answer in _answers(module, x):
                if any(_same(answer, expected) for expected in _decoded(ours)):
                    return how
    finally:
        module.train(training)
    return None


def _answers(module: nn.Module, x: torch.Tensor) -> Iterator[tuple[str, FloatArray]]:
    calls: dict[str, Callable[[], Any]] = {
        "one call per time step": lambda: _stepped(module, x),
        "one call, time first": lambda: module(x),
        "one call, samples first": lambda: module(x.transpose(0, 1)),
    }
    for how, call in calls.items():
        try:
            answer = call()
        except Exception:  # noqa: BLE001, S112 - another way of calling may fit
            continue
        answer = answer[0] if isinstance(answer, tuple) else answer
        if isinstance(answer, torch.Tensor):
            values = answer.detach().numpy()
            yield how, values
            if values.ndim > 1:
                yield how, values.swapaxes(0, 1)


def _stepped(module: nn.Module, x: torch.Tensor) -> torch.Tensor:
    state: Any = None
    outputs = []
    for frame in x:
        output, state = module(frame, state)
        outputs.append(output)
    return torch.stack(outputs)


def _decoded(output: FloatArray) -> Iterator[FloatArray]:
    """Yield what a module may return for outputs (T, n, ...)."""
    yield from (output, output.sum(0), output.mean(0), output.max(0), output[-1])


def _same(answer: FloatArray, expected: FloatArray) -> bool:
    scale = float(np.abs(expected).max(initial=1.0))
    return answer.shape == expected.shape and bool(
        np.allclose(answer, expected, rtol=0.0, atol=_TOLERANCE * scale)
    )
