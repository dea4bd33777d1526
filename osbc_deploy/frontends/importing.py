"""Import whatever the user calls a model, with the frontend it belongs to."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import nn

from osbc_deploy.data.samples import Samples
from osbc_deploy.errors import UnsupportedModelError, UsageError
from osbc_deploy.frontends.references import load_object, load_weights
from osbc_deploy.network.graph import Network

__all__ = ["import_network"]

_NAMES = {"norse": "norse", "snntorch": "snnTorch", "spikingjelly": "SpikingJelly"}
"""Packages whose modules can be read, and what they are called."""

_PROBE_SAMPLES = 4
"""Samples on which a module of the user's own must give the output that was read from it."""


def import_network(module: Any, weights: str | Path | None, samples: Samples) -> Network:
    """Turn a model into a float network.

    Parameters
    ----------
    module : torch.nn.Module, str or path
        A module, ``package.module:factory``, or a file whose suffix says what it is.
    weights : path or None
        A safetensors state dict to load into a module.
    samples : Samples
        Calibration samples: their shape is the input's, and a module of the user's own must give
        the output that was read from it on a few of them.

    Raises
    ------
    UnsupportedModelError
        When it is no model, or parts of it cannot be represented.
    UsageError
        When weights are given to a file that holds its own, or the samples have another shape.
    """
    suffix = Path(module).suffix if isinstance(module, (str, Path)) else ""
    if suffix == ".net":
        return _from_file(Path(module), weights, samples)
    name = module if isinstance(module, str) else type(module).__name__
    found = load_object(module) if isinstance(module, str) else module
    if not isinstance(found, nn.Module):
        raise UnsupportedModelError(
            f"{name}: is a {type(found).__name__}, not a torch.nn.Module",
            remedy=f"Return a network of {', '.join(_NAMES)} as a torch.nn.Module.",
        )
    if weights is not None:
        load_weights(found, Path(weights))
    few = samples.take(_PROBE_SAMPLES).spikes
    return _reader(found, name)(found, samples.input_shape, source=name, samples=few)


def _reader(module: nn.Module, name: str) -> Callable[..., Network]:
    """Return what reads the modules of the framework that a model is made of."""
    packages = {type(m).__module__.split(".")[0] for m in module.modules()}
    used = sorted(packages & _NAMES.keys())
    if len(used) > 1:
        raise UnsupportedModelError(
            f"{name}: mixes modules of {' and '.join(_NAMES[p] for p in used)}",
            remedy="Build it with one of them.",
        )
    # A framework is imported only for the user who has it.
    if used == ["snntorch"]:
        from osbc_deploy.frontends.snntorch import read_snntorch

        return read_snntorch
    if used == ["spikingjelly"]:
        from osbc_deploy.frontends.spikingjelly import read_spikingjelly

        return read_spikingjelly
    from osbc_deploy.frontends.norse import read_norse

    return read_norse


def _from_file(path: Path, weights: str | Path | None, samples: Samples) -> Network:
    from osbc_deploy.frontends.netx import read_netx

    if weights is not None:
        raise UsageError(f"--weights: {path} holds its own weights. Leave the option out.")
    network = read_netx(path)
    if network.input_shape != samples.input_shape:
        raise UsageError(
            f"calibration: samples have shape {samples.input_shape}, the input of {path} is "
            f"{network.input_shape}. Give samples of that shape."
        )
    return network
