"""Read trained norse modules natively.

The modules themselves are read, not norse's NIR export, which writes time constants multiplied
by the time step once too often. What their forward calls is followed in ``reading.py``.
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

from osbc_deploy.frameworks.builder import Builder
from osbc_deploy.frameworks.calling import ONE_CALL, stepped_with_state
from osbc_deploy.frameworks.flow import Called
from osbc_deploy.frameworks.folding import as_array
from osbc_deploy.frameworks.framework import Framework
from osbc_deploy.frameworks.layers import SUPPORTED_LAYERS
from osbc_deploy.frameworks.norse.neurons import IF, LI, LIF, CubaLI, CubaLIF, RecurrentLIF
from osbc_deploy.frameworks.proof import ProvenReader
from osbc_deploy.model.graph import Dense
from osbc_deploy.model.neurons import LinearDynamics, Neuron

__all__ = ["NORSE", "SUPPORTED", "read_norse"]

SUPPORTED = (
    f"{SUPPORTED_LAYERS}, LIFBoxCell, LIFCell, LIF, IAFCell, IAF, "
    "LIFRecurrentCell, LIFRecurrent, LIBoxCell, LICell, LI, LILinearCell, Lift, SequentialState, "
    "RecurrentSequential, Sequential"
)


def _values(layer: nn.Module) -> Mapping[str, Any]:
    """Return a neuron's parameters, which norse keeps out of the state."""
    named: Mapping[str, Any] = getattr(getattr(layer, "p", None), "_asdict", dict)()
    return {f"p.{name}": value for name, value in named.items()}


def _potential(cell: nn.Module, answer: Any) -> torch.Tensor | None:
    """Return the potential in the state that a cell returned."""
    state = answer[1] if isinstance(answer, tuple) and len(answer) > 1 else None
    found: torch.Tensor | None = getattr(state, "v", None)
    return found


def _cell(builder: Builder, called: Called, layer: Any) -> None:
    try:
        neuron = _neuron(layer, builder.kind(layer))
    except ValueError as why:
        builder.refuse(called, f"{type(layer).__name__}: {why}")
        return
    if isinstance(layer, SNNRecurrentCell | SNNRecurrent):
        recurrent = Dense(as_array(layer.recurrent_weights))
        weights = Dense(as_array(layer.input_weights))
        builder.neurons(called, neuron, lambda shape: recurrent, connection=weights)
    elif isinstance(layer, norse.LILinearCell):
        builder.neurons(called, neuron, connection=Dense(as_array(layer.input_weights)))
    else:
        builder.neurons(called, neuron)


def _takes_all(layer: nn.Module) -> bool:
    return isinstance(layer, SNN | SNNRecurrent | norse.LI)


def _misplaced(layer: nn.Module, over_time: bool, merged: bool) -> Sequence[str]:
    """Say where a cell that takes one step gets all, or the other way round."""
    if not isinstance(layer, _NEURONS) or _takes_all(layer) == over_time:
        return ()
    return (
        "mixes modules that loop over time (LIF, LI, IAF, Lift) with cells that take one time step",
    )


def _over_time(module: nn.Module) -> bool:
    """Tell whether a model takes all time steps: what loops over them is called by nothing else."""
    return any(_takes_all(m) or isinstance(m, norse.Lift) for m in module.modules())


def _neuron(layer: Any, kind: type) -> Neuron:
    """Return the neuron of a norse cell; ValueError says what has no counterpart."""
    p, dt = layer.p, layer.dt
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
    family = RecurrentLIF if kind in _RECURRENT else CubaLIF
    return family(alpha_u, alpha_v, v_leak, as_array(p.v_th), as_array(p.v_reset))


def _dynamics(layer: nn.Module, kind: type) -> LinearDynamics | None:
    try:
        return _neuron(layer, kind).dynamics()
    except ValueError:
        return None


_RECURRENT = (norse.LIFRecurrentCell, norse.LIFRecurrent)
_CELLS = (
    *(norse.LIFBoxCell, norse.LIFCell, norse.IAFCell, LIBoxCell, norse.LICell),
    *(norse.LIF, norse.LI, norse.IAF, norse.LILinearCell, *_RECURRENT),
)
_NEURONS = (SNN, SNNCell, SNNRecurrent, SNNRecurrentCell, norse.LILinearCell)
NORSE = Framework(
    package="norse",
    title="norse",
    readers=dict.fromkeys(_CELLS, _cell),
    supported=SUPPORTED,
    ends="a spiking cell, a leaky integrator (LIBoxCell, LICell) or a linear layer",
    runs="a norse.torch.SequentialState passes the states of cells on; LIF, LI, IAF and Lift take "
    "all steps at once",
    timeless="put it into a norse.torch.Lift",
    containers=(norse.Lift, norse.SequentialState, norse.RecurrentSequential),
    layers=("torch.module",),
    models=("torch.models", "task"),
    neurons=_NEURONS,
    misplaced=_misplaced,
    over_time=_over_time,
    values=_values,
    calls=(stepped_with_state, *ONE_CALL),
    potential=_potential,
    dynamics=_dynamics,
)

read_norse = ProvenReader(NORSE)
