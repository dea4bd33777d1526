"""The networks of the NIR paper, imported and compared spike by spike with the files themselves.

    python benchmarks/nir_files.py [--data FOLDER]

FOLDER holds files of https://github.com/neuromorphs/NIR: ``nmnist_scnn.nir`` (paper/02_cnn) and
``braille_rsnn_subtract.nir``, ``braille_rsnn_zero.nir`` (paper/03_rnn). The reference reads a file
with h5py alone and steps every node on its own, in double precision: nothing is composed, folded or
reordered, and neither the import nor the simulation is used.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from torch.nn import functional

from osbc_deploy.formats.nir.read import read_nir
from osbc_deploy.formats.nir.write import write_nir
from osbc_deploy.model.graph import Network
from osbc_deploy.model.simulate import simulate
from osbc_deploy.pipeline import deploy

FILES = {
    "nmnist_scnn.nir": ("zero", "subtract"),
    "braille_rsnn_subtract.nir": ("subtract",),
    "braille_rsnn_zero.nir": ("zero",),
}
DT = 1e-4
SAMPLES, STEPS, RATES = 8, 100, (0.02, 0.05, 0.2)


def main() -> None:
    parser = argparse.ArgumentParser()
    default = Path(__file__).resolve().parents[2] / "shared" / "data"
    parser.add_argument("--data", type=Path, default=default / "nir")
    data = parser.parse_args().data
    print(f"{'file':<28} {'reset':<9} {'input':>6} {'spikes':>9} {'decisions':>11} {'differ':>7} "
          f"{'float32':>8} {'written':>8}")  # fmt: skip
    for name, resets in FILES.items():
        if not (data / name).is_file():
            print(f"{name:<28} is not in {data}")
            continue
        for reset in resets:
            for rate in RATES:
                row(data / name, reset, rate)
    print("\ndeployed on loihi2-sim at 50 % and 6 bits, random spikes:")
    for name, resets in FILES.items():
        for reset in resets if (data / name).is_file() else ():
            on_lava(data / name, reset)


def on_lava(path: Path, reset: str) -> None:
    shape = read_nir(path, reset=reset).input_shape
    x = (np.random.default_rng(0).random((60, 30, *shape)) < RATES[1]).astype(np.uint8)
    done = deploy(path, x, reset=reset, sparsity=0.5, bits=6, tune=False, backend_samples=3)
    fidelity = done.fidelity
    print(
        f"{path.name:<28} {reset:<9} {done.mapping.cores_used} cores; Lava against the engine: "
        f"{fidelity.mismatched_spikes} of {fidelity.compared_spikes:,} spikes differ",
        flush=True,
    )


def row(path: Path, reset: str, rate: float) -> None:
    network = read_nir(path, reset=reset)
    rng = np.random.default_rng(round(1000 * rate))
    x = (rng.random((SAMPLES, STEPS, *network.input_shape)) < rate).astype(np.uint8)
    expected = reference(path, x, reset)
    total = sum(v.size for v in expected.values())
    fired = sum(int(v.sum()) for v in expected.values())
    counts = [
        differ(replace(network, dtype=dtype), x, expected) for dtype in ("float64", "float32")
    ]
    with tempfile.TemporaryDirectory() as folder:
        write_nir(replace(network, dtype="float64"), Path(folder) / "a.nir")
        counts.append(differ(read_nir(Path(folder) / "a.nir"), x, expected))
    print(f"{path.name:<28} {reset:<9} {rate:>6.0%} {fired:>9,} {total:>11,} {counts[0]:>7,} "
          f"{counts[1]:>8,} {counts[2]:>8,}")  # fmt: skip


def differ(network: Network, x: np.ndarray, expected: dict[str, np.ndarray]) -> int:
    """Count the spike-or-no-spike decisions that are not the reference's."""
    run = simulate(network, x, record=list(expected))
    return sum(int(np.count_nonzero(run.spikes[n] != expected[n])) for n in expected)


