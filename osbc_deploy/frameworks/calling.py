"""Call a framework's module as its users do, and leave it as it was.

How a network is called over time is a convention of its code: a call per time step with the state
inside or passed along, or one call with all steps.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeAlias

import torch
from torch import nn

from osbc_deploy.arrays import InputArray

__all__ = [
    "ONE_CALL",
    "TIME_BEHIND",
    "Call",
    "described",
    "double_by_default",
    "evaluated",
    "is_half",
    "stays",
    "stepped",
    "stepped_with_state",
    "stepped_with_states",
    "still",
    "time_first",
    "undisturbed",
]

Call: TypeAlias = Callable[[nn.Module, torch.Tensor], Any]
"""A way of calling a module on input (T, n, ...); its documentation says which, in a few words."""


def stepped_with_state(module: nn.Module, x: torch.Tensor) -> Any:
    """One call per time step."""
    state: Any = None
    outputs = []
    for frame in x:
        output, state = _parts(module(frame, state))
        outputs.append(output)
    return _stacked(outputs)


def stepped_with_states(module: nn.Module, x: torch.Tensor) -> Any:
    """One call per time step that takes and returns its states."""
    states: Sequence[Any] = ()
    outputs = []
    for frame in x:
        output, *states = _parts(module(frame, *states))
        outputs.append(output)
    return _stacked(outputs)


def stepped(module: nn.Module, x: torch.Tensor) -> Any:
    """One call per time step, its state kept inside."""
    return _stacked([_listed(module(frame)) for frame in x])


def time_first(module: nn.Module, x: torch.Tensor) -> Any:
    """One call, time first."""
    return _all_steps(_listed(module(x)), x)


def samples_first(module: nn.Module, x: torch.Tensor) -> Any:
    """One call, samples first."""
    return _listed(module(x.transpose(0, 1)))


def time_last(module: nn.Module, x: torch.Tensor) -> Any:
    """One call, samples first and time last."""
    return _listed(module(x.movedim(0, -1)))


def channels_then_time(module: nn.Module, x: torch.Tensor) -> Any:
    """One call, samples first, then their channels, then time."""
    if x.ndim < 4:
        raise ValueError("samples have one axis, which time would be behind")
    return _listed(module(x.movedim(0, 2)))


def still(module: nn.Module, x: torch.Tensor) -> Any:
    """One call with what stays the same in all steps, which forward repeats."""
    return _listed(module(x[0]))


def stays(samples: InputArray) -> bool:
    """Tell whether samples (n, T, ...) are the same in all steps."""
    return samples.shape[1] > 1 and bool((samples == samples[:, :1]).all())


ONE_CALL: tuple[Call, ...] = (time_first, samples_first)
TIME_BEHIND: tuple[Call, ...] = (time_last, channels_then_time)
"""Ways in which time comes behind axes of a sample, tried where no other will do."""


def _listed(answer: Any) -> Any:
    """Return an answer, the parts of a dict in their order."""
    return tuple(answer.values()) if isinstance(answer, Mapping) else answer


def _parts(answer: Any) -> tuple[Any, ...] | list[Any]:
    """Return an answer that is several things; a tensor of samples could be taken apart as well."""
    if not isinstance(answer, tuple | list):
        raise TypeError(f"forward() returns no state beside its {type(answer).__name__}")
    return answer


def described(call: Call) -> str:
    """Return in a few words how a module is called."""
    return (call.__doc__ or "").rstrip(".").lower()


def _all_steps(answer: Any, x: torch.Tensor) -> Any:
    """Return an answer to input (T, n, ...), one for each step stacked if they are in a list."""
    listed = isinstance(answer, list) and len(answer) == len(x)
    if listed and all(isinstance(a, torch.Tensor) and a.shape[:2] != x.shape[:2] for a in answer):
        return torch.stack(answer) if len({a.shape for a in answer}) == 1 else answer
    return answer


def _stacked(answers: list[Any]) -> Any:
    """Stack the answers of all steps, part by part where a step answers with several."""
    if isinstance(answers[0], tuple | list):
        kept = [number for number, part in enumerate(answers[0]) if isinstance(part, torch.Tensor)]
        return tuple(torch.stack([answer[number] for answer in answers]) for number in kept)
    return torch.stack(answers)


def is_half(module: nn.Module) -> bool:
    """Tell whether weights are of half precision, in which the CPU does not compute all layers."""
    return any(p.dtype in (torch.float16, torch.bfloat16) for p in module.parameters())


@contextmanager
def double_by_default() -> Iterator[None]:
    """Let what a forward begins with, such as the states of torch.zeros, be of double precision."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


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


@contextmanager
def undisturbed(module: nn.Module) -> Iterator[None]:
    """Evaluate a module, and put its tensors, attributes and torch's random state back afterwards.

    A forward, or a hook on it, may change any of them; so may whoever asks for another precision.
    """
    held = [
        (place, dict(place))
        for part in module.modules()
        for place in (part._parameters, part._buffers, vars(part))
    ]
    tensors = {
        id(value): (value, value.data, value.data.clone())
        for _, values in held
        for value in values.values()
        if isinstance(value, torch.Tensor)
    }
    try:
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings(), evaluated(module):
            # A way of calling it that is only tried may warn of itself.
            warnings.simplefilter("ignore")
            yield
    finally:
        for place, values in held:
            place.clear()
            place.update(values)
        for tensor, data, values_before in tensors.values():
            tensor.data = data
            data.copy_(values_before)
