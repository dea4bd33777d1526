"""Time and memory of compressing networks of real size, a process of its own for each.

    python benchmarks/sizes.py [ROW ...] [--scale S] [--old FOLDER] [--solver-memory BYTES]

Rows: ``conv`` (5Conv2FC of 128 channels on 2 x 128 x 128, 16 steps, 100 samples; the paper's, as
SpikingJelly's DVSGestureNet), ``conv-tuned``, ``sew`` (sew_resnet18 on 3 x 64 x 64, 4 steps, 200
samples), ``mlp`` (4096-4096-10, 16 steps, 100 samples), ``layer`` (9216 x 4096), each at 90 % and
4 bits, and the first and fourth with ``-magnitude``. Weights and input are drawn (neurons fire as
in trained networks). Import is not counted: its proof has its own benchmark.

--scale makes channels, sizes, widths and samples smaller. With --old, a checkout of another
version does the same in turn. Figures are those of ``/usr/bin/time -v``: CPU seconds of system and
user, and the largest resident set, which holds what Python, torch and the import took.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from _accuracy import RESULTS, table, write

from osbc_deploy.compress import CompressionOptions, compress
from osbc_deploy.frameworks.norse.neurons import IF
from osbc_deploy.model.graph import Dense, Network, Population, Projection


@dataclass(frozen=True)
class Row:
    """What is compressed, and within what.

    Attributes
    ----------
    make : callable
        From the scale to network and samples.
    options : dict
    seconds : float
        Of the wall clock, at most.
    gib : float or None
    """

    make: Callable[[float], tuple[Network, np.ndarray]]
    options: dict[str, Any]
    seconds: float
    gib: float | None = None


def conv(scale: float) -> tuple[Network, np.ndarray]:
    """Return 5Conv2FC as on DVS128 Gesture, with event counts that are 0 or 1."""
    import torch
    from spikingjelly.activation_based import neuron, surrogate
    from spikingjelly.activation_based.model import parametric_lif_net

    torch.manual_seed(0)
    size = 32 * max(1, round(4 * scale))
    model = parametric_lif_net.DVSGestureNet(
        round(128 * scale), neuron.LIFNode, surrogate_function=surrogate.ATan()
    )
    if size != 128:
        inputs = round(128 * scale) * (size // 32) ** 2
        first = next(m for m in model.modules() if isinstance(m, torch.nn.Linear))
        first.weight = torch.nn.Parameter(torch.randn(first.out_features, inputs) / inputs**0.5)
        first.in_features = inputs
    return imported(model, events((2, size, size), round(100 * scale), 16))


def sew(scale: float) -> tuple[Network, np.ndarray]:
    """Return SEW-ResNet-18 on images that are the same in all steps."""
    import torch
    from spikingjelly.activation_based import neuron, surrogate
    from spikingjelly.activation_based.model import sew_resnet

    torch.manual_seed(0)
    model = sew_resnet.sew_resnet18(
        cnf="ADD", spiking_neuron=neuron.IFNode, surrogate_function=surrogate.ATan()
    )
    images = np.random.default_rng(0).random((round(200 * scale), 1, 3, 64, 64), np.float32)
    return imported(model, np.repeat(images, 4, axis=1))


def mlp(scale: float) -> tuple[Network, np.ndarray]:
    """Return 4096-4096-10 of integrate-and-fire neurons."""
    wide = round(4096 * scale)
    return dense((wide, wide, 10)), events((wide,), round(100 * max(scale, 0.5)), 16)


def layer(scale: float) -> tuple[Network, np.ndarray]:
    """Return one layer of 9216 inputs and 4096 outputs."""
    sizes = round(9216 * scale), round(4096 * scale)
    return dense(sizes), events(sizes[:1], round(100 * max(scale, 0.5)), 16)


PLAIN = {"tune": False}
BY_SIZE = {"tune": False, "method": "magnitude"}
ROWS = {
    "conv": Row(conv, PLAIN, 360, 4),
    "conv-tuned": Row(conv, {}, 1500, 6),
    "sew": Row(sew, PLAIN, 480, 4),
    "mlp": Row(mlp, PLAIN, 360),
    "layer": Row(layer, PLAIN | {"solver_memory": 8 * 10**9}, 3600, 8),
    "conv-magnitude": Row(conv, BY_SIZE, 72),
    "mlp-magnitude": Row(mlp, BY_SIZE, 72),
}


def imported(model: Any, x: np.ndarray) -> tuple[Network, np.ndarray]:
    """Return a SpikingJelly model as a float network; its neurons fire on the samples."""
    import torch
    from library_models import lively
    from spikingjelly.activation_based import functional

    from osbc_deploy.data.samples import check_samples
    from osbc_deploy.importing import import_network

    # Proven in double precision, where rounding decides no spike of drawn weights.
    model = model.double().eval()
    functional.set_step_mode(model, "m")
    few = x[:4]
    lively(model, torch.from_numpy(few).double().transpose(0, 1).contiguous())
    return single(import_network(model, None, check_samples("drawn", few, None))), x


def single(network: Network) -> Network:
    """Return a network in single precision, as models are."""
    projections = []
    for projection in network.projections:
        connection = projection.connection
        bias = None if connection.bias is None else connection.bias.astype(np.float32)
        connection = replace(connection, weight=connection.weight.astype(np.float32), bias=bias)
        projections.append(replace(projection, connection=connection))
    return replace(network, projections=tuple(projections), dtype="float32")


def dense(sizes: tuple[int, ...]) -> Network:
    """Return layers of integrate-and-fire neurons."""
    rng = np.random.default_rng(0)
    neuron = IF(np.array(1.0), np.zeros(()))
    populations, projections, pre = [], [], "input"
    for number, (inputs, outputs) in enumerate(pairwise(sizes)):
        drawn = rng.standard_normal((outputs, inputs)).astype(np.float32)
        weight = drawn * np.float32(1.9 / inputs**0.5)
        populations.append(Population(f"p{number}", (outputs,), neuron))
        projections.append(Projection(f"w{number}", pre, f"p{number}", Dense(weight)))
        pre = f"p{number}"
    return Network(sizes[:1], tuple(populations), tuple(projections))


def events(shape: tuple[int, ...], samples: int, steps: int) -> np.ndarray:
    """Return spikes (n, T, *shape): places differ in how often they see an event."""
    rng = np.random.default_rng(1)
    rates = rng.gamma(0.5, 0.1, shape)
    drawn = [(rng.random((steps, *shape)) < rates).astype(np.uint8) for _ in range(samples)]
    return np.stack(drawn)


class Stages:
    """Progress that counts the CPU seconds of tasks and shows nothing."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.text, self.expected = "", 0.0
        self._title, self._since = "", 0.0

    def plan(self, text: str, seconds: float) -> None:
        """Keep what is expected; without variants, where that is tried as well, beside it."""
        self.text = f"{self.text}\n{text}".strip()
        self.expected += seconds

    def start(self, title: str, total: int) -> None:
        self.finish()
        self._title, self._since = title, time.process_time()

    def advance(self, steps: int = 1) -> None:
        """Only whole tasks count."""

    def finish(self) -> None:
        if self._title:
            spent = time.process_time() - self._since
            self.seconds[self._title] = self.seconds.get(self._title, 0.0) + spent
        self._title = ""


