"""Populations simulated by some channels and samples at a time: the same bits."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest
import torch

from osbc_deploy.frameworks.norse.neurons import IF, CubaLIF
from osbc_deploy.model import blocks
from osbc_deploy.model.gates import Gate
from osbc_deploy.model.graph import Conv, Dense, Network, Population, Projection
from osbc_deploy.model.simulate import FloatRun, simulate
from osbc_deploy.model.threads import by_threads


def network(rng: np.random.Generator) -> Network:
    """Two afferents, parameters by channel, a pooling of groups, feedback, a dense output."""
    half = np.array(0.5)
    lif = CubaLIF(
        half, rng.uniform(0.3, 0.9, (6, 1, 1)), np.zeros(()), rng.uniform(0.3, 0.6, (6, 5, 5)), half
    )
    drawn = {
        name: rng.normal(size=shape).astype(np.float32)
        for name, shape in {"in": (6, 2, 3, 3), "back": (6, 6, 3, 3), "out": (4, 6 * 4)}.items()
    }
    pool = Conv(np.ones((6, 1, 2, 2), np.float32), stride=(2, 2), groups=6)
    return Network(
        (2, 5, 5),
        (
            Population("a", (6, 5, 5), lif),
            Population("b", (6, 2, 2), Gate(np.array(2.0))),
            Population("c", (4,), IF(np.array(1.0), np.zeros(()))),
        ),
        (
            Projection("in", "input", "a", Conv(drawn["in"], padding=(1, 1))),
            Projection("back", "a", "a", Conv(drawn["back"] * 0.1, padding=(1, 1))),
            Projection("pool", "a", "b", pool, compressible=False),
            Projection("out", "b", "c", Dense(drawn["out"])),
        ),
    )


@pytest.mark.parametrize("together", [1, 60, 2**17])
def test_exact_runs_hang_neither_on_channels_nor_on_threads(
    together: int, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    net = network(rng)
    spikes = (rng.random((7, 6, 2, 5, 5)) < 0.4).astype(np.uint8)
    names = {p.name for p in net.populations}

    def run(threads: int) -> FloatRun:
        held = torch.get_num_threads()
        torch.set_num_threads(threads)
        try:
            return simulate(
                net, spikes, exact=True, record=names, states=names, pack=names, batch_size=3
            )
        finally:
            assert torch.get_num_threads() == threads
            torch.set_num_threads(held)

    # The framework's own order of operations, all channels at once: here no spike hangs on it.
    wanted = simulate(net, spikes, record=names, states=names)
    monkeypatch.setattr(blocks, "TOGETHER", together)
    one, two = run(1), run(2)
    for name in names:
        assert np.array_equal(one.spikes[name], wanted.spikes[name])
        assert np.allclose(one.v[name], wanted.v[name], atol=1e-5)
        assert wanted.spikes[name].any()
        for other in (one, two):
            assert np.array_equal(other.v[name], one.v[name])
            assert np.array_equal(other.packed[name][:], one.spikes[name])
            assert other.rates[name] == one.rates[name]
    assert np.array_equal(two.output, one.output)


def test_batches_that_have_not_begun_end_with_one_that_fails() -> None:
    begun: list[slice] = []
    first = threading.Event()

    def run(rows: slice) -> None:
        begun.append(rows)
        if rows.start == 0:
            first.set()
            raise ValueError("broken")
        # No other thread may take all batches before the first has failed.
        first.wait(1800)
        time.sleep(0.01)

    batches = [slice(n, n + 1) for n in range(500)]
    held = torch.get_num_threads()
    with pytest.raises(ValueError, match="broken"):
        list(by_threads(run, batches, 2))
    assert len(begun) < len(batches)
    assert torch.get_num_threads() == held
