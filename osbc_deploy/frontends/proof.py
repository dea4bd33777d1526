"""Hold what was read from a module against the framework's own forward.

Reading what is registered is not reading what is computed: hooks, a replaced forward, neurons that
are used twice or start elsewhere, code between the layers. So every import is run beside the module
itself, spike by spike at its output and at every neuron layer whose calls can be watched, and
refused where the two differ.

Folding a BatchNorm or a pooling rounds differently, and a spike may be decided by that. Where the
two differ in the model's own precision, double precision decides: there rounding moves no spike.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import nn

from osbc_deploy.arrays import FloatArray, SpikeArray
from osbc_deploy.errors import ArtefactError, UnsupportedModelError, reason
from osbc_deploy.frontends.calling import (
    Call,
    called,
    described,
    evaluated,
    time_first,
    undisturbed,
)
from osbc_deploy.frontends.framework import Framework, Placed, Reading
from osbc_deploy.frontends.recording import MiscountedError, Recorder
from osbc_deploy.frontends.stack import check_finite
from osbc_deploy.network.graph import Conv, Network
from osbc_deploy.network.simulate import FloatRun, simulate

__all__ = ["proven"]

WORK = 5e9
"""Multiplications that the samples may take; a few seconds."""
LEAST = 64
"""Samples that are taken whatever they cost, where there are so many."""
_RATES = (0.05, 0.2, 0.5, 0.9)
"""Spikes per input and step of the random samples that are taken as well: what a forward does only
to strong or rare input shows on them."""
_EACH = 8
"""Random samples of each rate."""
_MEMORY = 2**28
"""Bytes that a batch may take in the recordings."""
_TOLERANCE = {"float32": 1e-4, "float64": 1e-9}
"""Difference allowed to potentials, as part of the largest: folding and poolings round."""
_REMEDY = (
    "Only what the layers themselves compute can be imported. Leave out what else acts on them "
    "(hooks, a replaced forward, functions between layers, other initial states, a neuron layer "
    "used twice) and train the network without it."
)


Read: TypeAlias = Callable[[Sequence[Placed] | None], Reading]


def proven(
    module: nn.Module,
    framework: Framework,
    read: Read,
    samples: SpikeArray | None,
) -> Network:
    """Return what is read from a module, once it computes what the module itself computes.

    The module is called once before it is read, so that weights which a pre-hook computes
    (weight_norm, spectral_norm, pruning) are the ones that its forward uses. It is left as it was,
    its state reset.

    Parameters
    ----------
    module : torch.nn.Module
    framework : Framework
    read : callable
        Reads the module as it is at that time; takes its layers in the order they are called, or
        None if that is the order they were registered in.
    samples : ndarray of uint8 (n, T, ...), or None
        Without samples nothing is proven, and modules of the user's own are refused.

    Raises
    ------
    UnsupportedModelError
        When parts cannot be represented, the module cannot be run, or it computes something else.
    ArtefactError
        When weights are NaN or infinite.
    """
    check_finite(module, framework)
    own = framework.own(module)
    if samples is None:
        with evaluated(module):
            network = read(None).network
        if own:
            raise UnsupportedModelError(
                f"{', '.join(own)}: what forward() computes is known only from running it",
                remedy="Give samples, on which the import is held against it.",
            )
    else:
        try:
            with undisturbed(module):
                network = _held(module, framework, read, samples, own)
        finally:
            framework.reset(module)
    if _is_half(module):
        said = "half-precision weights are simulated in float32"
        network = replace(network, notes=(*network.notes, said))
    return network


def _is_half(module: nn.Module) -> bool:
    return any(p.dtype in (torch.float16, torch.bfloat16) for p in module.parameters())


def _held(
    module: nn.Module,
    framework: Framework,
    read: Read,
    samples: SpikeArray,
    own: list[str],
) -> Network:
    if _is_half(module):
        module.float()
    said: list[str] = []
    runs = [call for call in framework.calls if _can(module, framework, call, samples, said)]
    order = _order(module, framework, runs, samples) if own else None
    reading = read(order)
    network = reading.network
    _check_weights(network)
    if not own:
        usual = time_first if reading.over_time else framework.calls[0]
        runs = [call for call in runs if call is usual]
    if not runs:
        raise UnsupportedModelError(
            f"{network.source}: {framework.title} itself cannot run it on these samples",
            said,
            f"Make it run in {framework.title} first ({framework.runs}).",
        )
    data = _data(network, samples)
    found = [_compared(module, framework, reading, call, data) for call in runs]
    proofs = [f for f in found if isinstance(f, _Proof)]
    differences = [f for f in found if isinstance(f, _Difference)]
    note = ""
    if proofs:
        proof = proofs[0]
    else:
        # Other ways of calling it differ in more.
        least = min(differences, key=lambda d: d.rank)
        wide = _in_double(module, framework, partial(read, order), least.call, data)
        if not isinstance(wide, _Proof):
            raise _refusal(module, framework, network, wide, data)
        proof = wide
        note = (
            f", in double precision; in single precision rounding moves spikes (the first in "
            f"{least.layer})"
        )
    if own and not reading.traced and network.output.name not in proof.active:
        raise UnsupportedModelError(
            f"{', '.join(own)}: the output is silent on these samples",
            (f"{network.output.name}: never fires", *said),
            "Give samples on which it fires; without them nothing shows what forward() does with "
            "its spikes.",
        )
    return replace(network, notes=(*network.notes, *proof.notes(network, data, own, note)))


def _can(
    module: nn.Module, framework: Framework, call: Call, samples: SpikeArray, said: list[str]
) -> bool:
    """Tell whether a module can be called in some way; `said` takes why not."""
    x = _input(module, samples[:2])
    framework.reset(module)
    try:
        call(module, x)
    except Exception as error:  # noqa: BLE001 - any forward may do anything
        said.append(f"{described(call)}: raises {type(error).__name__}: {reason(error)[:120]}")
        return False
    return True


def _order(
    module: nn.Module, framework: Framework, runs: Sequence[Call], samples: SpikeArray
) -> list[Placed] | None:
    """Return the layers of a module in the order it calls them in a time step.

    None where it does not say: it cannot run a single step, or calls a cell several times in one.
    """
    for call in runs:
        framework.reset(module)
        with called(framework.walk(module)) as order:
            try:
                call(module, _input(module, samples[:2, :1]))
            except Exception:  # noqa: BLE001, S112 - another way of calling may do
                continue
        cells = [path for path, layer in order if isinstance(layer, framework.neurons)]
        if cells and len(set(cells)) == len(cells):
            again = Counter[str]()
            for number, (path, layer) in enumerate(order):
                again[path] += 1
                order[number] = (path if again[path] == 1 else f"{path}#{again[path]}", layer)
            return order
    return None


def _input(module: nn.Module, spikes: SpikeArray) -> torch.Tensor:
    """Return samples as a module's own input (T, n, ...)."""
    weight = next((p for p in module.parameters() if p.is_floating_point()), torch.zeros(()))
    x = torch.from_numpy(np.ascontiguousarray(np.moveaxis(spikes, 1, 0)))
    return x.to(weight.device, weight.dtype)


