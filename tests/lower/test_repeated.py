"""N:M patterns behind an average pooling: what the chip's weights have of them is said."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import osbc_deploy
from osbc_deploy.deviations import Deviation


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
