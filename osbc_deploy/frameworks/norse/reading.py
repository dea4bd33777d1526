"""Read trained norse modules natively.

The modules themselves are read, not norse's NIR export, which writes time constants multiplied
by the time step once too often. The walk through the layers is in ``stack.py``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import norse.torch as norse
import torch
from norse.torch.functional.reset import reset_subtract, reset_value
from norse.torch.module.leaky_integrator_box import LIBoxCell
from norse.torch.module.snn import SNN, SNNCell, SNNRecurrent, SNNRecurrentCell
from torch import nn

from osbc_deploy.arrays import SpikeArray
from osbc_deploy.frameworks.calling import ONE_CALL, stepped_with_state
from osbc_deploy.frameworks.folding import as_array
from osbc_deploy.frameworks.framework import Framework, Placed, Reading
from osbc_deploy.frameworks.norse.neurons import IF, LI, LIF, CubaLI, CubaLIF
from osbc_deploy.frameworks.proof import proven
from osbc_deploy.frameworks.stack import StackReader, read_stack
from osbc_deploy.frameworks.substitution import Substitution
from osbc_deploy.model.graph import Network, Shape
from osbc_deploy.model.neurons import Neuron

__all__ = ["SUPPORTED", "read_norse"]

SUPPORTED = (
    "Linear, Conv2d (zero padding), BatchNorm1d/2d after them, AvgPool2d, AdaptiveAvgPool2d onto a "
    "divisor of its input, MaxPool2d and AdaptiveMaxPool2d of spikes, "
    "Flatten, Dropout, Identity, LIFBoxCell, LIFCell, LIF, IAFCell, IAF, "
    "LIBoxCell, LICell, LI, LILinearCell, Lift, SequentialState, Sequential"
)


def read_norse(
    module: nn.Module,
    input_shape: Shape,
    *,
    source: str = "",
    samples: SpikeArray | None = None,
    substitute: Substitution | None = None,
) -> Network:
    """Turn a norse stack into a float network that computes what norse computes.

    Parameters
    ----------
    module : torch.nn.Module
        A `SequentialState` or `Sequential`, nested as deep as one likes, or a module of one's own
        that calls its layers one after the other.
    input_shape : tuple of int
        Shape of one time step of one sample, such as (2, 34, 34).
    source : str
        Name of the model for the report.
    samples : ndarray of uint8 (n, T, *input_shape), optional
        Real samples, on which it must compute what norse computes. Without them nothing is proven,
        and a module of one's own is refused.
    substitute : Substitution, optional
        What may be exchanged first, see :mod:`osbc_deploy.frameworks.substitution`.

    Returns
    -------
    Network

    Raises
    ------
    UnsupportedModelError
        With every module that cannot be represented, and where it is, or with the first layer
        that computes something else than norse's.
    ArtefactError
        When a weight is NaN or infinite.
    """

    def read(order: Sequence[Placed] | None) -> Reading:
        return read_stack(module, input_shape, _NORSE, source=source, order=order)

    return proven(module, _NORSE, read, samples, substitute)


def _values(layer: nn.Module) -> Mapping[str, Any]:
    """Return a neuron's parameters, which norse keeps out of the state."""
    named: Mapping[str, Any] = getattr(getattr(layer, "p", None), "_asdict", dict)()
    return {f"p.{name}": value for name, value in named.items()}


def _potential(cell: nn.Module, answer: Any) -> torch.Tensor | None:
    """Return the potential in the state that a cell returned."""
    state = answer[1] if isinstance(answer, tuple) and len(answer) > 1 else None
    found: torch.Tensor | None = getattr(state, "v", None)
    return found


def _lift(reader: StackReader, path: str, layer: Any) -> None:
    _mode(reader, path, layer, over_time=True)
    inner = layer.lifted_module
    # It calls what it lifts with one time step after the other.
    over_time, reader.over_time = reader.over_time, False
    if type(inner) in _NORSE.containers or _NORSE.is_own(inner):
        for place, child in _NORSE.walk(inner, path):
            reader.read(place, child)
    else:
        reader.read(path, inner)
    reader.over_time = over_time


def _cell(reader: StackReader, path: str, layer: Any) -> None:
    _mode(reader, path, layer, over_time=type(layer) in _OVER_TIME)
    if type(layer) is norse.LILinearCell:
        reader.linear(path, layer.input_weights, None)
    try:
        neuron = _neuron(layer)
    except ValueError as why:
        reader.refuse(path, f"{type(layer).__name__}: {why}")
        neuron = None
    reader.neurons(path, neuron)


def _mode(reader: StackReader, path: str, layer: nn.Module, *, over_time: bool) -> None:
    if reader.over_time is None:
        reader.over_time = over_time
    elif reader.over_time != over_time:
        reader.refuse(
            path,
            f"{type(layer).__name__} mixes modules that loop over time (LIF, "
            "LI, IAF, Lift) with cells that take one time step",
        )


def _neuron(layer: Any) -> Neuron:
    """Return the neuron of a norse cell; ValueError says what has no counterpart."""
    kind, p, dt = type(layer), layer.p, layer.dt
    if kind in (norse.IAFCell, norse.IAF):
        return IF(as_array(p.v_th), as_array(p.v_reset))
    alpha_v = as_array(dt * p.tau_mem_inv)
    v_leak = as_array(p.v_leak)
    if kind is LIBoxCell:
        return LI(alpha_v, v_leak)
    if kind is norse.LIFBoxCell:
        resets = {reset_value: "zero", reset_subtract: "subtract"}
        if p.reset_method not in resets:
            raise ValueError("its reset_method is neither reset_value nor reset_subtract")
        return LIF(alpha_v, v_leak, as_array(p.v_th), as_array(p.v_reset), resets[p.reset_method])
    alpha_u = as_array(dt * p.tau_syn_inv)
    if kind in (norse.LICell, norse.LI, norse.LILinearCell):
        return CubaLI(alpha_u, alpha_v, v_leak)
    return CubaLIF(alpha_u, alpha_v, v_leak, as_array(p.v_th), as_array(p.v_reset))


_OVER_TIME = (norse.LIF, norse.LI, norse.IAF)
_CELLS = (norse.LIFBoxCell, norse.LIFCell, norse.IAFCell, LIBoxCell, norse.LICell)
_NORSE = Framework(
    package="norse",
    title="norse",
    readers={
        norse.Lift: _lift,
        **dict.fromkeys((*_CELLS, *_OVER_TIME, norse.LILinearCell), _cell),
    },
    supported=SUPPORTED,
    ends="a spiking cell or a leaky integrator (LIBoxCell, LICell)",
    runs="a norse.torch.SequentialState passes the states of cells on; LIF, LI, IAF and Lift take "
    "all steps at once",
    containers=(norse.SequentialState, nn.Sequential),
    neurons=(SNN, SNNCell, SNNRecurrent, SNNRecurrentCell),
    values=_values,
    calls=(stepped_with_state, *ONE_CALL),
    potential=_potential,
)
