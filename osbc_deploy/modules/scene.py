"""The Hessian of a weight, from what it is multiplied with in the framework's own forward."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import nn

from osbc_deploy.arrays import FloatArray, InputArray
from osbc_deploy.cluster import Part
from osbc_deploy.compress.hessian import membrane_moments, rows_of
from osbc_deploy.compress.moments import Moments
from osbc_deploy.compress.options import CompressionOptions
from osbc_deploy.compress.problem import LayerProblem, pose
from osbc_deploy.compress.result import CompressedProjection
from osbc_deploy.compress.sampling import ROW_COST, ROWS_PER_INPUT, rows_wanted
from osbc_deploy.compress.scene import HELD_OUT, Layer
from osbc_deploy.deviations import Deviation
from osbc_deploy.errors import ArtefactError
from osbc_deploy.model.graph import Population, Projection
from osbc_deploy.model.neurons import Neuron
from osbc_deploy.modules.listening import Heard
from osbc_deploy.modules.session import Session
from osbc_deploy.modules.weights import Use, Weight

__all__ = ["Scene", "changed", "exchanged", "judge", "moments_of", "problem_of", "valued"]

_SHARDS = 8
"""Parts of the batches that are added up apart, whoever does it."""


@contextmanager
def exchanged(module: nn.Module, values: Mapping[str, FloatArray]) -> Iterator[None]:
    """Give a module other values for some parameters, and its own back afterwards."""
    parameters = dict(module.named_parameters(remove_duplicate=False))
    held = {name: parameters[name].data for name in values}
    try:
        for name, value in values.items():
            own = parameters[name]
            own.data = torch.from_numpy(np.ascontiguousarray(value)).to(own.device, own.dtype)
        yield
    finally:
        for name, data in held.items():
            parameters[name].data = data


def changed(session: Session, weight: Weight, layer: CompressedProjection) -> dict[str, FloatArray]:
    """Return the parameters that a compressed weight changes, by name."""
    shape = (-1,) + (1,) * (weight.parameter.ndim - 1)
    scale = (layer.scale / weight.gain).reshape(shape)
    found: dict[str, FloatArray] = {}
    found[weight.names[0]] = layer.codes.reshape(weight.parameter.shape) * scale
    if layer.bias is not None and weight.slot is not None:
        own = session.module.get_parameter(weight.slot.name).detach().cpu().double().numpy()
        found[weight.slot.name] = own + layer.bias * weight.slot.factor
    return found


def valued(weight: Weight, blocks: FloatArray) -> FloatArray:
    """Return the parameter that weights (groups, rows, fan_in) with the gain stand for."""
    rows = blocks.reshape(len(weight.gain), -1) / weight.gain[:, None]
    return rows.reshape(weight.parameter.shape)


def judge(
    session: Session, held: InputArray, wanted: FloatArray
) -> Callable[[Mapping[str, FloatArray]], FloatArray]:
    """Return what gives the answer's squared error for each sample, from parameters by name.

    Parameters
    ----------
    session : Session
    held : ndarray (n, T, ...)
    wanted : ndarray (n, outputs)
        The float network's answer, summed over time.
    """
    square = float((wanted**2).sum(axis=1).mean()) or 1.0

    def errors(values: Mapping[str, FloatArray]) -> FloatArray:
        with exchanged(session.module, values):
            got = session.answers(held).sum(axis=1)
        return np.asarray(((got - wanted) ** 2).sum(axis=1) / square)

    return errors


def moments_of(
    session: Session,
    weights: Sequence[Weight],
    samples: InputArray,
    options: CompressionOptions,
    *,
    earlier: Mapping[str, FloatArray] | None = None,
    rows_per_input: int = ROWS_PER_INPUT,
    on_samples: Callable[[int], None] = lambda samples: None,
) -> list[Moments]:
    """Return the moments of what weights are multiplied with, all in one run of the model.

    Parameters
    ----------
    session : Session
    weights : sequence of Weight
    samples : ndarray (n, T, ...)
    options : CompressionOptions
    earlier : dict of ndarray, optional
        Parameters as they are now. With a cross term then, between what arrives with them and what
        arrives in the float network.
    rows_per_input : int
        Of a convolution's Hessian, where there are more.
    on_samples : callable
        Told the number of samples after each batch.
    """
    shared = _Forward(
        session, tuple(weights), replace(options, crew=None), earlier, rows_per_input,
        len(samples), torch.get_num_threads(),
    )  # fmt: skip
    batches = -(-len(samples) // session.batch)
    # Averages are rounded, so which of them are added first is the same for any crew.
    shards = [
        _Shard(part, samples[part.start * session.batch : part.stop * session.batch])
        for part in Part.cut(batches, _SHARDS, "batches")
    ]
    cost = sum(w.seen / 8 * (w.parameter[0].numel() + ROW_COST) for w in weights)
    crew = options.space().crew_for(cost * len(samples), batches)
    total: list[Moments] = []
    if crew is None:
        for shard in shards:
            total = _added(total, _moments(shared, shard, on_samples))
        return total
    waiting: dict[int, list[Moments]] = {}
    done = 0
    for number, found in crew.run(_elsewhere, shared, shards):
        waiting[number] = found
        on_samples(len(shards[number].samples))
        while done in waiting:
            total = _added(total, waiting.pop(done))
            done += 1
    return total


@dataclass(frozen=True, eq=False)
class _Forward:
    """What runs of a model have in common, in whatever process."""

    session: Session
    weights: tuple[Weight, ...]
    options: CompressionOptions
    earlier: Mapping[str, FloatArray] | None
    rows_per_input: int
    samples: int
    threads: int


@dataclass(frozen=True, eq=False)
class _Shard:
    """Some batches of samples."""

    part: Part
    samples: InputArray

    def __str__(self) -> str:
        return str(self.part)


def _elsewhere(forward: _Forward, shard: _Shard, threads: int) -> list[Moments]:
    held = torch.get_num_threads()
    # The framework's own sums may depend on how many threads add them up.
    torch.set_num_threads(forward.threads)
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return _moments(forward, shard, lambda samples: None)
    finally:
        torch.set_num_threads(held)


def _moments(forward: _Forward, shard: _Shard, on_samples: Callable[[int], None]) -> list[Moments]:
    session, weights, earlier = forward.session, forward.weights, forward.earlier
    keys = [weight.key for weight in weights]
    calls = sum(weight.calls for weight in weights)
    total: list[Moments] = []
    for start in range(0, len(shard.samples), session.batch):
        part = shard.samples[start : start + session.batch]
        meant = session.heard(part, keys, calls)
        seen = meant
        if earlier is not None:
            with exchanged(session.module, earlier):
                seen = session.heard(part, keys, calls)
        found = [_of_batch(forward, w, seen, meant, len(part)) for w in weights]
        total = _added(total, found)
        on_samples(len(part))
    return total


def _of_batch(
    forward: _Forward, weight: Weight, seen: Sequence[Heard], meant: Sequence[Heard], n: int
) -> Moments:
    """Return the moments of what a weight is multiplied with in a batch."""
    session, options, earlier = forward.session, forward.options, forward.earlier
    now, before = weight.heard(seen), weight.heard(meant)
    total: list[Moments] = []
    for use in weight.uses:
        x = _heard(session, weight, use, now, n)
        y = x if earlier is None else _heard(session, weight, use, before, n)
        projection = weight.projection(use)
        found = membrane_moments(
            [projection],
            None if options.method == "obc" else use.dynamics,
            [x],
            None if earlier is None else [y],
            wanted=_wanted(projection, x, forward.samples / n, forward.rows_per_input),
            batch_size=max(1, 16 * len(x) // n),
            space=options.space(),
        )
        total = _added(total, [found])
    return total[0]


def _added(total: list[Moments], more: list[Moments]) -> list[Moments]:
    return [a + b for a, b in zip(total, more, strict=True)] if total else more


def _wanted(
    projection: Projection, x: InputArray, batches: float, rows_per_input: int
) -> int | None:
    """Return how many rows of a batch to draw; None for all."""
    connection, rows = projection.connection, rows_of(projection, x.shape)
    if not connection.convolutional:
        return None
    wanted = rows_wanted(
        connection.groups, connection.fan_in, math.ceil(rows * batches), rows_per_input
    )
    return None if wanted is None else math.ceil(wanted / batches)


def _heard(
    session: Session, weight: Weight, use: Use, calls: Sequence[torch.Tensor], n: int
) -> InputArray:
    """Return what one use of a weight heard of n samples, (rows, T, ...)."""
    x = weight.inputs(use, calls, n, session.steps)
    if not np.isfinite(x).all():
        raise ArtefactError(
            f"{weight.name}: its input holds NaN or infinite values on the calibration samples. "
            "Check the model's weights and the samples."
        )
    return x


def problem_of(
    weight: Weight,
    moments: Moments,
    options: CompressionOptions,
    *,
    free_bias: bool = False,
    pull: float = 1.0,
) -> LayerProblem:
    """State the problem of a weight; every row may have a scale of its own.

    A weight without input has no loss to minimize, and is rounded to the nearest code.
    """
    silent = not moments.hessian.any()
    problem = pose(
        [weight.projection()],
        Population(weight.uses[0].neuron, (len(weight.gain),), Neuron()),
        moments,
        method="magnitude" if silent else options.method,
        damping=options.added,
        free_bias=free_bias and not silent,
        pull=pull,
        space=options.space(),
    )
    if not silent:
        return problem
    text = "hears nothing on the calibration samples, so its weights were chosen by their size"
    return replace(problem, deviations=(Deviation("compress", weight.name, text),))


@dataclass(frozen=True, eq=False)
class Scene:
    """A weight between compressed layers before it and float layers behind.

    It is what :func:`osbc_deploy.compress.tuning.tune` tries variants on.

    Attributes
    ----------
    session : Session
    weight : Weight
    samples : ndarray (n, T, ...)
    earlier : dict of ndarray
        Parameters of layers before that are compressed.
    wanted : ndarray (judging samples, outputs)
        The float network's answer, summed over time.
    options : CompressionOptions
    rows_per_input : int
        Of a convolution's Hessian, where there are more.
    on_samples : callable
    """

    session: Session
    weight: Weight
    samples: InputArray
    earlier: Mapping[str, FloatArray]
    wanted: FloatArray
    options: CompressionOptions
    rows_per_input: int = ROWS_PER_INPUT
    on_samples: Callable[[int], None] = lambda samples: None

    @property
    def method(self) -> str:
        """The method of compression."""
        return self.options.method

    @property
    def changed(self) -> bool:
        """Whether other values may arrive than in the float network."""
        return bool(self.earlier)

    @property
    def has_bias(self) -> bool:
        """Whether a bias can take what the weights leave."""
        return self.weight.slot is not None

    @property
    def can_shift(self) -> bool:
        """Thresholds are not in the state of most neurons, and stay."""
        return False

    def moments(self, *, cross: bool, part: slice) -> Moments:
        """Return the moments of some samples; with a cross term, of what arrives now."""
        (found,) = moments_of(
            self.session,
            [self.weight],
            self.samples[part],
            self.options,
            earlier=self.earlier if cross else None,
            rows_per_input=self.rows_per_input,
            on_samples=self.on_samples,
        )
        return found

    def problem(self, moments: Moments, *, free_bias: bool, pull: float = 1.0) -> LayerProblem:
        """State the problem of the weights."""
        return problem_of(self.weight, moments, self.options, free_bias=free_bias, pull=pull)

    def judge(self) -> Callable[[Layer], FloatArray]:
        """Return what gives the error of the output for each sample that judges."""
        errors = judge(self.session, self.samples[HELD_OUT - 1 :: HELD_OUT], self.wanted)
        return lambda layer: errors(
            {**self.earlier, **changed(self.session, self.weight, layer[0])}
        )

    def matched(self, layer: Layer) -> Layer:
        """Return the layer as it is."""
        return layer
