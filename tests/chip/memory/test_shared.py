"""One core for all layers: Xylo against the design rules of Rockpool's mapper."""

from __future__ import annotations

import numpy as np

from chip_networks import network, population
from osbc_deploy.chip.mapping import map_network
from osbc_deploy.chip.target import load_target
from osbc_deploy.fixedpoint.network import FixedDense


def test_all_layers_share_the_one_core_of_xylo() -> None:
    target = load_target("xylo-audio2")
    shapes = [(16, 600), (600, 400), (400, 8)]
    layers = [
        (FixedDense(np.full((post, pre), 1)), population(f"p{i}", (post,)), 8)
        for i, (pre, post) in enumerate(shapes)
    ]
    mapping = map_network(network((16,), *layers), target)
    assert mapping.fits
    assert mapping.cores_used == 1
    layers[1] = (FixedDense(np.full((401, 600), 1)), population("p1", (401,)), 8)
    layers[2] = (FixedDense(np.full((9, 401), 1)), population("p2", (9,)), 8)
    mapping = map_network(network((16,), *layers), target)
    (hidden, outputs) = mapping.excesses()
    assert "hidden 1001 exceeds 1000 (1 over)" in hidden
    assert "outputs 9 exceeds 8 (1 over)" in outputs
