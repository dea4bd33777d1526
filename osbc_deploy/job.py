"""What a verb is asked to do: options checked, target, data, backend and network loaded."""

from __future__ import annotations

import functools
import inspect
import warnings
from collections.abc import Callable, Container, Iterator
from dataclasses import KW_ONLY, dataclass, field, replace
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from osbc_deploy.accuracy import check_classes
from osbc_deploy.apart import Place, Role, check_apart, inputs_of
from osbc_deploy.arguments import Data, Model
from osbc_deploy.backends import Backend, check_arithmetic, load_backend
from osbc_deploy.chip.target import Target, load_target
from osbc_deploy.data.samples import Samples, check_samples
from osbc_deploy.errors import BackendError, UsageError
from osbc_deploy.firmware.work import StepCost, step_cost
from osbc_deploy.fixedpoint.arithmetics import arithmetic_of
from osbc_deploy.fixedpoint.coding import MOST_BITS, SPIKES, InputFormat, bits_for
from osbc_deploy.fixedpoint.network import FixedPointNetwork
from osbc_deploy.formats.format import check_network
from osbc_deploy.lower.coding import check_graded, payload
from osbc_deploy.lower.counting import kept_apart
from osbc_deploy.lower.features import check_features
from osbc_deploy.model.answer import read_by
from osbc_deploy.model.device import check_device
from osbc_deploy.model.graph import Network
from osbc_deploy.model.neurons import LinearDynamics
from osbc_deploy.model.readout import check_readout, classes_of
from osbc_deploy.options import ModelOptions, RunOptions, TargetOptions
from osbc_deploy.options.notation import InputKind, Readout
from osbc_deploy.options.option import Options, renamed, rows
from osbc_deploy.progress import SILENT, Progress
from osbc_deploy.provenance import Call, Request
from osbc_deploy.references import both_samples

__all__ = [
    "Job",
    "Source",
    "VerbCall",
    "VerbInputs",
    "load_source",
    "prepare",
    "seed_everything",
    "verb",
]

_WORDS: dict[InputKind, str] = {
    "spikes": "0 and 1",
    "integers": "whole numbers",
    "values": "real values",
}
_WIDER = tuple(_WORDS)

P = ParamSpec("P")
C = TypeVar("C")
R = TypeVar("R")


@dataclass(frozen=True, eq=False)
class Source:
    """What is to be deployed, whatever the chip: the network, and what it is run on.

    Attributes
    ----------
    network : Network
    typical, evaluated : Samples
        For calibration and for evaluation.
    readout : {"sum", "last", "max", "vote:N"}
    """

    network: Network
    typical: Samples
    evaluated: Samples
    readout: Readout


@dataclass(frozen=True, eq=False)
class Job:
    """Everything checked and loaded, before any work is done.

    Attributes
    ----------
    chip : Target
    network : Network
    typical, evaluated : Samples
        For calibration and for evaluation.
    readout : {"sum", "last", "max", "vote:N"}
    runner : Backend or None
    backend_samples : int
    time_limit : float
    classes : int or None
        Classes the network tells apart, where the labels do not say.
    asked : Request
        For the provenance.
    input : InputFormat
        What the samples need the chip's input to carry, the scale of real values still open.
    """

    chip: Target
    network: Network
    typical: Samples
    evaluated: Samples
    readout: Readout
    runner: Backend | None
    backend_samples: int
    time_limit: float
    classes: int | None = None
    asked: Request = field(default_factory=Request)
    input: InputFormat = SPIKES

    @property
    def scale_groups(self) -> int:
        """Different weight scales a layer may have: the neuron groups of a core."""
        return self.chip.memory.layer_scales

    def steps(self, network: FixedPointNetwork) -> StepCost | None:
        """Return the modelled instructions of a step on the calibration samples.

        None where the chip's target says nothing of instructions.
        """
        if self.chip.instructions is None:
            return None
        given = network.input.codes(self.typical.spikes)
        return step_cost(network, given, self.chip.instructions.costs)

    @property
    def dynamics(self) -> dict[str, LinearDynamics]:
        """What the chip makes of the neurons' linear systems, where that is another, by name."""
        formats = self.chip.number_formats
        made = arithmetic_of(formats).lowering.dynamics
        return {} if made is None else {p.name: made(p, formats) for p in self.network.populations}


