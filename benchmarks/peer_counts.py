"""What a layer takes on a core, counted here and by the tools of others: random shapes, one by one.

    python benchmarks/peer_counts.py --nengo-loihi PYTHON --sinabs PYTHON [--shapes 300] [--seed 0]

PYTHON is an interpreter that has the tool installed, since neither lives with our versions of
NumPy: nengo-loihi 1.1.0 with nengo 3.2.0, NumPy 1.23 and SciPy 1.10 on Python 3.10; sinabs 3.1.3,
installed with ``--no-deps``, with torch. A tool that is not given is left out.
"""

from __future__ import annotations

import argparse
import json
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from osbc_deploy.chip.layers import Afferent, Layer
from osbc_deploy.chip.memory.chunks import Chunks
from osbc_deploy.chip.memory.tables import Tables
from osbc_deploy.chip.target import load_target
from osbc_deploy.fixedpoint.network import FixedConnection, FixedConv, FixedDense

Case = dict[str, Any]
KINDS = ("dense", "sparse", "convolution", "convolution in tiles")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--nengo-loihi", metavar="PYTHON")
    parser.add_argument("--sinabs", metavar="PYTHON")
    parser.add_argument("--shapes", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    print("| tool | layers | shapes | equal |\n|---|---|---|---|")
    for tool, python, draw, ours in (
        ("nengo_loihi", options.nengo_loihi, loihi_cases, loihi_count),
        ("sinabs", options.sinabs, speck_cases, speck_count),
    ):
        if python is None:
            print(f"| {tool} | not given | | |")
            continue
        cases = draw(np.random.default_rng(options.seed), options.shapes)
        compare(tool, asked(tool, python, cases), cases, [ours(case) for case in cases])


def asked(tool: str, python: str, cases: list[Case]) -> dict[str, Any]:
    """Return the tool's version and what it counts for every case."""
    script = Path(__file__).parent / "peers" / f"{tool}_counts.py"
    done = subprocess.run(
        [python, str(script)], input=json.dumps(cases), capture_output=True, text=True, check=True
    )
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def compare(tool: str, answer: dict[str, Any], cases: list[Case], ours: list[Any]) -> None:
    """Print how many are equal, by kind of layer, and every one that is not."""
    shapes, equal = Counter[str](), Counter[str]()
    for case, theirs, mine in zip(cases, answer["counts"], ours, strict=True):
        shapes[case["layer"]] += 1
        if theirs == mine:
            equal[case["layer"]] += 1
        else:
            print(f"{case}: {theirs}, here {mine}")
    for layer, count in shapes.items():
        print(f"| {tool} {answer['version']} | {layer} | {count} | {equal[layer]} |")


def loihi_cases(rng: np.random.Generator, count: int) -> list[Case]:
    """Draw convolutions, whole and in tiles, and matrices."""
    found: list[Case] = []
    while len(found) < count:
        kind = str(rng.choice(KINDS, p=[0.1, 0.1, 0.5, 0.3]))
        if kind in ("dense", "sparse"):
            case: Case = {"in": [int(rng.integers(1, 900))], "out": int(rng.integers(1, 500))}
            case |= {"density": float(rng.choice([0.02, 0.1, 0.5])) if kind == "sparse" else 1}
            found.append(case | {"layer": kind, "seed": len(found)})
            continue
        channels, height, width = (int(n) for n in (rng.integers(1, 9), *rng.integers(1, 25, 2)))
        kernel, stride = rng.integers(1, 6, 2).tolist(), rng.integers(1, 4, 2).tolist()
        case = {"in": [channels, height, width], "out": int(rng.integers(1, 25))}
        case |= {"kernel": kernel, "stride": stride, "padding": str(rng.choice(["valid", "same"]))}
        if case["padding"] == "valid":
            if height < kernel[0] or width < kernel[1]:
                continue
            pad = [0, 0]
        else:
            # Ours pads both sides alike; where theirs does not, there is nothing to compare.
            needed = [
                max(0, (-(-size // s) - 1) * s + k - size)
                for size, k, s in zip((height, width), kernel, stride, strict=True)
            ]
            pad = [n // 2 for n in needed]
            kept = FixedConv(
                np.ones((1, 1, *kernel)), (stride[0], stride[1]), (pad[0], pad[1]), (1, 1), 1
            )
            theirs = (-(-height // stride[0]), -(-width // stride[1]))
            if any(n % 2 for n in needed) or kept.output_shape((1, height, width))[1:] != theirs:
                continue
        case |= {"layer": kind, "pad": pad}
        if kind == "convolution in tiles":
            shape = connection(case).output_shape((channels, height, width))
            parts = [int(rng.integers(1, min(n, 3) + 1)) for n in shape]
            steps = [-(-n // part) for n, part in zip(shape, parts, strict=True)]
            case["tile"] = [steps[1], steps[2], steps[0]]
        found.append(case)
    return found


def speck_cases(rng: np.random.Generator, count: int) -> list[Case]:
    """Draw convolutions and matrices with and without a pooling behind them."""
    found: list[Case] = []
    while len(found) < count:
        channels, height, width = (int(n) for n in (rng.integers(1, 65), *rng.integers(1, 130, 2)))
        case: Case = {"out": int(rng.integers(1, 129)), "bias": bool(rng.integers(2))}
        case["pool"] = int(rng.choice([1, 2, 4]))
        if rng.random() < 0.2:
            side = int(rng.integers(1, 9))
            found.append(case | {"layer": "matrix", "in": [channels, side, side]})
            continue
        kernel, stride, pad, dilation = (
            int(rng.integers(*r)) for r in ((1, 17), (1, 9), (0, 9), (1, 3))
        )
        if min(height, width) + 2 * pad < dilation * (kernel - 1) + 1:
            continue
        case |= {"layer": "convolution", "in": [channels, height, width], "kernel": [kernel] * 2}
        found.append(
            case | {"stride": [stride] * 2, "padding": pad, "pad": [pad] * 2, "dilation": dilation}
        )
    return found


def connection(case: Case) -> FixedConnection:
    """Return the weights of a case; all are the same, but for a sparse layer's zeros."""
    if "kernel" in case:
        weight = np.full((case["out"], case["in"][0], *case["kernel"]), 2)
        pairs = [tuple(p) for p in (case["stride"], case["pad"], [case.get("dilation", 1)] * 2)]
        return FixedConv(weight, *pairs, 1)  # type: ignore[arg-type]
    weight = np.full((case["out"], int(np.prod(case["in"]))), 2)
    if case.get("density", 1) < 1:
        weight *= np.random.RandomState(case["seed"]).rand(*weight.shape) < case["density"]
    return FixedDense(weight)


def layer(case: Case) -> Layer:
    """Return the layer of a case."""
    weights, source = connection(case), tuple(case["in"])
    shape = weights.output_shape(source)
    sets = np.zeros(int(np.prod(shape)), int)
    biased = bool(case.get("bias"))
    return Layer("a", shape, (Afferent("input", source, weights, 8),), sets, sets, sets, biased)


def loihi_count(case: Case) -> list[list[int]]:
    """Return neurons, input axons and synapse bits of every tile, in nengo-loihi's order."""
    memory, whole = load_target("loihi1").memory, layer(case)
    assert isinstance(memory, Chunks)
    if case["layer"] == "sparse":
        # nengo-loihi stores no index there, which no core can do without.
        bare = memory.sparse_index.model_copy(update={"value": False})
        memory = memory.model_copy(update={"sparse_index": bare})
    ranges = [whole.whole]
    if "tile" in case:
        rows, columns, channels = (
            [(start, min(start + step, n)) for start in range(0, n, step)]
            for step, n in zip(case["tile"], (*whole.shape[1:], whole.shape[0]), strict=True)
        )
        ranges = [(c, y, x) for y in rows for x in columns for c in channels]
    used = [memory.cost(whole, r).used for r in ranges]
    word = memory.word_bits.value
    return [[u["neurons"], u["axon_in"], u["synapses"] * word] for u in used]


def speck_count(case: Case) -> list[Any]:
    """Return kernel, neuron and bias entries and the cores that hold them."""
    target = load_target("speck")
    assert isinstance(target.memory, Tables)
    usage = target.memory.cost(layer(case), layer(case).whole)
    cores = [i for i in range(target.cores) if not usage.excess(target.memory.core_limits(i))]
    return [*(usage.used[name] for name in ("kernel", "neuron", "bias")), cores]


if __name__ == "__main__":
    main()
