"""What sinabs counts for layers: JSON in, JSON out; run by ``benchmarks/peer_counts.py``.

Runs in an interpreter of its own, with torch and sinabs 3.1.3 installed without what it declares
(``pip install --no-deps sinabs==3.1.3``): memory and cores are counted without the vendor's driver.
"""

import json
import sys
from importlib.metadata import version
from unittest.mock import MagicMock

# Counting needs neither plots nor the chip's driver, of which the registry holds a stub only.
for name in ("pylab", "samna", "samnagui"):
    sys.modules[name] = MagicMock()
for chip in ("speck2e", "speck2f"):
    sys.modules |= {f"samna.{chip}": MagicMock(), f"samna.{chip}.configuration": MagicMock()}

from sinabs.backend.dynapcnn.chips.dynapcnn import DynapcnnConfigBuilder  # noqa: E402
from sinabs.backend.dynapcnn.dynapcnn_layer import DynapcnnLayer  # noqa: E402
from sinabs.backend.dynapcnn.mapping import find_chip_layers  # noqa: E402
from sinabs.layers import IAFSqueeze  # noqa: E402
from torch import nn  # noqa: E402


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
