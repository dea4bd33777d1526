"""Run a module and what was read from it side by side, until they differ."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn

from osbc_deploy.arrays import BoolArray, FloatArray, InputArray
from osbc_deploy.errors import reason
from osbc_deploy.frameworks.answers import apart, found_in, readout_of
from osbc_deploy.frameworks.calling import Call, described, undisturbed
from osbc_deploy.frameworks.framework import Framework, Reading
from osbc_deploy.frameworks.recording import MiscountedError, Recorder
from osbc_deploy.model.graph import INPUT, Network, Population
from osbc_deploy.model.simulate import FloatRun, simulate
from osbc_deploy.options.notation import Readout

__all__ = [
    "Data",
    "Difference",
    "Proof",
    "answered",
    "as_input",
    "choose",
    "compared",
    "encoder",
    "heard_of",
    "watched",
]

WORK = 5e9
"""Multiplications that the chosen samples may take, a few seconds; so does the framework."""
LEAST = 64
"""Samples that are taken whatever they cost, where there are so many."""
_RATES = (0.05, 0.2, 0.5, 0.9)
"""Spikes per input and step of the random samples that are taken as well: what a forward does only
to strong or rare input shows on them."""
_EACH, _FEW = 8, 2
"""Random samples of each rate; fewer where they would take more than all of the work."""
_MEMORY = 2**28
"""Bytes that a batch may take in the recordings."""
_NEVER = 2**60
"""More values than differ where any could be equal."""
_TOLERANCE = {"float32": 1e-5, "float64": 1e-9}
"""Difference allowed to potentials, as part of the largest: folding and poolings round."""


@dataclass(frozen=True)
class Data:
    """Samples that both are run on: chosen ones, and random ones."""

    sets: tuple[tuple[str, InputArray, list[int]], ...]
    """What they are, their spikes, and their numbers."""
    given: int
    batch: int

    def batches(self) -> Iterator[tuple[str, InputArray, list[int]]]:
        for what, spikes, numbers in self.sets:
            for start in range(0, len(spikes), self.batch):
                stop = start + self.batch
                yield what, spikes[start:stop], numbers[start:stop]


def choose(network: Network, samples: InputArray, *, still: bool = False) -> Data:
    """Choose samples within the budget of work, evenly; add random ones, `still` or moving."""
    n, steps = samples.shape[:2]
    cost = steps * _multiplications(network)
    count = min(n, max(LEAST, int(WORK / cost)))
    chosen = [number * n // count for number in range(count)]
    rng = np.random.default_rng(0)
    # Graded input is drawn from what the samples hold, so that it is of their kind and size.
    held = None if samples.dtype == np.uint8 else samples[samples != 0]
    rates = np.repeat(_RATES, _EACH if _EACH * len(_RATES) * cost <= WORK else _FEW)
    shape = (1 if still else steps, *samples.shape[2:])
    drawn = [np.broadcast_to(_drawn(rng, shape, r, held), samples.shape[1:]) for r in rates]
    taken = sum(p.size for p in network.populations) * 24 + math.prod(network.input_shape) * 8
    batch = int(np.clip(_MEMORY // (taken * steps), 1, LEAST))
    return Data(
        (
            ("sample", samples if count == n else samples[chosen], chosen),
            ("random sample", np.stack(drawn), list(range(len(drawn)))),
        ),
        n,
        batch,
    )


def _drawn(
    rng: np.random.Generator, shape: tuple[int, ...], rate: float, held: InputArray | None
) -> InputArray:
    """Return random input: spikes of some rate, or so many of the values that are held."""
    spikes = (rng.random(shape, np.float32) < rate).astype(np.uint8)
    if held is None or not held.size:
        return spikes
    return np.where(spikes, held[rng.integers(0, held.size, shape)], held.dtype.type(0))


def _multiplications(network: Network) -> int:
    """Return the multiplications of one time step, those of the neurons included, roughly."""
    neurons = 20 * sum(p.size for p in network.populations)
    return neurons + sum(network.multiplications(p) for p in network.projections)


@dataclass(frozen=True)
class Difference:
    """Where a module and its import part."""

    call: Call
    layer: str
    what: str
    rank: tuple[int, bool, int] = (0, True, 2 * _NEVER)
    """By how much, to be compared: minus the layers before it that are equal, whether spikes
    differ, and how many values do."""
    kind: str = ""
    """"tied" where it starts with potentials that meet the threshold, so that rounding decides;
    "steps" where layers are not called as the samples have steps; "answer" where only the answer
    differs."""


@dataclass
class Proof:
    """What was compared and equal."""

    call: Call
    dtype: str
    active: set[str] = field(default_factory=set)
    """Populations that fired, or whose potentials are the answer."""
    potentials: set[str] = field(default_factory=set)
    """Populations whose potentials were compared."""
    seen: set[str] = field(default_factory=set)
    answers: set[tuple[int, int, str]] | None = None
    """Which part of the answer, with which axis first, decoded how, has been the output so far."""
    fired: BoolArray | None = None
    """Which values of the output (size,) were anything but 0 in some step."""

    @property
    def readout(self) -> Readout:
        """How the answer decodes the output; empty where it holds all steps."""
        answers = self.answers or set()
        first = min((part for part, _, _ in answers), default=0)
        return readout_of({way for part, _, way in answers if part == first})

    def doubts(self) -> Iterator[str]:
        """Say of which outputs nothing shows what forward makes of them."""
        if self.fired is not None and not self.fired.all():
            silent = np.flatnonzero(~self.fired)
            listed = ", ".join(map(str, silent[:8])) + (", ..." if len(silent) > 8 else "")
            yield (
                f"import: {len(silent)} of {len(self.fired)} outputs ({listed}) never fire on "
                "these samples, so what forward makes of them is not proven; give samples on which "
                "they do"
            )

    def notes(self, network: Network, data: Data, whose: str, more: str) -> Iterator[str]:
        """Say what was proven, and what was not; `whose` forward it was held against."""
        names = [p.name for p in network.populations]
        (_, chosen, _), (_, drawn, _) = data.sets
        watched = "output"
        if self.seen:
            watched += f" and {len(self.seen)} of {len(names)} neuron layers"
        yield (
            f"{whose} own forward ({described(self.call)}) on {len(chosen)} of {data.given} "
            f"samples and {len(drawn)} random ones, {chosen.shape[1]} steps each: {watched} "
            f"equal{more}"
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


def compared(
    module: nn.Module, framework: Framework, reading: Reading, call: Call, data: Data
) -> Proof | Difference:
    """Run a module and its import side by side until they differ."""
    network = reading.network
    proof = Proof(call, network.dtype)
    with undisturbed(module):
        for what, spikes, numbers in data.batches():
            try:
                with Recorder(module, watched(reading), framework.potential) as recorder:
                    answer = answered(module, framework, call, spikes)
            except (Exception, SystemExit) as error:  # noqa: BLE001 - any forward may do anything
                why = f"raises {type(error).__name__}: {reason(error)}"
                return Difference(call, "forward", why)
            names = [p.name for p in network.populations]
            try:
                heard = heard_of(reading, recorder, spikes)
            except MiscountedError as how:
                return Difference(call, "--host-prefix", str(how), kind="steps")
            ours = simulate(network, heard, record=names, states=names, batch_size=len(spikes))
            found = _first(reading, recorder, ours, answer, proof)
            if found is not None:
                equal = [*names, found.layer].index(found.layer)
                return _difference(call, found, equal, what, numbers)
    return proof


def watched(reading: Reading) -> dict[str, nn.Module]:
    """Return the modules to be watched, by population, and by input where the host gives it."""
    return {**reading.cells, **({} if reading.host is None else {INPUT: reading.host})}


def heard_of(reading: Reading, recorder: Recorder, spikes: InputArray) -> InputArray:
    """Return what the network hears of samples (n, T, ...), in the shape of its input."""
    shape = (*spikes.shape[:2], *reading.network.input_shape)
    if reading.host is None:
        return spikes.reshape(shape)
    seen = recorder.seen(INPUT, *spikes.shape[:2])
    if seen is None:
        raise MiscountedError("gives nothing that could be heard")
    return np.ascontiguousarray(seen.answer.reshape(shape), np.float32)


def encoder(
    module: nn.Module, framework: Framework, reading: Reading, call: Call, batch: int
) -> Callable[[InputArray], InputArray]:
    """Return what makes of samples the spikes that the host gives the network."""

    def encode(spikes: InputArray) -> InputArray:
        found = []
        with undisturbed(module):
            for start in range(0, len(spikes), batch):
                part = spikes[start : start + batch]
                with Recorder(module, watched(reading), framework.potential) as recorder:
                    answered(module, framework, call, part)
                found.append(heard_of(reading, recorder, part))
        return np.concatenate(found)

    return encode


def answered(module: nn.Module, framework: Framework, call: Call, spikes: InputArray) -> list[Any]:
    """Return all tensors that a module answers with, as arrays."""
    framework.reset(module)
    try:
        answer = call(module, as_input(module, spikes))
    finally:
        framework.reset(module)
    parts = answer if isinstance(answer, tuple | list) else (answer,)
    return [part.detach().cpu().numpy() for part in parts if isinstance(part, torch.Tensor)]


@dataclass(frozen=True)
class _Found:
    """The first layer that differs: where (n, T, neurons) and in what, or why it must."""

    layer: str
    unit: str = ""
    where: np.ndarray[Any, Any] | None = None
    why: str = ""
    off: int = 0
    kind: str = ""


def _first(
    reading: Reading, recorder: Recorder, ours: FloatRun, answer: list[Any], proof: Proof
) -> _Found | None:
    """Return the first layer that differs, in the order of activity."""
    network = reading.network
    n, steps = ours.output.shape[:2]
    tolerance = _TOLERANCE[network.dtype]
    for population in network.populations:
        name = population.name
        try:
            seen = recorder.seen(name, n, steps)
        except MiscountedError as how:
            return _Found(name, why=str(how), off=how.off, kind="steps")
        if population.neuron.spiking and ours.spikes[name].any():
            proof.active.add(name)
        if seen is None:
            continue
        proof.seen.add(name)
        if population.neuron.spiking:
            fired = reading.as_seen(name, ours.spikes[name])
            if seen.answer.shape != fired.shape:
                return _sized(name, seen.answer.shape[2], fired.shape[2], steps)
            differs = seen.answer != fired
            if differs.any():
                v = reading.as_seen(name, ours.v[name])
                theirs = v if seen.v is None or seen.v.shape != v.shape else seen.v
                # Whoever fires is reset, so what decided it is the potential of the other.
                known = differs & ((fired == 0) | (theirs is not v))
                v = np.where(fired == 0, v, theirs)
                tied = _tied(reading, population, known, v, tolerance)
                return _Found(name, "spikes", differs, kind="tied" if tied else "")
        if seen.v is not None:
            v = reading.as_seen(name, ours.v[name])[:, -seen.v.shape[1] :]
            if seen.v.shape != v.shape:
                return _Found(name, why=f"has potentials {seen.v.shape}, {v.shape} imported")
            differs = apart(seen.v, v, tolerance)
            if differs.any():
                return _Found(name, "potentials", differs)
            proof.potentials.add(name)
    return _answer(reading, ours.output, answer, proof, tolerance)


def _sized(name: str, theirs: int, ours: int, steps: int) -> _Found:
    """Say how a layer of another size differs."""
    if theirs == ours * steps:
        return _Found(name, why=f"is given all {steps} steps at once in each step", kind="steps")
    return _Found(name, why=f"has {theirs} neurons, {ours} imported")


def _tied(
    reading: Reading,
    population: Population,
    differs: np.ndarray[Any, Any],
    v: FloatArray,
    tolerance: float,
) -> bool:
    """Tell whether most neurons are at their threshold where they first differ.

    `v` (n, T, neurons) holds potentials of whichever does not fire there, and `tolerance` is a
    share of the largest.
    """
    threshold = np.broadcast_to(population.neuron.parameters["v_threshold"], population.shape)
    threshold = reading.as_seen(population.name, threshold[None, None]).ravel()
    steps = differs.argmax(1)[:, None]
    first = np.take_along_axis(differs, steps, 1)[:, 0]
    distance = np.abs(np.take_along_axis(v, steps, 1)[:, 0] - threshold)
    return bool(first.any() and (distance[first] <= tolerance * np.abs(v).max()).mean() > 0.5)


def _answer(
    reading: Reading, ours: FloatArray, answer: list[Any], proof: Proof, tolerance: float
) -> _Found | None:
    """Find the output in a module's answer, where it was found before."""
    output, constant = np.moveaxis(ours, 1, 0), reading.constant
    if reading.votes > 1:
        output = output.reshape(*output.shape[:2], -1, reading.votes).mean(-1)
        if constant.size > 1:
            constant = constant.reshape(-1, reading.votes).mean(-1)
    last = reading.network.output
    if last.neuron.spiking:
        # Whole numbers, and means of them.
        tolerance = min(tolerance, 0.1 / (len(output) * reading.votes))
    if output.any():
        proof.active.add(last.name)
    fired = np.asarray((output != 0).any((0, 1))).ravel()
    proof.fired = fired if proof.fired is None else np.logical_or(proof.fired, fired)
    same = found_in(answer, output, constant, tolerance)
    if reading.votes > 1:
        # Votes may be added up as well.
        many = reading.votes
        same |= found_in(answer, output * many, constant * many, tolerance)
    if proof.answers is not None:
        same &= proof.answers
    proof.answers = same
    if same:
        return None
    whole = [a for a in answer if a.shape == output.shape]
    if whole:
        differs = np.moveaxis(apart(whole[0], output, tolerance), 0, 1)
        differs = differs.reshape(*differs.shape[:2], -1)
        return _Found(f"output ({last.name})", "values", differs, kind="answer")
    shapes = ", ".join(str(a.shape) for a in answer) or "no tensor"
    why = (
        f"forward answers with {shapes}, which is not what {last.name} gives in all steps, nor "
        "their sum, mean, maximum or last"
    )
    return _Found("output", why=why, kind="answer")


def _difference(call: Call, found: _Found, equal: int, what: str, numbers: list[int]) -> Difference:
    """Say how many values differ, and where the first one is."""
    if found.where is None:
        rank = (-equal, True, _NEVER + abs(found.off))
        return Difference(call, found.layer, found.why, rank, found.kind)
    samples, steps, _ = np.nonzero(found.where)
    step = int(steps.min())
    sample = numbers[int(samples[steps == step][0])]
    many = len(steps)
    said = (
        f"{many:,} of {found.where.size:,} {found.unit} differ, the first in step {step} of {what} "
        f"{sample}"
    )
    rank = (-equal, found.unit != "potentials", many)
    return Difference(call, found.layer, said, rank, found.kind)


def as_input(module: nn.Module, spikes: InputArray) -> torch.Tensor:
    """Return samples as a module's own input (T, n, ...)."""
    weight = next((p for p in module.parameters() if p.is_floating_point()), torch.zeros(()))
    x = torch.from_numpy(np.ascontiguousarray(np.moveaxis(spikes, 1, 0)))
    return x.to(weight.device, weight.dtype)
