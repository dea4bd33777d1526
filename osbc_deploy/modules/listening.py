"""What the weights of a module are multiplied with while its forward runs.

Linear maps and convolutions are watched as functions, not as layers, so that calls of
``torch.nn.functional`` count as calls of layers do, with the padding that was really added. Which
parameter a function was given is known by identity.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode
from typing_extensions import Self

__all__ = [
    "FUNCTIONS",
    "Geometry",
    "Heard",
    "HeardEnough",
    "Listener",
    "arguments",
    "parameters_of",
]

_CONV = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")
FUNCTIONS: dict[str, tuple[str, ...]] = {
    "linear": _CONV[:3],
    "conv1d": _CONV,
    "conv2d": _CONV,
}
"""Functions that multiply by a weight, and the names of their arguments."""

_WATCHED = {getattr(nn.functional, name): name for name in FUNCTIONS}


def arguments(name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of a function that multiplies by a weight, by name."""
    return dict(zip(FUNCTIONS[name], args, strict=False)) | dict(kwargs)


def parameters_of(module: nn.Module) -> dict[int, tuple[nn.Parameter, tuple[str, ...]]]:
    """Return the parameters of a module with all their names, by identity."""
    names: dict[int, list[str]] = {}
    found: dict[int, nn.Parameter] = {}
    for name, parameter in module.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
        found[id(parameter)] = parameter
    return {key: (parameter, tuple(names[key])) for key, parameter in found.items()}


@dataclass(frozen=True)
class Geometry:
    """How a weight was applied.

    Attributes
    ----------
    function : str
        "linear", "conv1d" or "conv2d".
    stride, dilation : tuple of int
        One for each axis; empty for a linear map.
    padding : tuple of (int, int)
        Zeros before and behind, for each axis.
    groups : int
    """

    function: str
    stride: tuple[int, ...] = ()
    dilation: tuple[int, ...] = ()
    padding: tuple[tuple[int, int], ...] = ()
    groups: int = 1

    @classmethod
    def of(cls, function: str, given: Mapping[str, Any]) -> Geometry:
        """Return how a function was called."""
        if function == "linear":
            return cls(function)
        axes = 2 if function == "conv2d" else 1
        stride, dilation = (_each(given.get(key, 1), axes) for key in ("stride", "dilation"))
        padding = given.get("padding", 0)
        if padding == "same":
            # As torch pads: the odd zero comes behind.
            reach = [d * (k - 1) for d, k in zip(dilation, given["weight"].shape[2:], strict=True)]
            sides = tuple((r // 2, r - r // 2) for r in reach)
        else:
            sides = tuple((p, p) for p in _each(0 if padding == "valid" else padding, axes))
        return cls(function, stride, dilation, sides, int(given.get("groups", 1)))


def _each(value: Any, axes: int) -> tuple[int, ...]:
    """Return a number for each axis, where one may stand for all."""
    values = tuple(int(v) for v in value) if isinstance(value, tuple | list) else (int(value),)
    return values * axes if len(values) == 1 else values


@dataclass(frozen=True, eq=False)
class Heard:
    """A call that multiplied by a weight.

    Attributes
    ----------
    weight : int
        Identity of the parameter.
    geometry : Geometry
    step : int
        How often the model had been called before.
    x : torch.Tensor
        What the weight was multiplied with, as it was then.
    within : str
        The neuron whose forward did it, as its own recurrence does; empty for none.
    bias : torch.Tensor or None
    """

    weight: int
    geometry: Geometry
    step: int
    x: torch.Tensor
    within: str
    bias: torch.Tensor | None


class HeardEnough(BaseException):
    """Ends a forward whose rest nobody needs; models catch errors, but hardly this."""


class Listener(TorchFunctionMode):
    """Keeps what some weights are multiplied with; to be used as a context around a forward.

    Parameters
    ----------
    module : torch.nn.Module
    weights : collection of int
        Identities of the parameters to watch.
    neurons : tuple of type
        The framework's neurons.
    calls : int, optional
        How many to wait for.
    """

    def __init__(
        self,
        module: nn.Module,
        weights: Collection[int],
        neurons: tuple[type, ...],
        calls: int | None = None,
    ) -> None:
        super().__init__()
        self._calls = calls
        self._module: nn.Module = module
        self._weights, self._neurons = weights, neurons
        self._step = -1
        self._inside: list[str] = []
        self._hooks: list[Any] = []
        self.heard: list[Heard] = []

    def __enter__(self) -> Self:
        hooks = [self._module.register_forward_pre_hook(self._count)]
        named: list[tuple[str, nn.Module]] = list(self._module.named_modules())
        for path, part in named:
            if isinstance(part, self._neurons):
                hooks.append(part.register_forward_pre_hook(partial(self._enter, path)))
                hooks.append(part.register_forward_hook(self._leave, always_call=True))
        self._hooks = hooks
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        super().__exit__(kind, error, trace)  # type: ignore[no-untyped-call]
        for hook in self._hooks:
            hook.remove()

    def _count(self, module: nn.Module, given: Any) -> None:
        self._step += 1

    def _enter(self, path: str, module: nn.Module, given: Any) -> None:
        self._inside.append(path)

    def _leave(self, module: nn.Module, given: Any, answer: Any) -> None:
        self._inside.pop()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = _WATCHED.get(func)
        if name is not None:
            given = arguments(name, args, kwargs or {})
            if id(given["weight"]) in self._weights:
                self.heard.append(
                    Heard(
                        id(given["weight"]),
                        Geometry.of(name, given),
                        self._step,
                        # What follows may change it in place.
                        given["input"].detach().to("cpu", copy=True),
                        self._inside[0] if self._inside else "",
                        given.get("bias"),
                    )
                )
                if len(self.heard) == self._calls:
                    raise HeardEnough
        return func(*args, **(kwargs or {}))