def _check_weights(network: Network) -> None:
    bad = [
        p.name
        for p in network.projections
        for values in (p.connection.weight, p.connection.bias)
        if values is not None and not np.isfinite(values).all()
    ]
    if bad:
        raise ArtefactError(
            f"model: the weights that {', '.join(dict.fromkeys(bad))} compute with are NaN or "
            "infinite. Train again or load another checkpoint."
        )


@dataclass(frozen=True)
class _Data:
    """Samples that both are run on: chosen ones, and random ones."""

    sets: tuple[tuple[str, SpikeArray, list[int]], ...]
    """What they are, their spikes, and their numbers."""
    given: int
    batch: int

    def batches(self) -> Iterator[tuple[str, SpikeArray, list[int]]]:
        for what, spikes, numbers in self.sets:
            for start in range(0, len(spikes), self.batch):
                stop = start + self.batch
                yield what, spikes[start:stop], numbers[start:stop]


def _data(network: Network, samples: SpikeArray) -> _Data:
    """Choose samples within the budget of work, evenly; add random ones."""
    n, steps = samples.shape[:2]
    cost = steps * _multiplications(network)
    count = min(n, max(LEAST, int(WORK / cost)))
    chosen = [number * n // count for number in range(count)]
    rng = np.random.default_rng(0)
    rates = np.repeat(_RATES, _EACH)
    drawn = [(rng.random(samples.shape[1:], np.float32) < r).astype(np.uint8) for r in rates]
    held = sum(p.size for p in network.populations) * 24 + math.prod(network.input_shape) * 8
    batch = int(np.clip(_MEMORY // (held * steps), 1, LEAST))
    return _Data(
        (
            ("sample", samples if count == n else samples[chosen], chosen),
            ("random sample", np.stack(drawn), list(range(len(drawn)))),
        ),
        n,
        batch,
    )


def _multiplications(network: Network) -> int:
    """Return the multiplications of one time step."""
    total = 0
    for p in network.projections:
        places = 1
        if isinstance(p.connection, Conv):
            places = math.prod(network.shape_of(p.post)[1:])
        total += p.connection.weight.size * places
    return max(total, 1)


@dataclass(frozen=True)
class _Difference:
    """Where a module and its import part."""

    call: Call
    layer: str
    what: str
    rank: tuple[bool, int] = (True, 2**62)
    """By how much: whether in spikes, and in how many values."""


@dataclass
class _Proof:
    """What was compared and equal."""

    call: Call
    dtype: str
    active: set[str] = field(default_factory=set)
    """Populations that fired, or whose potentials are the answer."""
    potentials: set[str] = field(default_factory=set)
    """Populations whose potentials were compared."""
    seen: set[str] = field(default_factory=set)
    answers: set[tuple[int, int, int]] | None = None
    """Which part of the answer, with which axis first, decoded how, has been the output so far."""

    def notes(self, network: Network, data: _Data, own: list[str], more: str) -> Iterator[str]:
        """Say what was proven, and what was not."""
        names = [p.name for p in network.populations]
        (_, chosen, _), (_, drawn, _) = data.sets
        whose = f"{', '.join(own)} verified" if own else "verified"
        watched = "output"
        if self.seen:
            watched += f" and {len(self.seen)} of {len(names)} neuron layers"
        yield (
            f"{whose} against its own forward ({described(self.call)}) on {len(chosen)} of "
            f"{data.given} samples and {len(drawn)} random ones, {chosen.shape[1]} steps each: "
            f"{watched} equal{more}"
        )
        still = [name for name in names if name not in self.active]
        if not still:
            return
        known = set(still) <= self.potentials
        yield (
            f"{'' if known and self.active else 'not proven: '}{', '.join(still)} "
            f"{'stays silent' if len(still) == 1 else 'stay silent'} on these samples"
            f"{', potentials are equal' if known else ''}; give samples that make them fire"
        )


def _compared(
    module: nn.Module, framework: Framework, reading: Reading, call: Call, data: _Data
) -> _Proof | _Difference:
    """Run a module and its import side by side until they differ."""
    network = reading.network
    proof = _Proof(call, network.dtype)
    with undisturbed(module):
        for what, spikes, numbers in data.batches():
            try:
                with Recorder(module, reading.cells, framework.potential) as recorder:
                    answer = _answered(module, framework, call, spikes)
            except Exception as error:  # noqa: BLE001 - any forward may do anything
                why = f"raises {type(error).__name__}: {reason(error)[:120]}"
                return _Difference(call, "forward", why)
            names = [p.name for p in network.populations]
            ours = simulate(network, spikes, record=names, states=names, batch_size=len(spikes))
            found = _first(network, recorder, ours, answer, proof)
            if found is not None:
                layer, differs, unit = found
                if isinstance(differs, str):
                    return _Difference(call, layer, differs)
                rank = unit != "potentials", int(np.count_nonzero(differs))
                return _Difference(call, layer, _told(differs, unit, what, numbers), rank)
    return proof


def _answered(module: nn.Module, framework: Framework, call: Call, spikes: SpikeArray) -> list[Any]:
    """Return all tensors that a module answers with, as arrays."""
    framework.reset(module)
    try:
        answer = call(module, _input(module, spikes))
    finally:
        framework.reset(module)
    parts = answer if isinstance(answer, tuple | list) else (answer,)
    return [part.detach().cpu().numpy() for part in parts if isinstance(part, torch.Tensor)]


_Found = tuple[str, "np.ndarray[Any, Any] | str", str]


def _first(
    network: Network, recorder: Recorder, ours: FloatRun, answer: list[Any], proof: _Proof
) -> _Found | None:
    """Return the first layer that differs, where (n, T, neurons) or how, and in what."""
    n, steps = ours.output.shape[:2]
    tolerance = _TOLERANCE[network.dtype]
    for population in network.populations:
        name = population.name
        try:
            seen = recorder.seen(name, n, steps)
        except MiscountedError as how:
            return name, str(how), ""
        if seen is None:
            continue
        proof.seen.add(name)
        fired = None
        if population.neuron.spiking:
            fired = ours.spikes[name].reshape(n, steps, -1)
            if seen.answer.shape != fired.shape:
                return name, f"has {seen.answer.shape[2]} neurons, {fired.shape[2]} imported", ""
            differs = seen.answer != fired
            if differs.any():
                return name, differs, "spikes"
            if fired.any():
                proof.active.add(name)
        if seen.v is not None:
            v = ours.v[name].reshape(n, steps, -1)[:, -seen.v.shape[1] :]
            if seen.v.shape == v.shape:
                differs = _apart(seen.v, v, tolerance)
                if differs.any():
                    return name, differs, "potentials"
                proof.potentials.add(name)
    return _answer(network, ours.output, answer, proof, tolerance)


def _answer(
    network: Network, ours: FloatArray, answer: list[Any], proof: _Proof, tolerance: float
) -> _Found | None:
    """Find the output in a module's answer, where it was found before."""
    output = np.moveaxis(ours, 1, 0)
    last = network.output
    if last.neuron.spiking:
        # Whole numbers, and means of them.
        tolerance = min(tolerance, 0.1 / len(output) / max(len(output), 1))
    if output.any():
        proof.active.add(last.name)
    wanted = (output, output.sum(0), output.mean(0), output.max(0), output[-1])
    same = set()
    for part, values in enumerate(answer):
        for axis, found in enumerate((values, values.swapaxes(0, 1) if values.ndim > 1 else None)):
            for way, expected in enumerate(wanted):
                if found is None or found.size != expected.size or not _alike(found, expected):
                    continue
                if not _apart(found.reshape(expected.shape), expected, tolerance).any():
                    same.add((part, axis, way))
    if proof.answers is not None:
        same &= proof.answers
    proof.answers = same
    if same:
        return None
    whole = [a for a in answer if a.shape == output.shape]
    if whole:
        differs = np.moveaxis(_apart(whole[0], output, tolerance), 0, 1)
        return f"output ({last.name})", differs.reshape(*differs.shape[:2], -1), "values"
    shapes = ", ".join(str(a.shape) for a in answer) or "no tensor"
    return (
        "output",
        f"forward answers with {shapes}, which is not what {last.name} gives in all steps, nor "
        "their sum, mean, maximum or last",
        "",
    )


def _alike(found: Any, expected: Any) -> bool:
    """Tell whether two arrays have the same shape, or one with axes of 1 between."""
    return [s for s in found.shape if s != 1] == [s for s in expected.shape if s != 1]


def _apart(theirs: Any, ours: Any, tolerance: float) -> np.ndarray[Any, Any]:
    """Tell where values differ by more than a part of the largest."""
    scale = float(np.abs(ours).max(initial=0.0))
    return np.asarray(~(np.abs(theirs - ours) <= tolerance * scale))


def _told(differs: np.ndarray[Any, Any], unit: str, what: str, numbers: list[int]) -> str:
    """Say how many values differ, and where the first one is."""
    samples, steps, _ = np.nonzero(differs)
    step = int(steps.min())
    sample = numbers[int(samples[steps == step][0])]
    many = np.count_nonzero(differs)
    return (
        f"{many:,} of {differs.size:,} {unit} differ, the first in step {step} of {what} {sample}"
    )


def _in_double(
    module: nn.Module,
    framework: Framework,
    read: Callable[[], Reading],
    call: Call,
    data: _Data,
) -> _Proof | _Difference:
    """Compare module and import in double precision, the import read from the widened module."""
    with undisturbed(module):
        module.double()
        with framework.widened(module):
            said: list[str] = []
            if not _can(module, framework, call, data.sets[0][1], said):
                return _Difference(call, "forward", f"in double precision, {said[0]}")
            return _compared(module, framework, read(), call, data)


def _refusal(
    module: nn.Module,
    framework: Framework,
    network: Network,
    difference: _Difference,
    data: _Data,
) -> UnsupportedModelError:
    return UnsupportedModelError(
        f"{network.source}: the import does not compute what {framework.title}'s own forward "
        f"computes ({described(difference.call)})",
        [f"{difference.layer}: {difference.what}"],
        _REMEDY,
    )
