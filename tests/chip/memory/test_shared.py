"""One core for all layers: Xylo against the design rules of Rockpool's mapper."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from chip_networks import network, population
from osbc_deploy.chip.mapping import layers_of, map_layers, map_network
from osbc_deploy.chip.target import load_target
from osbc_deploy.fixedpoint.network import FixedDense


def test_all_layers_share_the_one_core_of_xylo() -> None:
    target = load_target("xylo-audio2")
    shapes = [(16, 600), (600, 400), (400, 8)]
    layers = [
        (FixedDense(np.full((post, pre), 1)), population(f"p{i}", (post,)), 8)
        for i, (pre, post) in enumerate(shapes)
    ]
    mapping = map_network(network((16,), *layers, chip=target.name), target)
    assert mapping.fits
    assert mapping.cores_used == 1
    layers[1] = (FixedDense(np.full((401, 600), 1)), population("p1", (401,)), 8)
    layers[2] = (FixedDense(np.full((9, 401), 1)), population("p2", (9,)), 8)
    mapping = map_network(network((16,), *layers, chip=target.name), target)
    (hidden, outputs) = mapping.excesses()
    assert hidden.endswith(": hidden 1001 exceeds 1000 (1 over; max_hidden_neurons)")
    assert outputs.endswith(": outputs 9 exceeds 8 (1 over; le_8_output_channels)")
    layers[0] = (FixedDense(np.full((600, 17), 1)), population("p0", (600,)), 8)
    (inputs, *_) = map_network(network((17,), *layers, chip=target.name), target).excesses()
    assert inputs.endswith(": inputs 17 exceeds 16 (1 over; le_16_input_channels)")


def test_a_network_needs_hidden_and_output_neurons() -> None:
    target = load_target("xylo-audio2")
    layer = (FixedDense(np.eye(4, dtype=int)), population("a", (4,)), 8)
    net = network((4,), layer, chip=target.name)
    assert map_network(net, target).excesses() == [
        "chip: 1 layer of neurons, at least 2 are needed: hidden neurons, and outputs behind them "
        "(at_least_two_neuron_layers_needed)"
    ]
    # A layer on its own, as `fit` counts it, is not judged as a network.
    assert map_layers(layers_of(net), target, whole=False).fits


def test_only_hidden_neurons_are_recurrent_and_hear_the_input() -> None:
    eye = FixedDense(np.eye(4, dtype=int))
    late = FixedDense(np.eye(4, dtype=int), np.ones((4, 4)))
    layers = ((eye, population(name, (4,)), 8) for name in "ab")
    net = network((4,), *layers, chip="xylo-audio2")
    first, second = net.projections

    def excesses(pre: str, post: str, weights: FixedDense = eye) -> list[str]:
        more = replace(first, name="more", pre=pre, post=post, connection=weights)
        changed = replace(net, projections=(first, second, more))
        return map_network(changed, load_target("xylo-audio2")).excesses()

    assert excesses("a", "a") == []
    hidden = (
        "receives input from the output; only hidden neurons may be recurrent "
        "(output_neurons_cannot_be_recurrent)"
    )
    assert excesses("b", "b") == [f"layer to b: {hidden}"]
    assert excesses("b", "a") == [f"layer to a: {hidden}"]
    assert excesses("input", "b", late) == [
        "layer to b: synaptic delays, none are possible",
        "layer to b: receives input from the input; the output may receive it from "
        "hidden neurons only",
    ]
