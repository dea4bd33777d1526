"""Read the layers of a NetX file (HDF5, as lava-dl writes them), trusting nothing.

Follows the loader of lava-dl (``src/lava/lib/dl/netx/hdf5.py`` and ``utils.py``): what that refuses
is refused here, all layers at once; what it ignores becomes a note. Links out of the file, virtual
and external storage and Python objects are never followed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from osbc_deploy.arrays import IntArray
from osbc_deploy.errors import (
    ArtefactError,
    NotFoundError,
    UnsupportedModelError,
    reason,
)
from osbc_deploy.fixedpoint.ranges import MAX_DELAY
from osbc_deploy.formats.hdf5 import Hdf5, open_hdf5
from osbc_deploy.limits import array_bytes, is_there
from osbc_deploy.parsing import parse_json

__all__ = ["OURS", "NetxFile", "NetxLayer", "NetxNeuron", "consistent", "read_layers", "spread"]

OURS = "osbc"
"""Group with what the format has no place for; lava-dl does not look at it."""

_KINDS = ("input", "flatten", "dense", "dense_rec", "conv")
_BESIDE = 36
"""Bytes that are made of each number: int64, then mantissas or float64 weights, and copies."""
_NEURON = 160
"""Bytes of a neuron's registers while they are put together."""
_CUBA = ("CUBA", "LOIHI")
_IGNORED = {"refDelay": 1, "wgtExp": 0}
"""What lava-dl's loader does not look at, and the value at which that changes nothing."""


@dataclass(frozen=True, eq=False)
class NetxNeuron:
    """Registers of a layer: scalars, or values that broadcast to (W, H, C)."""

    du: IntArray
    dv: IntArray
    vth: IntArray


@dataclass(frozen=True, eq=False)
class NetxLayer:
    """One layer.

    Attributes
    ----------
    number : int
    kind : {"input", "flatten", "dense", "dense_rec", "conv"}
    shape : tuple of int
        Neurons as (C, H, W) or (n,); empty for a flatten.
    neuron : NetxNeuron or None
        None for an input or flatten layer, or a dense layer that only integrates.
    weight, bias : ndarray of int64 or None
        Dense: (out, in); conv: (out, in / groups, kh, kw).
    weight_rec : ndarray of int64 (out, out) or None
        From the layer to itself.
    delay : ndarray of int64 (out, in) or None
        Of the layer's synapses.
    geometry : dict
        Stride, padding, dilation and groups of a convolution.
    """

    number: int
    kind: str
    shape: tuple[int, ...] = ()
    neuron: NetxNeuron | None = None
    weight: IntArray | None = None
    weight_rec: IntArray | None = None
    bias: IntArray | None = None
    delay: IntArray | None = None
    geometry: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class NetxFile:
    """All layers, what was ignored, and what we stored beside them."""

    layers: tuple[NetxLayer, ...]
    notes: tuple[str, ...]
    extra: dict[str, Any]

    @property
    def manifest(self) -> dict[str, Any]:
        """What a file of ours says beyond NetX; nothing for one of lava-dl's."""
        text = self.extra.get("manifest")
        return dict(parse_json(text)) if text else {}


@contextmanager
def consistent(path: Path) -> Iterator[None]:
    """Say of a file that its parts do not belong together, whatever breaks on it."""
    try:
        yield
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, OverflowError) as error:
        raise ArtefactError(
            f"{path}: inconsistent network ({error}). Export it again from lava-dl."
        ) from error


def spread(values: IntArray, shape: tuple[int, ...]) -> IntArray:
    """Return values that broadcast to (W, H, C) as one per neuron in our order."""
    if values.shape == (1,):
        values = values[0]
    laid_out = np.broadcast_to(values, shape[::-1] if len(shape) == 3 else shape)
    return np.ascontiguousarray(laid_out.T).ravel().astype(np.int64)


def read_layers(path: Path) -> NetxFile:
    """Read and check a file.

    Raises
    ------
    UsageError
        When there is no such file.
    ArtefactError
        When it is not an HDF5 file, damaged, or holds something else than layers.
    UnsupportedModelError
        With every layer that cannot be represented.
    """
    if not is_there(path):
        raise NotFoundError(
            f"{path}: no such file. Give a NetX file as written by lava-dl or osbc-deploy export."
        )
    try:
        with open_hdf5(path) as hdf5:
            return _Reader(path, hdf5).read(hdf5.file)
    except UnsupportedModelError:
        raise
    except (OSError, RuntimeError, KeyError, ValueError, TypeError, IndexError, AttributeError,
            OverflowError, MemoryError) as error:  # fmt: skip
        # h5py raises any of these for a damaged file.
        raise ArtefactError(
            f"{path}: is not a NetX network ({reason(error)}). Export it again from lava-dl."
        ) from error


