"""A small deployed network to verify, and what makes one."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from float_networks import mlp, spikes
from osbc_deploy.chip.target import load_target
from osbc_deploy.compress.network import compress
from osbc_deploy.compress.options import CompressionOptions
from osbc_deploy.compress.result import CompressedNetwork
from osbc_deploy.data.samples import Samples, check_samples
from osbc_deploy.job import Job
from osbc_deploy.model.graph import Network
from osbc_deploy.model.readout import decode
from osbc_deploy.model.simulate import simulate
from osbc_deploy.pipeline import finish
from osbc_deploy.verification.result import Verification
from osbc_deploy.verification.run import compare_stages

SIZES = (24, 40, 20, 5)


def samples(network: Network, count: int, *, seed: int = 1, labels: bool = True) -> Samples:
    """Return samples, most of them with the label that the float network gives them."""
    raster = spikes(seed, count, 12, *network.input_shape)
    if not labels:
        return check_samples("random", raster)
    found = np.array(decode(simulate(network, raster).output, "sum", spiking=True))
    found[::7] = (found[::7] + 1) % network.output.size
    return check_samples("random", raster, found)


def job(network: Network, *, count: int = 48, labels: bool = True) -> Job:
    data = samples(network, count, labels=labels)
    return Job(load_target("loihi2-sim"), network, data, data, "sum", None, 0, 60.0)


def compressed(network: Network, work: Job, **options: object) -> CompressedNetwork:
    asked = {"sparsity": 0.5, "bits": 8, "tune": False, **options}
    return compress(network, work.typical.spikes, CompressionOptions(**asked))  # type: ignore[arg-type]


def damaged(done: CompressedNetwork, layer: str) -> CompressedNetwork:
    """Return the network with the outputs of one layer's weights in the wrong order."""
    found = done.projections[layer]
    wrong = replace(found, codes=np.roll(found.codes, 1, axis=0))
    return replace(done, projections={**done.projections, layer: wrong})


def verification(*, labels: bool = True, damage: str = "", **options: object) -> Verification:
    network = mlp(sizes=SIZES)
    work = job(network, labels=labels)
    done = compressed(network, work, **options)
    if damage:
        done = damaged(done, damage)
    return compare_stages(work, finish(work, done))
