"""How what compression takes grows with samples, outputs and inputs of a layer.

    python benchmarks/growth.py [--doublings 3]

One dense layer and one convolution of integrate-and-fire neurons, compressed at 90 % and 4 bits,
untuned. Samples, outputs and inputs of a neuron are doubled, each alone, and a straight line is
laid through the logarithms of the CPU seconds (of all threads) by least squares, for all of it and
for each stage. A stage that takes less than a hundredth of the whole has no line.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import cache, wraps
from types import ModuleType
from typing import Any

import numpy as np
from _accuracy import table, write
from sizes import dense, events

from osbc_deploy.compress import CompressionOptions, compress
from osbc_deploy.compress import layer as layer_module
from osbc_deploy.compress import network as network_module
from osbc_deploy.compress import scene as scene_module
from osbc_deploy.frameworks.norse.neurons import IF
from osbc_deploy.model.graph import Conv, Network, Population, Projection

STEPS, MAP = 16, 16
STAGES = {
    "float run": (network_module, "float_run"),
    "Hessian": (scene_module, "membrane_moments"),
    "selection": (layer_module, "rank_layer"),
    "least squares": (layer_module, "least_squares"),
    "quantization": (layer_module, "quantize_layer"),
}
WORTH = 0.01


@dataclass(frozen=True)
class Size:
    """A layer and what it is calibrated on."""

    kind: str
    samples: int
    outputs: int
    inputs: int


DENSE, CONV = Size("dense", 100, 256, 1024), Size("conv", 100, 64, 576)
SWEEPS = (
    ("samples", DENSE),
    ("outputs", DENSE),
    ("inputs", replace(DENSE, inputs=512)),
    ("samples", CONV),
    ("outputs", CONV),
    ("inputs", replace(CONV, inputs=144)),
)
"""What is doubled, and from which size on."""


def made(size: Size) -> tuple[Network, np.ndarray]:
    """Return the network and its samples."""
    if size.kind == "dense":
        return dense((size.inputs, size.outputs)), events((size.inputs,), size.samples, STEPS)
    channels = size.inputs // 9
    drawn = np.random.default_rng(0).standard_normal((size.outputs, channels, 3, 3))
    weight = (drawn * 1.9 / size.inputs**0.5).astype(np.float32)
    neuron, shape = IF(np.array(1.0), np.zeros(())), (channels, MAP, MAP)
    network = Network(
        shape,
        (Population("p", (size.outputs, MAP, MAP), neuron),),
        (Projection("w", "input", "p", Conv(weight, None, (1, 1), (1, 1))),),
    )
    return network, events(shape, size.samples, STEPS)


@contextmanager
def watched(spent: dict[str, float], calls: dict[str, int]) -> Iterator[None]:
    """Add up the CPU seconds of the stages, and count how often each was begun."""

    def timed(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(call)
        def run(*given: Any, **named: Any) -> Any:
            start = time.process_time()
            calls[name] += 1
            try:
                return call(*given, **named)
            finally:
                spent[name] += time.process_time() - start

        return run

    held: list[tuple[ModuleType, str, Any]] = []
    for name, (module, function) in STAGES.items():
        held.append((module, function, getattr(module, function)))
        spent[name], calls[name] = 0.0, 0
        setattr(module, function, timed(name, held[-1][2]))
    try:
        yield
    finally:
        for module, function, call in held:
            setattr(module, function, call)


@cache
def measured(size: Size) -> dict[str, Any]:
    """Compress a layer and return the CPU seconds of all of it and of its stages."""
    network, x = made(size)
    spent: dict[str, float] = {}
    calls: dict[str, int] = {}
    with watched(spent, calls):
        start = time.process_time()
        done = compress(network, x, CompressionOptions(sparsity=0.9, bits=4, tune=False))
        spent = {"all": time.process_time() - start, **spent}
    (projection,) = done.projections.values()
    assert done.spent is not None
    (plan,) = done.spent.plan.layers
    return {
        **asdict(size),
        "selection": projection.selection,
        "rows": plan.rows,
        "of": plan.of,
        "hessians": calls["Hessian"],
        "seconds": {name: round(seconds, 3) for name, seconds in spent.items()},
    }


def exponents(points: list[dict[str, Any]], by: str) -> dict[str, float]:
    """Return the slopes of log seconds over log size, for what counts in each of the points."""
    size = np.log([point[by] for point in points])
    found = {}
    for name in points[0]["seconds"]:
        seconds = np.array([point["seconds"][name] for point in points])
        whole = np.array([point["seconds"]["all"] for point in points])
        if (seconds > WORTH * whole).all():
            found[name] = round(float(np.polyfit(size, np.log(seconds), 1)[0]), 2)
    return found


def main() -> None:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--doublings", type=int, default=3)
    given = arguments.parse_args()
    for _, first in SWEEPS:
        # What is compiled is no part of it.
        measured(replace(first, samples=10))
    found, shown = {}, []
    for by, first in SWEEPS:
        sizes = [
            replace(first, **{by: getattr(first, by) << n}) for n in range(given.doublings + 1)
        ]
        points = [measured(size) for size in sizes]
        slopes = exponents(points, by)
        found[f"{first.kind}, {by}"] = {"exponents": slopes, "points": points}
        for point in points:
            rows = f"{point['rows']:,} of {point['of']:,} rows, {point['hessians']} Hessian(s)"
            print(first.kind, by, point[by], point["selection"], rows, point["seconds"], flush=True)
        span = " ".join(f"{point[by]:,}" for point in points)
        seconds = " ".join(f"{point['seconds']['all']:.1f}" for point in points)
        lines = [f"{slopes[n]:.2f}" if n in slopes else "-" for n in ("all", *STAGES)]
        shown.append([first.kind, by, span, seconds, *lines])
    table(["layer", "doubled", "sizes", "CPU s", "all", *STAGES], shown)
    write("growth", found)


if __name__ == "__main__":
    main()
