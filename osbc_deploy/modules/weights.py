"""The weights of a module: which are multiplied with what, and which neuron hears the product.

The forward is traced. From each linear map or convolution the product is followed through what
keeps or adds currents (BatchNorm, pooling, reshapes, sums, other linear maps) to the first neuron
that it reaches, whose membrane filters it.
"""

from __future__ import annotations

import heapq
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from osbc_deploy.arrays import FloatArray
from osbc_deploy.errors import UnsupportedModelError, UsageError
from osbc_deploy.frameworks.comparing import as_input
from osbc_deploy.frameworks.tracing import Event, Trace, Value, trace, values_in
from osbc_deploy.model.graph import Connection, Conv, Dense, Projection
from osbc_deploy.model.neurons import LinearDynamics
from osbc_deploy.modules.layouts import TIMELESS, Layout, layouts_of
from osbc_deploy.modules.listening import FUNCTIONS, Geometry, Heard, arguments, parameters_of
from osbc_deploy.modules.session import Session, probes

__all__ = ["Found", "Slot", "Use", "Weight", "find_weights"]

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


@dataclass(frozen=True, eq=False)
class Use:
    """One use of a weight in a time step.

    Attributes
    ----------
    geometry : Geometry
    layout : Layout
    neuron : str
        The neurons that hear it; empty where none are known.
    dynamics : LinearDynamics or None
    why : str
        Why no membrane filters it; empty where one does.
    """

    geometry: Geometry
    layout: Layout
    neuron: str
    dynamics: LinearDynamics | None
    why: str = ""


@dataclass(frozen=True, eq=False)
class Weight:
    """A parameter that linear maps or convolutions multiply by.

    Attributes
    ----------
    name : str
        The layer's path; of a parameter that is not called ``weight``, its own.
    names : tuple of str
        Of the parameter in the state dict; several where it is tied.
    parameter : torch.nn.Parameter
    uses : tuple of Use
    gain : ndarray (rows,)
        What a BatchNorm right behind multiplies the outputs by, without sign.
    slot : Slot or None
    seen : int
        Bytes of what it hears of a sample, in double precision.
    """

    name: str
    names: tuple[str, ...]
    parameter: nn.Parameter
    uses: tuple[Use, ...]
    gain: FloatArray
    slot: Slot | None
    seen: int = 0

    @property
    def key(self) -> int:
        """Identity of the parameter."""
        return id(self.parameter)

    @property
    def neurons(self) -> tuple[str, ...]:
        """The neurons that hear it."""
        return tuple(dict.fromkeys(u.neuron for u in self.uses if u.neuron))

    @property
    def why(self) -> str:
        """Why no membrane filters it; empty where one does."""
        return next((u.why for u in self.uses if u.why), "")

    def projection(self, use: Use | None = None) -> Projection:
        """Return the map of one use, or of the first one, its weights times the gain."""
        use = use or self.uses[0]
        return Projection(self.name, "", use.neuron, self._connection(use))

    def _connection(self, use: Use) -> Connection:
        values = _numbers(self.parameter)
        gained = values * self.gain.reshape(-1, *(1,) * (values.ndim - 1))
        # Only where it can be changed does it count that there is one.
        bias = None if self.slot is None else np.zeros(len(values))
        geometry = use.geometry
        if geometry.function == "linear":
            return Dense(gained, bias)
        if geometry.function == "conv1d":
            gained = gained[:, :, None]
        stride, dilation = ((1,) * (2 - len(p)) + p for p in (geometry.stride, geometry.dilation))
        return Conv(
            gained,
            bias,
            stride=(stride[0], stride[1]),
            dilation=(dilation[0], dilation[1]),
            groups=geometry.groups,
        )

    def inputs(self, use: Use, calls: Sequence[torch.Tensor], n: int, steps: int) -> NDArray[Any]:
        """Return what one use heard of n samples, (rows, steps, ...), its padding added."""
        rows = use.layout.rows(calls, n, steps)
        geometry = use.geometry
        if geometry.padding:
            rows = np.pad(rows, [(0, 0)] * 3 + [tuple(sides) for sides in geometry.padding])
        return rows[:, :, :, None] if geometry.function == "conv1d" else rows

    def heard(self, calls: Sequence[Heard]) -> list[torch.Tensor]:
        """Return the inputs of its calls with one axis for all rows."""
        return [_rows(call) for call in calls if call.weight == self.key]


@dataclass(frozen=True)
class Found:
    """What was found in a model.

    Attributes
    ----------
    weights : tuple of Weight
        In the order of their first call.
    left : dict of str
        Parameters of two axes and more that are none of them, and why.
    """

    weights: tuple[Weight, ...]
    left: Mapping[str, str] = field(default_factory=dict)


