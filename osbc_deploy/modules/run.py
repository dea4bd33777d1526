"""Compress the weights of a module: everything checked and loaded, before and after."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import nn

from osbc_deploy.accuracy import Accuracy, check_classes, doubts
from osbc_deploy.apart import inputs_of
from osbc_deploy.arrays import FloatArray
from osbc_deploy.cluster import crew_of
from osbc_deploy.compress.network import helpers
from osbc_deploy.compress.options import CompressionOptions
from osbc_deploy.compress.state import SolverState, state_belongs_to
from osbc_deploy.data.samples import Samples
from osbc_deploy.errors import ArtefactError, UnsupportedModelError
from osbc_deploy.frameworks.calling import described, is_half, undisturbed
from osbc_deploy.frameworks.finite import check_finite
from osbc_deploy.importing import framework_of, load_module
from osbc_deploy.job import VerbInputs, verb
from osbc_deploy.model.device import check_device
from osbc_deploy.model.readout import (
    NO_ANSWER,
    check_readout,
    classes_of,
    decode,
    shared_answers,
)
from osbc_deploy.modules.answer import answering
from osbc_deploy.modules.file import weights_digest
from osbc_deploy.modules.result import CompressedModel, CompressedWeight
from osbc_deploy.modules.scene import exchanged
from osbc_deploy.modules.session import PLAIN, session_of
from osbc_deploy.modules.weights import find_weights
from osbc_deploy.modules.work import Work
from osbc_deploy.options import CompressOptions
from osbc_deploy.options.notation import Readout
from osbc_deploy.provenance import request
from osbc_deploy.references import both_samples

__all__ = ["compress_model"]

_BATCH = 32
"""Samples run side by side."""

_SCALES = 2**31
"""Different scales a layer may have: one for each row, as no chip limits them."""

_HALF = (
    "weights of half precision are computed with, and saved, in float32, as codes and scales are "
    "rounded otherwise; load them into model.float()"
)


@dataclass(frozen=True, kw_only=True)
class CompressCall(CompressOptions, VerbInputs):
    """The arguments of :func:`compress_model`, whose `module` is torch's or a reference to one."""

    options: CompressOptions | None = None


@verb(CompressCall, CompressOptions)
def compress_model(call: CompressCall) -> CompressedModel:
    """Compress the weights of any torch SNN in place of its own, also of one that no chip holds.

    Linear and convolutional layers are found by running the model; each is compressed for the
    membrane potential of the neurons that it feeds, in the order of their calls. The state dict of
    the result has the names of the model's and loads into it unchanged. The module given is left
    as it was, its state reset.

    Returns
    -------
    CompressedModel

    Raises
    ------
    UnsupportedModelError
        When the model cannot be run, has no layer to compress, or some cannot be.
    OsbcError
        As :func:`osbc_deploy.deploy`.
    """
    asked = request(compress_model, CompressOptions, call)
    read = tuple(
        inputs_of(
            module=call.module, weights=call.weights, calibration=call.calibration, test=call.test
        )
    )
    options = CompressionOptions.of(call, scale_groups=_SCALES)
    device = check_device(call.device)
    typical, evaluated = both_samples(call.calibration, call.test, call.repeat)
    # What the model itself answers; over time steps, it adds up.
    readout = "sum" if call.readout is None else call.readout
    module, source, warnings = load_module(call.module, call.weights)
    plugin = framework_of(module, source)
    framework = PLAIN
    if plugin is not None and plugin[1].module is not None:
        framework = plugin[1].module()
    check_finite(module, framework)
    state = _state(module, source)
    fingerprint = weights_digest(state)
    if half := is_half(module):
        state = {
            name: value.float() if value.is_floating_point() else value
            for name, value in state.items()
        }
        warnings = (*warnings, _HALF)
    try:
        with crew_of(call) as crew, undisturbed(module):
            if half:
                module.float()
            options = replace(options, crew=crew, device=device)
            module.to(device or "cpu")
            session = session_of(module, framework, source, typical.spikes, _BATCH)
            found = find_weights(session, typical.spikes, call.exclude)
            session, said = answering(session, found.weights, typical.spikes)
            work = Work(session, found.weights, typical.spikes, options, call.progress)
            store = None
            if call.resume is not None:
                belongs_to = state_belongs_to(
                    fingerprint, work.samples, work.options,
                    exclude=tuple(call.exclude), device=call.device,
                )  # fmt: skip
                store = SolverState(Path(call.resume), belongs_to)
            before = session.answers(evaluated.spikes)
            _check_answer(before, (typical, evaluated), readout, call.classes)
            layers = work.run(store)
            work.deviations.extend((*said, *helpers(options)))
            options = replace(options, crew=None)
            with exchanged(module, work.values(layers)):
                after = session.answers(evaluated.spikes)
    finally:
        framework.reset(module)
    values = work.values(layers)
    for weight in found.weights:
        for name in weight.names:
            values[name] = values[weight.names[0]]
    state |= {n: torch.from_numpy(v).to(state[n].dtype) for n, v in values.items()}
    accuracy = _accuracy(before, after, evaluated, readout)
    doubted = doubts(accuracy, evaluated.labels, classes_of(readout, before.shape[2]), call.classes)
    return CompressedModel(
        source,
        framework.title,
        described(session.call),
        state,
        tuple(CompressedWeight(w, la) for w, la in zip(found.weights, layers, strict=True)),
        found.left,
        accuracy,
        options,
        tuple(work.deviations),
        (*warnings, *session.doubts(), *doubted),
        fingerprint,
        typical,
        evaluated,
        asked,
        read,
    )


def _state(module: nn.Module, source: str) -> dict[str, torch.Tensor]:
    """Return a copy of a module's state dict on the CPU."""
    state = module.state_dict()
    if others := [name for name, value in state.items() if not isinstance(value, torch.Tensor)]:
        raise UnsupportedModelError(
            f"{source}: its state dict holds values that are not tensors",
            others,
            "Leave the extra state out.",
        )
    return {name: value.detach().to("cpu", copy=True).contiguous() for name, value in state.items()}


def _check_answer(
    answers: FloatArray, data: Sequence[Samples], readout: Readout, classes: int | None
) -> None:
    if not np.isfinite(answers).all():
        raise ArtefactError(
            "model: its answers hold NaN or infinite values. Check its weights and the samples."
        )
    check_readout(readout, answers.shape[2])
    check_classes(data, classes_of(readout, answers.shape[2]), classes)


def _accuracy(
    before: FloatArray, after: FloatArray, samples: Samples, readout: Readout
) -> Accuracy:
    """Return how many samples the framework itself classifies right."""
    classes = {}
    for name, answers in (("float", before), ("compressed", after)):
        counted = answers.shape[1] > 1 and bool((answers == np.rint(answers)).all())
        classes[name] = decode(answers, readout, spiking=counted)
    same, answered = shared_answers(classes["float"], classes["compressed"])
    labels = samples.labels
    right = {n: None if labels is None else float(np.mean(c == labels)) for n, c in classes.items()}
    return Accuracy(
        float_=right["float"],
        compressed=right["compressed"],
        fixed_point=None,
        agreement=same / answered if answered else None,
        no_answer={name: float(np.mean(c == NO_ANSWER)) for name, c in classes.items()},
        samples=len(samples),
        data=samples.name,
    )
