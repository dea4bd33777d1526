"""Compress one population's weights in several ways and keep what serves the output best.

The layers before are compressed already, so other spikes arrive than the weights were trained for.
What can make up for that is tried on four fifths of the calibration samples and judged on the
rest by the error of the network's output, the layers behind still being the float network's:

cross term
    approximate the weights that bring the float potential back from the spikes that arrive now,
    held to the original weights as much as leaves the least loss on the held-out samples;
free bias
    where there is a bias, let it take what the weights leave on average;
threshold
    match the float population's mean rate (pruned weights carry less variance, so neurons fire
    too little).

A variant replaces a simpler one only when its error is smaller by more than the standard error of
the difference. The codes of the winner, up to 4 bits, are then tried in two more ways:

full range
    take the code that two's complement has below zero and not above;
firm
    hold codes ten times as firmly to the weights they stand for: from few samples, error feedback
    learns what is true of these alone.

They change the membrane loss on the held-out samples by more than its noise, and the output's
error, which hangs on single spikes, by less: the loss decides, and the error may object. The winner
is solved again on all samples. Labels are not used.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, TypeVar

import numpy as np

from osbc_deploy.arrays import FloatArray
from osbc_deploy.compress.guard import layer_loss, target_loss
from osbc_deploy.compress.layer import Pruned, Solver
from osbc_deploy.compress.moments import Moments
from osbc_deploy.compress.problem import LayerProblem
from osbc_deploy.compress.scene import HELD_OUT, Layer

__all__ = [
    "CODED_WAYS",
    "FEW_BITS",
    "PULLS",
    "Trial",
    "preferred",
    "restored",
    "tune",
    "tune_threshold",
]

T = TypeVar("T")

PULLS = (1.0, 3.0, 10.0, 30.0)
"""Multiples of the damping that may hold the cross term's target to the weights as they were."""

FEW_BITS = 4
"""Where rounding costs enough for codes to be tried in more ways."""

_WAYS = ({"full": True}, {"hold": 10.0})
"""Ten times the damping: more loses more on held-out samples."""

CODED_WAYS = len(_WAYS)
"""Beside the plain one."""


class Trial(Protocol):
    """Weights between what is compressed before them and the float network behind."""

    @property
    def method(self) -> str:
        """The method of compression."""

    @property
    def changed(self) -> bool:
        """Whether other values arrive than in the float network."""

    @property
    def has_bias(self) -> bool:
        """Whether a bias can take what the weights leave."""

    @property
    def can_shift(self) -> bool:
        """Whether thresholds may be moved."""

    def moments(self, *, cross: bool, part: slice) -> Moments:
        """Return the moments of some samples; with a cross term, of what arrives now."""

    def problem(self, moments: Moments, *, free_bias: bool, pull: float = 1.0) -> LayerProblem:
        """State the problem of the weights."""

    def judge(self) -> Callable[[Layer], FloatArray]:
        """Return what gives the error of the output for each sample that judges."""

    def matched(self, layer: Layer) -> Layer:
        """Return the layer with the threshold at which the float network's rate is met."""


@dataclass(frozen=True)
class _Variant:
    cross: bool = False
    free_bias: bool = False
    threshold: bool = False
    pull: float = 1.0
    full: bool = False
    hold: float = 1.0

    def __str__(self) -> str:
        parts = [
            name
            for name, on in (
                (f"cross term (pull {self.pull:g})", self.cross),
                ("free bias", self.free_bias),
                ("threshold", self.threshold),
                ("full range", self.full),
                ("firm", self.hold > 1.0),
            )
            if on
        ]
        return " + ".join(parts) or "plain"


def tune(scene: Trial, solve: Solver) -> tuple[Layer, LayerProblem]:
    """Try the variants of one population and return the best, solved on all samples.

    Parameters
    ----------
    scene : Trial
        With at least ``HELD_OUT * MIN_HELD_OUT`` samples.
    solve : Solver

    Returns
    -------
    projections : tuple of CompressedProjection
        With what was tried, the errors relative to the output's mean square.
    problem : LayerProblem
        What they solve.
    """
    errors_of = scene.judge()
    moments: dict[bool, tuple[Moments, Moments]] = {}
    scores: dict[_Variant, FloatArray] = {}
    solved: dict[_Variant, tuple[Pruned, Layer]] = {}
    for asked in _solved_variants(scene):
        if asked.cross not in moments:
            moments[asked.cross] = (
                _sum(scene, cross=asked.cross, starts=range(HELD_OUT - 1)),
                scene.moments(cross=asked.cross, part=slice(HELD_OUT - 1, None, HELD_OUT)),
            )
        problem = _posed(scene, asked, *moments[asked.cross])
        variant = replace(asked, pull=problem.pull)
        pruned = solve.pruned(problem)
        layer = solve.coded(problem, pruned)
        solved[variant] = pruned, layer
        scores[variant] = errors_of(layer)
        if scene.can_shift:
            scores[replace(variant, threshold=True)] = errors_of(scene.matched(layer))
    best = preferred(scores)
    fitted, held = moments[best.cross]
    if 1 < solve.bits <= FEW_BITS:
        start = solved[replace(best, threshold=False)]
        best = _coded_best(scene, solve, best, start, (fitted, held), errors_of, scores)
    problem = _stated(scene, best, fitted + held)
    return _told(_shifted(scene, best, solve(problem)), scores, best), problem


