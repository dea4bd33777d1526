"""What sinabs counts for layers: JSON in, JSON out; run by ``benchmarks/peer_counts.py``.

Runs in an interpreter of its own, with torch and sinabs 3.1.3 installed without what it declares
(``pip install --no-deps sinabs==3.1.3``): memory and cores are counted without the vendor's driver.
"""

import json
import sys
from importlib.metadata import version

from sinabs.backend.dynapcnn.chips.dynapcnn import DynapcnnConfigBuilder
from sinabs.backend.dynapcnn.dynapcnn_layer import DynapcnnLayer
from sinabs.backend.dynapcnn.mapping import find_chip_layers
from sinabs.layers import IAFSqueeze
from torch import nn


def count(case):
    """Return kernel, neuron and bias entries and the cores that hold them."""
    channels, height, width = case["in"]
    if "kernel" in case:
        map_ = nn.Conv2d(
            channels,
            case["out"],
            case["kernel"],
            case["stride"],
            case["padding"],
            case["dilation"],
            bias=case["bias"],
        )
    else:
        map_ = nn.Linear(channels * height * width, case["out"], bias=case["bias"])
    pool = [(case["pool"], case["pool"])]
    layer = DynapcnnLayer(map_, IAFSqueeze(batch_size=1), (channels, height, width), pool)
    memory = layer.memory_summary()
    entries = [int(memory[name]) for name in ("kernel", "neuron", "bias")]
    return [*entries, find_chip_layers(layer, DynapcnnConfigBuilder.get_constraints())]


counts = [count(case) for case in json.load(sys.stdin)]
json.dump({"version": version("sinabs"), "counts": counts}, sys.stdout)