def find_weights(session: Session, samples: NDArray[Any], exclude: Collection[str] = ()) -> Found:
    """Find the weights of a model.

    Parameters
    ----------
    session : Session
    samples : ndarray (n, T, ...)
    exclude : collection of str
        Layers, or modules that hold them, which stay as they are.

    Raises
    ------
    UsageError
        When there is no layer of an excluded name.
    UnsupportedModelError
        When there are no weights, some never run, or are computed of others.
    """
    module = session.module
    parameters = parameters_of(module)
    first, _, late, _ = probes(samples)
    before = session.once(first, parameters.keys())[1]
    after = session.once(late, parameters.keys())[1]
    session.framework.reset(module)
    done = trace(
        module,
        session.call,
        as_input(module, first),
        lambda m: isinstance(m, session.framework.neurons),
    )
    session.framework.reset(module)
    flow = _Flow(session, done)
    excluded = _excluded(module, exclude)
    found, left = [], {}
    order = list(dict.fromkeys(call.weight for call in before))
    for key in order:
        parameter, names = parameters[key]
        if any(name in excluded for name in names):
            left[names[0]] = "excluded"
            continue
        calls = [[c for c in run if c.weight == key] for run in (before, after)]
        geometries = {(c.geometry.function, c.geometry.groups) for c in calls[0]}
        if len(geometries) > 1:
            left[names[0]] = "is used as a linear map and as a convolution, or in different groups"
            continue
        one, other = ([_rows(c) for c in run] for run in calls)
        layouts = layouts_of(one, other, *first.shape[:2])
        uses = tuple(_use(number, layouts, calls[0], flow) for number in range(len(layouts)))
        gain, slot = flow.gain(parameter, calls[0], parameters)
        seen = 8 * sum(call.x.numel() for call in calls[0]) // len(first)
        found.append(Weight(_layer(names[0]), names, parameter, uses, gain, slot, seen))
    _check(session, flow, parameters, order, excluded, found)
    for key, (parameter, names) in parameters.items():
        if key not in order and parameter.ndim > 1 and names[0] not in excluded:
            left[names[0]] = "is used in no linear map or convolution"
    return Found(tuple(found), left)


def _layer(name: str) -> str:
    return name.removesuffix(".weight")


def _rows(call: Heard) -> torch.Tensor:
    if call.geometry.function == "linear":
        return call.x.reshape(-1, call.x.shape[-1])
    axes = 4 if call.geometry.function == "conv2d" else 3
    return call.x if call.x.ndim == axes else call.x[None]


def _excluded(module: nn.Module, exclude: Collection[str]) -> set[str]:
    """Return the parameters that are to stay as they are."""
    names = [name for name, _ in module.named_parameters(remove_duplicate=False)]
    found = {
        layer: {name for name in names if name == layer or name.startswith(f"{layer}.")}
        for layer in exclude
    }
    if unknown := [layer for layer, held in found.items() if not held]:
        known = ", ".join(dict.fromkeys(_layer(n) for n in names if n.endswith("weight")))
        raise UsageError(
            f"--exclude: the model has no layer {', '.join(map(repr, unknown))}. It has {known}."
        )
    return set().union(*found.values())


def _use(number: int, layouts: Sequence[Layout], calls: Sequence[Heard], flow: _Flow) -> Use:
    layout = layouts[number]
    call = calls[layout.first]
    neuron = call.within or flow.neuron(call.weight, layout.first)
    dynamics = flow.dynamics(neuron)
    why = ""
    if not neuron:
        why = "no neuron behind it"
    elif dynamics is None:
        why = f"the dynamics of {neuron} are not known"
    elif layout is TIMELESS:
        why, dynamics = "no time axis in its input", None
    return Use(call.geometry, layout, neuron, dynamics, why)


def _check(
    session: Session,
    flow: _Flow,
    parameters: Mapping[int, tuple[nn.Parameter, tuple[str, ...]]],
    order: Sequence[int],
    excluded: Collection[str],
    found: Sequence[Weight],
) -> None:
    """Refuse what cannot be compressed and was not excluded, all of it at once."""
    computed = [p for p in flow.computed() if not any(n.startswith(f"{p}.") for n in excluded)]
    if computed:
        raise UnsupportedModelError(
            f"{session.source}: weights that are computed of others, which compression would undo",
            computed,
            "Make them plain first (torch.nn.utils.parametrize.remove_parametrizations, "
            "remove_weight_norm, prune.remove), or leave them out with --exclude.",
        )
    never = [
        _layer(names[0])
        for key, (_, names) in parameters.items()
        if key not in order
        and names[0] not in excluded
        and isinstance(_holder(session.module, names[0]), nn.Linear | nn.Conv1d | nn.Conv2d)
        and names[0].endswith("weight")
    ]
    if never:
        raise UnsupportedModelError(
            f"{session.source}: layers that never run on the calibration samples",
            never,
            "Leave them out with --exclude, or give samples on which they run.",
        )
    if not found:
        raise UnsupportedModelError(
            f"{session.source}: no linear or convolutional layer to compress was found",
            remedy="Linear, Conv1d, Conv2d and their functions are compressed, with parameters of "
            "the model as weights.",
        )


def _holder(module: nn.Module, name: str) -> nn.Module:
    return module.get_submodule(name.rpartition(".")[0])


class _Flow:
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
        """Return the modules whose forward multiplies by a weight that is no parameter."""
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
                scale = 1.0 / np.sqrt(_numbers(given["running_var"]) + float(given["eps"]))
                if given["weight"] is not None:
                    scale = scale * _numbers(given["weight"])
                # A channel that is always 0 has no scale to go by.
                gain = np.where(scale == 0.0, 1.0, np.abs(scale))
                if id(given["bias"]) in parameters and calls[0].bias is None:
                    return gain, _slot(parameters[id(given["bias"])][1], np.sign(scale))
        biases = {id(call.bias) for call in calls}
        if len(biases) == 1 and biases <= parameters.keys():
            return gain, _slot(parameters[biases.pop()][1], 1.0 / gain)
        return gain, None

    def _norm(self, number: int, rows: int) -> dict[str, Any] | None:
        """Return what a BatchNorm was given that hears a product and nothing else does."""
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


def _numbers(tensor: torch.Tensor) -> FloatArray:
    found: FloatArray = tensor.detach().cpu().double().numpy()
    return found
