"""Read trained norse modules natively.

The modules themselves are read, not norse's NIR export, which writes time constants multiplied
by the time step once too often. The stack is walked in order; BatchNorm and poolings of currents
are folded in float64, dropout is dropped, and everything that has no exact counterpart is listed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import norse.torch as norse
import numpy as np
import torch
from norse.torch.functional.reset import reset_subtract, reset_value
from norse.torch.module.leaky_integrator_box import LIBoxCell
from torch import nn

from osbc_deploy.arrays import SpikeArray
from osbc_deploy.errors import ArtefactError, UnsupportedModelError
from osbc_deploy.frontends.folding import (
    as_array,
    fold_batch_norm,
    pooled_convolution,
    pooling_weights,
)
from osbc_deploy.frontends.probe import agrees
from osbc_deploy.network.graph import (
    INPUT,
    AvgPool,
    Conv,
    Dense,
    Network,
    Pair,
    Population,
    Projection,
    Shape,
)
from osbc_deploy.network.neurons import IF, LI, LIF, CubaLI, CubaLIF, Neuron

__all__ = ["SUPPORTED", "read_norse"]

SUPPORTED = (
    "Linear, Conv2d (zero padding), BatchNorm1d/2d after them, AvgPool2d, Flatten, Dropout, "
    "Identity, LIFBoxCell, LIFCell, LIF, IAFCell, IAF, LIBoxCell, LICell, LI, LILinearCell, Lift, "
    "SequentialState, Sequential"
)

_CONTAINERS = (norse.SequentialState, nn.Sequential)
_CELLS = (norse.LIFBoxCell, norse.LIFCell, norse.IAFCell, LIBoxCell, norse.LICell)
_OVER_TIME = (norse.LIF, norse.LI, norse.IAF)
_DROPPED = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Identity)


def read_norse(
    module: nn.Module,
    input_shape: Shape,
    *,
    source: str = "",
    samples: SpikeArray | None = None,
) -> Network:
    """Turn a norse stack into a float network that computes what norse computes.

    Parameters
    ----------
    module : torch.nn.Module
        A `SequentialState` or `Sequential`, nested as deep as one likes, or a module of one's own
        whose layers are called in the order they were registered.
    input_shape : tuple of int
        Shape of one time step of one sample, such as (2, 34, 34).
    source : str
        Name of the model for the report.
    samples : ndarray of uint8 (n, T, *input_shape), optional
        A few real samples; a module of one's own must give its output on them.

    Returns
    -------
    Network

    Raises
    ------
    UnsupportedModelError
        With every module that cannot be represented, and where it is.
    ArtefactError
        When a weight is NaN or infinite.
    """
    _check_finite(module)
    reader = _Reader(shape=tuple(input_shape), current=None)
    for path, layer in _walk(module, ""):
        reader.read(path, layer)
    reader.end()
    if reader.data_fault and not reader.offenders:
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
            f"Supported: {SUPPORTED}.",
        )
    kinds = {p.dtype for p in module.parameters()}
    if kinds & {torch.float16, torch.bfloat16}:
        reader.notes.append("half-precision weights are simulated in float32")
    network = Network(
        input_shape=tuple(input_shape),
        populations=tuple(reader.populations),
        projections=tuple(reader.projections),
        dtype="float64" if torch.float64 in kinds else "float32",
        source=source or type(module).__name__,
        notes=tuple(reader.notes),
    )
    own = [type(m).__name__ for m in module.modules() if _is_own(m)]
    return _verified(module, network, own, samples) if own else network


def _verified(
    module: nn.Module, network: Network, own: list[str], samples: SpikeArray | None
) -> Network:
    """Accept modules of the user's own only if they compute what was read from them."""
    how = None if samples is None else agrees(module, network, samples)
    if how is None:
        raise UnsupportedModelError(
            f"{', '.join(sorted(set(own)))}: what was read from the registered layers, in their "
            "order, does not give the module's own output on the calibration samples",
            remedy="Return a norse.torch.SequentialState of the layers in the order they are "
            f"called; supported: {SUPPORTED}.",
        )
    note = f"{', '.join(sorted(set(own)))} verified against its own forward ({how})"
    return replace(network, notes=(*network.notes, note))


def _is_own(module: nn.Module) -> bool:
    """Tell whether a module groups layers in code of the user's own."""
    package = type(module).__module__.split(".")[0]
    return package not in ("torch", "norse") and any(True for _ in module.children())


def _walk(module: nn.Module, path: str) -> Iterator[tuple[str, nn.Module]]:
    for name, child in module.named_children():
        place = f"{path}.{name}" if path else name
        if type(child) in _CONTAINERS or _is_own(child):
            yield from _walk(child, place)
        else:
            yield place, child


def _check_finite(module: nn.Module) -> None:
    bad = _bad_parameters(module) + [
        name
        for name, value in module.state_dict().items()
        if value.is_floating_point() and not torch.isfinite(value).all()
    ]
    if bad:
        raise ArtefactError(
            f"model: NaN or infinite values in {', '.join(bad)}. Train again or load another "
            "checkpoint."
        )


