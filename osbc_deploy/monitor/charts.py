"""Two-sided CUSUM charts (Page, 1954), and how often they alarm on resampled streams."""

from __future__ import annotations

import numpy as np

from osbc_deploy.arrays import FloatArray, IntArray
from osbc_deploy.jit import compiled

__all__ = ["REFERENCE", "count_alarms", "run_charts"]

REFERENCE = 0.5
"""What a chart forgives each record, in standard deviations: half of the shift it is best at."""


@compiled
def run_charts(scores: FloatArray, reference: float) -> tuple[FloatArray, IntArray]:
    """Run the charts of all channels, which go on after an alarm.

    Parameters
    ----------
    scores : ndarray (n, C)
        Standardized, in control of mean 0.
    reference : float

    Returns
    -------
    ndarray (2, n, C)
        Sums upward and downward after each record.
    ndarray of int (2, n, C)
        For each, the record at which the present excursion began.
    """
    n, channels = scores.shape
    sums = np.zeros((2, n, channels))
    begins = np.zeros((2, n, channels), np.int64)
    for c in range(channels):
        for side in range(2):
            sign = 1.0 - 2.0 * side
            total, begin = 0.0, 0
            for i in range(n):
                total += sign * scores[i, c] - reference
                if total <= 0.0:
                    total, begin = 0.0, i + 1
                sums[side, i, c] = total
                begins[side, i, c] = begin
    return sums, begins


@compiled
def count_alarms(
    scores: FloatArray,
    starts: IntArray,
    length: int,
    records: int,
    means: FloatArray,
    scales: FloatArray,
    reference: float,
    threshold: float,
) -> int:
    """Count alarms on streams made of blocks of one; all charts begin anew after each.

    Parameters
    ----------
    scores : ndarray (n, C)
    starts : ndarray of int (R, blocks)
        First records of the blocks of each stream; what reaches beyond the end goes on at the
        start.
    length, records : int
        Records of a block, and of a stream.
    means, scales : ndarray (R, C)
        What each stream is standardized with, once more.
    reference, threshold : float
    """
    n, channels = scores.shape
    alarms = 0
    high, low = np.zeros(channels), np.zeros(channels)
    for r in range(starts.shape[0]):
        high[:] = 0.0
        low[:] = 0.0
        for i in range(records):
            row = (starts[r, i // length] + i % length) % n
            alarm = False
            for c in range(channels):
                z = (scores[row, c] - means[r, c]) * scales[r, c]
                up, down = high[c] + z - reference, low[c] - z - reference
                high[c] = up if up > 0.0 else 0.0
                low[c] = down if down > 0.0 else 0.0
                if high[c] > threshold or low[c] > threshold:
                    alarm = True
            if alarm:
                alarms += 1
                high[:] = 0.0
                low[:] = 0.0
    return alarms