def reference(path: Path, x: np.ndarray, reset: str) -> dict[str, np.ndarray]:
    """Return the spikes (n, T, ...) of every neuron node of a file."""
    with h5py.File(path, "r") as file:
        nodes = {k: {f: v[()] for f, v in n.items()} for k, n in file["node/nodes"].items()}
        edges = [(a.decode(), b.decode()) for a, b in file["node/edges"][()]]
    before: dict[str, list[str]] = {name: [] for name in nodes}
    for pre, post in edges:
        before[post].append(pre)
    kinds = {name: node["type"].decode() for name, node in nodes.items()}
    cells = [name for name, kind in kinds.items() if kind in ("IF", "CubaLIF")]
    last: dict[str, torch.Tensor] = {}
    state: dict[str, dict[str, Any]] = {name: {"u": 0.0, "v": 0.0} for name in cells}
    record: dict[str, list[np.ndarray]] = {name: [] for name in cells}
    for t in range(x.shape[1]):
        now: dict[str, Any] = {"input": torch.from_numpy(x[:, t]).double()}
        waiting = [name for name in nodes if name != "input"]
        while waiting:
            for name in list(waiting):
                # Only weights that lead back to their own neurons hear the step before.
                sources = [
                    now.get(pre) if not leads_back(pre, name, before, kinds) else last.get(pre, 0.0)
                    for pre in before[name]
                ]
                if any(s is None for s in sources):
                    continue
                waiting.remove(name)
                if kinds[name] in ("IF", "CubaLIF"):
                    now[name] = fire(nodes[name], kinds[name], state[name], sum(sources), reset)
                    record[name].append(now[name].numpy().astype(np.uint8))
                else:
                    now[name] = apply(nodes[name], kinds[name], sum(sources), x.shape[0])
        last = {name: now[name] for name in cells}
    return {name: np.stack(values, 1) for name, values in record.items()}


def leads_back(pre: str, post: str, before: dict[str, list[str]], kinds: dict[str, str]) -> bool:
    return kinds[pre] == "CubaLIF" and kinds[post] in ("Linear", "Affine") and post in before[pre]


def fire(
    node: dict[str, Any], kind: str, state: dict[str, Any], x: torch.Tensor, reset: str
) -> torch.Tensor:
    p = {k: torch.from_numpy(np.asarray(v)).double() for k, v in node.items() if k != "type"}
    if kind == "IF":
        state["v"] = state["v"] + p["r"] * x
    else:
        state["u"] = state["u"] + DT / p["tau_syn"] * (p["w_in"] * x - state["u"])
        leak = p["v_leak"] - state["v"]
        state["v"] = state["v"] + DT / p["tau_mem"] * (leak + p["r"] * state["u"])
    spikes = (state["v"] > p["v_threshold"]).double()
    lower = p["v_threshold"] if reset == "subtract" else state["v"]
    state["v"] = state["v"] - spikes * lower
    return spikes


def apply(node: dict[str, Any], kind: str, x: Any, samples: int) -> Any:
    def tensor(key: str) -> torch.Tensor:
        return torch.from_numpy(node[key]).double()

    if kind in ("Linear", "Affine"):
        if not isinstance(x, torch.Tensor):
            x = torch.zeros(samples, node["weight"].shape[1]).double()
        return functional.linear(x, tensor("weight"), tensor("bias") if "bias" in node else None)
    if kind == "Conv2d":
        geometry = (tuple(map(int, node[k])) for k in ("stride", "padding", "dilation"))
        return functional.conv2d(
            x, tensor("weight"), tensor("bias"), *geometry, int(node["groups"])
        )
    if kind == "SumPool2d":
        size = tuple(map(int, node["kernel_size"]))
        return functional.avg_pool2d(x, size, tuple(map(int, node["stride"])), divisor_override=1)
    return x.flatten(1) if kind == "Flatten" else x


if __name__ == "__main__":
    main()
