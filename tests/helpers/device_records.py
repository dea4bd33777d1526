"""Records of an imaginary device of two layers and three classes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from osbc_deploy.monitor import thresholds
from osbc_deploy.telemetry.record import LayerCounts, Window


@contextmanager
def few_streams() -> Iterator[None]:
    """Thresholds within some percent, at once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(thresholds, "_SIMULATED", 3 * 10**5)
        patch.setattr(thresholds, "_STREAMS", (10, 600))
        yield


IDENTITY = bytes(range(8))
LAYERS = ["conv1", "fc"]


def device_records(
    n: int, seed: int = 0, *, start: int = 0, boots: int = 0, level: float = 1.0, **more: Any
) -> list[Window]:
    """Records of 20 samples; `level` scales what the second layer fires, the rest is as usual."""
    random = np.random.default_rng(seed)
    found = []
    for i in range(n):
        first, second = random.poisson(4000), random.poisson(900 * level)
        counts = random.multinomial(20, [0.05, 0.1, 0.2, 0.3, 0.2, 0.1, 0.05, 0])
        margins = random.multinomial(19, [0.1, 0.1, 0.2, 0.2, 0.2, 0.1, 0.1, 0])
        answers = random.multinomial(19, [0.5, 0.3, 0.2])
        layers = (
            LayerCounts(int(first), int(random.binomial(100, 0.9)), 0, 0, tuple(map(int, counts))),
            LayerCounts(int(second), int(random.binomial(50, 0.8)), 0, 0, tuple(map(int, counts))),
        )
        found.append(
            Window(IDENTITY, start + i, 20, boots, 1, 0, tuple(map(int, margins)), layers,
                   tuple(map(int, answers)))
        )  # fmt: skip
    return [replace(w, **more) for w in found]
