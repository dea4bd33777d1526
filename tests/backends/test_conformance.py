"""Random networks: engine, plain specification and Lava agree in every s, u and v.

The long version is ``make conformance``.
"""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from osbc_backend_lava.backend import BACKEND, LavaJob
from osbc_deploy.fixedpoint.formats import NumberFormats
from osbc_deploy.fixedpoint.ranges import on_grid
from osbc_deploy.testing import Case, assert_backend_conforms, assert_same_bits, random_networks
from osbc_deploy.testing.backends import engine_states

NETWORKS = 36


@pytest.fixture(scope="module")
def drawn(formats: NumberFormats) -> list[Case]:
    return random_networks(NETWORKS, formats)


def test_the_networks_cover_what_there_is(drawn: list[Case]) -> None:
    features = {feature for case in drawn for feature in case.features}
    assert {"dense", "conv", "delays", "stride", "groups", "excitatory", "inhibitory"} <= features
    assert {"recurrent", "skip", "subtractive reset", "timed reset", "graded input"} <= features
    assert "gates" in features
    assert {f"graded input, {kind}" for kind in ("signed", "unsigned", "integers", "values")} <= (
        features
    )
    seen = [a for case in drawn for a in engine_states(case).activity.values()]
    assert sum(a.wraps for a in seen) > 0
    assert sum(a.saturations for a in seen) > 0


def test_compiled_and_plain_engine_agree(drawn: list[Case]) -> None:
    for case in drawn:
        ours = engine_states(case, batch_size=2, threads=3)
        plain = engine_states(case, kernels="plain", batch_size=3)
        assert_same_bits(case, ours, str(case.features))
        assert_same_bits(case, plain, str(case.features))
        for name, seen in ours.activity.items():
            expected = plain.activity[name]
            assert (seen.u_peak, seen.v_peak, seen.wraps, seen.saturations) == (
                (expected.u_peak, expected.v_peak, expected.wraps, expected.saturations)
            )
            assert np.array_equal(seen.counts, expected.counts)


def test_engine_and_lava_agree_in_two_sessions_at_once(drawn: list[Case]) -> None:
    def compare(start: int) -> None:
        few = drawn[start::2]
        # The second session takes Lava's Sparse for everything.
        jobs = [
            LavaJob(
                c.network, c.spikes, [p.name for p in c.network.populations], (0.05, 2.0)[start]
            )
            for c in few
        ]
        for case, theirs in zip(few, BACKEND.run_many(jobs, 300.0), strict=True):
            counted = assert_same_bits(case, theirs, str(case.features))
            assert set(theirs.u) == set(theirs.v) == {p.name for p in case.network.populations}
            assert counted["u"] == counted["v"] >= counted["spikes"]

    with ThreadPoolExecutor(max_workers=2) as pool:
        list(pool.map(compare, range(2)))


@pytest.mark.parametrize(("name", "networks"), [("engine", 20), ("lava", 1)])
def test_our_backends_conform(name: str, networks: int) -> None:
    counted = assert_backend_conforms(name, networks, start=1)
    assert counted["u"] > 0


GRIDS = """
import sys
import numpy as np
from osbc_backend_lava.compatibility import prepare
prepare()
from lava.utils.weightutils import SignMode, clip_weights, truncate_weights
raw, found = np.arange(-300, 301), {}
for mode, one in ((SignMode.MIXED, raw), (SignMode.EXCITATORY, raw[raw >= 0]),
                  (SignMode.INHIBITORY, raw[raw <= 0])):
    for bits in range(1, 9):
        clipped = clip_weights(one.copy(), mode, num_bits=8)
        found[f"{mode.name.lower()} {bits}"] = truncate_weights(clipped, mode, bits)
np.savez(sys.argv[1], **found)
"""
"""Lava wants to say how processes start, which only a process of its own can let it."""


def test_the_weight_grid_is_lavas(formats: NumberFormats, tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", GRIDS, str(tmp_path / "grids.npz")], check=True)
    raw = np.arange(-300, 301)
    ones = {"mixed": raw, "excitatory": raw[raw >= 0], "inhibitory": raw[raw <= 0]}
    with np.load(tmp_path / "grids.npz") as theirs:
        assert len(theirs.files) == 24
        for name in theirs.files:
            sign, bits = name.split()
            ours = on_grid(ones[sign], int(bits), sign, formats)  # type: ignore[arg-type]
            assert np.array_equal(ours, theirs[name]), name
