"""SpikingJelly's nodes as neurons, and which of its layers are torch's."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from spikingjelly.activation_based import layer, neuron
from spikingjelly.activation_based.neuron.base_node import NonSpikingBaseNode, SimpleBaseNode

from osbc_deploy.arrays import FloatArray
from osbc_deploy.frameworks.folding import as_array
from osbc_deploy.frameworks.spikingjelly.neurons import (
    CUBALIFNode,
    IFIntegrator,
    IFNode,
    LIFIntegrator,
    LIFNode,
    ParametricLIFIntegrator,
    ParametricLIFNode,
)
from osbc_deploy.model.neurons import Neuron

__all__ = [
    "ALL_STEPS",
    "CONTAINERS",
    "NEURONS",
    "NODES",
    "NOT_STEPPED",
    "SILENT",
    "faults_of",
    "integrates",
    "mode_faults",
    "neuron_of",
]

CONTAINERS = (
    layer.SeqToANNContainer,
    layer.MultiStepContainer,
    layer.TLastMultiStepContainer,
    layer.StepModeContainer,
    layer.LinearRecurrentContainer,
    layer.ElementWiseRecurrentContainer,
    layer.SpikeDrivenSelfAttention,
    layer.QKAttention,
)
SILENT = NonSpikingBaseNode
"""What its nodes that never fire derive from: they take all time steps and keep no state."""
NEURONS = (neuron.BaseNode, SimpleBaseNode, SILENT, layer.NeuNorm)
NODES = (
    *(neuron.IFNode, neuron.LIFNode, neuron.ParametricLIFNode, neuron.CUBALIFNode),
    *(neuron.SimpleIFNode, neuron.SimpleLIFNode, neuron.NonSpikingIFNode, neuron.NonSpikingLIFNode),
)
_INTEGRATORS = (neuron.IFNode, neuron.LIFNode, neuron.ParametricLIFNode, SimpleBaseNode, SILENT)
"""Nodes that are integrators where they cannot fire."""
_DECODED = (None, "max-mem", "mean-mem", "last_mem")
OUT_OF_REACH = 1e6
"""From this threshold on, a node cannot fire; potentials are of the order of 1."""
NOT_STEPPED = (
    "a node in a SeqToANNContainer takes all time steps at once; put it outside, or use a "
    "MultiStepContainer"
)
ALL_STEPS = (
    "takes all time steps at once; call functional.set_step_mode(network, 'm') and give the "
    "network all of them"
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


def integrates(node: Any, *, last: bool) -> bool:
    """Tell whether a node is read for its potential: it never fires, and nothing hears it."""
    if isinstance(node, SILENT) or _gives_potential(node):
        return True
    return last and isinstance(node, _INTEGRATORS) and _unfired(node)


def _gives_potential(node: Any) -> bool:
    """Tell whether a subclass of a simple node answers with its potential, as in their examples."""
    own = getattr(type(node), "single_step_forward", None)
    if not isinstance(node, SimpleBaseNode) or own is SimpleBaseNode.single_step_forward:
        return False
    held = dict(node._memories)
    node.reset()
    with torch.no_grad():
        found = node.single_step_forward(torch.full((1,), OUT_OF_REACH)) is node.v
    node._memories.update(held)
    return found


def _unfired(node: Any) -> bool:
    return bool((as_array(node.v_threshold) >= OUT_OF_REACH).all())


def faults_of(node: Any, *, last: bool) -> list[str]:
    """Return what of a node has no counterpart; `last` says whether it answers."""
    if isinstance(node, SILENT):
        if node.decode in _DECODED:
            return []
        return [
            f"no readout decodes potentials as decode={node.decode!r} does; take 'max-mem', "
            "'mean-mem', 'last_mem' or None"
        ]
    faults = []
    values = torch.tensor([-1.0, -1e-6, 0.0, 1e-6, 1.0])
    with torch.no_grad():
        fires = node.surrogate_function(values)
    if not (fires == (values >= 0)).all():
        faults.append(
            "its surrogate_function does not fire exactly where v >= v_threshold; set spiking=True"
        )
    if getattr(node, "_neuron_precision", None) is not None:
        faults.append("it computes in mixed precision; build it without")
    if isinstance(node, SimpleBaseNode) and node.v_reset:
        faults.append(
            f"it starts at 0 but is reset to v_reset={node.v_reset}; a "
            f"{type(node).__name__.removeprefix('Simple')} starts there, too"
        )
    if np.isinf(as_array(node.v_threshold)).any():
        if not integrates(node, last=last):
            faults.append(
                "its threshold is infinite, so it never fires; only the last node may be like "
                "that, of which forward answers with the potential (its v)"
            )
        elif node.v_reset is None:
            faults.append(
                "its infinite threshold times no spike is NaN, which a soft reset takes off the "
                "potential; build it with a v_reset, which it never uses"
            )
    return faults


def neuron_of(node: Any, kind: type, *, last: bool = False) -> Neuron:
    """Return the neuron of a node that is read as one of some class; `last` where it answers."""
    v_reset = as_array(getattr(node, "v_reset", None) or 0.0)
    if integrates(node, last=last):
        return _integrator(node, kind, v_reset)
    reset = "subtract" if node.v_reset is None else "zero"
    threshold = as_array(node.v_threshold)
    if kind in (neuron.IFNode, neuron.SimpleIFNode):
        return IFNode(threshold, v_reset, reset)
    if kind is neuron.CUBALIFNode:
        kept = (as_array(node.c_decay), as_array(node.v_decay))
        return CUBALIFNode(threshold, v_reset, reset, *kept)
    taken = "decayed" if node.decay_input else "added"
    if kind in (neuron.LIFNode, neuron.SimpleLIFNode):
        return LIFNode(threshold, v_reset, reset, as_array(node.tau), taken)
    return ParametricLIFNode(threshold, v_reset, reset, as_array(node.w.sigmoid()), taken)


def _integrator(node: Any, kind: type, v_reset: FloatArray) -> Neuron:
    if kind in (neuron.IFNode, neuron.SimpleIFNode, neuron.NonSpikingIFNode):
        return IFIntegrator(v_reset)
    taken = "decayed" if getattr(node, "decay_input", True) else "added"
    if kind is neuron.ParametricLIFNode:
        return ParametricLIFIntegrator(v_reset, as_array(node.w.sigmoid()), taken)
    return LIFIntegrator(v_reset, as_array(node.tau), taken)
