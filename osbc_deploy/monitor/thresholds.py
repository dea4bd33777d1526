"""Thresholds that keep a promise: a number of records between two false alarms, on average.

They come from a block bootstrap of the baseline, twice: of the streams that are to come, and of the
baseline itself, whose mean and deviation are estimates.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import rel_entr

from osbc_deploy.arrays import FloatArray, IntArray
from osbc_deploy.monitor.charts import REFERENCE, count_alarms
from osbc_deploy.monitor.whitening import Autoregression, fit

__all__ = [
    "ChartLimits",
    "HistogramLimits",
    "chart_limits",
    "histogram_limits",
    "shares",
    "strange",
]

_SEED = 20260
_SIMULATED = 10**7
"""Records of all resampled streams together."""
_STREAMS = (100, 2000)
_STEPS = 4
_LARGEST = 1000.0
_OVERSHOOT = 1.166
_PERIODS = 25_000
_REFERENCES = 500
_FACTOR = 2.0
"""What the time between false alarms may be off by, at one standard error of the baseline."""


@dataclass(frozen=True)
class ChartLimits:
    """What the charts of all channels are held against.

    Attributes
    ----------
    channels : tuple of Autoregression
    threshold : float
        Of every chart.
    needed : int
        Records that a baseline must have for the promise.
    """

    channels: tuple[Autoregression, ...]
    threshold: float
    needed: int

    def scores(self, values: FloatArray) -> FloatArray:
        """Return standardized residuals (n, C) of a stream (n, C)."""
        found = [c.scores(values[:, i]) for i, c in enumerate(self.channels)]
        return np.stack(found, axis=1) if found else np.zeros((len(values), 0))


def block_length(records: int) -> int:
    """Return the records of a block: residuals are nearly independent, so few are enough."""
    return max(2, math.ceil(math.sqrt(math.sqrt(records))))


def _needed(threshold: float, block: int) -> int:
    """Return how long a baseline must be.

    For charts of reference k and threshold h, the logarithm of the time between alarms moves by
    2 h for a mean that is off by one deviation, by 2 k h for the relative error of the variance of
    long sums, whose square is 4 L / 3 n for blocks of L, and by 4 k h for a coefficient.
    """
    k = REFERENCE
    spread = (2 * threshold) ** 2 + (2 * k * threshold) ** 2 * 4 * block / 3
    spread += (4 * k * threshold) ** 2
    return math.ceil(spread / math.log(_FACTOR) ** 2)


def chart_limits(values: FloatArray, grains: FloatArray, records_between: float) -> ChartLimits:
    """Return the limits of charts.

    Parameters
    ----------
    values : ndarray (n, C)
        The baseline.
    grains : ndarray (C,)
        What one count more changes.
    records_between : float
        Records between two false alarms of any of the charts.
    """
    channels = tuple(fit(values[:, c], float(grains[c])) for c in range(values.shape[1]))
    n, block = len(values), block_length(len(values))
    scores = ChartLimits(channels, 0.0, 0).scores(values)
    records = math.ceil(records_between)
    streams = int(np.clip(_SIMULATED // records, *_STREAMS))
    random = np.random.default_rng(_SEED)
    starts = random.integers(0, n, (streams, -(-records // block)))
    means, scales = _again(scores, block, streams, random)

    def rate(threshold: float, taken: int) -> float:
        """Return alarms per stream, of as many streams."""
        found = count_alarms(
            scores, starts[:taken], block, records, means, scales, REFERENCE, threshold
        )
        return max(found, 0.5) / taken

    # Never below that of a single channel of independent normal records (Siegmund, 1985), of which
    # there may be more than a baseline shows: clipping that has not happened yet, say.
    least = math.log(max(records_between, 4) / 2) - _OVERSHOOT
    threshold = max(_crossing(rate, streams), least)
    return ChartLimits(channels, threshold, _needed(threshold, block))


def _again(
    scores: FloatArray, block: int, streams: int, random: np.random.Generator
) -> tuple[FloatArray, FloatArray]:
    """Return mean and inverse deviation of as many resampled baselines."""
    n = len(scores)
    index = np.arange(block)
    means = np.empty((streams, scores.shape[1]))
    scales = np.empty_like(means)
    for r in range(streams):
        rows = (random.integers(0, n, (-(-n // block), 1)) + index).ravel()[:n] % n
        drawn = scores[rows]
        means[r] = drawn.mean(axis=0)
        deviation = drawn.std(axis=0)
        scales[r] = 1 / np.where(deviation > 0, deviation, 1.0)
    return means, scales


def _crossing(rate: Callable[[float, int], float], streams: int) -> float:
    """Return the threshold at which there is one alarm a stream.

    The logarithm of the rate is nearly a straight line, with a slope of 2 k or more.
    """
    few = max(streams // 10, 10)
    low, high = 1.0, 4.0
    while rate(high, few) > 1 and high < _LARGEST:
        low, high = high, high * 1.5
    points: list[tuple[float, float]] = []
    guess = (low + high) / 2
    for _ in range(_STEPS):
        points.append((guess, math.log(rate(guess, streams))))
        points.sort(key=lambda point: abs(point[1]))
        slope = -2 * REFERENCE
        if len(points) > 1 and points[0][0] != points[1][0]:
            slope = (points[1][1] - points[0][1]) / (points[1][0] - points[0][0])
        slope = min(slope, -REFERENCE)
        guess = min(max(points[0][0] - points[0][1] / slope, 0.1), _LARGEST)
    return guess


@dataclass(frozen=True)
class HistogramLimits:
    """What histograms over a period are held against.

    Attributes
    ----------
    period : int
        Records of a period.
    shares : tuple of tuple of float
        Of each histogram.
    usual : tuple of float
        Mean G of each in control.
    threshold : float
        Of G over its usual value.
    """

    period: int
    shares: tuple[tuple[float, ...], ...]
    usual: tuple[float, ...]
    threshold: float


def shares(counts: IntArray) -> FloatArray:
    """Return shares of counts (..., K), with half a count more in every place."""
    raised = counts + 0.5
    found: FloatArray = raised / raised.sum(axis=-1, keepdims=True)
    return found


def strange(counts: IntArray, expected: FloatArray) -> FloatArray:
    """Return the G statistic of counts (..., K) for shares (..., K)."""
    total = counts.sum(axis=-1, keepdims=True)
    found: FloatArray = 2 * rel_entr(counts.astype(float), total * expected).sum(axis=-1)
    return found


def histogram_limits(
    histograms: Sequence[IntArray], period: int, records_between: float, block: int
) -> HistogramLimits:
    """Return the limits of histograms.

    Parameters
    ----------
    histograms : sequence of ndarray of int (n, K)
        The baseline, record by record.
    period : int
        Records that are added up.
    records_between : float
        Records between two false alarms of any of them.
    block : int
        Records of a block: histograms are of the records themselves, which are correlated.
    """
    n = len(histograms[0]) if histograms else 0
    random = np.random.default_rng(_SEED + 1)
    blocks, whole = -(-period // block), -(-n // block)
    starts = random.integers(0, n, (_PERIODS, blocks)) if n else np.zeros((0, 0), np.int64)
    again = random.integers(0, n, (_REFERENCES, whole)) if n else np.zeros((0, 0), np.int64)
    ratios, known, usual = [], [], []
    for counts in histograms:
        circular = np.concatenate([counts, counts[:block]])
        sums = np.concatenate([np.zeros((1, counts.shape[1]), np.int64), circular.cumsum(axis=0)])
        held = sums[block:] - sums[:-block]
        reference = shares(held[again].sum(axis=1))
        found = strange(held[starts].sum(axis=1), np.resize(reference, (_PERIODS, counts.shape[1])))
        mean = float(found.mean())
        ratios.append(found / mean if mean > 0 else found)
        known.append(tuple(map(float, shares(counts.sum(axis=0)))))
        usual.append(max(mean, 1e-9))
    if not ratios:
        return HistogramLimits(period, (), (), math.inf)
    largest = np.max(ratios, axis=0)
    chance = min(0.5, period / records_between)
    threshold = float(np.quantile(largest, 1 - chance))
    return HistogramLimits(period, tuple(known), tuple(usual), threshold)
