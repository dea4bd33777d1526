"""Read trained SpikingJelly modules natively.

Networks are read in the step mode they are in: "s", one time step a call, or "m", the whole
sequence (T, N, ...) a call. Both compute the same; what counts is that all layers agree.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from spikingjelly.activation_based import base, layer
from torch import nn

from osbc_deploy.frameworks.builder import Builder
from osbc_deploy.frameworks.calling import ONE_CALL, stepped
from osbc_deploy.frameworks.flow import Called
from osbc_deploy.frameworks.framework import Framework, kind_of
from osbc_deploy.frameworks.layers import LAYERS, SUPPORTED_LAYERS
from osbc_deploy.frameworks.operations import Delay
from osbc_deploy.frameworks.proof import ProvenReader
from osbc_deploy.frameworks.spikingjelly.nodes import (
    ALL_STEPS,
    CONTAINERS,
    NEURONS,
    NODES,
    NOT_STEPPED,
    SILENT,
    faults_of,
    integrates,
    mode_faults,
    neuron_of,
)
from osbc_deploy.model.neurons import LinearDynamics

__all__ = ["SPIKINGJELLY", "SUPPORTED", "read_spikingjelly"]

SUPPORTED = (
    f"{SUPPORTED_LAYERS}, ThresholdDependentBatchNorm1d/2d, SeqToANNContainer, MultiStepContainer, "
    "LinearRecurrentContainer, ElementWiseRecurrentContainer, IFNode, LIFNode, ParametricLIFNode, "
    "CUBALIFNode, SimpleIFNode, SimpleLIFNode, NonSpikingIFNode, NonSpikingLIFNode, Delay"
)


def _node(builder: Builder, called: Called, node: Any) -> None:
    last = builder.is_output(called)
    faults = faults_of(node, last=last)
    for fault in faults:
        builder.refuse(called, f"{type(node).__name__}: {fault}")
    if faults:
        return
    builder.neurons(called, neuron_of(node, builder.kind(node), last=last))
    if integrates(node, last=last):
        builder.note(f"{called.name}: never fires, so its potential is the network's answer")
    if isinstance(node, SILENT):
        # It answers with what it decodes of all steps, which is the model's answer.
        builder.unwatched(called)


def _delay(builder: Builder, called: Called, late: Any) -> None:
    """Let what it hears arrive later, nothing before."""
    builder.put(called, called.name, Delay(np.asarray(late.delay_steps)))


def _misplaced(module: nn.Module, over_time: bool, merged: bool) -> Sequence[str]:
    """Say where the step mode of a module is not what it gets."""
    if isinstance(module, base.MemoryModule | SILENT) and merged:
        return (NOT_STEPPED,)
    if isinstance(module, SILENT):
        return () if over_time else (ALL_STEPS,)
    return mode_faults(module, over_time=over_time) if hasattr(module, "step_mode") else ()


def _over_time(module: nn.Module) -> bool:
    """Tell whether a model takes all time steps, as its first layer does."""
    # Containers are of step mode "m" without saying so, whatever the layers in them are.
    modes = ["m" for m in module.modules() if isinstance(m, _ALL_STEPS)]
    modes += [str(m.step_mode) for m in module.modules() if hasattr(m, "step_mode")]
    return bool(modes) and modes[0] == "m"


def _votes(module: nn.Module) -> int:
    """Return how many values in a row a VotingLayer averages."""
    return int(module.voting_size) if kind_of(module) is layer.VotingLayer else 0  # type: ignore[arg-type]


def _start(module: nn.Module) -> None:
    """Bring all nodes to their initial state."""
    for node in module.modules():
        if isinstance(node, base.MemoryModule):
            node.reset()


def _potential(node: nn.Module, answer: Any) -> torch.Tensor | None:
    """Return the potential that a node keeps."""
    found = getattr(node, "v", None)
    return found if isinstance(found, torch.Tensor) else None


def _recorded(node: nn.Module) -> torch.Tensor | None:
    """Return the potentials of all steps that a node keeps with store_v_seq."""
    found = getattr(node, "v_seq", None)
    return found if isinstance(found, torch.Tensor) else None


def _values(module: nn.Module) -> dict[str, Any]:
    """Return a node's parameters that are plain numbers."""
    if not isinstance(module, NEURONS):
        return {}
    names = ("v_threshold", "v_reset", "tau", "c_decay", "v_decay")
    values = {name: getattr(module, name, None) for name in names}
    if values["v_threshold"] == math.inf:
        # That is how a node never fires.
        values["v_threshold"] = None
    return {name: value for name, value in values.items() if value is not None}


def _dynamics(node: nn.Module, kind: type) -> LinearDynamics | None:
    return neuron_of(node, kind).dynamics()


_ALL_STEPS = (layer.SeqToANNContainer, layer.MultiStepContainer)
_WRAPPED = {
    layer.Linear: LAYERS[nn.Linear],
    layer.Conv1d: LAYERS[nn.Conv1d],
    layer.Conv2d: LAYERS[nn.Conv2d],
    layer.ConvTranspose1d: LAYERS[nn.ConvTranspose1d],
    layer.ConvTranspose2d: LAYERS[nn.ConvTranspose2d],
    **dict.fromkeys(
        (
            *(layer.BatchNorm1d, layer.BatchNorm2d),
            *(layer.ThresholdDependentBatchNorm1d, layer.ThresholdDependentBatchNorm2d),
        ),
        LAYERS[nn.BatchNorm2d],
    ),
    layer.AvgPool1d: LAYERS[nn.AvgPool1d],
    layer.AvgPool2d: LAYERS[nn.AvgPool2d],
    layer.AdaptiveAvgPool1d: LAYERS[nn.AdaptiveAvgPool1d],
    layer.AdaptiveAvgPool2d: LAYERS[nn.AdaptiveAvgPool2d],
    layer.MaxPool1d: LAYERS[nn.MaxPool1d],
    layer.MaxPool2d: LAYERS[nn.MaxPool2d],
    layer.Flatten: LAYERS[nn.Flatten],
    layer.Upsample: LAYERS[nn.Upsample],
    **dict.fromkeys((layer.Dropout, layer.Dropout2d), LAYERS[nn.Dropout]),
}
"""Its versions of torch's layers, which keep the time axis from them, and tdBN."""

SPIKINGJELLY = Framework(
    package="spikingjelly",
    title="SpikingJelly",
    readers={**dict.fromkeys(NODES, _node), **_WRAPPED, layer.Delay: _delay},
    supported=SUPPORTED,
    ends="a node (IFNode, LIFNode, ParametricLIFNode) or a linear layer behind one",
    runs="all layers must be in one step mode, and torch's own know no time axis",
    timeless="use spikingjelly's layer.LAYER",
    containers=CONTAINERS,
    time_last=(layer.TLastSeqToANNContainer, layer.TLastMultiStepContainer),
    layers=("activation_based.layer", "activation_based.neuron"),
    neurons=NEURONS,
    misplaced=_misplaced,
    over_time=_over_time,
    votes=_votes,
    values=_values,
    calls=(stepped, *ONE_CALL),
    reset=_start,
    potential=_potential,
    recorded=_recorded,
    dynamics=_dynamics,
)

read_spikingjelly = ProvenReader(SPIKINGJELLY)