def _bad_parameters(module: nn.Module) -> list[str]:
    """Return the neuron parameters that are no numbers; norse keeps them out of the state."""
    return [
        f"{place}.p.{name}"
        for place, layer in module.named_modules()
        for name, value in (getattr(getattr(layer, "p", None), "_asdict", dict)()).items()
        if isinstance(value, torch.Tensor | float) and not np.isfinite(as_array(value)).all()
    ]


@dataclass
class _Reader:
    """Walks the stack and holds the linear map that waits for its neurons."""

    shape: Shape
    current: Dense | Conv | None
    """The connection since the last population, or None."""
    pre: str = INPUT
    path: str = ""
    pool: AvgPool | None = None
    over_time: bool | None = None
    gap: bool = False
    """Whether an unsupported layer stands where a weighted one may have been meant."""
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

    def read(self, path: str, layer: Any) -> None:
        """Take one layer of the stack."""
        if type(layer) is norse.Lift:
            self._mode(path, layer, over_time=True)
            layer = layer.lifted_module
            if type(layer) in _CONTAINERS or _is_own(layer):
                for inner, child in _walk(layer, path):
                    self._read(inner, child)
                return
        elif type(layer) in _OVER_TIME:
            self._mode(path, layer, over_time=True)
        elif type(layer) in (*_CELLS, norse.LILinearCell):
            self._mode(path, layer, over_time=False)
        self._read(path, layer)

    def end(self) -> None:
        """Check that nothing is left over at the end of the stack."""
        if self.current is not None or self.pool is not None:
            self._refuse(
                self.path or "end",
                "the stack ends in a linear layer; end it with a "
                "spiking cell or a leaky integrator (LIBoxCell, LICell)",
            )
        elif not self.populations and not self.offenders:
            self._refuse("model", "holds no neurons")
        for population in self.populations[:-1]:
            if not population.neuron.spiking:
                self._refuse(
                    population.name,
                    "a leaky integrator sends potentials, not spikes; it "
                    "can only be the last layer",
                )

    def _refuse(self, path: str, why: str) -> None:
        self.offenders.append(f"{path}: {why}")

    def _mismatch(self, path: str, why: str) -> None:
        if not self.lost:
            self.mismatches.append(f"{path}: {why}")

    def _mode(self, path: str, layer: nn.Module, *, over_time: bool) -> None:
        if self.over_time is None:
            self.over_time = over_time
        elif self.over_time != over_time:
            self._refuse(
                path,
                f"{type(layer).__name__} mixes modules that loop over time (LIF, "
                "LI, IAF, Lift) with cells that take one time step",
            )

    def _read(self, path: str, layer: Any) -> None:
        kind = type(layer)
        if kind in _DROPPED:
            if kind is not nn.Identity:
                self.notes.append(f"{path}: {kind.__name__} dropped (inactive after training)")
        elif kind is nn.Flatten:
            self._flatten(path, layer)
        elif kind is nn.AvgPool2d:
            self._average(path, layer)
        elif kind is nn.Linear:
            self._linear(path, layer.weight, layer.bias)
        elif kind is nn.Conv2d:
            self._convolution(path, layer)
        elif kind in (nn.BatchNorm1d, nn.BatchNorm2d):
            self._batch_norm(path, layer)
        elif kind is norse.LILinearCell:
            self._linear(path, layer.input_weights, None)
            self._neurons(path, _neuron(layer))
        elif kind in _CELLS or kind in _OVER_TIME:
            try:
                neuron = _neuron(layer)
            except ValueError as why:
                self._refuse(path, f"{kind.__name__}: {why}")
                neuron = None
            self._neurons(path, neuron)
        else:
            self._refuse(path, f"{kind.__name__} is not supported")
            self.gap = self.lost = True

    def _flatten(self, path: str, layer: Any) -> None:
        first = (1, 2) if self.over_time is None else (2,) if self.over_time else (1,)
        if layer.start_dim not in first or layer.end_dim != -1:
            self._refuse(
                path,
                f"Flatten(start_dim={layer.start_dim}, end_dim={layer.end_dim}) "
                f"flattens other axes than the sample's own; use start_dim={first[-1]}",
            )
        if isinstance(self.current, Conv):
            self._refuse(path, "Flatten between a Conv2d and its neurons; put it after the neurons")
        # Dense reads its source flattened, so only the shape that later layers see changes.
        self.shape = (math.prod(self.shape),)

    def _average(self, path: str, layer: Any) -> None:
        pool = AvgPool(
            kernel=_pair(layer.kernel_size),
            stride=_pair(layer.stride),
            padding=_pair(layer.padding),
            divisor=layer.divisor_override or 0,
        )
        if layer.ceil_mode or (pool.padding != (0, 0) and not layer.count_include_pad):
            self._refuse(path, "AvgPool2d with ceil_mode, or padding left out of the average")
        elif len(self.shape) != 3:
            self._mismatch(path, f"AvgPool2d needs (C, H, W), got {self.shape}")
        elif min(pool.output_shape(self.shape)) < 1:
            self._mismatch(path, f"AvgPool2d{pool.kernel} is larger than its input {self.shape}")
        elif self.pool is not None:
            self._refuse(path, "two AvgPool2d in a row; use one of the product size")
        elif isinstance(self.current, Conv):
            self._pool_current(path, self.current, pool)
        else:
            self.pool = pool
            self.path = path
            self.shape = pool.output_shape(self.shape)

    def _pool_current(self, path: str, conv: Conv, pool: AvgPool) -> None:
        if pool.padding != (0, 0):
            self._refuse(path, "AvgPool2d with padding after a convolution")
            return
        self.notes.append(f"{path}: AvgPool2d folded into the convolution {self.path}")
        self.current = pooled_convolution(conv, pool)
        self.shape = pool.output_shape(self.shape)

    def _starts(self, path: str, layer: str) -> bool:
        if self.current is None:
            self.path = path
            return True
        self._refuse(
            path,
            f"{layer} follows {self.path} with no neurons between; merge the two or "
            "put a spiking cell between them",
        )
        return False

    def _linear(self, path: str, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
        if not self._starts(path, "Linear"):
            self.shape = (weight.shape[0],)
            return
        if self.shape != (weight.shape[1],):
            self.data_fault |= self.pre == INPUT
            hint = "; put a Flatten before it" if len(self.shape) > 1 else ""
            self._mismatch(path, f"Linear takes {weight.shape[1]} inputs, gets {self.shape}{hint}")
        self.lost = False
        self.current = Dense(as_array(weight), None if bias is None else as_array(bias))
        self.shape = (weight.shape[0],)

    def _convolution(self, path: str, layer: Any) -> None:
        if not self._starts(path, "Conv2d"):
            return
        if isinstance(layer.padding, str):
            reach = [d * (k - 1) for d, k in zip(layer.dilation, layer.kernel_size, strict=True)]
            if layer.padding == "same" and any(r % 2 for r in reach):
                self._refuse(path, "Conv2d(padding='same') with an even kernel pads one side more")
            padding = (0, 0) if layer.padding == "valid" else (reach[0] // 2, reach[1] // 2)
        else:
            padding = _pair(layer.padding)
        if layer.padding_mode != "zeros":
            self._refuse(path, f"Conv2d(padding_mode={layer.padding_mode!r}); only 'zeros'")
        conv = Conv(
            as_array(layer.weight),
            None if layer.bias is None else as_array(layer.bias),
            _pair(layer.stride),
            padding,
            _pair(layer.dilation),
            layer.groups,
        )
        self.current = conv
        if len(self.shape) != 3 or self.shape[0] != layer.in_channels:
            self.data_fault |= self.pre == INPUT
            self._mismatch(path, f"Conv2d takes ({layer.in_channels}, H, W), gets {self.shape}")
            self.shape = (layer.out_channels, 1, 1)
            return
        shape = conv.output_shape(self.shape)
        if min(shape) < 1:
            self._mismatch(
                path, f"Conv2d: kernel {layer.kernel_size} is larger than its input {self.shape}"
            )
        self.shape = shape

    def _batch_norm(self, path: str, layer: Any) -> None:
        name = type(layer).__name__
        if layer.running_mean is None:
            self._refuse(path, f"{name} without running statistics cannot be folded")
        elif self.current is None:
            self._refuse(path, f"{name} must follow a Conv2d or Linear directly")
        elif len(self.current.weight) != layer.num_features:
            self._refuse(
                path,
                f"{name}({layer.num_features}) does not match the "
                f"{len(self.current.weight)} outputs of {self.path}",
            )
        else:
            self.notes.append(f"{path}: {name} folded into {self.path}")
            self.current = fold_batch_norm(self.current, layer)

    def _neurons(self, path: str, neuron: Neuron | None) -> None:
        connection, compressible = self.current, True
        name = self.path
        if connection is None and self.pool is not None and len(self.shape) == 3:
            # A pooling that feeds neurons is a depthwise convolution of constant weights.
            connection, compressible = pooling_weights(self.pool, self.shape[0]), False
            self.pool = None
        if connection is None:
            if not self.gap:
                self._refuse(path, "neurons with no weighted layer in front of them")
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
                self._refuse(
                    path,
                    f"{parameter} of shape {value.shape} does not broadcast to the "
                    f"neurons {self.shape}",
                )
        self.populations.append(Population(path, self.shape, neuron))
        self.projections.append(
            Projection(name, self.pre, path, connection, self.pool, compressible)
        )
        self.pre, self.current, self.pool = path, None, None


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


def _pair(value: Any) -> Pair:
    first, second = value if isinstance(value, tuple) else (value, value)
    return int(first), int(second)
