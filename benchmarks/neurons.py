"""Neurons are memory too: the bundled convolutions pruned alone, and without half of their neurons.

Prints cores, bytes, neurons and accuracy on loihi2, loihi1 and cortex-m4, and whether the network
with all neurons in answers with the same bits.
"""

from __future__ import annotations

import argparse

import numpy as np

from osbc_deploy import deploy
from osbc_deploy.bundled import digits
from osbc_deploy.bundled.models import weights_path
from osbc_deploy.data.samples import check_samples
from osbc_deploy.deployment import Deployment
from osbc_deploy.fixedpoint.engine import run

MODEL = "osbc_deploy.bundled.models:digits_conv"
HEAD = "target     removed  cores    bytes     RAM  neurons  accuracy  same bits"


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
            took, accuracy = done.footprint, done.accuracy.fixed_point or 0.0
            print(
                f"{target:10} {removed:7.0%} {took.cores:6} {took.bytes:8,} "
                f"{took.used.get('ram', 0):7,} {took.neurons:8,} {accuracy:9.2%}  "
                f"{'yes' if same_bits(done, test.spikes) else 'NO'}",
                flush=True,
            )


def same_bits(done: Deployment, spikes: np.ndarray) -> bool:
    """Tell whether the network with all neurons in answers as the deployed one does."""
    lowered = done.lowered
    sent = lowered.network.input.codes(spikes)
    whole = run(lowered.whole or lowered.network, sent)
    return bool(np.array_equal(whole.output, run(lowered.network, sent).output))


if __name__ == "__main__":
    main()
