"""A real N-MNIST recording: what is in it, read twice, and how fast; binning against tonic's.

    python benchmarks/datasets.py [--recording FILE.bin] [--steps T]

Needs tonic (pip install 'osbc-deploy[datasets]') and a recording in the original format.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
from _accuracy import table

from osbc_deploy.data.events import bin_events, read_nmnist

SENSOR = 34


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--recording", type=Path, default=Path("../shared/data/nmnist/sample_nmnist.bin")
    )
    parser.add_argument("--steps", type=int, default=15)
    given = parser.parse_args()
    if not given.recording.is_file():
        raise SystemExit(f"{given.recording}: no such file. Name one with --recording.")
    events = read_nmnist(given.recording)
    alone = parse(given.recording.read_bytes())
    same = np.array_equal(
        np.stack([events.x, events.y, events.polarity, events.t], axis=1), np.array(alone)
    )
    duration = int(events.t.max() - events.t.min() + 1)
    print(f"{given.recording.name}: {len(events):,} events in {duration / 1000:.1f} ms, ", end="")
    print(f"{np.count_nonzero(events.polarity):,} ON; parsed event by event: same {same}")
    frames = bin_events(events, given.steps, SENSOR)
    start, stop = alone[0][3], alone[-1][3] + 1
    by_hand = np.zeros_like(frames)
    counts = np.zeros(given.steps, int)
    for x, y, p, t in alone:
        step = max(k for k in range(given.steps) if (t - start) * given.steps >= k * (stop - start))
        by_hand[step, p, y, x] = 1
        counts[step] += 1
    print(f"frames binned event by event: same {np.array_equal(frames, by_hand)}")
    theirs = tonic_frames(given.recording, given.steps)
    table(
        ["step", *map(str, range(given.steps)), "all"],
        [
            ["events", *map(str, counts), str(counts.sum())],
            ["pixels that fire", *row(frames)],
            ["the same by tonic's ToFrame", *row(theirs)],
            ["pixels that differ", *row(frames != theirs)],
        ],
    )
    repeats = 200
    begin = time.perf_counter()
    for _ in range(repeats):
        bin_events(read_nmnist(given.recording), given.steps, SENSOR)
    print(f"\nread and binned in {(time.perf_counter() - begin) / repeats * 1000:.2f} ms")


def row(frames: np.ndarray) -> list[str]:
    each = frames.reshape(len(frames), -1).sum(axis=1, dtype=int)
    return [*map(str, each), str(each.sum())]


def parse(data: bytes) -> list[tuple[int, int, int, int]]:
    """Return (x, y, polarity, t) of every event, with integers of Python alone."""
    found, late = [], 0
    for k in range(0, len(data), 5):
        bits = int.from_bytes(data[k : k + 5], "big")
        x, y, p, t = bits >> 32, bits >> 24 & 255, bits >> 23 & 1, bits & 0x7FFFFF
        if y == 240:  # the time ran over
            late += 1 << 13
        else:
            found.append((x, y, p, t + late))
    return found


def tonic_frames(recording: Path, steps: int) -> np.ndarray:
    from tonic import io, transforms

    dtype = np.dtype([("x", int), ("y", int), ("t", int), ("p", int)])
    found = io.read_mnist_file(str(recording), dtype=dtype)
    frames = transforms.ToFrame(sensor_size=(SENSOR, SENSOR, 2), n_time_bins=steps)(found)
    return (frames != 0).astype(np.uint8)


if __name__ == "__main__":
    main()