class _Reader:
    def __init__(self, path: Path, hdf5: Hdf5) -> None:
        self.path, self.hdf5 = path, hdf5
        self.offenders: list[str] = []
        self.wrong: list[str] = []
        self.notes: list[str] = []

    def read(self, file: Any) -> NetxFile:
        group = self.group(file, "layer")
        count = len(group)
        if not count:
            raise ValueError("it has no layers")
        layers = [self.layer(self.group(group, str(i)), i) for i in range(count)]
        self.flattened(layers)
        if self.wrong:
            raise ValueError("; ".join(self.wrong))
        if self.offenders:
            raise UnsupportedModelError(
                f"{self.path}: layers that cannot be loaded",
                self.offenders,
                "Loaded are input, flatten, dense, dense_rec and conv layers of CUBA or LOIHI "
                "neurons with binary spikes.",
            )
        extra = self.tree(self.group(file, OURS)) if OURS in file else {}
        return NetxFile(tuple(x for x in layers if x is not None), tuple(self.notes), extra)

    def flattened(self, layers: list[NetxLayer | None]) -> None:
        """Check that dense layers receive neurons in a row, as they do for the loader."""
        before: tuple[int, ...] = ()
        for layer in layers:
            if layer is not None and layer.kind.startswith("dense") and len(before) == 3:
                self.wrong.append(f"layer {layer.number} needs a flatten layer before it")
            before = layer.shape if layer is not None else ()

    def layer(self, group: Any, number: int) -> NetxLayer | None:
        kind = self.text(group, "type")
        if kind not in _KINDS:
            self.offenders.append(f"layer {number}: {kind[:40]!r} is not loaded by lava-dl either")
            return None
        if kind == "flatten":
            return NetxLayer(number, kind)
        shape = tuple(int(x) for x in np.atleast_1d(self.numbers(group, "shape")))
        neuron = None
        if "neuron" in group:
            neuron = self.neuron(self.group(group, "neuron"), number)
            if neuron is None:
                return None
        plain = kind == "input" and neuron is None
        if not shape or min(shape) < 1 or len(shape) not in ((1, 2, 3) if plain else (1, 3)):
            raise ValueError(f"layer {number} has shape {shape}")
        self.hdf5.allowance.take(array_bytes(shape, _NEURON))
        if kind == "input":
            weight = self.optional(group, "weight")
            return NetxLayer(number, kind, shape, neuron, weight, bias=self.optional(group, "bias"))
        if kind == "conv" and neuron is None:
            raise ValueError(f"layer {number} has no neuron")
        weight = group.get("weight", getlink=False)
        if weight is not None and hasattr(weight, "keys"):
            self.offenders.append(f"layer {number}: complex weights are not supported")
            return None
        if kind == "conv":
            return self.conv(group, number, shape, neuron)
        return self.dense(group, number, kind, math.prod(shape), neuron)

    def dense(
        self, group: Any, number: int, kind: str, out: int, neuron: NetxNeuron | None
    ) -> NetxLayer:
        weight, recurrent = self.matrix(group, number, "weight", out), None
        if weight is None:
            return NetxLayer(number, kind, (out,))
        self.agree(group, number, {"outFeatures": out, "inFeatures": weight.shape[1]})
        if kind == "dense_rec":
            recurrent = self.matrix(group, number, "weight_rec", out, out)
        bias = self.optional(group, "bias")
        if bias is not None and bias.shape not in ((), (1,), (out,)):
            self.misfit(number, "bias", bias.shape, (out,))
        delay = self.delay(group, number, weight.shape)
        if delay is not None and recurrent is not None:
            self.offenders.append(
                f"layer {number}: delays of a recurrent layer, where lava-dl's loader leaves out "
                "the weights' exponent"
            )
        return NetxLayer(number, kind, (out,), neuron, weight, recurrent, bias, delay)

    def conv(
        self, group: Any, number: int, shape: tuple[int, ...], neuron: NetxNeuron | None
    ) -> NetxLayer:
        if len(shape) != 3:
            raise ValueError(f"layer {number} has shape {shape}")
        kernel: Any = self.numbers(group, "weight")
        groups = int(self.numbers(group, "groups"))
        if kernel.ndim not in (4, 5) or kernel.shape[4:] not in ((), (1,)):
            raise ValueError(f"layer {number} has weights of shape {kernel.shape}")
        kernel = kernel.reshape(kernel.shape[:4])
        out, per_group, kh, kw = kernel.shape
        if out != shape[0]:
            self.misfit(number, "weight", kernel.shape, (shape[0], per_group, kh, kw))
        self.agree(group, number, {
            "outChannels": out, "inChannels": per_group * groups, "kernelSize": (kh, kw)
        })  # fmt: skip
        bias = self.optional(group, "bias")
        if bias is not None and bias.shape not in ((out,), shape[::-1]):
            self.misfit(number, "bias", bias.shape, (out,))
        if "delay" in group and self.numbers(group, "delay").any():
            self.offenders.append(
                f"layer {number}: delays of a convolution, which lava-dl's loader leaves out"
            )
        geometry: dict[str, Any] = {
            key: self.pair(group, key) for key in ("stride", "padding", "dilation")
        }
        geometry["groups"] = groups
        return NetxLayer(number, "conv", shape, neuron, kernel, bias=bias, geometry=geometry)

    def matrix(
        self, group: Any, number: int, key: str, out: int, size: int | None = None
    ) -> IntArray | None:
        """Return weights (out, in); as by the loader, a flat list of them is cut into rows."""
        found = self.numbers(group, key)
        if found.ndim == 1 and found.size and found.size % out == 0:
            found = found.reshape(out, -1)
        if found.ndim != 2 or len(found) != out or size not in (None, found.shape[1]):
            self.misfit(number, key, found.shape, (out, "inputs" if size is None else size))
            return None
        return found

    def delay(self, group: Any, number: int, shape: tuple[int, ...]) -> IntArray | None:
        """Return the delay of each synapse; of as many as neurons, each is one of a neuron's."""
        found = self.optional(group, "delay")
        if found is None:
            return None
        out, size = shape
        if found.shape == (out,):
            found = found[:, None]
        elif found.shape not in ((), (size,), shape):
            self.misfit(number, "delay", found.shape, (out,))
            return None
        if found.min(initial=0) < 0 or found.max(initial=0) > MAX_DELAY:
            self.offenders.append(
                f"layer {number}: delays {found.min()} to {found.max()}, the chip has 0 to "
                f"{MAX_DELAY}"
            )
            return None
        return np.broadcast_to(found, shape)

    def agree(self, group: Any, number: int, sizes: dict[str, Any]) -> None:
        """Hold the sizes that a layer states against those of what it stores."""
        for key, size in sizes.items():
            if key not in group:
                continue
            stated: Any = self.pair(group, key) if key == "kernelSize" else None
            if stated is None:
                stated = int(self.numbers(group, key).reshape(()))
            if stated != size:
                self.wrong.append(f"layer {number}: {key} is {stated}, its weights have {size}")

    def misfit(
        self, number: int, key: str, found: tuple[int, ...], needed: tuple[Any, ...]
    ) -> None:
        wanted = ", ".join(map(str, needed)) + "," * (len(needed) == 1)
        self.wrong.append(f"layer {number}: {key} has shape {found}, needed ({wanted})")

    def neuron(self, group: Any, number: int) -> NetxNeuron | None:
        kind = self.text(group, "type")
        graded = "gradedSpike" in group and bool(self.numbers(group, "gradedSpike").any())
        if kind not in _CUBA or graded:
            what = "graded spikes" if kind in _CUBA else f"neurons of type {kind[:40]!r}"
            self.offenders.append(f"layer {number}: {what} are not supported")
            return None
        for key, harmless in _IGNORED.items():
            if key in group and (self.numbers(group, key) != harmless).any():
                self.notes.append(f"layer {number}: {key} is ignored, as by lava-dl's loader")
        return NetxNeuron(
            du=self.numbers(group, "iDecay") - 1,
            dv=self.numbers(group, "vDecay"),
            vth=self.numbers(group, "vThMant"),
        )

    def tree(self, group: Any) -> dict[str, Any]:
        """Return what we stored: text, arrays, and groups of them."""
        found: dict[str, Any] = {}
        for key in group:
            item = self.hdf5.member(group, key)
            if hasattr(item, "keys"):
                found[key] = self.tree(item)
            elif item.dtype.kind in "OS":
                found[key] = self.text(group, key)
            else:
                found[key] = self.hdf5.numbers(item)
        return found

    def group(self, parent: Any, key: str) -> Any:
        found = self.hdf5.member(parent, key)
        if not hasattr(found, "keys"):
            raise TypeError(f"{parent.name}/{key} is not a group")
        return found

    def numbers(self, group: Any, key: str) -> IntArray:
        """Return integers; the files often store them as floats."""
        dataset = self.hdf5.member(group, key)
        if not hasattr(dataset, "dtype") or dataset.dtype.kind not in "iufb":
            raise TypeError(f"{group.name}/{key} does not hold numbers")
        values = self.hdf5.numbers(dataset, _BESIDE)
        if values.dtype.kind == "f" and not (
            np.isfinite(values).all() and (np.abs(values) < 2**53).all()
        ):
            raise ValueError(f"{dataset.name} holds numbers that are not finite")
        # As lava-dl's loader does: the fraction, if any, is cut off.
        whole = values.astype(np.int64)
        if values.dtype.kind == "f" and (whole != values).any():
            self.notes.append(f"{dataset.name}: fractions are cut off, as by lava-dl's loader")
        return whole

    def optional(self, group: Any, key: str) -> IntArray | None:
        return self.numbers(group, key) if key in group else None

    def pair(self, group: Any, key: str) -> tuple[int, int]:
        values = [int(x) for x in np.atleast_1d(self.numbers(group, key))]
        if len(values) not in (1, 2) or min(values) < (0 if key == "padding" else 1):
            raise ValueError(f"{group.name}/{key} is {values}")
        return values[0], values[-1]

    def text(self, group: Any, key: str) -> str:
        dataset = self.hdf5.member(group, key)
        if not hasattr(dataset, "dtype"):
            raise TypeError(f"{group.name}/{key} does not hold text")
        return str(self.hdf5.texts(dataset).flat[0])