def compress_one(name: str, scale: float, more: dict[str, Any], profile: str | None) -> None:
    """Compress one network, and print what it took as JSON."""
    network, x = ROWS[name].make(scale)
    # What is compiled is no part of it: machine code is kept between runs.
    before, start, began = peak(), os.times(), time.perf_counter()
    stages = Stages()
    options = CompressionOptions(**ROWS[name].options, **more)
    if profile:
        import cProfile

        profiler = cProfile.Profile()
        profiler.runcall(compress, network, x, options, progress=stages)
        profiler.dump_stats(profile)
        return
    done = compress(network, x, options, progress=stages)
    spent = os.times()
    content = {
        "cpu_seconds": spent.user + spent.system - start.user - start.system,
        "seconds": time.perf_counter() - began,
        "planned_seconds": round(stages.expected, 1),
        "plan": stages.text.splitlines(),
        "peak_gib": peak(),
        "imported_gib": before,
        "stage_cpu_seconds": {title: round(s, 1) for title, s in stages.seconds.items()},
        "losses": {
            p.name: round(p.relative_loss["total"], 4)
            for p in done.projections.values()
            if p.relative_loss
        },
        "rates": {name: round(rate, 4) for name, rate in done.rates.items()},
    }
    print(json.dumps(content))


def peak() -> float:
    """Return the largest resident set since the last call, where the system tells; or of all."""
    found = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    return found


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("rows", nargs="*", metavar="ROW", help=", ".join(ROWS))
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--old", type=Path, help="a checkout of another version")
    parser.add_argument("--solver-memory", type=int)
    parser.add_argument("--profile", help="a file for cProfile, in place of figures")
    parser.add_argument("--child", action="store_true")
    given = parser.parse_args()
    more = {} if given.solver_memory is None else {"solver_memory": given.solver_memory}
    if given.child or given.profile:
        compress_one(given.rows[0], given.scale, more, given.profile)
        return
    versions = {"this": Path(__file__).parents[1]}
    if given.old:
        versions["other"] = given.old.resolve()
    found, shown = [], []
    for name in given.rows or ROWS:
        for version, folder in versions.items():
            command = [sys.executable, __file__, name, "--child", "--scale", str(given.scale)]
            if given.solver_memory is not None:
                command += ["--solver-memory", str(given.solver_memory)]
            environment = {**os.environ, "PYTHONPATH": str(folder)}
            done = subprocess.run(
                command, env=environment, stdout=subprocess.PIPE, text=True, check=True
            )
            each = json.loads(done.stdout.splitlines()[-1])
            load = os.getloadavg()[0]
            found.append({"row": name, "version": version, "load": load, **each})
            row, cells = ROWS[name], [f"{each[k]:.1f}" for k in ("seconds", "cpu_seconds")]
            limits = [f"{row.seconds:.0f}", "" if row.gib is None else f"{row.gib:g}"]
            shown.append([name, version, *cells, f"{each['peak_gib']:.2f}", *limits])
            print(json.dumps(found[-1]), file=sys.stderr, flush=True)
    table(["row", "version", "s", "CPU s", "peak GiB", "limit s", "limit GiB"], shown)
    write("sizes", {"rows": kept(found, given.scale)})


def kept(found: list[dict[str, Any]], scale: float) -> list[dict[str, Any]]:
    """Return what was found now, after rows of earlier runs that were not run again."""
    found = [{"scale": scale, **each} for each in found]
    again = {(each["row"], each["version"], each["scale"]) for each in found}
    path = RESULTS / "sizes.json"
    before = json.loads(path.read_text())["rows"] if path.exists() else []
    return [e for e in before if (e["row"], e["version"], e["scale"]) not in again] + found


if __name__ == "__main__":
    main()
