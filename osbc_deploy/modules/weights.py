"""The weights of a module: what each is multiplied with, and which neuron receives the product."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations

import numpy as np
import torch
from torch import nn

from osbc_deploy.arrays import FloatArray, InputArray
from osbc_deploy.errors import UnsupportedModelError, UsageError
from osbc_deploy.frameworks.comparing import as_input
from osbc_deploy.frameworks.tracing import trace
from osbc_deploy.model.graph import Connection, Conv, Dense, Projection
from osbc_deploy.model.neurons import LinearDynamics
from osbc_deploy.modules.following import Flow, Slot, numbers
from osbc_deploy.modules.layouts import TIMELESS, Layout, layouts_of
from osbc_deploy.modules.listening import Geometry, Heard, parameters_of
from osbc_deploy.modules.session import Session, probes

__all__ = ["Found", "Use", "Weight", "find_weights"]


@dataclass(frozen=True, eq=False)
class Use:
    """One use of a weight in a time step.

    Attributes
    ----------
    geometry : Geometry
    layout : Layout
    neuron : str
        The neurons that it feeds; empty where none are known.
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
    calls : int
        In one run of the model.
    seen : int
        Bytes of its input of a sample, in double precision.
    """

    name: str
    names: tuple[str, ...]
    parameter: nn.Parameter
    uses: tuple[Use, ...]
    gain: FloatArray
    slot: Slot | None
    calls: int
    seen: int

    @property
    def key(self) -> int:
        """Identity of the parameter."""
        return id(self.parameter)

    @property
    def neurons(self) -> tuple[str, ...]:
        """The neurons that it feeds."""
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
        values = numbers(self.parameter)
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

    def inputs(self, use: Use, calls: Sequence[torch.Tensor], n: int, steps: int) -> InputArray:
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


def find_weights(session: Session, samples: InputArray, exclude: Collection[str] = ()) -> Found:
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
        When there are no weights, some never run, or are computed from other tensors.
    """
    module = session.module
    parameters = parameters_of(module)
    first, _, late, _ = probes(samples, session.steps)
    before = session.heard(first, parameters.keys())
    # An image without time has no last step that could be another.
    after = before if samples.shape[1] == 1 else session.heard(late, parameters.keys())
    session.framework.reset(module)
    done = trace(
        module,
        session.call,
        as_input(module, first),
        lambda m: isinstance(m, session.framework.neurons),
    )
    session.framework.reset(module)
    flow = Flow(session, done)
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
        layouts = layouts_of(one, other, len(first), session.steps)
        uses = tuple(_use(number, layouts, calls[0], flow) for number in range(len(layouts)))
        gain, slot = flow.gain(parameter, calls[0], parameters)
        seen = 8 * sum(call.x.numel() for call in calls[0]) // len(first)
        found.append(
            Weight(_layer(names[0]), names, parameter, uses, gain, slot, len(calls[0]), seen)
        )
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


def _use(number: int, layouts: Sequence[Layout], calls: Sequence[Heard], flow: Flow) -> Use:
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
    flow: Flow,
    parameters: Mapping[int, tuple[nn.Parameter, tuple[str, ...]]],
    order: Sequence[int],
    excluded: Collection[str],
    found: Sequence[Weight],
) -> None:
    """Refuse what cannot be compressed and was not excluded, all of it at once."""
    computed = [p for p in flow.computed() if not any(n.startswith(f"{p}.") for n in excluded)]
    if computed:
        raise UnsupportedModelError(
            f"{session.source}: weights computed from other tensors, which would undo compression",
            computed,
            "Make them plain first (torch.nn.utils.parametrize.remove_parametrizations, "
            "remove_weight_norm, prune.remove; where a layer's own forward computes them, put what "
            "it computes into a plain Linear or convolution), or leave them out with --exclude.",
        )
    twins = [
        f"{a.name} and {b.name}"
        for a, b in combinations(found, 2)
        if a.parameter.untyped_storage().data_ptr() == b.parameter.untyped_storage().data_ptr()
    ]
    if twins:
        raise UnsupportedModelError(
            f"{session.source}: parameters that share memory without being one",
            twins,
            "Tie them as one Parameter, or leave one out with --exclude.",
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
