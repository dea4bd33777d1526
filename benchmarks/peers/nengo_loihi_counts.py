"""What nengo-loihi counts for layers: JSON in, JSON out; run by ``benchmarks/peer_counts.py``.

Runs in an interpreter of its own, with nengo-loihi 1.1.0, nengo 3.2.0 and NumPy 1.23 (Python 3.10).
"""

import json
import sys
import warnings

warnings.simplefilter("ignore")

import nengo  # noqa: E402
import nengo_loihi  # noqa: E402
import numpy as np  # noqa: E402
import scipy.sparse  # noqa: E402
from nengo_loihi.block import LoihiBlock, Synapse  # noqa: E402
from nengo_loihi.builder import split_blocks  # noqa: E402
from nengo_loihi.config import BlockShape  # noqa: E402
from nengo_loihi.conv import conv2d_loihi_weights  # noqa: E402


def convolution(case):
    """Return the number of neurons and the synapses of a convolution."""
    channels, height, width = case["in"]
    rng = np.random.default_rng(0)
    kernel = rng.normal(size=(*case["kernel"], channels, case["out"]))
    transform = nengo.Convolution(
        case["out"],
        (height, width, channels),
        strides=tuple(case["stride"]),
        kernel_size=tuple(case["kernel"]),
        padding=case["padding"],
        init=kernel,
    )
    synapse = Synapse(height * width)
    synapse.set_population_weights(*conv2d_loihi_weights(transform), pop_type=32)
    return transform.output_shape.shape, synapse


def matrix(case):
    """Return the number of neurons and the synapses of a dense or a sparse layer."""
    n_pre, n_post = case["in"][0], case["out"]
    weight = np.ones((n_pre, n_post), np.float32)
    if case["density"] < 1:
        drawn = np.random.RandomState(case["seed"]).rand(n_post, n_pre)
        weight = scipy.sparse.csr_matrix(weight * (drawn < case["density"]).T)
    synapse = Synapse(n_pre)
    synapse.set_weights(weight)
    return (n_post,), synapse


def count(case):
    """Return neurons, input axons and synapse bits of every block, in order."""
    shape, synapse = (convolution if "kernel" in case else matrix)(case)
    block = LoihiBlock(int(np.prod(shape)))
    block.add_synapse(synapse)
    blocks = [block]
    if case.get("tile"):
        shapes = {block: BlockShape(tuple(case["tile"]), tuple(shape))}
        blocks = split_blocks.split_block(block, shapes)
        if len(blocks) > 1:
            split_blocks.split_synapse(block, synapse, blocks)
    used = [b.utilization() for b in blocks]
    found = [[u[name][0] for name in ("compartments", "in-axons", "synapses")] for u in used]
    if case.get("density", 1) < 1:
        # An axon without weights is counted as used, but never built (hardware/nxsdk_objects.py).
        found[0][1] = sum(1 for w in synapse.weights if w.size)
    return found


found = [[[int(n) for n in block] for block in count(case)] for case in json.load(sys.stdin)]
json.dump({"version": nengo_loihi.__version__, "counts": found}, sys.stdout)
