"""The verification itself: deploy, run all stages side by side, compare."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from osbc_deploy.arrays import FloatArray, InputArray, IntArray
from osbc_deploy.compress.result import CompressedNetwork
from osbc_deploy.deployment import Deployment
from osbc_deploy.errors import UsageError
from osbc_deploy.fidelity import Fidelity
from osbc_deploy.fixedpoint.engine import Activity
from osbc_deploy.fixedpoint.network import FixedPointNetwork
from osbc_deploy.job import Job, VerbCall, prepare, verb
from osbc_deploy.model.readout import decode
from osbc_deploy.options import DeployOptions, VerifyOptions
from osbc_deploy.options.notation import Readout
from osbc_deploy.pipeline import compressed_for, finish
from osbc_deploy.progress import SILENT, Progress, task
from osbc_deploy.provenance import request
from osbc_deploy.verification.bits import BackendComparison, compare_backend
from osbc_deploy.verification.choice import choose_neurons, parse_neurons, traced_neurons
from osbc_deploy.verification.cost import Effect, Trial, effect, trials
from osbc_deploy.verification.difference import Difference, Firing, difference, firing
from osbc_deploy.verification.gates import check_gates, check_needs, parse_gates
from osbc_deploy.verification.result import LayerCost, Score, Shown, Step, Verification
from osbc_deploy.verification.stages import FixedStage, Record, Stage, float_stages

__all__ = ["compare_stages", "verify"]

_SIDE_BY_SIDE = 32
"""Samples whose rasters and potentials of all stages are held at once."""

_FIXED = "fixed point"


@dataclass(frozen=True, kw_only=True)
class VerifyCall(VerifyOptions, VerbCall):
    """The arguments of :func:`verify`."""

    options: DeployOptions | None = None


@verb(VerifyCall, DeployOptions)
def verify(call: VerifyCall) -> Verification:
    """Deploy a network and compare its forms, population by population.

    Takes what :func:`osbc_deploy.deploy` takes, and every option of
    :class:`osbc_deploy.VerifyOptions`; `options` may also be those of a deployment.

    Returns
    -------
    Verification

    Raises
    ------
    OsbcError
        With the branch's meaning. Broken gates raise nothing: see ``Verification.broken``.
    """
    wanted = parse_gates(call.gates)
    job = prepare(call, request(verify, VerifyOptions, call), device=call.device)
    named = parse_neurons(call.neurons, job.network)
    if call.samples is not None:
        if call.samples > len(job.evaluated):
            raise UsageError(
                f"samples: {call.samples:,} are asked for, {job.evaluated.name} holds "
                f"{len(job.evaluated):,}. Ask for no more, or leave it out to evaluate all."
            )
        job = replace(job, evaluated=job.evaluated.take(call.samples))
    check_needs(wanted, labels=job.evaluated.labels is not None, backend=job.runner is not None)
    compressed = compressed_for(job, call, call.progress)
    # The backend is compared here, with its currents and potentials.
    deployment = finish(replace(job, runner=None), compressed, progress=call.progress)
    found = compare_stages(job, deployment, tau=call.tau, named=named, progress=call.progress)
    return replace(found, findings=check_gates(found, wanted))


def compare_stages(
    job: Job,
    deployment: Deployment,
    *,
    tau: float = VerifyOptions.tau,
    named: Mapping[str, tuple[int, ...]] | None = None,
    progress: Progress = SILENT,
) -> Verification:
    """Compare the forms of a deployed network on the job's test samples.

    Parameters
    ----------
    job : Job
    deployment : Deployment
        Of that job.
    tau : float
    named : dict of tuple of int, optional
        Neurons to draw, by population.
    """
    compressed, lowered = deployment.compressed, deployment.lowered.network
    # Every neuron is compared; those that are left out change no bit of the others.
    whole = deployment.lowered.whole
    stages: list[Stage] = [
        *float_stages(compressed, lowered.input),
        FixedStage(_FIXED, whole),
    ]
    changes = trials(compressed)
    own = {p.name for p in compressed.original.populations}
    # What lowering may add for the chip's sake has nothing in float to be compared with.
    rest = {p.name: p.v_offset for p in whole.populations if p.name in own}
    spiking = lowered.output.spiking
    total = _Totals()
    samples = job.evaluated
    with task(progress, "verify", len(samples)):
        for start in range(0, len(samples), _SIDE_BY_SIDE):
            part = slice(start, start + _SIDE_BY_SIDE)
            labels = None if samples.labels is None else samples.labels[part]
            spikes = samples.spikes[part]
            found = _compared(
                stages, changes, spikes, labels, job.readout, rest, tau, spiking=spiking
            )
            total.add(found, start)
            progress.advance(len(spikes))
    bits = None
    if job.runner is not None:
        bits = compare_backend(
            job.runner,
            lowered,
            samples,
            job.backend_samples,
            time_limit=job.time_limit,
            progress=progress,
        ).numbered(deployment.lowered.kept)
    scores = _scores(total, samples.labels, bits, job.readout, spiking=spiking)
    return Verification(
        deployment=replace(
            deployment,
            fidelity=_fidelity(bits, lowered),
            # Peaks of neurons that are left out are none of the deployed network's.
            activity=deployment.activity if deployment.lowered.kept else total.activity,
        ),
        scores=scores,
        steps=tuple(
            Step(name, a, b, total.propagated[name], total.isolated[name])
            for name, a, b in _steps([s.name for s in stages])
        ),
        firing=total.firing,
        activity=total.activity,
        layers=_layers(compressed, changes, total.effects),
        backend=bits,
        shown=_shown(total, scores, samples.labels, named or {}),
        tau=tau,
        readout=job.readout,
    )


def _steps(stages: Sequence[str]) -> list[tuple[str, str, str]]:
    """Return name, reference and other stage of every step, the whole way last."""
    leads_to = {
        "pruned": "prune",
        "compressed": "quantize" if "pruned" in stages else "compress",
        "rounded input": "input",
        _FIXED: "lower",
    }
    names = [leads_to[stage] for stage in stages[1:]]
    steps = list(zip(names, stages[:-1], stages[1:], strict=True))
    return [*steps, ("total", stages[0], stages[-1])]


@dataclass(frozen=True, eq=False)
class _Part:
    """What some samples showed."""

    records: Mapping[str, Record]
    classes: Mapping[str, IntArray]
    propagated: Mapping[str, Mapping[str, Difference]]
    isolated: Mapping[str, Mapping[str, Difference]]
    effects: Sequence[Effect]


def _compared(
    stages: Sequence[Stage],
    changes: Sequence[Trial],
    spikes: InputArray,
    labels: IntArray | None,
    readout: Readout,
    rest: Mapping[str, FloatArray],
    tau: float,
    *,
    spiking: bool,
) -> _Part:
    by_name = {stage.name: stage for stage in stages}
    records = {stage.name: stage.run(spikes) for stage in stages}
    reference = records["float"]
    propagated: dict[str, dict[str, Difference]] = {}
    isolated: dict[str, dict[str, Difference]] = {}
    for name, before, after in _steps([s.name for s in stages]):
        a, b = records[before], records[after]
        propagated[name] = {p: difference(a, b, p, rest[p], tau) for p in rest}
        isolated[name] = {}
        for population in rest:
            alone = by_name[after].alone(population, a)
            isolated[name][population] = difference(a, alone, population, rest[population], tau)
    effects = [
        effect(
            reference.output,
            (output := change.run(reference)).reshape(*output.shape[:2], -1),
            labels,
            readout,
            spiking=spiking,
        )
        for change in changes
    ]
    classes = {
        name: decode(record.output, readout, spiking=spiking) for name, record in records.items()
    }
    return _Part(records, classes, propagated, isolated, effects)


@dataclass(eq=False)
class _Totals:
    """Sums over the parts, and the sample that differs most from float to fixed point."""

    classes: dict[str, IntArray] = field(default_factory=dict)
    propagated: dict[str, dict[str, Difference]] = field(default_factory=dict)
    isolated: dict[str, dict[str, Difference]] = field(default_factory=dict)
    effects: list[Effect] = field(default_factory=list)
    firing: dict[str, dict[str, Firing]] = field(default_factory=dict)
    activity: dict[str, Activity] = field(default_factory=dict)
    worst: float = -1.0
    sample: int = 0
    records: dict[str, Record] = field(default_factory=dict)

    def add(self, part: _Part, start: int) -> None:
        for name, classes in part.classes.items():
            before = self.classes.get(name, classes[:0])
            self.classes[name] = np.concatenate([before, classes])
        for sums, new in ((self.propagated, part.propagated), (self.isolated, part.isolated)):
            for step, found in new.items():
                own = sums.setdefault(step, {})
                for population, seen in found.items():
                    own[population] = own.get(population, Difference()) + seen
        self.effects = (
            [a + b for a, b in zip(self.effects, part.effects, strict=True)]
            if self.effects
            else list(part.effects)
        )
        for stage, record in part.records.items():
            fired = self.firing.setdefault(stage, {})
            for population in record.v:
                if population in record.spikes:
                    seen_now = firing(record, population)
                    before_now = fired.get(population)
                    fired[population] = seen_now if before_now is None else before_now + seen_now
        for population, seen_fixed in part.records[_FIXED].activity.items():
            self.activity[population] = self.activity.get(population, Activity()) + seen_fixed
        self._keep_worst(part, start)

    def _keep_worst(self, part: _Part, start: int) -> None:
        a, b = part.records["float"], part.records[_FIXED]
        # A sample whose class changes is shown before any that only fires otherwise.
        badness = (part.classes["float"] != part.classes[_FIXED]).astype(np.float64)
        spiking = [name for name in a.v if name in a.spikes]
        size = sum(a.spikes[name][0].size for name in spiking)
        for name in spiking:
            badness += (a.spikes[name] != b.spikes[name]).sum(axis=(1, 2)) / (size + 1)
        number = int(badness.argmax())
        if badness[number] > self.worst:
            self.worst, self.sample = float(badness[number]), start + number
            self.records = {name: r.sample(number) for name, r in part.records.items()}


def _scores(
    total: _Totals,
    labels: IntArray | None,
    bits: BackendComparison | None,
    readout: Readout,
    *,
    spiking: bool,
) -> tuple[Score, ...]:
    reference = total.classes["float"]
    found = [Score(name, c, reference, labels) for name, c in total.classes.items()]
    if bits is not None:
        few = slice(0, bits.samples)
        found.append(
            Score(
                bits.backend if bits.reference == "engine" else bits.reference,
                decode(bits.result, readout, spiking=spiking),
                reference[few],
                None if labels is None else labels[few],
            )
        )
    return tuple(found)


def _fidelity(bits: BackendComparison | None, network: FixedPointNetwork) -> Fidelity:
    """Return the comparison in the form that a deployment has."""
    if bits is None:
        return Fidelity(None)
    out = network.output
    potentials = bits.populations[out.name].get("v") if not out.spiking else None
    return Fidelity(
        backend=bits.backend,
        reference=bits.reference,
        samples=bits.samples,
        left_out=bits.left_out,
        compared_spikes=sum(
            found["spikes"].compared for found in bits.populations.values() if "spikes" in found
        ),
        mismatched_spikes=bits.mismatches("spikes"),
        compared_potentials=potentials.compared if potentials else 0,
        mismatched_potentials=potentials.different if potentials else 0,
        restarts=bits.restarts,
    )


def _layers(
    compressed: CompressedNetwork, changes: Sequence[Trial], effects: Sequence[Effect]
) -> tuple[LayerCost, ...]:
    found: dict[str, dict[str, Effect]] = {}
    names = {change.population: change.projections for change in changes}
    for change, seen in zip(changes, effects, strict=True):
        found.setdefault(change.population, {})[change.part] = seen
    return tuple(
        LayerCost(
            population=population,
            projections=names[population],
            weights=sum(compressed.projections[n].codes.size for n in names[population]),
            nonzero=sum(compressed.projections[n].nonzero for n in names[population]),
            bits=tuple(compressed.projections[n].bits for n in names[population]),
            pruned=seen.get("pruned"),
            compressed=seen["compressed"],
        )
        for population, seen in found.items()
    )


def _shown(
    total: _Totals,
    scores: Sequence[Score],
    labels: IntArray | None,
    named: Mapping[str, tuple[int, ...]],
) -> Shown:
    a, b = total.records["float"], total.records[_FIXED]
    neurons = choose_neurons(named, a, b)
    return Shown(
        sample=total.sample,
        label=None if labels is None else int(labels[total.sample]),
        classes={name: int(c[total.sample]) for name, c in total.classes.items()},
        records=total.records,
        neurons=neurons,
        traced=traced_neurons(named, neurons, a, b),
    )
