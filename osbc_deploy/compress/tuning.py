"""Compress one population's weights in several ways and keep what serves the output best.

The layers before are compressed already, so other spikes arrive than the weights were trained for.
What can make up for that is tried on four fifths of the calibration samples and judged on the
rest by the error of the network's output, the layers behind still being the float network's:

cross term
    approximate the weights that bring the float potential back from the spikes that arrive now,
    held to the original weights as much as leaves the least loss on the held-out samples;
free bias
    where there is a bias, let it take what the weights leave on average;
full range
    at 2 and 3 bits, take the code that two's complement has below zero and not above;
threshold
    match the float population's mean rate (pruned weights carry less variance, so neurons fire
    too little).

A variant replaces a simpler one only when its error is smaller by more than the standard error of
the difference. The winner is solved again on all samples. Labels are not used.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from osbc_deploy.arrays import FloatArray
from osbc_deploy.compress.guard import target_loss
from osbc_deploy.compress.moments import Moments
from osbc_deploy.compress.problem import LayerProblem
from osbc_deploy.compress.scene import HELD_OUT, Layer

__all__ = ["Trial", "tune", "tune_threshold"]

_PULLS = (1.0, 3.0, 10.0, 30.0)
"""Multiples of the damping that may hold the cross term's target to the weights as they were."""

_FEW_BITS = 3
"""Where one code more is a third or a seventh of all; of four bits, 7 % of the codes."""

Solve = Callable[[LayerProblem], Layer]


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

    def __str__(self) -> str:
        parts = [
            name
            for name, on in (
                (f"cross term (pull {self.pull:g})", self.cross),
                ("free bias", self.free_bias),
                ("threshold", self.threshold),
                ("full range", self.full),
            )
            if on
        ]
        return " + ".join(parts) or "plain"


def tune(scene: Trial, solve: Solve) -> tuple[Layer, LayerProblem]:
    """Try the variants of one population and return the best, solved on all samples.

    Parameters
    ----------
    scene : Trial
        With at least ``HELD_OUT * MIN_HELD_OUT`` samples.
    solve : callable
        Prunes and quantizes a problem.

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
    for asked in _solved_variants(scene):
        if asked.cross not in moments:
            moments[asked.cross] = (
                _sum(scene, cross=asked.cross, starts=range(HELD_OUT - 1)),
                scene.moments(cross=asked.cross, part=slice(HELD_OUT - 1, None, HELD_OUT)),
            )
        problem = _posed(scene, asked, *moments[asked.cross])
        variant = replace(asked, pull=problem.pull)
        layer = solve(problem)
        scores[variant] = errors_of(layer)
        if scene.can_shift:
            scores[replace(variant, threshold=True)] = errors_of(scene.matched(layer))
    best = _best(scores)
    fitted, held = moments[best.cross]
    if 1 < layer[0].bits <= _FEW_BITS and scene.method != "magnitude":
        best = replace(best, full=True)
        scores[best] = errors_of(_solved(scene, solve, best, fitted)[0])
        best = _best(scores)
    layer, problem = _solved(scene, solve, best, fitted + held)
    return _told(layer, scores, best), problem


def _solved(
    scene: Trial, solve: Solve, variant: _Variant, moments: Moments
) -> tuple[Layer, LayerProblem]:
    problem = scene.problem(moments, free_bias=variant.free_bias, pull=variant.pull)
    problem = replace(problem, full=variant.full)
    layer = solve(problem)
    return scene.matched(layer) if variant.threshold else layer, problem


def tune_threshold(scene: Trial, layer: Layer) -> Layer:
    """Return a layer that no sample had a part in, with another threshold if that is better."""
    errors_of = scene.judge()
    forms = {_Variant(): layer}
    if scene.can_shift:
        forms[_Variant(threshold=True)] = scene.matched(layer)
    scores = {variant: errors_of(form) for variant, form in forms.items()}
    best = _best(scores)
    return _told(forms[best], scores, best)


def _told(layer: Layer, scores: Mapping[_Variant, FloatArray], best: _Variant) -> Layer:
    tried = {str(variant): float(errors.mean()) for variant, errors in scores.items()}
    return tuple(replace(p, tried=tried, chosen=str(best)) for p in layer)


def _best(scores: Mapping[_Variant, FloatArray]) -> _Variant:
    """Return the last variant that is better than what was best, by more than chance explains."""
    best = next(iter(scores))
    for variant, errors in scores.items():
        gain = scores[best] - errors
        if gain.mean() > gain.std(ddof=1) / np.sqrt(len(gain)):
            best = variant
    return best


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
    problems = [scene.problem(fitted, free_bias=variant.free_bias, pull=p) for p in _PULLS]
    return min(problems, key=lambda problem: target_loss(problem, held))


def _sum(scene: Trial, *, cross: bool, starts: Sequence[int]) -> Moments:
    """Return the moments of every sample that does not judge."""
    parts = [scene.moments(cross=cross, part=slice(s, None, HELD_OUT)) for s in starts]
    total = parts[0]
    for part in parts[1:]:
        total += part
    return total
