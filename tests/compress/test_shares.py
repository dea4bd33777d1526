"""Shares of the weights by loss, from rankings no deeper than they need to be."""

from __future__ import annotations

import numpy as np
import pytest

from osbc_deploy.compress import CompressionOptions, ranking, shares
from osbc_deploy.compress.allocation import global_allocation, lamps_allocation
from osbc_deploy.compress.calibration import collect
from osbc_deploy.compress.layer import rank_layer
from osbc_deploy.compress.rows import Workspace
from osbc_deploy.frameworks.norse.neurons import IF
from osbc_deploy.model.graph import Dense, Network, Population, Projection


def test_layers_are_ranked_more_deeply_where_they_keep_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranking, "_EXACT_WORK", 0.0)
    monkeypatch.setattr(ranking, "_SPARE", 0)
    rng = np.random.default_rng(0)
    first = rng.standard_normal((80, 60)) * rng.gamma(0.2, 1.0, (80, 60))
    second = rng.standard_normal((30, 80)) * np.exp(2 * rng.standard_normal((30, 80)))
    neuron = IF(np.array(1.0), np.zeros(()))
    network = Network(
        (60,),
        (Population("a", (80,), neuron), Population("b", (30,), neuron)),
        (
            Projection("w", "input", "a", Dense(first)),
            Projection("v", "a", "b", Dense(second)),
        ),
    )
    spikes = (rng.random((12, 6, 60)) < 0.3).astype(np.uint8)
    found = collect(network, spikes, CompressionOptions())
    problems = {p.name: p for p in found.problems}
    sizes = [p.size for p in found.problems]
    asked: list[int] = []

    def counted(problem: object, keep: int, space: Workspace) -> ranking.Ranking:
        asked.append(keep)
        return rank_layer(problem, keep, space)  # type: ignore[arg-type]

    monkeypatch.setattr(shares, "rank_layer", counted)
    keep, rankings = shares.global_shares(problems, 0.9, Workspace())
    # As if everything had been looked at.
    deep = [rank_layer(p, p.size) for p in found.problems]
    wholes = [p.whole for p in found.problems]
    assert list(keep.values()) == pytest.approx(global_allocation(deep, wholes, sizes, 0.9), abs=4)
    assert sum(keep.values()) == 720
    lamps = lamps_allocation([first, second], 0.9)
    assert asked[:2] == lamps
    assert len(asked) > 2
    assert all(r.selection == "hybrid" for r in rankings.values())
    assert max(asked) < max(sizes) / 2
