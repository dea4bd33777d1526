"""Charts and limits against textbook values, scipy and plain loops."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from scipy.signal import lfilter
from scipy.stats import power_divergence

from device_records import few_streams
from osbc_deploy.monitor.charts import count_alarms, run_charts
from osbc_deploy.monitor.thresholds import chart_limits, histogram_limits, shares, strange
from osbc_deploy.monitor.whitening import fit


@pytest.fixture(scope="module", autouse=True)
def _few_streams() -> Iterator[None]:
    with few_streams():
        yield


def test_charts_are_pages_recursion() -> None:
    scores = np.random.default_rng(0).standard_normal((300, 2))
    sums, begins = run_charts(scores, 0.5)
    for c in range(2):
        up = down = 0.0
        for i, z in enumerate(scores[:, c]):
            up, down = max(0.0, up + z - 0.5), max(0.0, down - z - 0.5)
            assert sums[:, i, c] == pytest.approx([up, down])
            if up > 0:
                # Since its beginning, the sum has been everything that came.
                assert up == pytest.approx((scores[begins[0, i, c] : i + 1, c] - 0.5).sum())


def test_a_sum_that_is_back_at_0_begins_anew() -> None:
    sums, begins = run_charts(np.array([[2.5], [-1.5], [0.5], [3.0], [0.5]]), 0.5)
    assert sums[0, :, 0].tolist() == [2.0, 0.0, 0.0, 2.5, 2.5]
    assert begins[0, :, 0].tolist() == [0, 2, 3, 3, 3]


def test_alarms_are_counted_on_what_blocks_make() -> None:
    random = np.random.default_rng(1)
    scores = random.standard_normal((60, 3))
    starts = random.integers(0, 60, (4, 25))
    means, scales = random.normal(0, 0.1, (4, 3)), random.uniform(0.9, 1.1, (4, 3))
    found = count_alarms(scores, starts, 8, 200, means, scales, 0.5, 3.0)
    expected = 0
    for r in range(4):
        rows = np.concatenate([(s + np.arange(8)) % 60 for s in starts[r]])
        high, low = np.zeros(3), np.zeros(3)
        for z in (scores[rows] - means[r]) * scales[r]:
            high, low = np.maximum(0, high + z - 0.5), np.maximum(0, low - z - 0.5)
            if (high > 3).any() or (low > 3).any():
                expected += 1
                high, low = np.zeros(3), np.zeros(3)
    assert found == expected > 20


@pytest.mark.parametrize(("between", "threshold"), [(168, 4.0), (465, 5.0)])
def test_thresholds_of_independent_records_are_the_textbooks(
    between: float, threshold: float
) -> None:
    # Two-sided, k = 1/2: Montgomery, Introduction to Statistical Quality Control, table 9.3.
    values = np.random.default_rng(2).standard_normal((20_000, 1))
    found = chart_limits(7 + 3 * values, np.array([1e-6]), between)
    assert found.threshold == pytest.approx(threshold, abs=0.2)
    assert found.channels[0].mean == pytest.approx(7, abs=0.1)


@pytest.mark.parametrize("rho", [0.3, 0.6])
def test_correlated_records_alarm_no_oftener(rho: float) -> None:
    random = np.random.default_rng(3)

    def drawn(n: int) -> np.ndarray:
        return np.asarray(lfilter([1], [1, -rho], random.standard_normal((n, 2)), axis=0))

    limits = chart_limits(drawn(6000), np.full(2, 1e-6), 500)
    scores = limits.scores(drawn(100_000))
    once, zeros, ones = np.zeros((1, 1), np.int64), np.zeros((1, 2)), np.ones((1, 2))
    alarms = count_alarms(scores, once, 10**5, 10**5, zeros, ones, 0.5, limits.threshold)
    assert 100 < alarms < 400
    # Without the whitening it is a different matter.
    plain = (drawn(100_000) - 0) * np.sqrt(1 - rho**2)
    assert count_alarms(plain, once, 10**5, 10**5, zeros, ones, 0.5, limits.threshold) > 2 * alarms


def test_an_autoregression_is_found_and_taken_out() -> None:
    noise = np.random.default_rng(4).standard_normal(50_000)
    values = 5 + 2 * lfilter([1], [1, -0.5, -0.3], noise)
    found = fit(values, 1e-6)
    assert found.coefficients[:2] == pytest.approx((0.5, 0.3), abs=0.02)
    assert found.deviation == pytest.approx(2, rel=0.02)
    scores = found.scores(values)
    assert np.corrcoef(scores, noise)[0, 1] > 0.999


def test_what_never_moved_alarms_at_a_few_counts_only() -> None:
    found = fit(np.zeros(1000), 0.05)
    assert (found.coefficients, found.deviation) == ((), 0.05)
    # Nor is one that moves by less than a count taken for finer than that.
    moved = fit(0.001 * np.random.default_rng(0).standard_normal(1000), 0.05)
    assert moved.deviation == 0.05
    limits = chart_limits(np.zeros((1000, 1)), np.full(1, 0.05), 86_400)
    assert limits.threshold > 9


def test_a_baseline_must_be_longer_for_a_larger_promise() -> None:
    values = np.random.default_rng(5).standard_normal((1500, 1))
    needed = [chart_limits(values, np.full(1, 1e-6), n).needed for n in (100, 1000, 4000)]
    assert needed == sorted(needed)
    assert 200 < needed[0] < needed[-1] < 6000


def test_g_is_scipys() -> None:
    counts = np.array([[3, 7, 10, 0], [12, 1, 4, 3]])
    expected = shares(np.array([30, 30, 40, 5]))
    assert expected == pytest.approx(np.array([30.5, 30.5, 40.5, 5.5]) / 107)
    for row, value in zip(counts, strange(counts, expected), strict=True):
        assert value == pytest.approx(
            power_divergence(row, expected * row.sum(), lambda_="log-likelihood").statistic
        )


def test_histograms_alarm_as_often_as_promised() -> None:
    random = np.random.default_rng(6)
    weights = [[0.5, 0.3, 0.2], [0.1, 0.1, 0.2, 0.6]]

    def drawn(n: int) -> list[np.ndarray]:
        return [random.multinomial(10, w, size=n) for w in weights]

    limits = histogram_limits(drawn(4000), 20, 200, 8)
    periods = 5000
    ratios = [
        strange(counts.reshape(periods, 20, -1).sum(axis=1), np.array(s)) / u
        for counts, s, u in zip(drawn(20 * periods), limits.shares, limits.usual, strict=True)
    ]
    alarms = (np.max(ratios, axis=0) > limits.threshold).mean()
    assert 0.07 < alarms < 0.14
    odd = random.multinomial(200, [0.4, 0.3, 0.3])
    assert strange(odd, np.array(limits.shares[0])) / limits.usual[0] > limits.threshold
