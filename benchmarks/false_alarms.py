"""False alarms of the monitor, counted against its promise, and how soon it notices real trouble.

    python benchmarks/false_alarms.py [--years 200] [--devices 20] [--correlation 0 0.3 0.6]
        [--network FOLDER]

One false alarm in 30 days at a record a minute is promised, half of it to charts, half to
histograms. Streams are drawn, of ten channels, independent or correlated from record to record;
each device has a baseline of its own. Trouble is put into the bundled test set, with event noise
drawn anew, and counted by the engine on a network that ``osbc-deploy --target loihi2-sim -o
FOLDER`` wrote.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.signal import lfilter

from osbc_deploy.bundled.digits import digits_events
from osbc_deploy.fixedpoint.network import FixedPointNetwork
from osbc_deploy.formats.stored import read_stored
from osbc_deploy.monitor.baseline import Promise, make_baseline
from osbc_deploy.monitor.charts import REFERENCE, count_alarms
from osbc_deploy.monitor.intake import Intake
from osbc_deploy.monitor.judgement import judge
from osbc_deploy.monitor.thresholds import chart_limits, histogram_limits, strange
from osbc_deploy.telemetry.counting import count_window
from osbc_deploy.telemetry.record import Window

_DAY = 1440
_YEAR = 365 * _DAY
_PROMISED = 30 * _DAY
_CHANNELS = 10
_BASELINE = 7000
_PERIOD = 60
_WINDOW = 10
"""Samples of a record of real data."""


def normal(random: np.random.Generator, n: int, rho: float, channels: int = _CHANNELS) -> NDArray:
    noise = random.standard_normal((channels, n + 100))
    return np.ascontiguousarray(lfilter([np.sqrt(1 - rho**2)], [1, -rho], noise)[:, 100:].T)


def charts(rho: float, years: int, devices: int) -> float:
    """Return alarms over those promised."""
    random, alarms = np.random.default_rng(int(100 * rho)), 0
    none, all_ = np.zeros((1, _CHANNELS)), np.ones((1, _CHANNELS))
    for _ in range(devices):
        baseline = normal(random, _BASELINE, rho)
        limits = chart_limits(baseline, np.full(_CHANNELS, 1e-9), 2 * _PROMISED)
        for _ in range(years // devices):
            scores = limits.scores(normal(random, _YEAR, rho))
            alarms += count_alarms(scores, np.zeros((1, 1), np.int64), _YEAR, _YEAR, none, all_,
                                   REFERENCE, limits.threshold)  # fmt: skip
    return alarms / (years // devices * devices * _YEAR / (2 * _PROMISED))


def histograms(rho: float, years: int, devices: int) -> float:
    """Return the same for three histograms, of 10 samples a record, whose shares wander."""
    random, alarms = np.random.default_rng(int(100 * rho) + 1), 0

    def drawn(n: int) -> list[NDArray]:
        found = []
        for k in range(3):
            weights = np.exp(0.3 * normal(random, n, rho, 8) - 0.2 * k * np.arange(8))
            found.append(random.multinomial(10, weights / weights.sum(axis=1, keepdims=True)))
        return found

    days = years // devices * 365
    for _ in range(devices):
        block = max(10, int(np.ceil(10 * (1 + rho) / (1 - rho))))
        limits = histogram_limits(drawn(_BASELINE), _PERIOD, 2 * _PROMISED, block)
        for _ in range(years // devices):
            over = np.zeros(_YEAR // _PERIOD, bool)
            for counts, shares, usual in zip(
                drawn(_YEAR), limits.shares, limits.usual, strict=True
            ):
                sums = counts.reshape(_YEAR // _PERIOD, _PERIOD, -1).sum(axis=1)
                over |= strange(sums, np.array(shares)) / usual > limits.threshold
            alarms += int(over.sum())
    return alarms / (devices * days / 60)


def counted(network: FixedPointNetwork, spikes: NDArray, start: int = 0) -> list[Window]:
    whole = len(spikes) // _WINDOW
    parts = spikes[: whole * _WINDOW].reshape(whole, _WINDOW, *spikes.shape[1:])
    return [count_window(network, part, sequence=start + i) for i, part in enumerate(parts)]


def samples(seeds: range, random: np.random.Generator) -> tuple[NDArray, NDArray]:
    drawn = [digits_events("test", seed) for seed in seeds]
    order = random.permutation(sum(len(d.labels) for d in drawn))
    return (np.concatenate([d.spikes for d in drawn])[order],
            np.concatenate([d.labels for d in drawn])[order])  # fmt: skip


def trouble(kind: str, spikes: NDArray, labels: NDArray, random: np.random.Generator) -> NDArray:
    """Return samples as a sensor in trouble gives them."""
    shape, made = spikes.shape[2:], spikes.copy()
    if kind.endswith("dead pixels"):
        made[:, :, :, random.random(shape[1:]) < float(kind.split("%", maxsplit=1)[0]) / 100] = 0
    elif kind.endswith("hot pixels"):
        flat = made.reshape(*made.shape[:2], -1)
        flat[:, :, random.permutation(flat.shape[2])[: int(kind.split(maxsplit=1)[0])]] = 1
    elif kind.endswith("contrast lost"):
        made &= random.random(made.shape) >= float(kind.split("%", maxsplit=1)[0]) / 100
    elif kind == "only digits below 5":
        made = made[labels < 5]
    return made


def delays(folder: Path) -> None:
    network, random = read_stored(folder, None), np.random.default_rng(0)
    start = time.perf_counter()
    healthy, _ = samples(range(1, 31), random)
    windows = counted(network, healthy)
    names = [network.layers[p.name] for p in network.populations]
    promise = Promise(days=30, per_day=_DAY)
    baseline = make_baseline(Intake(tuple(windows), {}, ()), names, promise, source="engine",
                             short=True)  # fmt: skip
    print(f"bundled network: {len(windows):,} records of {_WINDOW} samples, threshold "
          f"{baseline.threshold:.1f}, needed {baseline.needed:,} "
          f"({time.perf_counter() - start:.0f} s)")  # fmt: skip
    kinds = ["2% dead pixels", "10% dead pixels", "1 hot pixels", "5 hot pixels",
             "5% contrast lost", "20% contrast lost", "only digits below 5"]  # fmt: skip
    fine, _ = samples(range(1001, 1011), random)
    verdict = judge(counted(network, fine), baseline)
    print(f"  no trouble: {verdict['records']} records, {verdict['verdict']}")
    for kind in kinds:
        found, layers = [], []
        for run in range(5):
            before, _ = samples(range(200 + 2 * run, 202 + 2 * run), random)
            before = before[: 60 * _WINDOW]
            after, labels = samples(range(300 + 3 * run, 303 + 3 * run), random)
            bad = trouble(kind, after, labels, random)
            stream = counted(network, before) + counted(network, bad, len(before) // _WINDOW)
            verdict = judge(stream, baseline)
            moved = [c for c in verdict["channels"] + verdict["histograms"] if c["alarm"]]
            first = min((c["noticed"]["record"] for c in moved), default=None)
            found.append(None if first is None else first - len(before) // _WINDOW + 1)
            layers += verdict["moved"][:1] or ["-"]
        print(
            f"  {kind}: noticed after {found} records, moved first: {', '.join(layers)}", flush=True
        )


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--years", type=int, default=200)
    parser.add_argument("--devices", type=int, default=20)
    parser.add_argument("--correlation", type=float, nargs="*", default=[0.0, 0.3, 0.6])
    parser.add_argument("--network", type=Path)
    given = parser.parse_args()
    if given.network is not None:
        delays(given.network)
    for rho in given.correlation if given.years else ():
        start = time.perf_counter()
        ratio = charts(rho, given.years, given.devices)
        print(f"charts, correlation {rho:g}: {given.years} years, {ratio:.2f} of the alarms "
              f"promised ({time.perf_counter() - start:.0f} s)", flush=True)  # fmt: skip
    for rho in given.correlation if given.years else ():
        start = time.perf_counter()
        years = max(given.years // 10, given.devices)
        ratio = histograms(rho, years, given.devices)
        print(f"histograms, correlation {rho:g}: {years} years, {ratio:.2f} of the alarms promised "
              f"({time.perf_counter() - start:.0f} s)", flush=True)  # fmt: skip
    return 0


if __name__ == "__main__":
    sys.exit(main())
