"""Read trained snnTorch modules natively.

The cells are read as they compute, not as they were asked to: the kind of reset is the one a cell
was built with. A last cell that never resets (``reset_mechanism="none"``), or whose threshold
cannot be reached, is an integrator: its potential is the network's answer. Every other last cell
answers with its spikes, whatever it returns beside them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import snntorch as snn
import torch
from torch import nn

from osbc_deploy.arrays import FloatArray
from osbc_deploy.frameworks.builder import Builder
from osbc_deploy.frameworks.calling import (
    ONE_CALL,
    stepped,
    stepped_with_state,
    stepped_with_states,
)
from osbc_deploy.frameworks.flow import Called
from osbc_deploy.frameworks.folding import as_array
from osbc_deploy.frameworks.framework import Framework
from osbc_deploy.frameworks.layers import SUPPORTED_LAYERS, convolution
from osbc_deploy.frameworks.operations import broadcasts
from osbc_deploy.frameworks.proof import ProvenReader
from osbc_deploy.frameworks.snntorch.neurons import (
    Lapicque,
    Leaky,
    LeakyIntegrator,
    RLeaky,
    RSynaptic,
    Synaptic,
    SynapticIntegrator,
)
from osbc_deploy.model.graph import Connection, Conv, Dense, Shape
from osbc_deploy.model.neurons import LinearDynamics, Neuron

__all__ = ["SNNTORCH", "SUPPORTED", "read_snntorch"]

SUPPORTED = f"{SUPPORTED_LAYERS}, Leaky, Synaptic, Lapicque, RLeaky, RSynaptic, Sequential"

OUT_OF_REACH = 1e6
"""From this threshold on, the last cell is an integrator; potentials are of the order of 1."""


def _cell(builder: Builder, called: Called, layer: Any) -> None:
    kind = builder.kind(layer)
    faults = _faults(layer, kind)
    for fault in faults:
        builder.refuse(called, f"{type(layer).__name__}: {fault}")
    if faults:
        return
    neuron = _neuron(layer, kind, last=builder.is_output(called))
    if not neuron.spiking:
        builder.note(f"{called.name}: never resets, so its potential is the network's answer")
    if not neuron.feedback_apart:
        builder.neurons(called, neuron)
        return
    trained = isinstance(layer.recurrent, nn.Linear | nn.Conv2d)
    builder.neurons(
        called, neuron, lambda shape: _recurrent(layer.recurrent, shape), trained=trained
    )


def _faults(layer: Any, kind: type) -> list[str]:
    """Return what of a cell has no counterpart."""
    faults = []
    if layer.inhibition:
        faults.append("inhibition=True lets only the strongest neuron fire; build it without")
    if layer.state_quant:
        faults.append("state_quant rounds the state in every step; build it without")
    if not (as_array(layer.graded_spikes_factor) == 1.0).all():
        faults.append("graded_spikes_factor is not 1; put the factor into the next layer's weights")
    if not _is_step(layer.spike_grad):
        faults.append("its spike_grad does not fire exactly where mem > threshold")
    kinds = ("subtract", "zero", "none")
    built, says = _reset(layer), kinds[int(layer.reset_mechanism_val)]
    if built != says:
        faults.append(
            f"it was built with reset_mechanism={built!r} and still computes that, though it now "
            f"says {says!r}; build it with the one you mean"
        )
    if kind is snn.RSynaptic and not layer.reset_delay:
        faults.append("reset_delay=False has no effect in snnTorch; build it without")
    return faults


def _is_step(function: Any) -> bool:
    values = torch.tensor([-1.0, -1e-6, 0.0, 1e-6, 1.0])
    with torch.no_grad():
        return bool((function(values) == (values > 0)).all())


def _reset(layer: Any) -> str:
    """Return the kind of reset that a cell was built with."""
    names = {"_base_sub": "subtract", "_base_zero": "zero", "_base_int": "none"}
    return names[layer.state_function.__name__]


def _neuron(layer: Any, kind: type, *, last: bool) -> Neuron:
    threshold, reset = layer.threshold, _reset(layer)
    v_threshold = as_array(threshold)
    # snnTorch's surrogates give single precision, so their product with one number has it as well.
    fired = layer.spike_grad(torch.zeros(1, dtype=torch.float64))
    single = torch.result_type(fired, threshold) == torch.float32
    v_subtract = v_threshold.astype(np.float32) if single else v_threshold
    if kind is snn.Lapicque:
        return _lapicque(layer, v_threshold, v_subtract, reset)
    beta = as_array(layer.beta.clamp(0, 1))
    integrates = last and (reset == "none" or bool((v_threshold >= OUT_OF_REACH).all()))
    when = "late" if layer.reset_delay else "at once"
    if kind in (snn.Leaky, snn.RLeaky):
        if integrates and kind is snn.Leaky:
            return LeakyIntegrator(beta)
        family = Leaky if kind is snn.Leaky else RLeaky
        return family(beta, v_threshold, v_subtract, reset, when)
    alpha = as_array(layer.alpha.clamp(0, 1))
    if integrates and kind is snn.Synaptic:
        return SynapticIntegrator(alpha, beta)
    second = Synaptic if kind is snn.Synaptic else RSynaptic
    return second(alpha, beta, v_threshold, v_subtract, reset, when)


def _lapicque(layer: Any, v_threshold: FloatArray, v_subtract: FloatArray, reset: str) -> Neuron:
    resistance, capacitance, dt = layer.R.detach(), layer.C.detach(), layer.time_step
    return Lapicque(
        resistance=as_array(resistance),
        conductance=as_array(1 / (resistance * capacitance)),
        time_step=as_array(dt),
        kept=as_array(1 - dt / (resistance * capacitance)),
        v_threshold=v_threshold,
        v_subtract=v_subtract,
        reset=reset,
    )


def _recurrent(layer: Any, shape: Shape) -> Connection:
    """Return the map from a cell's spikes to itself; ValueError says why there is none."""
    if isinstance(layer, nn.Linear):
        connection: Connection = Dense(
            as_array(layer.weight), None if layer.bias is None else as_array(layer.bias)
        )
        fits = len(shape) == 1 and layer.in_features == shape[0]
        size = f"{layer.in_features} features"
    elif isinstance(layer, nn.Conv2d):
        connection, faults = convolution(layer)
        if faults:
            raise ValueError("; ".join(faults))
        fits = len(shape) == 3 and shape[0] == layer.in_channels
        fits = fits and connection.output_shape(shape) == shape
        size = f"{layer.in_channels} channels and kernel {layer.kernel_size}"
    else:
        return _one_to_one(as_array(layer.V), shape)
    if not fits:
        raise ValueError(f"its recurrent layer of {size} does not map the neurons {shape} to them")
    return connection


