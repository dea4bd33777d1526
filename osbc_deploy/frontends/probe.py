"""Verify what was read from a module against the module's own forward pass.

The order in which a user's module calls its layers is in its code, not in its structure. Layers
are therefore read in the order they were registered, and the result is accepted only if the
module itself gives the same output on real samples.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import nn

from osbc_deploy.arrays import FloatArray, SpikeArray
from osbc_deploy.network.graph import Network
from osbc_deploy.network.simulate import simulate

__all__ = [
    "ONE_CALL",
    "Call",
    "agrees",
    "evaluated",
    "stepped",
    "stepped_with_state",
    "stepped_with_states",
]

Call: TypeAlias = Callable[[nn.Module, torch.Tensor], Any]
"""A way of calling a module on input (T, n, ...); its documentation says which, in a few words."""

_TOLERANCE = 1e-4
"""Relative difference allowed for potentials, which folding rounds differently."""


def agrees(
    module: nn.Module,
    network: Network,
    spikes: SpikeArray,
    calls: Sequence[Call],
    reset: Callable[[nn.Module], None],
) -> str | None:
    """Tell how a module computes what the network computes, or None if it does not.

    Its answer may be all outputs or their sum, mean, maximum or last.

    Parameters
    ----------
    module : torch.nn.Module
    network : Network
        As read from the module.
    spikes : ndarray of uint8 (n, T, ...)
        Real samples; the network's output must not be silent on them.
    calls : sequence of Call
        The ways of calling it that are tried.
    reset : callable
        Brings the state that the module keeps back to the start; called before and after each.

    Returns
    -------
    str or None
        Such as "one call per time step".
    """
    ours = np.moveaxis(simulate(network, spikes).output, 1, 0)
    if not ours.any():
        return None
    x = torch.from_numpy(np.moveaxis(spikes, 1, 0).astype(network.dtype))
    with evaluated(module):
        try:
            for call in calls:
                for answer in _answers(module, x, call, reset):
                    if any(_same(answer, expected) for expected in _decoded(ours)):
                        return (call.__doc__ or "").rstrip(".").lower()
        finally:
            reset(module)
    return None


@contextmanager
def evaluated(module: nn.Module) -> Iterator[None]:
    """Put a module into evaluation mode without gradients, and all its parts back afterwards."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for part, training in modes:
            part.training = training


def stepped_with_state(module: nn.Module, x: torch.Tensor) -> Any:
    """One call per time step."""
    state: Any = None
    outputs = []
    for frame in x:
        output, state = module(frame, state)
        outputs.append(output)
    return torch.stack(outputs)


def stepped_with_states(module: nn.Module, x: torch.Tensor) -> Any:
    """One call per time step that takes and returns its states."""
    states: tuple[Any, ...] = ()
    outputs = []
    for frame in x:
        output, *states = module(frame, *states)
        outputs.append(output)
    return torch.stack(outputs)


def stepped(module: nn.Module, x: torch.Tensor) -> Any:
    """One call per time step, its state kept inside."""
    answers = [module(frame) for frame in x]
    if isinstance(answers[0], tuple | list):
        return tuple(torch.stack(parts) for parts in zip(*answers, strict=True))
    return torch.stack(answers)


def time_first(module: nn.Module, x: torch.Tensor) -> Any:
    """One call, time first."""
    return module(x)


def samples_first(module: nn.Module, x: torch.Tensor) -> Any:
    """One call, samples first."""
    return module(x.transpose(0, 1))


ONE_CALL: tuple[Call, ...] = (time_first, samples_first)


def _answers(
    module: nn.Module, x: torch.Tensor, call: Call, reset: Callable[[nn.Module], None]
) -> Iterator[FloatArray]:
    """Yield all outputs of a call, time first and samples first."""
    reset(module)
    try:
        answer = call(module, x)
    except Exception:  # noqa: BLE001 - another way of calling may fit
        return
    for part in answer if isinstance(answer, tuple | list) else (answer,):
        if isinstance(part, torch.Tensor):
            values = part.detach().numpy()
            yield values
            if values.ndim > 1:
                yield values.swapaxes(0, 1)


def _decoded(output: FloatArray) -> Iterator[FloatArray]:
    """Yield what a module may return for outputs (T, n, ...)."""
    yield from (output, output.sum(0), output.mean(0), output.max(0), output[-1])


def _same(answer: FloatArray, expected: FloatArray) -> bool:
    scale = float(np.abs(expected).max(initial=1.0))
    return answer.shape == expected.shape and bool(
        np.allclose(answer, expected, rtol=0.0, atol=_TOLERANCE * scale)
    )
