"""Read a stack of layers: the walk that is the same for every framework.

The modules are taken in order; BatchNorm and poolings of currents are folded in float64, dropout is
dropped, and everything that has no exact counterpart is listed. What a framework adds, its neurons
and its own versions of layers, is a table of readers (:class:`Framework`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn

from osbc_deploy.errors import ArtefactError, OsbcError, UnsupportedModelError, described
from osbc_deploy.frameworks.folding import (
    as_array,
    fold_batch_norm,
    pooling_weights,
)
from osbc_deploy.frameworks.framework import (
    Framework,
    Placed,
    Reading,
    kind_of,
    unsupported,
)
from osbc_deploy.frameworks.layers import adaptive_pooling, average_pooling, convolution
from osbc_deploy.frameworks.stack_gates import take_largest
from osbc_deploy.model.graph import (
    INPUT,
    AvgPool,
    Connection,
    Dense,
    Network,
    Population,
    Projection,
    Shape,
)
from osbc_deploy.model.neurons import Neuron

__all__ = ["StackReader", "dtype_of", "read_stack"]

_DROPPED = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Identity)
_TORCH = (
    *_DROPPED, nn.Flatten, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.MaxPool2d, nn.AdaptiveMaxPool2d,
    nn.Linear, nn.Conv2d, nn.BatchNorm1d, nn.BatchNorm2d,
)  # fmt: skip


def read_stack(
    module: nn.Module,
    input_shape: Shape,
    framework: Framework,
    *,
    source: str = "",
    over_time: bool | None = None,
    order: Sequence[Placed] | None = None,
) -> Reading:
    """Turn a stack of layers into a float network that computes what it computes.

    Parameters
    ----------
    module : torch.nn.Module
        A container of the framework, nested as deep as one likes, or a module of one's own.
    input_shape : tuple of int
        Shape of one time step of one sample, such as (2, 34, 34).
    framework : Framework
    source : str
        Name of the model for the report.
    over_time : bool, optional
        Whether torch's own layers see the time axis; found out on the way by default.
    order : sequence of Placed, optional
        The layers as they are called; as they were registered by default.

    Raises
    ------
    UnsupportedModelError
        With every module that cannot be represented, and where it is.
    ArtefactError
        When the input does not have the shape that the first layer takes.
    """
    alone = type(module) in framework.readers
    layers = [("model", module)] if alone else list(order or framework.walk(module))
    reader = StackReader(
        tuple(input_shape),
        framework,
        last=layers[-1][1] if layers else None,
        flattens=bool(framework.own(module)),
        over_time=over_time,
    )
    for path, layer in layers:
        reader.read(path, layer)
    reader.end()
    if reader.data_fault and not reader.offenders and not reader.flattens:
        raise ArtefactError(
            f"data: samples of shape {tuple(input_shape)} per time step do not fit the model "
            f"({reader.mismatches[0]}). Give spikes (n, T, ...) in the shape it was trained on."
        )
    faults = reader.offenders + reader.mismatches
    if faults:
        raise UnsupportedModelError(
            f"model: {len(faults)} part(s) cannot be represented for input of shape "
            f"{tuple(input_shape)}",
            faults,
            f"Supported: {framework.supported}.",
        )
    network = Network(
        input_shape=tuple(input_shape),
        populations=tuple(reader.populations),
        projections=tuple(reader.projections),
        dtype=dtype_of(module),
        source=source or type(module).__name__,
        notes=tuple(reader.notes),
    )
    cells = {p.name: reader.layers[p.name] for p in network.populations}
    return Reading(network, cells, bool(reader.over_time))


def dtype_of(module: nn.Module) -> str:
    """Return the precision that a module's network is simulated in."""
    wide = any(p.dtype == torch.float64 for p in module.parameters())
    return "float64" if wide else "float32"