def _one_to_one(factor: FloatArray, shape: Shape) -> Connection:
    if len(shape) == 1 and broadcasts(factor.shape, shape):
        return Dense(np.diag(np.broadcast_to(factor, shape)))
    if len(shape) == 3 and (factor.size == 1 or factor.shape == (shape[0], 1, 1)):
        weight = np.broadcast_to(factor.reshape(-1, 1, 1, 1), (shape[0], 1, 1, 1))
        return Conv(weight, groups=shape[0])
    raise ValueError(
        f"V of shape {factor.shape} is neither one number nor one per neuron or channel of {shape}"
    )


def _start(module: nn.Module) -> None:
    """Bring all cells to their initial state."""
    for cell in module.modules():
        if isinstance(cell, snn.SpikingNeuron) and hasattr(cell, "reset_mem"):
            cell.reset_mem()


def _potential(cell: nn.Module, answer: Any) -> torch.Tensor | None:
    """Return the potential that a cell keeps."""
    found: torch.Tensor | None = getattr(cell, "mem", None)
    return found


def _dynamics(layer: nn.Module, kind: type) -> LinearDynamics | None:
    return _neuron(layer, kind, last=False).dynamics()


@contextmanager
def _widened(module: nn.Module) -> Iterator[None]:
    """Have all cells fire in the precision of their potential: a surrogate fires in float32."""

    def keeping(fire: Any) -> Any:
        return lambda v: fire(v).to(v.dtype)

    cells = {id(m): m for m in module.modules() if isinstance(m, snn.SpikingNeuron)}.values()
    # Set beside a surrogate that is a module, and found before it.
    held = [(cell, vars(cell).get("spike_grad")) for cell in cells]
    try:
        for cell in cells:
            vars(cell)["spike_grad"] = keeping(cell.spike_grad)
        yield
    finally:
        for cell, before in held:
            vars(cell).pop("spike_grad")
            if before is not None:
                vars(cell)["spike_grad"] = before


SNNTORCH = Framework(
    package="snntorch",
    title="snnTorch",
    readers=dict.fromkeys(
        (snn.Leaky, snn.Synaptic, snn.Lapicque, snn.RLeaky, snn.RSynaptic), _cell
    ),
    supported=SUPPORTED,
    ends="a cell (Leaky, Synaptic, ...) or a linear layer behind one",
    runs="cells of a torch.nn.Sequential need init_hidden=True, only the last may have output=True",
    timeless="call it once for each time step",
    neurons=(snn.SpikingNeuron,),
    calls=(stepped, *ONE_CALL, stepped_with_state, stepped_with_states),
    reset=_start,
    potential=_potential,
    dynamics=_dynamics,
    widened=_widened,
)

read_snntorch = ProvenReader(SNNTORCH)