@dataclass(frozen=True)
class VerbInputs:
    """What all verbs take beside options.

    Attributes
    ----------
    module : torch.nn.Module, nir.NIRGraph, Network, str or path
        A network of norse, snnTorch or SpikingJelly, ``package.module:factory``, a NIR graph, the
        path of a NIR (``.nir``) or NetX file (``.net``), or what was imported before.
    calibration : Samples, path, str, array or Dataset
        Typical input, spikes (n, T, ...); a hundred samples do.
    test : like `calibration`, optional
        Labelled samples to evaluate; the calibration samples by default.
    progress : Progress
    call : Call, optional
        Command line and seed, for the provenance; the call from Python by default.
    """

    module: Model
    calibration: Data
    _: KW_ONLY
    test: Data | None = None
    progress: Progress = SILENT
    call: Call | None = None


@dataclass(frozen=True)
class VerbCall(VerbInputs, RunOptions, ModelOptions, TargetOptions):
    """The arguments of a call: what all verbs that deploy take beside the options of their own."""


def verb(
    form: Callable[P, C], table: type[Options]
) -> Callable[[Callable[[C], R]], Callable[P, R]]:
    """Turn a function of a call into one of the call's fields, which are then its signature.

    Parameters
    ----------
    form : type
        A dataclass of `table` and :class:`VerbInputs` with a field `options`, a table that is taken
        whole; keywords override what it holds.
    table : type
        What may be given as `options`.
    """
    signature = inspect.signature(form)
    names = signature.parameters.keys()

    def of(function: Callable[[C], R]) -> Callable[P, R]:
        @functools.wraps(function)
        def called(*args: P.args, **kwargs: P.kwargs) -> R:
            current, old = renamed(kwargs, rows(table))
            for text in old:
                warnings.warn(text, DeprecationWarning, stacklevel=2)
            given = signature.bind(*args, **current).arguments
            call = form(**_whole(given.get("options"), table, names) | given)  # type: ignore[call-arg]
            check_apart(_places(call))
            return function(call)

        called.__signature__ = signature  # type: ignore[attr-defined]
        return called

    return of


def _places(call: object) -> Iterator[Place]:
    """Yield the folders that a call goes on with, and what it reads."""
    for name in ("resume", "ledger"):
        if (folder := getattr(call, name, None)) is not None:
            yield Place.of(name, Path(folder), Role.GROWING)
    read = ("module", "calibration", "test", "weights", "target", "targets")
    yield from inputs_of(**{name: getattr(call, name, None) for name in read})


def _whole(options: object, table: type[Options], names: Container[str]) -> dict[str, Any]:
    """Return the values of a table by name; those that one derived from it adds count if taken."""
    if options is None:
        return {}
    if not isinstance(options, table):
        raise UsageError(
            f"options: a {type(options).__name__} was given. Give {table.__name__}(...)."
        )
    known = [row.name for row in rows(type(options)) if row.name in names]
    return {name: getattr(options, name) for name in known}


def prepare(
    call: VerbCall,
    asked: Request | None = None,
    chip: Target | None = None,
    source: Source | None = None,
    *,
    device: str | None = None,
) -> Job:
    """Load target, backend and samples, and import the network.

    Parameters
    ----------
    call : VerbCall
    asked : Request, optional
        What the provenance will say was asked for.
    chip : Target, optional
    source : Source, optional
        Where either was loaded before.
    device : str, optional
        Where the model runs while it is imported; the CPU by default.

    Raises
    ------
    OsbcError
        With the branch's meaning; see :mod:`osbc_deploy.errors`.
    """
    chip = chip or load_target(call.target)
    _ = chip.number_formats  # without them nothing could be lowered; say so before any work
    runner = None
    if call.backend_samples:
        runner = _ready_backend(chip.backend if call.backend is None else call.backend)
        check_arithmetic(runner, chip.number_formats)
    source = source or load_source(call, device)
    network, typical, evaluated = source.network, source.typical, source.evaluated
    opened = _input(chip, call, typical, evaluated)
    if opened.graded:
        check_graded(kept_apart(network).network)
        chip.check_input(opened)
    check_network(chip.exchange, network)
    lowering = arithmetic_of(chip.number_formats).lowering
    lowering.check_features(network)
    if lowering.check_input is not None:
        lowering.check_input(opened)
    asked = asked or Request()
    asked = replace(
        asked, options={**asked.options, "backend": None if runner is None else runner.name}
    )
    return Job(
        chip,
        network,
        typical,
        evaluated,
        source.readout,
        runner,
        call.backend_samples,
        call.time_limit,
        call.classes,
        asked,
        opened,
    )