@dataclass
class StackReader:
    """Walks the stack and holds the linear map that waits for its neurons."""

    shape: Shape
    framework: Framework
    last: nn.Module | None = None
    """The last layer of the stack."""
    flattens: bool = False
    """Whether code of the user's own may flatten in front of a Linear, which is verified later."""
    current: Connection | None = None
    """The connection since the last population, or None."""
    pre: str = INPUT
    path: str = ""
    pool: AvgPool | None = None
    over_time: bool | None = None
    """Whether torch's own layers see the time axis; None while that is open."""
    gap: bool = False
    """Whether an unsupported layer stands where a weighted one may have been meant."""
    ended: bool = False
    """Whether the last layer is an unsupported one."""
    lost: bool = False
    """Whether the shape is unknown, since an unsupported layer may have changed it."""
    data_fault: bool = False
    """Whether the first weighted layer does not take input of this shape."""
    populations: list[Population] = field(default_factory=list)
    projections: list[Projection] = field(default_factory=list)
    offenders: list[str] = field(default_factory=list)
    """What cannot be represented."""
    mismatches: list[str] = field(default_factory=list)
    """Layers that do not take the shape they get; one mismatch brings others after it."""
    notes: list[str] = field(default_factory=list)
    layers: dict[str, nn.Module] = field(default_factory=dict)
    """What stands at each place."""

    def read(self, path: str, layer: Any) -> None:
        """Take one layer of the stack."""
        self.layers[path] = layer
        kind = kind_of(layer)
        reader = self.framework.readers.get(kind)
        try:
            if reader is None:
                self.read_torch(path, layer, kind)
            else:
                reader(self, path, layer)
        except OsbcError:
            raise
        except Exception as error:  # noqa: BLE001 - what a layer holds may have been replaced
            self.skip(path, layer, f"{kind.__name__} cannot be read ({described(error)})")

    def end(self) -> None:
        """Check that nothing is left over at the end of the stack."""
        if self.ended:
            # What should have ended the stack is refused already.
            return
        if self.current is not None or self.pool is not None:
            self.refuse(
                self.path or "end",
                f"the stack ends in a linear layer; end it with {self.framework.ends}",
            )
        elif not self.populations and not self.offenders:
            self.refuse("model", "holds no neurons")
        for population in self.populations[:-1]:
            if not population.neuron.spiking:
                self.refuse(
                    population.name,
                    "a leaky integrator sends potentials, not spikes; it "
                    "can only be the last layer",
                )

    def refuse(self, path: str, why: str) -> None:
        """Note what cannot be represented."""
        self.offenders.append(f"{path}: {why}")

    def skip(self, path: str, layer: Any, why: str) -> None:
        """Refuse a layer that cannot be read, so that others are not refused for its sake."""
        self.refuse(path, why)
        self.gap = self.lost = True
        self.ended = layer is self.last
        # Whether it was meant to end a linear map or to be part of one is not known.
        self.current = self.pool = None

    def mismatch(self, path: str, why: str) -> None:
        if not self.lost:
            self.mismatches.append(f"{path}: {why}")

    def read_torch(self, path: str, layer: Any, kind: type) -> None:
        """Take a layer that computes what torch's layer of the given kind computes."""
        if kind in _DROPPED:
            if kind is not nn.Identity:
                self.notes.append(f"{path}: {kind.__name__} dropped (inactive after training)")
        elif kind is nn.Flatten:
            self._flatten(path, layer)
        elif kind is nn.AvgPool2d:
            self._average(path, layer, average_pooling)
        elif kind is nn.AdaptiveAvgPool2d:
            self._average(path, layer, self._adaptive)
        elif kind in (nn.MaxPool2d, nn.AdaptiveMaxPool2d):
            take_largest(self, path, layer)
        elif kind is nn.Linear:
            self.linear(path, layer.weight, layer.bias)
        elif kind is nn.Conv2d:
            self._convolution(path, layer)
        elif kind in (nn.BatchNorm1d, nn.BatchNorm2d):
            self._batch_norm(path, layer)
        else:
            self.skip(path, layer, unsupported(kind, (*_TORCH, *self.framework.readers)))

    def _flatten(self, path: str, layer: Any) -> None:
        first = (1, 2) if self.over_time is None else (2,) if self.over_time else (1,)
        if layer.start_dim not in first or layer.end_dim != -1:
            self.refuse(
                path,
                f"Flatten(start_dim={layer.start_dim}, end_dim={layer.end_dim}) "
                f"flattens other axes than the sample's own; use start_dim={first[-1]}",
            )
        if self.current is not None and self.current.convolutional:
            self.refuse(path, "Flatten between a Conv2d and its neurons; put it after the neurons")
        # Dense reads its source flattened, so only the shape that later layers see changes.
        self.shape = (math.prod(self.shape),)

    def _adaptive(self, layer: Any) -> AvgPool:
        return adaptive_pooling(layer, self.shape)

    def _average(self, path: str, layer: Any, read: Callable[[Any], AvgPool]) -> None:
        try:
            pool = read(layer)
        except ValueError as why:
            self.refuse(path, str(why))
            self.lost = True
            return
        if len(self.shape) != 3:
            self.mismatch(path, f"AvgPool2d needs (C, H, W), got {self.shape}")
        elif min(pool.output_shape(self.shape)) < 1:
            self.mismatch(path, f"AvgPool2d{pool.kernel} is larger than its input {self.shape}")
        elif self.pool is not None:
            self.refuse(path, "two AvgPool2d in a row; use one of the product size")
        elif self.current is not None:
            self._pool_current(path, self.current, pool)
        else:
            self.pool = pool
            self.path = path
            self.shape = pool.output_shape(self.shape)

    def _pool_current(self, path: str, current: Connection, pool: AvgPool) -> None:
        if pool.padding != (0, 0):
            self.refuse(path, "AvgPool2d with padding after a convolution")
            return
        self.notes.append(f"{path}: AvgPool2d folded into the convolution {self.path}")
        self.current = current.followed_by(pool)
        self.shape = pool.output_shape(self.shape)

    def _starts(self, path: str, layer: str) -> bool:
        if self.current is None:
            self.path = path
            return True
        self.refuse(
            path,
            f"{layer} follows {self.path} with no neurons between; merge the two or "
            "put a spiking cell between them",
        )
        return False

    def linear(self, path: str, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
        """Take a weighted layer (n_out, n_in)."""
        if not self._starts(path, "Linear"):
            self.shape = (weight.shape[0],)
            return
        if self.flattens and len(self.shape) > 1 and math.prod(self.shape) == weight.shape[1]:
            self.notes.append(f"{path}: takes {self.shape} flattened, which no layer says")
        elif self.shape != (weight.shape[1],):
            self.data_fault |= self.pre == INPUT
            fits = math.prod(self.shape) == weight.shape[1]
            hint = "; put a Flatten before it" if fits else ""
            self.mismatch(path, f"Linear takes {weight.shape[1]} inputs, gets {self.shape}{hint}")
        self.lost = False
        self.current = Dense(as_array(weight), None if bias is None else as_array(bias))
        self.shape = (weight.shape[0],)

    def _convolution(self, path: str, layer: Any) -> None:
        if not self._starts(path, "Conv2d"):
            return
        conv, faults = convolution(layer)
        for fault in faults:
            self.refuse(path, fault)
        self.current = conv
        if len(self.shape) != 3 or self.shape[0] != layer.in_channels:
            self.data_fault |= self.pre == INPUT
            self.mismatch(path, f"Conv2d takes ({layer.in_channels}, H, W), gets {self.shape}")
            self.shape = (layer.out_channels, 1, 1)
            return
        shape = conv.output_shape(self.shape)
        if min(shape) < 1:
            self.mismatch(
                path, f"Conv2d: kernel {layer.kernel_size} is larger than its input {self.shape}"
            )
        self.shape = shape
        self.lost |= bool(faults)

    def _batch_norm(self, path: str, layer: Any) -> None:
        name = type(layer).__name__
        if layer.running_mean is None:
            self.refuse(path, f"{name} without running statistics cannot be folded")
        elif self.current is None:
            self.refuse(path, f"{name} must follow a Conv2d or Linear directly")
        elif len(self.current.weight) != layer.num_features:
            self.refuse(
                path,
                f"{name}({layer.num_features}) does not match the "
                f"{len(self.current.weight)} outputs of {self.path}",
            )
        else:
            self.notes.append(f"{path}: {name} folded into {self.path}")
            self.current = fold_batch_norm(self.current, layer)

    def neurons(
        self,
        path: str,
        neuron: Neuron | None,
        feedback: Callable[[Shape], Projection] | None = None,
    ) -> None:
        """Take the neurons that end the linear map; None where they have no counterpart.

        `feedback` returns the projection from neurons of a shape to themselves, or raises a
        ValueError that says why there is none.
        """
        connection, compressible = self.current, True
        name = self.path
        if connection is None and self.pool is not None and len(self.shape) == 3:
            # A pooling that feeds neurons is a depthwise convolution of constant weights.
            connection, compressible = pooling_weights(self.pool, self.shape[0]), False
            self.pool = None
        if connection is None:
            if not self.gap:
                self.refuse(path, "neurons with no weighted layer in front of them")
            self.gap = False
            return
        if neuron is None:
            self.current = self.pool = None
            return
        for parameter, value in neuron.parameters.items():
            try:
                fits = np.broadcast_shapes(value.shape, self.shape) == self.shape
            except ValueError:
                fits = False
            if not fits:
                self.refuse(
                    path,
                    f"{parameter} of shape {value.shape} does not broadcast to the "
                    f"neurons {self.shape}",
                )
        self.add(path, neuron, name, connection, compressible=compressible)
        if feedback is not None:
            try:
                self.projections.append(feedback(self.shape))
            except ValueError as why:
                self.refuse(path, str(why))

    def add(
        self, path: str, neuron: Neuron, name: str, connection: Connection, *, compressible: bool
    ) -> None:
        """Add a population and what projects to it."""
        self.populations.append(Population(path, self.shape, neuron))
        self.projections.append(
            Projection(name, self.pre, path, connection, self.pool, compressible)
        )
        self.pre, self.current, self.pool = path, None, None
