"""N:M patterns behind an average pooling: what the chip's weights have of them is said."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

import osbc_deploy
from chip_networks import network, population
from osbc_deploy.deviations import Deviation
from osbc_deploy.fixedpoint.network import FixedDense
from osbc_deploy.lower.repeated import broken_patterns
from osbc_deploy.model.graph import AvgPool, Dense, Projection


def said(pool: int, pattern: str, rng: np.random.Generator) -> list[Deviation]:
    norse = pytest.importorskip("norse.torch")
    torch.manual_seed(0)
    net = norse.SequentialState(
        nn.Conv2d(1, 4, 3, padding=1), norse.LIFBoxCell(), nn.AvgPool2d(pool), nn.Flatten(),
        nn.Linear(4 * (8 // pool) ** 2, 5), norse.LIBoxCell(),
    )  # fmt: skip
    for parameter in net.parameters():
        parameter.data.mul_(8)
    spikes = (rng.random((6, 4, 1, 8, 8)) < 0.3).astype(np.uint8)
    done = osbc_deploy.deploy(
        net, spikes, target="loihi2", pattern=pattern, tune=False, backend_samples=0
    )
    return [d for d in done.deviations if d.message.startswith("pattern")]


def test_a_pattern_that_a_merged_pooling_breaks_is_said(rng: np.random.Generator) -> None:
    (found,) = said(2, "2:4", rng)
    assert found.stage == "lower"
    assert found.message == (
        "pattern 2:4 does not hold on the chip, where up to 4 of 4 weights in a row are not 0: "
        "the pooling merged into them repeats each over its window"
    )


@pytest.mark.parametrize(("pool", "pattern"), [(1, "2:4"), (2, "weights")])
def test_nothing_is_said_where_none_is_broken(
    pool: int, pattern: str, rng: np.random.Generator
) -> None:
    assert not said(pool, pattern, rng)


@pytest.mark.parametrize(
    ("pool", "merged"),
    [
        (None, False),
        (AvgPool((1, 1), (1, 1)), False),
        (AvgPool((2, 2), (2, 2)), True),
        (AvgPool((3, 3), (2, 2)), True),
    ],
)
def test_the_fullest_group_is_counted(
    pool: AvgPool | None, merged: bool, rng: np.random.Generator
) -> None:
    counted = set()
    for density in (0.1, 0.3, 0.6):
        weight = 2 * (rng.random((3, 22)) < density)
        net = network((22,), (FixedDense(weight), population("a", (3,)), 8))
        layer = Projection("to a", "input", "a", Dense(weight.astype(float)), pool)
        # Groups of 4 in a row, the last of which has 2.
        most = max(sum(row[at : at + 4] != 0) for row in weight for at in range(0, 22, 4))
        counted.add(most)
        for n in range(5):
            found = list(broken_patterns([layer], net, n, 4))
            assert bool(found) == (merged and most > n)
            assert all(f"up to {most} of 4 weights" in d.message for d in found)
            assert not list(broken_patterns([replace(layer, compressible=False)], net, n, 4))
    assert len(counted) > 1
