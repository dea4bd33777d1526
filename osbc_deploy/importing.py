"""Import whatever the user calls a model, with the frontend it belongs to."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from osbc_deploy.arguments import Model
from osbc_deploy.data.samples import Samples
from osbc_deploy.errors import PluginError, UnsupportedModelError, UsageError
from osbc_deploy.formats.format import FORMATS, Format, format_of, listed_formats
from osbc_deploy.frameworks.calling import undisturbed
from osbc_deploy.frameworks.hosting import HostPrefix
from osbc_deploy.frameworks.plugin import FRAMEWORKS, FrameworkPlugin, check_version, titles
from osbc_deploy.frameworks.reasons import NOT_READ
from osbc_deploy.model.graph import Network
from osbc_deploy.options import StrPath
from osbc_deploy.plugins import REPAIR, Group
from osbc_deploy.references import load_object, load_weights

__all__ = ["framework_of", "import_network", "load_module"]

_PLAIN = "norse"
"""Reads modules that have no neurons of any framework, to say what is missing."""

_SURROGATES = re.compile("[\ud800-\udfff]")


def import_network(
    module: Model,
    weights: StrPath | None,
    samples: Samples | None,
    *,
    dt: float | None = None,
    reset: str | None = None,
    substitute: str | None = None,
    host: HostPrefix | None = None,
    device: str | None = None,
) -> Network:
    """Turn a model into a float network.

    Parameters
    ----------
    module : torch.nn.Module, nir.NIRGraph, Network, str or path
        A module, ``package.module:factory``, a graph, a file whose suffix says what it is, or what
        was imported before, which stays as it is.
    weights : path or None
        A state dict to load into a module; see :mod:`osbc_deploy.checkpoints`.
    samples : Samples or None
        Calibration samples: their shape is the input's, and what is read from a module is held
        against its framework's own forward on them. A file needs none.
    dt, reset
        What NIR leaves open; see :func:`osbc_deploy.formats.nir.read.read_nir`.
    substitute : {"maxpool=avg"}, optional
        What may be exchanged in a module; see :mod:`osbc_deploy.frameworks.substitution`.
    host : HostPrefix, optional
        What of a module runs on the host; see :mod:`osbc_deploy.frameworks.hosting`.
    device : str, optional
        Where a module runs while it is held against what was read; by default, where it is.

    Raises
    ------
    UnsupportedModelError
        When it is no model, parts of it cannot be represented, or what was read from it computes
        something else.
    UsageError
        When weights are given to a file that holds its own, the samples have another shape, or
        `dt` and `reset` do not belong to the model.
    """
    network = _import(module, weights, samples, dt, reset, substitute, host, device)
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
    substitute: str | None,
    host: HostPrefix | None,
    device: str | None,
) -> Network:
    if isinstance(module, os.PathLike):
        module = Path(module)
    name = str(module) if isinstance(module, str | Path) else type(module).__name__
    form = format_of(module) if isinstance(module, str) else None
    found = load_object(module) if isinstance(module, str) and form is None else module
    form = form or format_of(found)
    _check_options(name, form, {"dt": dt, "reset": reset})
    if substitute is not None and not isinstance(found, nn.Module):
        raise UsageError(
            f"--substitute: {name} is not a module whose layers could be exchanged. Leave it out."
        )
    if host is not None and not isinstance(found, nn.Module):
        raise UsageError(
            f"--host-prefix: {name} is not a module whose layers could be run. Leave it out."
        )
    if form is not None:
        return _checked(_from_file(form, found, name, dt, reset), weights, samples)
    if isinstance(found, Network):
        return _checked(found, weights, samples)
    found = _unwrapped(_checked_module(found, name))
    if found is not module and isinstance(module, nn.Module):
        name = type(found).__name__
    if samples is None:
        raise UsageError(
            f"{name}: a module does not say what input it takes. Give its shape (--shape 34,34,2; "
            "shape=(34, 34, 2) in Python) or samples (--calibration DATA)."
        )
    if weights is not None:
        load_weights(found, Path(weights))
    more: dict[str, Any] = {} if host is None else {"host": host}
    if substitute is not None:
        from osbc_deploy.frameworks.substitution import Substitution

        more["substitute"] = Substitution(substitute, samples.labels)
    package, framework = framework_of(found, name) or (_PLAIN, FRAMEWORKS.load(_PLAIN))
    with FRAMEWORKS.running(package), _on(found, device):
        network = framework.read(
            found, samples.input_shape, source=name, samples=samples.spikes, **more
        )
    _check_answer(FRAMEWORKS, package, network)
    if weights is None and isinstance(module, str):
        missing = tuple(_missing(found, module))
        network = replace(network, warnings=(*network.warnings, *missing))
    return network


@contextmanager
def _on(module: nn.Module, device: str | None) -> Iterator[None]:
    """Have a module on a device, and put it back."""
    if device is None:
        yield
        return
    with undisturbed(module):
        module.to(device)
        yield


def load_module(module: Model, weights: StrPath | None) -> tuple[nn.Module, str, tuple[str, ...]]:
    """Return a model that is a module, its name, and why it may not be the one that was meant.

    Parameters
    ----------
    module, weights
        As of :func:`import_network`; a file holds no module.

    Raises
    ------
    UnsupportedModelError
        When it is no module.
    """
    name = str(module) if isinstance(module, str | os.PathLike) else type(module).__name__
    if format_of(module) is not None:
        raise UnsupportedModelError(
            f"{name}: holds a network, not a torch.nn.Module",
            remedy="Give the module that it was made from, or deploy it.",
        )
    found = _checked_module(load_object(module) if isinstance(module, str) else module, name)
    if weights is not None:
        load_weights(found, Path(weights))
    given = weights is None and isinstance(module, str)
    return found, name, tuple(_missing(found, name)) if given else ()


def _checked_module(found: object, name: str) -> nn.Module:
    if not isinstance(found, nn.Module):
        raise UnsupportedModelError(
            f"{name}: is a {type(found).__name__}, not a torch.nn.Module",
            remedy=f"Return a network of {titles()} as a torch.nn.Module.",
        )
    return found


def _unwrapped(module: nn.Module) -> nn.Module:
    """Return what DataParallel spreads, torch.compile has compiled or AveragedModel averaged.

    All of these compute what the module in them computes.
    """
    parallel = (nn.DataParallel, nn.parallel.DistributedDataParallel, AveragedModel)
    while True:
        inner = module.module if isinstance(module, parallel) else None
        if type(module).__name__ == "OptimizedModule":
            inner = getattr(module, "_orig_mod", None)
        if not isinstance(inner, nn.Module):
            return module
        module = inner


def _missing(module: nn.Module, name: str) -> Iterator[str]:
    if parameters := sum(p.numel() for p in module.parameters()):
        yield (
            f"weights: --weights was not given; {name} keeps the {parameters:,} parameters it was "
            "built with, which are random unless it loads its own"
        )


def _check_options(
    name: str, form: tuple[str, Format] | None, options: dict[str, float | str | None]
) -> None:
    """Refuse what only some formats leave open."""
    for option, value in options.items():
        if value is not None and (form is None or option not in form[1].options):
            plugins = (entry.plugin for entry in listed_formats())
            open_in = [f"a {p.title}" for p in plugins if p is not None and option in p.options]
            raise UsageError(
                f"--{option}: only {' and '.join(open_in)} leaves it open, which {name} is not. "
                "Leave it out."
            )


def _from_file(
    form: tuple[str, Format], model: Any, name: str, dt: float | None, reset: str | None
) -> Network:
    """Return the float network that a file, or an object of a file format, holds."""
    if form[1].read_network is None:
        raise UsageError(
            f"{name}: a {form[1].title} holds integers for a chip, no network to compress. Give "
            "the model that it was made from."
        )
    with FORMATS.running(form[0]):
        network = form[1].read_network(model, source=name, dt=dt, reset=reset)
    _check_answer(FORMATS, form[0], network)
    return network


def _check_answer(group: Group[Any], name: str, answer: Any) -> None:
    if not isinstance(answer, Network):
        raise PluginError(
            f"{group.kind} {name!r}: reads a model as a {type(answer).__name__}, not a Network. "
            f"{REPAIR}"
        )


def framework_of(module: nn.Module, name: str) -> tuple[str, FrameworkPlugin] | None:
    """Return the framework that a model is made of, and the name of its package, if any is.

    Raises
    ------
    UnsupportedModelError
        When it is made of two, or compiled.
    """
    compiled = [
        place for place, m in module.named_modules() if isinstance(m, torch.jit.ScriptModule)
    ]
    if compiled:
        raise UnsupportedModelError(
            f"{name}: its layers cannot be read where torch.jit has compiled them",
            [f"{place or 'model'}: is compiled" for place in compiled],
            "Give the modules they were compiled from.",
        )
    # Rockpool's modules() gives something else.
    packages = {type(m).__module__.split(".")[0] for _, m in module.named_modules()}
    used = sorted(packages & set(FRAMEWORKS.names()))
    frameworks = [FRAMEWORKS.load(package) for package in used]
    if len(used) > 1:
        raise UnsupportedModelError(
            f"{name}: mixes modules of {' and '.join(f.title for f in frameworks)}",
            remedy="Build it with one of them.",
        )
    if not used:
        _check_readable(module, name)
        return None
    check_version(used[0], frameworks[0], name)
    return used[0], frameworks[0]


def _check_readable(module: nn.Module, name: str) -> None:
    """Refuse a model whose neurons are of a package that is known, but not read."""
    for package, (title, why, remedy) in NOT_READ.items():
        parts = [
            f"{place or 'model'}: {type(m).__name__}"
            for place, m in module.named_modules()
            if type(m).__module__.split(".")[0] == package and not any(m.children())
        ]
        if parts:
            raise UnsupportedModelError(
                f"{name}: is made of {title}, which is not read: {why}", parts, remedy
            )


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