def load_source(call: VerbCall, device: str | None = None) -> Source:
    """Load the samples and import the network, which have to go together.

    Raises
    ------
    OsbcError
        With the branch's meaning; see :mod:`osbc_deploy.errors`.
    """
    device = check_device(device)
    typical, evaluated = both_samples(call.calibration, call.test, call.repeat)
    # norse and torch take seconds to import; bad options should fail before that.
    from osbc_deploy.frameworks.hosting import HostPrefix
    from osbc_deploy.importing import import_network

    host = None if call.host_prefix is None else HostPrefix(call.host_prefix)
    network = import_network(
        call.module,
        call.weights,
        typical,
        dt=call.dt,
        reset=call.reset,
        substitute=call.substitute,
        host=host,
        device=device,
    )
    if host is not None:
        typical, evaluated = (
            check_samples(s.name, host.encode(s.spikes), s.labels) for s in (typical, evaluated)
        )
    # A network of one dimension is read with a height of 1.
    typical, evaluated = (s.shaped(network.input_shape) for s in (typical, evaluated))
    network, readout = _read_out(network, call.readout)
    check_features(network)
    check_classes((typical, evaluated), classes_of(readout, network.output.size), call.classes)
    return Source(network, typical, evaluated, readout)


def seed_everything(seed: int) -> None:
    """Seed what models and datasets may draw from."""
    import numpy as np
    import torch

    # Old-style seeding on purpose: it reaches the code of models and datasets.
    np.random.seed(seed)
    torch.manual_seed(seed)


def _input(chip: Target, call: VerbCall, typical: Samples, evaluated: Samples) -> InputFormat:
    """Return what the input must carry, which calibration alone decides, as all else of the chip.

    Raises
    ------
    UsageError
        Where the test samples hold more than that.
    """
    if _WIDER.index(evaluated.kind) > _WIDER.index(typical.kind):
        raise UsageError(
            f"test: samples hold {_WORDS[evaluated.kind]}, the calibration samples "
            f"{_WORDS[typical.kind]}. Give both alike."
        )
    low, high = float(typical.spikes.min()), float(typical.spikes.max())
    found = payload(typical.kind, low, high, call.input_bits)
    if found.kind == "integers" and call.input_bits is None:
        # Room above what was seen is no reason to refuse a chip.
        most = chip.payload_bits + found.signed
        needed = bits_for(int(low), int(high))
        found = replace(found, bits=max(needed, min(found.bits, most)))
    low, high = float(evaluated.spikes.min()), float(evaluated.spikes.max())
    if found.graded and low < 0 and not found.signed:
        raise UsageError(
            f"test: samples go down to {low:g}, the calibration samples to 0, so the input has no "
            "sign. Calibrate on samples with such values."
        )
    if found.kind == "integers" and not found.low <= low <= high <= found.high:
        needed = bits_for(min(int(low), -found.signed), int(high))
        wider = needed <= min(MOST_BITS, chip.payload_bits + found.signed)
        raise UsageError(
            f"test: whole numbers from {int(low):,} to {int(high):,}, the input takes "
            f"{found.low:,} to {found.high:,}, which the calibration samples decide. Calibrate on "
            f"samples with such values{f', or ask for --input-bits {needed}' if wider else ''}."
        )
    return found


def _read_out(network: Network, asked: Readout | None) -> tuple[Network, Readout]:
    """Return a network to be read as was asked, or as its model is, and how its outputs are."""
    chosen = (network.readout or "sum") if asked is None else asked
    check_readout(chosen, network.output.size)
    found, readout = read_by(network, chosen)
    if asked and network.readout and asked != network.readout:
        said = f"readout: {asked} as asked; the model's own answer is {network.readout}"
    elif network.readout:
        said = f"readout: {network.readout}, read from the model"
    else:
        return found, readout
    return replace(found, notes=(*found.notes, said)), readout


def _ready_backend(name: str) -> Backend:
    """Load a backend and make sure it can run, before hours are spent on its input."""
    backend = load_backend(name)
    availability = backend.availability()
    if not availability.ok:
        raise BackendError(
            f"backend {name!r}: cannot run here ({availability.detail}). "
            f"{availability.remedy} Or skip the comparison with "
            "--backend-samples 0, or use --backend engine."
        )
    return backend
