"""Compress on a GPU and on the CPU: the same bytes, and what it takes.

    python benchmarks/device.py [--device cuda] [--scale 0.5] [--rows conv conv-tuned] [--quick]

Networks are compared by a digest of their bytes: the bundled ones, deployed at the settings of
``same_everywhere.py`` with a module that runs on the device while it is imported, and rows of
``sizes.py``. A small spiking transformer runs in its own framework, whose sums may differ in the
last bit: of that, the codes that are the same and the accuracies are printed. ``none`` is the CPU
without ``--device``.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from typing import Any

import torch
from _accuracy import table, write
from _bundled import deployed
from _transformers import Spikformer, frames
from same_everywhere import MODELS, SETTINGS
from sizes import ROWS
from workers import digest_of

import osbc_deploy
from osbc_deploy.compress import CompressionOptions, compress
from osbc_deploy.job import seed_everything
from osbc_deploy.model.simulate import simulate


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--scale", type=float, default=0.5)
    parser.add_argument("--rows", nargs="*", default=["conv", "conv-tuned"], choices=ROWS)
    parser.add_argument("--quick", action="store_true", help="the first setting alone")
    asked = parser.parse_args()
    settings = dict(list(SETTINGS.items())[: 1 if asked.quick else None])
    processor = f"{os.cpu_count()} CPU cores"
    if asked.device.startswith("cuda"):
        processor = f"{torch.cuda.get_device_name(asked.device)}, {processor}"
    print(f"{processor}, torch {torch.__version__}")
    devices = (None, asked.device)
    found: dict[str, list[dict[str, Any]]] = {}

    def both(name: str, run: Callable[[str | None], dict[str, Any]]) -> None:
        found[name] = []
        for device in devices:
            start = time.perf_counter()
            one = run(device)
            # A run that says what it takes leaves out what is made for it.
            found[name].append({"seconds": round(time.perf_counter() - start, 2), **one})
            print(name, device, found[name][-1], flush=True)

    simulate_once(asked.device)
    for model in MODELS:
        for setting, options in settings.items():
            both(f"{model}, {setting}", lambda d, m=model, o=options: in_whole(m, o, d))
    for row in asked.rows:
        both(f"{row}, scale {asked.scale:g}", lambda d, r=row: compressed(r, asked.scale, d))
    rows = [
        [name, *(f"{one['seconds']:.1f} s" for one in runs), _same(runs)]
        for name, runs in found.items()
    ]
    transformer = {str(device): in_its_framework(device) for device in devices}
    table(["", "none", asked.device, "the same bytes"], rows)
    codes = [one.pop("state") for one in transformer.values()]
    equal = sum(int((a == b).sum()) for a, b in zip(*codes, strict=True))
    print(f"\nSpikformer: {equal} of {sum(a.size for a in codes[0])} weights the same")
    for name, one in transformer.items():
        print(name, one)
    write("device", {"machine": processor, "torch": torch.__version__, "runs": found,
                     "transformer": transformer})  # fmt: skip
    if differing := [name for name, runs in found.items() if _same(runs) != "yes"]:
        raise SystemExit(f"other bytes: {', '.join(differing)}")


def _same(runs: list[dict[str, Any]]) -> str:
    return "yes" if len({one["digest"] for one in runs}) == 1 else "NO"


def simulate_once(device: str) -> None:
    """Start what a device needs once, so that the first network does not pay for it."""
    network, samples = ROWS["mlp"].make(0.01)
    simulate(network, samples[:2], exact=True, device=device)


def in_whole(model: str, options: dict[str, Any], device: str | None) -> dict[str, Any]:
    """Deploy a bundled network."""
    return {"digest": deployed(model, device=device, **options).provenance["network_sha256"]}


def compressed(row: str, scale: float, device: str | None) -> dict[str, Any]:
    """Compress a row of sizes.py."""
    seed_everything(0)
    network, samples = ROWS[row].make(scale)
    options = CompressionOptions(**ROWS[row].options, device=device)
    start = time.perf_counter()
    done = compress(network, samples, options)
    return {"seconds": round(time.perf_counter() - start, 2), "digest": digest_of(done)}


def in_its_framework(device: str | None) -> dict[str, Any]:
    """Compress a spiking transformer of random weights in SpikingJelly."""
    torch.manual_seed(0)
    model = Spikformer().eval()
    calibration, _ = frames("calibration")
    test = tuple(part.numpy() for part in frames("test"))
    start = time.perf_counter()
    done = osbc_deploy.compress_model(
        model, calibration.numpy(), test=test, sparsity=0.8, bits=4, device=device, tune=False
    )
    seconds = round(time.perf_counter() - start, 2)
    values = [value.numpy() for name, value in done.state.items() if name.endswith("weight")]
    return {
        "seconds": seconds, "agreement": done.accuracy.agreement, "sparsity": done.sparsity,
        "state": values,
    }  # fmt: skip


if __name__ == "__main__":
    main()