def _coded_best(
    scene: Trial,
    solve: Solver,
    best: _Variant,
    start: tuple[Pruned, Layer],
    moments: tuple[Moments, Moments],
    errors_of: Callable[[Layer], FloatArray],
    scores: dict[_Variant, FloatArray],
) -> _Variant:
    """Return the way to code pruned weights that loses least on the held-out samples."""
    pruned, layer = start
    fitted, held = moments
    problem = _stated(scene, best, fitted)
    least = layer_loss(problem, held, layer)
    for change in _WAYS:
        variant = replace(best, **change)
        layer = solve.coded(replace(problem, full=variant.full, hold=variant.hold), pruned)
        scores[variant] = errors_of(_shifted(scene, variant, layer))
        loss = layer_loss(problem, held, layer)
        if _serves(loss, least, scores[variant] - scores[best]):
            best, least = variant, loss
    return best


def _stated(scene: Trial, variant: _Variant, moments: Moments) -> LayerProblem:
    problem = scene.problem(moments, free_bias=variant.free_bias, pull=variant.pull)
    return replace(problem, full=variant.full, hold=variant.hold)


def _shifted(scene: Trial, variant: _Variant, layer: Layer) -> Layer:
    return scene.matched(layer) if variant.threshold else layer


def tune_threshold(scene: Trial, layer: Layer) -> Layer:
    """Return a layer that no sample had a part in, with another threshold if that is better."""
    errors_of = scene.judge()
    forms = {_Variant(): layer}
    if scene.can_shift:
        forms[_Variant(threshold=True)] = scene.matched(layer)
    scores = {variant: errors_of(form) for variant, form in forms.items()}
    best = preferred(scores)
    return _told(forms[best], scores, best)


def _told(layer: Layer, scores: Mapping[_Variant, FloatArray], best: _Variant) -> Layer:
    tried = {str(variant): float(errors.mean()) for variant, errors in scores.items()}
    return tuple(replace(p, tried=tried, chosen=str(best)) for p in layer)


def preferred(scores: Mapping[T, FloatArray]) -> T:
    """Return the last variant that is better than what was best, by more than chance explains."""
    best = next(iter(scores))
    for variant, errors in scores.items():
        gain = scores[best] - errors
        if gain.mean() > gain.std(ddof=1) / np.sqrt(len(gain)):
            best = variant
    return best


def _serves(loss: float, least: float, harm: FloatArray) -> bool:
    """Tell whether a smaller loss does the output no harm that chance does not explain."""
    return loss < least and bool(harm.mean() <= harm.std(ddof=1) / np.sqrt(len(harm)))


def _solved_variants(scene: Trial) -> Iterator[_Variant]:
    """Yield what needs a solution of its own, the simple before the complex."""
    biases = [False]
    if scene.has_bias:
        biases.append(True)
    for cross in (False, True) if scene.changed else (False,):
        for free_bias in biases:
            yield _Variant(cross=cross, free_bias=free_bias)


def _posed(scene: Trial, variant: _Variant, fitted: Moments, held: Moments) -> LayerProblem:
    """State a variant's problem, with the pull whose target loses least on the held-out samples."""
    if not variant.cross:
        return scene.problem(fitted, free_bias=variant.free_bias)
    first, *others = PULLS
    found = scene.problem(fitted, free_bias=variant.free_bias, pull=first)
    least = target_loss(found, held)
    for pull in others:
        problem = scene.problem(fitted, free_bias=variant.free_bias, pull=pull)
        loss = target_loss(problem, held)
        if loss < least:
            found, least = problem, loss
    return found


def restored(scene: Trial) -> LayerProblem:
    """Return the problem of bringing the float potential back from the spikes that arrive now.

    What it approximates, its blocks, are weights that do so, held to the original ones as much as
    leaves the least loss on the held-out samples.
    """
    fitted = _sum(scene, cross=True, starts=range(HELD_OUT - 1))
    held = scene.moments(cross=True, part=slice(HELD_OUT - 1, None, HELD_OUT))
    variant = _Variant(cross=True, free_bias=scene.has_bias)
    variant = replace(variant, pull=_posed(scene, variant, fitted, held).pull)
    return _stated(scene, variant, fitted + held)


def _sum(scene: Trial, *, cross: bool, starts: Sequence[int]) -> Moments:
    """Return the moments of every sample that does not judge."""
    first, *others = starts
    total = scene.moments(cross=cross, part=slice(first, None, HELD_OUT))
    for start in others:
        total += scene.moments(cross=cross, part=slice(start, None, HELD_OUT))
    return total
