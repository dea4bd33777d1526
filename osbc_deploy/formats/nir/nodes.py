"""What the nodes of a NIR graph mean: operations, neurons, and the input and the outputs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np

from osbc_deploy.arrays import FloatArray
from osbc_deploy.errors import ArtefactError, UnsupportedModelError
from osbc_deploy.formats.nir import neurons as families
from osbc_deploy.formats.nir.file import NirModel
from osbc_deploy.formats.nir.options import TimeStep
from osbc_deploy.formats.nir.values import bias_of, floats, pair, shape_of, span, spread, uniform
from osbc_deploy.frameworks.operations import Add, Delay, Flatten, Scale
from osbc_deploy.frameworks.walk import Cells, Node
from osbc_deploy.model.graph import INPUT, AvgPool, Conv, Dense, Pair, Shape
from osbc_deploy.plain_text import many

__all__ = ["SUPPORTED", "Translator"]

SUPPORTED = (
    "Input, Output, Linear, Affine, Conv1d, Conv2d, Scale, SumPool2d, AvgPool2d, Flatten, Delay, "
    "IF, LIF, CubaLIF, LI, CubaLI, Threshold, and graphs of them"
)


_Cuba: TypeAlias = tuple[FloatArray, FloatArray, FloatArray, FloatArray, FloatArray]


class _Fault(Exception):  # noqa: N818 - reported with all others, never raised to users
    """A node that is sound but has no counterpart."""


class Translator:
    """Makes of every NIR node the operation or the neurons that it means."""

    def __init__(self, model: NirModel, chosen: TimeStep) -> None:
        self.model, self.chosen = model, chosen
        self.faults: list[str] = []
        self.broken: list[str] = []
        self.too_long: list[str] = []
        self.notes: list[str] = []
        self.whole_inputs: list[str] = []

    def nodes(self) -> dict[str, Node]:
        """Return the nodes of the graph, without its input and outputs."""
        found: dict[str, Node] = {}
        ends = (*self.model.inputs, *self.model.outputs)
        for name, node in self.model.nodes.items():
            if name in ends:
                continue
            made = self.node(name, node)
            if made is not None:
                found[self.named(name)] = made
        if self.whole_inputs:
            self.notes.append(
                f"{', '.join(self.whole_inputs)}: IF with r = 1 adds its whole input in every "
                "step, as sinabs and norse write it"
            )
        return found

    def named(self, name: str) -> str:
        """Return the name of a node, of which ``"input"`` is the input's alone."""
        if name in self.model.inputs:
            return INPUT
        return f"{INPUT}_" if name == INPUT else name

    def edges(self) -> list[tuple[str, str]]:
        outputs = self.model.outputs
        return [
            (self.named(pre), self.named(post))
            for pre, post in self.model.edges
            if pre not in outputs and post not in outputs and post not in self.model.inputs
        ]

    def check_ends(self) -> None:
        for what, names in (("Input", self.model.inputs), ("Output", self.model.outputs)):
            if len(names) != 1:
                listed = f" ({', '.join(names)})" if names else ""
                self.faults.append(
                    f"graph: has {len(names)} {what} nodes{listed}; one is supported"
                )
        if self.faults and (len(self.model.inputs) != 1 or len(self.model.outputs) != 1):
            raise UnsupportedModelError(
                f"graph: {many(len(self.faults), 'part')} cannot be represented",
                self.faults,
                f"Supported: {SUPPORTED}.",
            )

    def input_shape(self, source: str) -> Shape:
        name = self.model.inputs[0]
        try:
            return shape_of(self.model.nodes[name].input_type["input"])
        except (ValueError, TypeError) as error:
            raise ArtefactError(
                f"{source}: {name}: Input {error}. Export the graph for one sample, without batch."
            ) from error

    def output(self) -> str:
        """Return the neurons that the output node receives input from."""
        name = self.model.outputs[0]
        while True:
            before = [pre for pre, post in self.model.edges if post == name]
            kind = type(self.model.nodes[before[0]]).__name__ if len(before) == 1 else ""
            if kind in _NEURONS:
                return self.named(before[0])
            if kind not in ("Output", "Flatten"):
                hears = ", ".join(before) or "nothing"
                raise UnsupportedModelError(
                    f"{name}: the output receives input from {hears}",
                    [
                        *self.faults,
                        f"{name}: must hear the neurons of one node; end the graph with "
                        "neurons or a leaky integrator (LI, CubaLI)",
                    ],
                    f"Supported: {SUPPORTED}.",
                )
            name = before[0]

    def node(self, name: str, node: Any) -> Node | None:
        kind = type(node).__name__
        make: Callable[[Any, str, Any], Node] | None = _MAKERS.get(kind)
        if make is None:
            self.faults.append(f"{name}: {kind} is not supported")
            return None
        try:
            return make(self, name, node)
        except _Fault as fault:
            self.faults.append(f"{name}: {fault}")
        except (ValueError, TypeError, IndexError) as error:
            self.broken.append(f"{name}: {kind} {error}")
        return None

    # Linear operations.

    def passage(self, name: str, node: Any) -> Node:
        return Add()

    def linear(self, name: str, node: Any) -> Node:
        weight = floats(node.weight)
        if weight.ndim != 2:
            raise _Fault(f"weights of shape {weight.shape}; (outputs, inputs) are supported")
        bias = getattr(node, "bias", None)
        return Dense(weight, None if bias is None else bias_of(bias, len(weight)))

    def conv1d(self, name: str, node: Any) -> Node:
        weight = floats(node.weight)
        if weight.ndim != 3:
            raise ValueError(f"has weights of shape {weight.shape}")
        self.notes.append(f"{name}: Conv1d is read as a convolution of one row, (C, 1, N)")
        return self.convolution(
            weight[:, :, None, :],
            node,
            stride=(1, pair(node.stride)[1]),
            dilation=(1, pair(node.dilation)[1]),
        )

    def conv2d(self, name: str, node: Any) -> Node:
        weight = floats(node.weight)
        if weight.ndim != 4:
            raise ValueError(f"has weights of shape {weight.shape}")
        return self.convolution(
            weight, node, stride=pair(node.stride), dilation=pair(node.dilation)
        )

    def convolution(self, weight: FloatArray, node: Any, *, stride: Pair, dilation: Pair) -> Conv:
        reach = [d * (k - 1) for d, k in zip(dilation, weight.shape[2:], strict=True)]
        if node.padding == "same":
            if any(r % 2 for r in reach) or stride != (1, 1):
                raise _Fault("padding 'same' with an even kernel or a stride pads one side more")
            padding = reach[0] // 2, reach[1] // 2
        elif node.padding == "valid":
            padding = 0, 0
        else:
            padding = pair(node.padding)
            if type(node).__name__ == "Conv1d":
                padding = 0, padding[1]
        if min(stride) < 1 or min(dilation) < 1 or min(padding) < 0 or int(node.groups) < 1:
            raise ValueError(
                f"has stride {stride}, dilation {dilation}, padding {padding}, groups {node.groups}"
            )
        return Conv(
            weight, bias_of(node.bias, len(weight)), stride, padding, dilation, int(node.groups)
        )

    def pool(self, name: str, node: Any) -> Node:
        kernel, stride, padding = (pair(x) for x in (node.kernel_size, node.stride, node.padding))
        if min(kernel) < 1 or min(stride) < 1 or min(padding) < 0:
            raise ValueError(f"has kernel {kernel}, stride {stride}, padding {padding}")
        return AvgPool(kernel, stride, padding, int(type(node).__name__ == "SumPool2d"))

    def flatten(self, name: str, node: Any) -> Node:
        start, end = int(node.start_dim), int(node.end_dim)
        if start not in (0, 1) or end not in (-1, 1, 2, 3):
            raise _Fault(f"Flatten({start}, {end}) flattens other axes than all of the sample")
        if start == 1:
            self.notes.append(f"{name}: Flatten from axis 1 is read as counting the batch axis")
        return Flatten()

    def scale(self, name: str, node: Any) -> Node:
        return Scale(spread(node.scale))

    def delay(self, name: str, node: Any) -> Node:
        delay = spread(node.delay).astype(np.float64)
        if (delay < 0).any():
            raise ValueError("has negative delays")
        if not delay.any():
            return Add()
        steps = delay / self.chosen.step
        whole = np.rint(steps)
        if (np.abs(steps - whole) > 1e-6 * np.maximum(1, whole)).any():
            raise _Fault(f"delays of {span(delay)}, which dt {self.chosen.step:g} does not divide")
        return Delay(whole.astype(np.int64))

    # Neurons.

    def integrate_and_fire(self, name: str, node: Any) -> Node:
        r = spread(node.r).astype(np.float64)
        if (r == 1).all():
            gain = np.ones(())
            self.whole_inputs.append(name)
        else:
            gain = self.chosen.step * r
        return self.cells(node.v_threshold, families.IF(gain, *self.firing(node)))

    def leaky_integrate_and_fire(self, name: str, node: Any) -> Node:
        alpha = self.alpha(name, "tau", node.tau)
        leaky = alpha, uniform(node.r), uniform(node.v_leak)
        return self.cells(node.v_threshold, families.LIF(*leaky, *self.firing(node)))

    def current_based_fire(self, name: str, node: Any) -> Node:
        cuba = families.CubaLIF(*self.cuba(name, node), *self.firing(node))
        return self.cells(node.v_threshold, cuba)

    def leaky_integrator(self, name: str, node: Any) -> Node:
        alpha = self.alpha(name, "tau", node.tau)
        return self.cells(node.v_leak, families.LI(alpha, uniform(node.r), uniform(node.v_leak)))

    def current_based_integrator(self, name: str, node: Any) -> Node:
        return self.cells(node.v_leak, families.CubaLI(*self.cuba(name, node)))

    def threshold(self, name: str, node: Any) -> Node:
        found = uniform(node.threshold)
        return self.cells(node.threshold, families.Threshold(found, np.zeros((), found.dtype)))

    def cuba(self, name: str, node: Any) -> _Cuba:
        w_in, r, v_leak = (uniform(x) for x in (node.w_in, node.r, node.v_leak))
        alpha_u = self.alpha(name, "tau_syn", node.tau_syn)
        return alpha_u, self.alpha(name, "tau_mem", node.tau_mem), w_in, r, v_leak

    def firing(self, node: Any) -> tuple[FloatArray, FloatArray, str]:
        return uniform(node.v_threshold), uniform(node.v_reset), self.chosen.reset or "zero"

    def alpha(self, name: str, parameter: str, tau: Any) -> FloatArray:
        """Return dt / tau in float64; the simulation rounds it to the model's precision once."""
        found = uniform(tau).astype(np.float64)
        if (found <= 0).any():
            raise ValueError(f"has {parameter} {span(found)}, which must be more than 0")
        step = self.chosen.step
        if (found < step * (1 - 1e-6)).any():
            self.too_long.append(f"{name}: {parameter} {span(found)}")
        # At dt = tau nothing is kept from the step before; rounding must not make that less.
        return np.minimum(step / found, 1.0)

    @staticmethod
    def cells(like: Any, neuron: Any) -> Cells:
        shape = np.shape(like)
        return Cells(neuron, shape_of(shape) if np.size(like) > 1 else None)


_MAKERS: dict[str, Callable[[Any, str, Any], Node]] = {
    "Input": Translator.passage,
    "Output": Translator.passage,
    "Linear": Translator.linear,
    "Affine": Translator.linear,
    "Conv1d": Translator.conv1d,
    "Conv2d": Translator.conv2d,
    "SumPool2d": Translator.pool,
    "AvgPool2d": Translator.pool,
    "Flatten": Translator.flatten,
    "Scale": Translator.scale,
    "Delay": Translator.delay,
    "IF": Translator.integrate_and_fire,
    "LIF": Translator.leaky_integrate_and_fire,
    "CubaLIF": Translator.current_based_fire,
    "LI": Translator.leaky_integrator,
    "CubaLI": Translator.current_based_integrator,
    "Threshold": Translator.threshold,
}

_NEURONS = ("IF", "LIF", "CubaLIF", "LI", "CubaLI", "Threshold")
