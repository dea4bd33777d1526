"""Layers that share cores: every limit kept, by a count of our own, and none where none is said."""

from __future__ import annotations

from collections import Counter, defaultdict

import pytest

from osbc_deploy.chip.mapping import layers_of, map_layers
from osbc_deploy.chip.sharing import Part, shared_cores
from osbc_deploy.chip.target import load_target
from osbc_deploy.testing.networks import random_networks


def test_parts_share_cores_as_far_as_their_sums_fit() -> None:
    limits = {"synapses": 10, "groups": 8}
    parts = [
        Part({"synapses": 6, "groups": 1}, 0),
        Part({"synapses": 5, "groups": 1}, 0),
        Part({"synapses": 4, "groups": 1}, 0),
        Part({"synapses": 1, "groups": 8}, 0),
        Part({"synapses": 1, "groups": 1}, 3),
    ]
    # 6 + 4 fill a core, 5 has one of its own beside which 8 groups are too many; and a core has
    # one width of delays.
    assert shared_cores(parts, limits) == [0, 1, 0, 2, 3]
    assert shared_cores(parts[:1], limits) == [0]
    # What fits no core alone shares none.
    assert shared_cores([Part({"synapses": 11, "groups": 1}, 0)] * 2, limits) == [0, 1]


@pytest.mark.parametrize("name", ["loihi1", "loihi2"])
def test_networks_take_no_more_cores_and_keep_every_limit(name: str) -> None:
    alone, shared = load_target(name), load_target(f"{name}-shared")
    assert not alone.memory.packs
    fewer = 0
    for case in random_networks(12, alone.number_formats):
        layers = layers_of(case.network)
        one, other = map_layers(layers, alone), map_layers(layers, shared)
        assert [(c.layer, c.ranges, c.usage) for c in one.cores] == [
            (c.layer, c.ranges, c.usage) for c in other.cores
        ]
        assert other.words == one.words
        assert other.lower_bound <= other.cores_used <= one.cores_used
        assert sorted({c.index for c in other.cores}) == list(range(other.cores_used))
        fewer += other.cores_used < one.cores_used
        held: dict[int, Counter[str]] = defaultdict(Counter)
        for core in other.cores:
            held[core.index].update(core.usage.used)
        if one.fits:
            assert all(
                used <= shared.memory.limits()[what]
                for total in held.values()
                for what, used in total.items()
            )
            assert other.fits
    assert fewer
