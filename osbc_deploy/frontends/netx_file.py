"""Read the layers of a NetX file (HDF5, as lava-dl writes them), trusting nothing.

Follows the loader of lava-dl (``src/lava/lib/dl/netx/hdf5.py`` and ``utils.py``): what that refuses
is refused here, all layers at once; what it ignores becomes a note. Links out of the file, virtual
and external storage and Python objects are never followed.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from osbc_deploy.arrays import IntArray
from osbc_deploy.errors import ArtefactError, UnsupportedModelError, UsageError, reason
from osbc_deploy.frontends.hdf5 import Hdf5, open_hdf5
from osbc_deploy.limits import array_bytes

__all__ = ["OURS", "NetxFile", "NetxLayer", "NetxNeuron", "read_layers"]

OURS = "osbc"
"""Group with what the format has no place for; lava-dl does not look at it."""

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
    kind : {"input", "flatten", "dense", "conv"}
    shape : tuple of int
        Neurons as (C, H, W) or (n,); empty for a flatten.
    neuron : NetxNeuron or None
        None for an input or flatten layer, or a dense layer that only integrates.
    weight, bias, delay : ndarray of int64 or None
        Dense: (out, in); conv: (out, in / groups, kh, kw). The delay is that of the layer's axons.
    geometry : dict
        Stride, padding, dilation and groups of a convolution.
    """

    number: int
    kind: str
    shape: tuple[int, ...] = ()
    neuron: NetxNeuron | None = None
    weight: IntArray | None = None
    bias: IntArray | None = None
    delay: IntArray | None = None
    geometry: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class NetxFile:
    """All layers, what was ignored, and what we stored beside them."""

    layers: tuple[NetxLayer, ...]
    notes: tuple[str, ...]
    extra: dict[str, Any]


def read_layers(path: Path) -> NetxFile:
    """Read and check a file.

    Raises
    ------
    UsageError
        When there is no such file.
    ArtefactError
        When it is no HDF5 file, damaged, or holds something else than layers.
    UnsupportedModelError
        With every layer that cannot be represented.
    """
    if not path.is_file():
        raise UsageError(
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
            f"{path}: is no NetX network ({reason(error)}). Export it again from lava-dl."
        ) from error


class _Reader:
    def __init__(self, path: Path, hdf5: Hdf5) -> None:
        self.path, self.hdf5 = path, hdf5
        self.offenders: list[str] = []
        self.notes: list[str] = []

    def read(self, file: Any) -> NetxFile:
        group = self.group(file, "layer")
        count = len(group)
        if not count:
            raise ValueError("it has no layers")
        layers = [self.layer(self.group(group, str(i)), i) for i in range(count)]
        if self.offenders:
            raise UnsupportedModelError(
                f"{self.path}: layers that cannot be loaded",
                self.offenders,
                "Loaded are input, flatten, dense and conv layers of CUBA or LOIHI neurons with "
                "binary spikes.",
            )
        extra = self.tree(self.group(file, OURS)) if OURS in file else {}
        return NetxFile(tuple(x for x in layers if x is not None), tuple(self.notes), extra)

    def layer(self, group: Any, number: int) -> NetxLayer | None:
        kind = self.text(group, "type")
        if kind not in ("input", "flatten", "dense", "conv"):
            self.offenders.append(f"layer {number}: {kind[:40]!r} is not loaded by lava-dl either")
            return None
        if kind == "flatten":
            return NetxLayer(number, kind)
        shape = tuple(int(x) for x in np.atleast_1d(self.numbers(group, "shape")))
        if not shape or min(shape) < 1 or len(shape) not in (1, 3):
            raise ValueError(f"layer {number} has shape {shape}")
        self.hdf5.allowance.take(array_bytes(shape, _NEURON))
        neuron = None
        if "neuron" in group:
            neuron = self.neuron(self.group(group, "neuron"), number)
            if neuron is None:
                return None
        if kind == "input":
            weight = self.optional(group, "weight")
            return NetxLayer(number, kind, shape, neuron, weight, self.optional(group, "bias"))
        if kind == "conv" and neuron is None:
            raise ValueError(f"layer {number} has no neuron")
        weight = group.get("weight", getlink=False)
        if weight is not None and hasattr(weight, "keys"):
            self.offenders.append(f"layer {number}: complex weights are not supported")
            return None
        found = self.numbers(group, "weight")
        bias, delay = self.optional(group, "bias"), self.optional(group, "delay")
        if kind == "dense":
            out = int(np.prod(shape))
            return NetxLayer(number, kind, (out,), neuron, found.reshape(out, -1), bias, delay)
        if found.ndim not in (4, 5) or (found.ndim == 5 and found.shape[4] != 1):
            raise ValueError(f"layer {number} has weights of shape {found.shape}")
        geometry: dict[str, Any] = {
            key: self.pair(group, key) for key in ("stride", "padding", "dilation")
        }
        geometry["groups"] = int(self.numbers(group, "groups"))
        kernel = found.reshape(found.shape[:4])
        return NetxLayer(number, kind, shape, neuron, kernel, bias, delay, geometry)

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
