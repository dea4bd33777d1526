"""Where the product of a weight goes: to which neuron, and through which BatchNorm.

The forward is traced. From each linear map or convolution the product is followed through what
keeps or adds currents (BatchNorm, pooling, reshapes, sums, other linear maps) to the first neuron
that it reaches, whose membrane filters it.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from osbc_deploy.arrays import FloatArray
from osbc_deploy.frameworks.tracing import Event, Trace, Value, values_in
from osbc_deploy.model.neurons import LinearDynamics
from osbc_deploy.modules.listening import FUNCTIONS, Heard, arguments
from osbc_deploy.modules.session import Session

__all__ = ["Flow", "Slot", "numbers"]

_SHAPES = frozenset(
    {
        "view", "reshape", "flatten", "unflatten", "transpose", "permute", "swapaxes", "movedim",
        "moveaxis", "contiguous", "unsqueeze", "squeeze", "expand", "clone", "detach", "to",
        "float", "double", "half", "cpu", "cuda", "T", "mT", "view_as", "reshape_as", "dropout",
        "dropout1d", "dropout2d", "alpha_dropout", "feature_dropout", "identity",
    }
)  # fmt: skip
"""Functions that move values about."""

_LINEAR = frozenset(
    {
        "add", "radd", "iadd", "sub", "isub", "rsub", "neg", "sum", "mean", "cat", "concat",
        "stack", "getitem", "setitem", "select", "narrow", "chunk", "split", "unbind", "repeat",
        "pad", "roll", "flip", "batch_norm", "avg_pool1d", "avg_pool2d", "adaptive_avg_pool1d",
        "adaptive_avg_pool2d", "max_pool1d", "max_pool2d", "boolean_dispatch",
        "adaptive_max_pool1d", "adaptive_max_pool2d", "interpolate", "index_select", "gather",
        *FUNCTIONS,
    }
)  # fmt: skip
"""Functions that add or choose currents; a product of two signals is none of them."""

_SCALES = frozenset({"mul", "rmul", "imul", "div", "truediv", "itruediv", "matmul", "multiply"})
"""Functions that scale currents where all else that they are given is constant."""

_NORM: dict[str, Any] = {
    "input": None, "running_mean": None, "running_var": None, "weight": None, "bias": None,
    "training": False, "momentum": 0.1, "eps": 1e-5,
}  # fmt: skip
"""What ``batch_norm`` is given, in order."""


@dataclass(frozen=True)
class Slot:
    """A parameter that can take what the weights leave on average.

    Attributes
    ----------
    name : str
    factor : ndarray (rows,)
        Of a change of the current behind the gain.
    """

    name: str
    factor: FloatArray


class Flow:
    """Where values go in a forward that was traced."""

    def __init__(self, session: Session, done: Trace) -> None:
        self._session = session
        self._events = done.events
        self._modules = dict(session.module.named_modules())
        self._consumers: dict[Value, list[int]] = {}
        for number, event in enumerate(done.events):
            for value in dict.fromkeys(values_in((event.args, event.kwargs))):
                self._consumers.setdefault(value, []).append(number)

    def _products(self, weight: int) -> list[int]:
        """Return the events that multiply by a weight."""
        return [n for n, e in enumerate(self._events) if id(_weight(e)) == weight]

    def computed(self) -> list[str]:
        """Return the modules whose forward multiplies by a weight that is not a parameter."""
        found = [
            e.place or e.name
            for e in self._events
            if isinstance(w := _weight(e), torch.Tensor) and not isinstance(w, nn.Parameter)
        ]
        return list(dict.fromkeys(found))

    def neuron(self, weight: int, call: int) -> str:
        """Return the neurons that one call of a weight reaches first; empty where none."""
        products = self._products(weight)
        if call >= len(products):
            return ""
        todo, seen = self._next(products[call]), set()
        while todo:
            number = heapq.heappop(todo)
            if number in seen:
                continue
            seen.add(number)
            event = self._events[number]
            if event.module is not None:
                return event.name
            if _passes(event):
                for other in self._next(number):
                    heapq.heappush(todo, other)
        return ""

    def _next(self, number: int) -> list[int]:
        event = self._events[number]
        found = {n for value in event.results for n in self._consumers.get(value, ())}
        return sorted(n for n in found if n > number)

    def dynamics(self, neuron: str) -> LinearDynamics | None:
        """Return what the membrane of some neurons does."""
        return self._session.framework.dynamics_of(self._modules[neuron]) if neuron else None

    def gain(
        self,
        parameter: nn.Parameter,
        calls: Sequence[Heard],
        parameters: Mapping[int, tuple[nn.Parameter, tuple[str, ...]]],
    ) -> tuple[FloatArray, Slot | None]:
        """Return what a BatchNorm right behind multiplies by, and what can take a constant."""
        rows = len(parameter)
        gain = np.ones(rows)
        norms = [self._norm(number, rows) for number in self._products(id(parameter))]
        # Only one that is always there, and the same, scales the outputs for sure.
        if norms and len({None if n is None else id(n["running_var"]) for n in norms}) == 1:
            given = norms[0]
            if given is not None:
                scale = 1.0 / np.sqrt(numbers(given["running_var"]) + float(given["eps"]))
                if given["weight"] is not None:
                    scale = scale * numbers(given["weight"])
                # A channel that is always 0 has no scale to go by.
                gain = np.where(scale == 0.0, 1.0, np.abs(scale))
                if id(given["bias"]) in parameters and calls[0].bias is None:
                    return gain, _slot(parameters[id(given["bias"])][1], np.sign(scale))
        biases = {id(call.bias) for call in calls}
        if len(biases) == 1 and biases <= parameters.keys():
            return gain, _slot(parameters[biases.pop()][1], 1.0 / gain)
        return gain, None

    def _norm(self, number: int, rows: int) -> dict[str, Any] | None:
        """Return the input of the BatchNorm that is the only one to receive a product."""
        while True:
            following = self._next(number)
            if len(following) != 1:
                return None
            (number,) = following
            event = self._events[number]
            if event.name == "batch_norm":
                given = _NORM | dict(zip(_NORM, event.args, strict=False)) | dict(event.kwargs)
                variance = given["running_var"]
                fits = isinstance(variance, torch.Tensor) and len(variance) == rows
                return given if fits else None
            if event.module is not None or event.name not in _SHAPES:
                return None


def _slot(names: Sequence[str], factor: FloatArray) -> Slot | None:
    return Slot(names[0], factor) if len(names) == 1 else None


def _weight(event: Event) -> Any:
    """Return the weight that a function was given; None for any other."""
    if event.module is not None or event.name not in FUNCTIONS:
        return None
    return arguments(event.name, event.args, event.kwargs).get("weight")


def _passes(event: Event) -> bool:
    """Tell whether a function only moves, adds, chooses or scales currents."""
    if event.name in _SHAPES or event.name in _LINEAR:
        return True
    return event.name in _SCALES and len(values_in((event.args, event.kwargs))) == 1


def numbers(tensor: torch.Tensor) -> FloatArray:
    """Return a tensor as an array of double precision."""
    found: FloatArray = tensor.detach().cpu().double().numpy()
    return found
