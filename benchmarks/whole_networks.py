"""Cores of whole networks, here and as Intel's compiler printed them.

    python benchmarks/whole_networks.py --data FOLDER

FOLDER is ``tutorials/lava/lib/dl/netx`` of https://github.com/lava-nc/lava-dl, whose notebooks
(``mnist/run``, ``oxford/run``, ``pilotnet_snn/benchmark``) print the cores; the networks lie beside
them. The table stands in docs/memory-model.md.
"""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path

from osbc_deploy.chip.mapping import map_network
from osbc_deploy.chip.memory.records import Records
from osbc_deploy.chip.target import Target, load_target
from osbc_deploy.formats.stored import read_stored

PRINTED = {
    "pilotnet_snn/network.net": ("loihi2-2022", [13, 25, 13, 3, 3, 2, 12, 1, 1, 1]),
    "mnist/trained_mnist_network.net": ("loihi2", [3, 1, 1]),
    "oxford/Trained/network.net": ("loihi2-2022", [3, 2]),
}
"""The target whose synapse memory the compiler of the day had, and cores layer by layer."""


def dense(target: Target) -> Target:
    """Return the target with every fully connected layer stored densely."""
    only = load_target("loihi2-netx").memory
    assert isinstance(only, Records)
    memory = target.memory.model_copy(update={"encodings": only.encodings})
    return target.model_copy(update={"memory": memory})


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, required=True)
    folder = parser.parse_args().data
    print("| network | counted for | printed | dense | cheaper encoding |\n|---|---|---|---|---|")
    for name, (target, printed) in PRINTED.items():
        chip = load_target(target)
        network = read_stored(folder / name, chip.number_formats)
        cells = [f"{sum(printed)} ({', '.join(map(str, printed))})"]
        for each in (dense(chip), chip):
            cores = Counter(core.population for core in map_network(network, each).cores)
            counts = list(cores.values())
            cells.append(f"{sum(counts)} ({', '.join(map(str, counts))})")
        print(f"| {name.split('/')[0]} | {target} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
