"""What ``osbc-deploy sweep`` says where no point fits its target."""

from __future__ import annotations

from typing import Any

import pytest

from osbc_deploy.cli.sweep import _exit_code


def report(*excesses: list[str]) -> dict[str, Any]:
    points = [
        {
            "target": "small", "method": "osbc", "sparsity": 0.1 * n, "bits": 4, "seed": None,
            "exact": True, "fits": False, "excesses": lines, "remedy": "",
        }
        for n, lines in enumerate(excesses, 1)
    ]  # fmt: skip
    return {"failures": [], "points": points}


@pytest.mark.parametrize(
    ("points", "said"),
    [
        (
            [["layer 4 (a (deep) one): has no room"], ["layer 4 (a (deep) one): has no room"]],
            ["  - small: layer 4 (a (deep) one): has no room. Sweep"],
        ),
        (
            [
                ["core 1 (layer 4[0:8, 0:2]): synapses 9 exceeds 5 (4 over; rule)"],
                ["core 2 (layer 4[8:9, 0:2]): synapses 9 exceeds 5 (4 over; rule)"],
            ],
            ["  - small: layer 4: synapses 9 exceeds 5 (4 over; rule). Sweep"],
        ),
        (
            [["core 1 (layer 4[0:8]): synapses 9 exceeds 5 (4 over)"], ["7 cores, 6 there"]],
            [
                "  - small, osbc, 0.1 sparsity, 4 bits: core 1 (layer 4[0:8]): synapses 9 exceeds "
                "5 (4 over)",
                "  - small, osbc, 0.2 sparsity, 4 bits: 7 cores, 6 there",
                "  - small: Sweep",
            ],
        ),
    ],
)
def test_what_no_point_keeps_is_said_whole(
    points: list[list[str]], said: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert _exit_code(report(*points)) == 4
    _, *lines = capsys.readouterr().err.splitlines()
    assert len(lines) == len(said)
    assert all(line.strip().startswith(s.strip()) for line, s in zip(lines, said, strict=True))
