"""Neurons are memory too: the bundled convolutions pruned alone, and without half of their neurons.

Prints cores, bytes, RAM, neurons and accuracy on loihi2, loihi1 and cortex-m4: with all neurons in,
which pruned weights alone would take; without those that make no difference, as is deployed; and
without those removed. The network with all neurons in must answer with the same bits.
"""

from __future__ import annotations

import argparse

import numpy as np

from osbc_deploy import deploy
from osbc_deploy.bundled import digits
from osbc_deploy.bundled.models import weights_path
from osbc_deploy.chip.mapping import map_network
from osbc_deploy.chip.unpruned import Footprint, footprint
from osbc_deploy.data.samples import check_samples
from osbc_deploy.deployment import Deployment
from osbc_deploy.fixedpoint.engine import run

MODEL = "osbc_deploy.bundled.models:digits_conv"
HEAD = "target         removed  cores    bytes     RAM  neurons  accuracy  same bits"


def main() -> None:
    """Deploy on each target, with and without neurons removed, and print a line each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--removed", type=float, default=0.52, help="share of hidden neurons")
    parser.add_argument("--targets", default="loihi2,loihi1,cortex-m4")
    asked = parser.parse_args()
    calibration, test = (
        check_samples(name, part.spikes, part.labels)
        for name, part in (("calibration", digits.calibration()), ("test", digits.test()))
    )
    print(HEAD)
    for target in asked.targets.split(","):
        for removed in (0.0, asked.removed):
            done = deploy(
                MODEL, calibration, test=test, weights=weights_path("digits_conv"), target=target,
                sparsity=0.9, remove_neurons=removed, backend="engine", backend_samples=1,
            )  # fmt: skip
            if not removed:
                whole = map_network(done.lowered.whole, done.target)
                print(line(target, "none", footprint(whole, done.target), done), flush=True)
            same = "yes" if same_bits(done, test.spikes) else "NO"
            name = f"{removed:.0%}" if removed else "idle"
            print(f"{line(target, name, done.footprint, done)}  {same}", flush=True)


def line(target: str, removed: str, took: Footprint, done: Deployment) -> str:
    """Return what a network takes and its accuracy, in columns below :data:`HEAD`."""
    return (
        f"{target:14} {removed:>7} {took.cores:6} {took.bytes:8,} "
        f"{took.used.get('ram', 0):7,} {took.neurons:8,} {done.accuracy.fixed_point or 0.0:9.2%}"
    )


def same_bits(done: Deployment, spikes: np.ndarray) -> bool:
    """Tell whether the network with all neurons in answers as the deployed one does."""
    lowered = done.lowered
    sent = lowered.network.input.codes(spikes)
    whole = run(lowered.whole, sent)
    return bool(np.array_equal(whole.output, run(lowered.network, sent).output))


if __name__ == "__main__":
    main()
