"""SpikingJelly's nodes as neurons, and which of its layers are torch's."""

from __future__ import annotations

from typing import Any

import torch
from spikingjelly.activation_based import layer, neuron

from osbc_deploy.frameworks.folding import as_array
from osbc_deploy.frameworks.spikingjelly.neurons import IFNode, LIFNode, ParametricLIFNode
from osbc_deploy.model.neurons import Neuron

__all__ = [
    "CONTAINERS",
    "NODES",
    "NOT_STEPPED",
    "faults_of",
    "mode_faults",
    "neuron_of",
]

CONTAINERS = (
    layer.SeqToANNContainer,
    layer.MultiStepContainer,
    layer.StepModeContainer,
    layer.LinearRecurrentContainer,
    layer.ElementWiseRecurrentContainer,
    layer.SpikeDrivenSelfAttention,
    layer.QKAttention,
)
NODES = (neuron.IFNode, neuron.LIFNode, neuron.ParametricLIFNode)
NOT_STEPPED = (
    "a node in a SeqToANNContainer takes all time steps at once; put it outside, or use a "
    "MultiStepContainer"
)


def mode_faults(module: Any, *, over_time: bool) -> list[str]:
    """Return what is wrong with the step mode of a node or layer where it stands."""
    mode = "m" if over_time else "s"
    if module.step_mode == mode:
        return []
    return [
        f"has step_mode {module.step_mode!r} where the network has {mode!r}; call "
        f"functional.set_step_mode(network, {mode!r})"
    ]


def faults_of(node: Any) -> list[str]:
    """Return what of a node has no counterpart."""
    faults = []
    values = torch.tensor([-1.0, -1e-6, 0.0, 1e-6, 1.0])
    with torch.no_grad():
        fires = node.surrogate_function(values)
    if not (fires == (values >= 0)).all():
        faults.append(
            "its surrogate_function does not fire exactly where v >= v_threshold; set spiking=True"
        )
    if node._neuron_precision is not None:
        faults.append("it computes in mixed precision; build it without")
    return faults


def neuron_of(node: Any, kind: type) -> Neuron:
    """Return the neuron of a node that is read as one of some class."""
    reset = "subtract" if node.v_reset is None else "zero"
    threshold, v_reset = as_array(node.v_threshold), as_array(node.v_reset or 0.0)
    if kind is neuron.IFNode:
        return IFNode(threshold, v_reset, reset)
    taken = "decayed" if node.decay_input else "added"
    if kind is neuron.LIFNode:
        return LIFNode(threshold, v_reset, reset, as_array(node.tau), taken)
    return ParametricLIFNode(threshold, v_reset, reset, as_array(node.w.sigmoid()), taken)
