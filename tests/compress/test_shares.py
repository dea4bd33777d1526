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


@pytest.mark.parametrize(("error", "taken"), [(0.79, "global"), (0.81, "LAMPS"), (1.2, "LAMPS")])
def test_lamps_stays_unless_a_fifth_less_is_lost(
    error: float, taken: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    neuron = IF(np.array(1.0), np.zeros(()))
    weights = rng.standard_normal((8, 10)), rng.standard_normal((6, 8))
    network = Network(
        (10,),
        (Population("a", (8,), neuron), Population("b", (6,), neuron)),
        (
            Projection("w", "input", "a", Dense(weights[0])),
            Projection("v", "a", "b", Dense(weights[1])),
        ),
    )
    spikes = (rng.random((12, 6, 10)) < 0.3).astype(np.uint8)
    problems = {p.name: p for p in collect(network, spikes, CompressionOptions()).problems}
    lamps = dict(zip(problems, lamps_allocation(list(weights), 0.5), strict=True))
    other = {"w": lamps["w"] - 3, "v": lamps["v"] + 3}
    rankings = {name: rank_layer(p, p.size, Workspace()) for name, p in problems.items()}
    monkeypatch.setattr(shares, "global_shares", lambda *_: (other, rankings))
    seen = []

    def errors_of(pruned: dict[str, np.ndarray]) -> np.ndarray:
        seen.append({name: int(np.count_nonzero(w)) for name, w in pruned.items()})
        return np.full(5, 1.0 if len(seen) == 1 else error)

    keep, text = shares.better_shares(problems, 0.5, errors_of, Workspace())
    assert seen == [lamps, other]
    assert keep == (other if taken == "global" else lamps)
    assert text.startswith(f"{taken}: the output's error on 5 held-out samples is 1.0000 with")
