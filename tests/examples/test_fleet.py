"""The fleet in a box, in small: troubles are noticed, and what goes wrong goes back."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from device_records import few_streams
from osbc_deploy.fixedpoint.formats import NumberFormats
from osbc_deploy.fixedpoint.network import (
    FixedDense,
    FixedPointNetwork,
    FixedPopulation,
    FixedProjection,
)
from osbc_deploy.release.checks import Device
from osbc_deploy.release.keys import make_keys, public_bytes, read_private
from osbc_deploy.release.storage import Geometry
from osbc_deploy.release.store import open_store, status

sys.path.append(str(Path(__file__).parents[2] / "examples" / "fleet"))

import fleet
import page
import run


def network(formats: NumberFormats, seed: int) -> FixedPointNetwork:
    """30 neurons, then 3, of 40 inputs."""
    random = np.random.default_rng(seed)

    def population(name: str, size: int) -> FixedPopulation:
        zero = np.zeros(size, np.int64)
        return FixedPopulation(
            name, (size,), du=zero + 4095, dv=zero + 2048, vth=zero + 120, bias_mant=zero,
            bias_exp=zero, u_init=zero, v_init=zero, spiking=True, v_scale=zero + 1.0,
            v_offset=zero + 0.0,
        )  # fmt: skip

    def projection(pre: str, post: str, before: int, after: int) -> FixedProjection:
        weight = 2 * random.integers(-12, 24, (after, before))
        return FixedProjection(f"to {post}", pre, post, FixedDense(weight), 8, 0)

    return FixedPointNetwork(
        (40,), (population("a", 30), population("b", 3)),
        (projection("input", "a", 40, 30), projection("a", "b", 30, 3)), formats, "sum",
    )  # fmt: skip


def test_a_small_fleet(
    formats: NumberFormats, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    random = np.random.default_rng(0)
    world = run.World(
        "noise", (random.random((200, 6, 40)) < 0.3).astype(np.uint8),
        *(network(formats, seed) for seed in range(3)),
    )  # fmt: skip
    make_keys(tmp_path / "key.pem")
    with few_streams():
        versions = run.versions_of(world, tmp_path / "key.pem", 300)
    takes = Device(run.TARGET, (public_bytes(read_private(tmp_path / "key.pem")),),
                   Geometry(4096, 8192))  # fmt: skip
    usual = {0: 1, 6: 2}
    plans = [
        fleet.Plan(usual),
        fleet.Plan(usual | {14: 3}),
        fleet.Plan(usual | {14: 4}),
        fleet.Plan(usual | {14: 5}, None, "rollback"),
        fleet.Plan(usual, fleet.Trouble("faint", 20, run.faint)),
    ]
    with fleet.built(tmp_path, ("-O0",)) as program:
        devices = fleet.run_fleet(
            tmp_path / "devices", plans, versions, world.scene, takes, records=40, each=5,
            program=program,
        )  # fmt: skip
    events = [[(e["kind"], e["record"]) for e in d.events if e["kind"] not in ("boot", "update")]
              for d in devices]  # fmt: skip
    well = [("confirmed", 5), ("confirmed", 11)]
    assert events[0] == well
    # A self-test fails at once, silence within the two records that are more than its limit.
    assert events[1] == [*well, ("reverted", 14)]
    assert events[2] == [*well, ("reverted", 16)]
    assert [kind for kind, _ in events[3]] == ["confirmed"] * 3 + ["drift", "rollback"]
    assert [kind for kind, _ in events[4]] == ["confirmed"] * 2 + ["trouble", "drift"]
    for device, version, reason in zip(
        devices, (2, 2, 2, 2, 2), ("none", "self-test", "silent", "host", "none"), strict=True
    ):
        with open_store(device.store, change=False) as slots:
            found = status(slots)
        assert (found["good"]["version"], found["reason"]) == (version, reason)
    incidents = [i for d in devices for i in page.incidents_of(d, versions)]
    assert [i["noticed"] is not None for i in incidents] == [True] * 4
    text = page.fleet_page("<noise>", devices, versions, records=40, window=10, each=5)
    assert "4 of 4" in text
    assert "<noise>" not in text
    assert "http" not in text
