"""Import whatever the user calls a model, with the frontend it belongs to."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import torch
from torch import nn

from osbc_deploy.arguments import Model
from osbc_deploy.data.samples import Samples
from osbc_deploy.errors import UnsupportedModelError, UsageError
from osbc_deploy.formats.nir.read import is_nir, read_nir
from osbc_deploy.model.graph import Network
from osbc_deploy.options import StrPath
from osbc_deploy.references import load_object, load_weights

__all__ = ["import_network"]

_FILES = (".net", ".nir")
_NAMES = {"norse": "norse", "snntorch": "snnTorch", "spikingjelly": "SpikingJelly"}
"""Packages whose modules can be read, and what they are called."""

_OLDEST = {"snntorch": (1, 0), "spikingjelly": (2, 0)}
"""Versions whose neurons compute what ours repeat; older ones differ in the last bit or more."""

_SURROGATES = re.compile("[\ud800-\udfff]")


def import_network(
    module: Model,
    weights: StrPath | None,
    samples: Samples | None,
    *,
    dt: float | None = None,
    reset: str | None = None,
) -> Network:
    """Turn a model into a float network.

    Parameters
    ----------
    module : torch.nn.Module, nir.NIRGraph, Network, str or path
        A module, ``package.module:factory``, a graph, a file whose suffix says what it is, or what
        was imported before, which stays as it is.
    weights : path or None
        A safetensors state dict to load into a module.
    samples : Samples or None
        Calibration samples: their shape is the input's, and what is read from a module is held
        against its framework's own forward on them. A file needs none.
    dt, reset
        What NIR leaves open; see :func:`osbc_deploy.formats.nir.read.read_nir`.

    Raises
    ------
    UnsupportedModelError
        When it is no model, parts of it cannot be represented, or what was read from it computes
        something else.
    UsageError
        When weights are given to a file that holds its own, the samples have another shape, or
        `dt` and `reset` do not belong to the model.
    """
    network = _import(module, weights, samples, dt, reset)
    named = [p.name for p in network.projections] + [p.name for p in network.populations]
    if faults := [name for name in dict.fromkeys(named) if _SURROGATES.search(name)]:
        raise UnsupportedModelError(
            f"{network.source}: layer names that are not valid Unicode, which no file can hold",
            faults,
            "Rename these layers.",
        )
    return network


def _import(
    module: Model,
    weights: StrPath | None,
    samples: Samples | None,
    dt: float | None,
    reset: str | None,
) -> Network:
    if isinstance(module, os.PathLike):
        module = Path(module)
    found = load_object(module) if isinstance(module, str) and not _is_file(module) else module
    name = module if isinstance(module, str | Path) else type(module).__name__
    if is_nir(found):
        network = read_nir(found, dt=dt, reset=reset, source=str(name))
        return _checked(network, weights, samples)
    for option, value in (("--dt", dt), ("--reset", reset)):
        if value is not None:
            raise UsageError(
                f"{option}: only NIR leaves it open, and {name} is no NIR graph. Leave it out."
            )
    if isinstance(found, Network):
        return _checked(found, weights, samples)
    if isinstance(found, str | Path) and Path(found).suffix == ".net":
        from osbc_deploy.formats.netx.read import read_netx

        return _checked(read_netx(Path(found)), weights, samples)
    if not isinstance(found, nn.Module):
        raise UnsupportedModelError(
            f"{name}: is a {type(found).__name__}, not a torch.nn.Module",
            remedy=f"Return a network of {', '.join(_NAMES)} as a torch.nn.Module.",
        )
    if samples is None:
        raise UsageError(f"{name}: a module does not say what input it takes. Give its shape.")
    if weights is not None:
        load_weights(found, Path(weights))
    read = _reader(found, str(name))
    network = read(found, samples.input_shape, source=str(name), samples=samples.spikes)
    parameters = sum(p.numel() for p in found.parameters())
    if weights is None and isinstance(module, str) and parameters:
        missing = (
            f"weights: --weights was not given; {module} keeps the {parameters:,} parameters it "
            "was built with, which are random unless it loads its own"
        )
        network = replace(network, warnings=(*network.warnings, missing))
    return network


def _reader(module: nn.Module, name: str) -> Callable[..., Network]:
    """Return what reads the modules of the framework that a model is made of."""
    compiled = [
        place for place, m in module.named_modules() if isinstance(m, torch.jit.ScriptModule)
    ]
    if compiled:
        raise UnsupportedModelError(
            f"{name}: its layers cannot be read where torch.jit has compiled them",
            [f"{place or 'model'}: is compiled" for place in compiled],
            "Give the modules they were compiled from.",
        )
    packages = {type(m).__module__.split(".")[0] for m in module.modules()}
    used = sorted(packages & _NAMES.keys())
    if len(used) > 1:
        raise UnsupportedModelError(
            f"{name}: mixes modules of {' and '.join(_NAMES[p] for p in used)}",
            remedy="Build it with one of them.",
        )
    for package in used:
        _check_version(package, name)
    # A framework is imported only for the user who has it.
    if used == ["snntorch"]:
        from osbc_deploy.frameworks.snntorch.reading import read_snntorch

        return read_snntorch
    if used == ["spikingjelly"]:
        from osbc_deploy.frameworks.spikingjelly.reading import read_spikingjelly

        return read_spikingjelly
    from osbc_deploy.frameworks.norse.reading import read_norse

    return read_norse


def _check_version(package: str, name: str) -> None:
    """Make sure that a framework computes what was read from its code."""
    needed = _OLDEST.get(package)
    found = version(package) if needed else ""
    if needed and tuple(int(part) for part in re.findall(r"\d+", found)[: len(needed)]) < needed:
        wanted = ".".join(map(str, needed))
        raise UsageError(
            f"{name}: is made with {_NAMES[package]} {found}, {wanted} or newer is needed. Update "
            f"it with: pip install -U 'osbc-deploy[{package}]'"
        )


def _is_file(reference: str) -> bool:
    return Path(reference).suffix in _FILES


def _checked(network: Network, weights: StrPath | None, samples: Samples | None) -> Network:
    """Return a network that holds its own weights and input shape, if both are meant."""
    if weights is not None:
        raise UsageError(
            f"--weights: {network.source} holds its own weights. Leave the option out."
        )
    if samples is not None and network.input_shape != samples.input_shape:
        raise UsageError(
            f"calibration: samples have shape {samples.input_shape}, the input of "
            f"{network.source} is {network.input_shape}. Give samples of that shape."
        )
    return network
