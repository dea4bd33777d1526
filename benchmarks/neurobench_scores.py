"""NeuroBench's scores of the bundled network beside our own count.

    python benchmarks/neurobench_scores.py [--samples N]

Needs NeuroBench (pip install 'osbc-deploy[neurobench]'). A difference ends in an error.
"""

from __future__ import annotations

import argparse

from _accuracy import table

from osbc_deploy.cli.job import load_inputs
from osbc_deploy.compress import CompressionOptions, compress
from osbc_deploy.job import VerbCall, prepare
from osbc_deploy.neurobench.harness import neurobench_scores
from osbc_deploy.options import InputOptions


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=400)
    count = parser.parse_args().samples
    job = prepare(VerbCall(**load_inputs(None, InputOptions()), backend_samples=0))
    samples = job.evaluated.take(count)
    networks = {
        "float": job.network,
        "90 %, 4 bit": compress(
            job.network, job.typical.spikes, CompressionOptions(sparsity=0.9, bits=4)
        ),
    }
    for name, network in networks.items():
        scores = neurobench_scores(network, samples)
        print(f"\n{name}, {len(samples)} samples of {samples.steps} steps")
        table(
            ["", "NeuroBench", "counted"],
            [
                [field.replace("_", " "), number(scores["neurobench"][field]), number(value)]
                for field, value in scores["counted"].items()
            ],
        )


def number(value: float) -> str:
    return f"{value:,.2f}" if abs(value) > 1 else f"{value:.6f}"


if __name__ == "__main__":
    main()
