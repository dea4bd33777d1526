"""Hessians that do not fit are refused before any work, and those that do stay within memory."""

from __future__ import annotations

import re
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import float_networks as nets
from osbc_deploy.compress import CompressionOptions, activity, compress
from osbc_deploy.compress.pace import measured_pace
from osbc_deploy.errors import UsageError
from osbc_deploy.model.graph import Dense, Network, Population, Projection

LARGE = 400


def network(inputs: int = 20, wide: int = LARGE) -> Network:
    """Two layers, the second of fan-in `wide`."""
    rng = np.random.default_rng(0)
    like = nets.mlp(bias=True)

    def dense(out: int, into: int) -> Dense:
        weight = rng.standard_normal((out, into)) * 4 / np.sqrt(into)
        return Dense(weight.astype(np.float32), np.zeros(out, np.float32))

    return Network(
        (inputs,),
        (
            Population("a", (wide,), like.populations[0].neuron),
            Population("b", (10,), like.populations[-1].neuron),
        ),
        (
            Projection("first", "input", "a", dense(wide, inputs)),
            Projection("second", "a", "b", dense(10, wide)),
        ),
        like.dtype,
        "test",
    )


def never(*args: Any, **kwargs: Any) -> None:
    raise AssertionError("work was done")


def test_a_fan_in_of_fifty_thousand_is_refused_before_any_work(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(activity, "simulate", never)
    x = np.ones((40, 6, 20), np.uint8)
    options = CompressionOptions(solver_memory=200_000_000)
    with pytest.raises(UsageError) as refused:
        compress(network(wide=50_000), x, options, state=tmp_path / "state")
    # 16 matrices of 50,000^2 numbers of 8 bytes are 298.0 GiB; spikes are some MiB.
    size = re.search(
        r"  - second: needs ([\d.]+) GiB for 50,000 inputs of a neuron", str(refused.value)
    )
    assert size is not None
    assert 298.0 < float(size[1]) < 299
    assert str(refused.value).startswith("--solver-memory: 190.74 MiB is less than")
    assert "first" not in str(refused.value)
    assert not (tmp_path / "state").exists()


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"method": "magnitude", "mixed": True, "tune": False},
        {"tune": False},
        {"allocation": "global"},
        {"mixed": True, "tune": False},
        {"pattern": "2:4"},
    ],
)
def test_what_fits_stays_within_twice_the_memory(options: dict[str, Any]) -> None:
    net = network()
    x = (np.random.default_rng(1).random((40, 6, 20)) < 0.4).astype(np.uint8)
    with pytest.raises(UsageError, match="second") as refused:
        compress(net, x, CompressionOptions(solver_memory=1, **options))
    found = re.search(r"Give it (\d+) bytes", str(refused.value))
    assert found is not None
    enough = int(found[1])
    with pytest.raises(UsageError, match="second"):
        compress(net, x, CompressionOptions(solver_memory=enough - 1, **options))
    # The machine is measured once in a process, in arrays of its own.
    measured_pace(0)
    tracemalloc.start()
    try:
        compress(net, x, CompressionOptions(solver_memory=enough, **options))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    # Hessians are most of it, so the bound is none that anything would keep.
    assert 0.25 * enough < peak < 2 * enough
