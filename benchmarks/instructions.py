"""Instructions of a step: what the model of a target says, and what QEMU counts.

    python benchmarks/instructions.py [--calibrate] [--core cortex-m4 ...] [--json FILE]

Calibrating solves for what each operation takes (non-negative least squares of relative errors, on
drawn networks of every shape, with sums in the state and apart from it, on random ones of
osbc_deploy.testing, and on networks that do little else than what is rare there) and prints the
lines of the target files. Checking compares
the model with QEMU's -icount on seven networks that had no part in that, at three input rates each:
the two bundled ones, and five drawn ones with other sizes, one of them with delays.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from _bundled import bundled
from scipy.optimize import nnls

from osbc_deploy.chip.instructions import Costs
from osbc_deploy.chip.target import load_target
from osbc_deploy.firmware.blob import write_blob
from osbc_deploy.firmware.machine import MACHINES, Program, built
from osbc_deploy.firmware.tables import lay_out
from osbc_deploy.firmware.work import operations_of
from osbc_deploy.fixedpoint.coding import InputFormat
from osbc_deploy.fixedpoint.connections.base import widest_sum
from osbc_deploy.fixedpoint.network import (
    FixedConv,
    FixedDense,
    FixedPointNetwork,
    FixedPopulation,
    FixedProjection,
)
from osbc_deploy.testing import random_networks

FORMATS = load_target("cortex-m4").number_formats
CORES = ("cortex-m0plus", "cortex-m4", "cortex-m7", "rv32imac")
RATES = (0.02, 0.08, 0.25)
OUT = Path(__file__).parent / "results" / "instructions.json"


def population(
    name: str,
    shape: tuple[int, ...],
    rng: np.random.Generator,
    *,
    bits: int,
    current: bool,
    own: str,
) -> FixedPopulation:
    """Return neurons with registers that all, a channel's, or none share."""
    size = int(np.prod(shape))
    drawn = {"all": 1, "channel": shape[0], "none": size}[own]
    vth = np.repeat(rng.integers(2, 12, drawn) << bits, size // drawn)
    bias = np.repeat(rng.integers(-3, 4, drawn) * (own != "all"), size // drawn)
    whole, zero = np.ones(size, np.int64), np.zeros(size, np.int64)
    return FixedPopulation(
        name, shape, du=whole * (1024 if current else 4095), dv=whole * 256, vth=vth,
        bias_mant=bias, bias_exp=zero, u_init=zero, v_init=zero, spiking=True,
        v_scale=1.0 * whole, v_offset=0.0 * whole,
    )  # fmt: skip


def drawn(seed: int, *, shape: tuple[int, ...], layers: list[tuple[Any, ...]]) -> FixedPointNetwork:
    """Return a network of layers.

    Each is ("dense", size, share kept, bits, current, own), or ("conv", channels, kernel, stride,
    bits, current, own).
    """
    rng = np.random.default_rng(seed)
    populations: list[FixedPopulation] = []
    projections, before, given = [], "input", shape
    for number, (kind, size, *rest, bits, current, own) in enumerate(layers):
        # Half as many below 0 as above, so that spikes go on; of 2, as the chip has them.
        low, high = -((1 << (bits - 1)) // 4), (1 << (bits - 1)) - 1
        connection: Any
        if kind == "dense":
            weight = 2 * rng.integers(low, high + 1, (size, int(np.prod(given))))
            connection = FixedDense(weight * (rng.random(weight.shape) < rest[0]))
            after: tuple[int, ...] = (size,)
        else:
            kernel, stride = rest
            weight = 2 * rng.integers(low, high + 1, (size, given[0], kernel, kernel))
            pad = kernel // 2
            connection = FixedConv(weight, (stride, stride), (pad, pad), (1, 1), 1)
            after = connection.output_shape(given)
        name = f"p{number}"
        projections.append(FixedProjection(f"w{number}", before, name, connection, 8, 0))
        populations.append(population(name, after, rng, bits=bits, current=current, own=own))
        before, given = name, after
    return FixedPointNetwork(shape, tuple(populations), tuple(projections), FORMATS, "sum")


def calibration() -> Iterator[tuple[FixedPointNetwork, np.ndarray]]:
    """Yield networks and samples of every shape."""
    rng = np.random.default_rng(7)
    number = 0
    for bits in (2, 4, 8):
        for current in (False, True):
            for own in ("all", "channel", "none"):
                share, channels = rng.choice([0.03, 0.1, 0.3, 0.6]), rng.choice([2, 5, 12, 24], 2)
                size = int(rng.integers(20, 120))
                for shape, layers in (
                    ((300,), [("dense", 150, share, bits, current, own),
                              ("dense", size, 1.0, bits, current, own)]),
                    ((2, 12, 12), [("conv", int(channels[0]), 3, 1, bits, current, own),
                                   ("conv", int(channels[1]), 3, 2, bits, current, own),
                                   ("dense", 20, share, bits, current, own)]),
                ):  # fmt: skip
                    number += 1
                    network = drawn(number, shape=shape, layers=layers)
                    # Silence tells what a step takes by itself.
                    rates = np.array([0, 0.02, 0.08, 0.3]).reshape(4, *[1] * (len(shape) + 1))
                    yield network, (rng.random((4, 8, *shape)) < rates).astype(np.uint8)
    for case in random_networks(40, FORMATS, start=1000):
        yield case.network, case.spikes
    # So small that most of a step is what it takes by itself.
    for bits, current, own in itertools.product((2, 4, 8), (False, True), ("all", "none")):
        number += 1
        how = (bits, current, own)
        layers = [("conv", 3, 3, 1, *how), ("dense", 4, 1.0, *how)]
        network = drawn(number, shape=(1, 5, 5), layers=layers)
        rates = np.array([0, 0.05, 0.2, 0.4]).reshape(4, 1, 1, 1, 1)
        yield network, (rng.random((4, 8, 1, 5, 5)) < rates).astype(np.uint8)


def apart() -> Iterator[tuple[FixedPointNetwork, np.ndarray]]:
    """Yield networks whose sums lie apart from the state, and samples."""
    rng = np.random.default_rng(9)
    ways = itertools.product((2, 4, 8), (False, True), ("all", "channel", "none"))
    for number, how in enumerate(ways, start=500):
        for shape, layers in (
            ((300,), [("dense", 150, 0.5, *how), ("dense", 80, 0.5, *how)]),
            ((6, 12, 12), [("conv", 6, 3, 1, *how), ("conv", 8, 3, 2, *how)]),
        ):
            rates = np.array([0, 0.01, 0.03, 0.06]).reshape(4, *[1] * (len(shape) + 1))
            network = narrow(drawn(number, shape=shape, layers=layers))
            yield network, (rng.random((4, 8, *shape)) < rates).astype(np.uint8)


def narrow(network: FixedPointNetwork) -> FixedPointNetwork:
    """Return a network with registers that hold its values, but not the sums of all weights."""
    sums = [widest_sum(p.connection.weight.astype(np.int64)) for p in network.projections]
    bits = (min(sums) << FORMATS.state_shift).bit_length()
    vth_bits = bits - 1 - FORMATS.state_shift
    bias_bits = min(FORMATS.bias_mant_bits, bits)
    formats = replace(FORMATS, state_bits=bits, vth_bits=vth_bits, bias_mant_bits=bias_bits)
    populations = tuple(
        replace(p, vth=np.minimum(p.vth, 1 << (vth_bits - 2))) for p in network.populations
    )
    return replace(network, formats=formats, populations=populations)


def rare() -> Iterator[tuple[FixedPointNetwork, np.ndarray]]:
    """Yield networks that do little else than one of the rare operations, and samples."""
    rng = np.random.default_rng(8)

    def of(connection: FixedDense, rate: float, **how: Any) -> tuple[FixedPointNetwork, np.ndarray]:
        size, sources = connection.weight.shape
        neurons = population("p0", (size,), rng, bits=8, current=False, own="all")
        made = replace(neurons, **how.pop("neurons", {}))
        projection = FixedProjection("w0", "input", "p0", connection, 8, 0, graded="input" in how)
        network = FixedPointNetwork((sources,), (made,), (projection,), FORMATS, "sum", **how)
        spikes = rng.random((3, 16, sources)) < rate
        return network, spikes.astype(np.int32 if "input" in how else np.uint8)

    def weights(size: int, sources: int, share: float, top: int = 64) -> np.ndarray:
        found = 2 * rng.integers(-top // 2, top, (size, sources))
        return found * (rng.random((size, sources)) < share)

    for longest, share, top in ((4, 0.5, 64), (30, 0.5, 8), (12, 0.1, 8)):
        late = weights(128, 256, share, top)
        yield of(FixedDense(late, rng.integers(0, longest + 1, late.shape)), 0.25)
    graded = InputFormat("integers", bits=12)
    yield of(FixedDense(weights(4, 2000, 0.02)), 0.01, input=graded)
    yield of(FixedDense(weights(8, 2000, 0.1)), 0.5)
    # Short lists of codes of 2, 4 and 8 bits.
    for top in (2, 8, 64):
        yield of(FixedDense(weights(250, 256, 0.05, top)), 0.25)
    # Much output of neurons at rest, without a potential and with one.
    for v_init in (0, 300):
        at_rest = {"v_init": np.full(600, v_init), "dv": np.zeros(600, int)}
        yield of(FixedDense(weights(600, 8, 0.02)), 0.02, neurons=at_rest)
    # Driven to the end of their register and kept there.
    low = np.full(600, 1 - FORMATS.state_limit)
    still = {"v_init": low, "bias_mant": np.full(600, -3000), "dv": np.zeros(600, int)}
    yield of(FixedDense(weights(600, 8, 0.5)), 0.2, neurons=still)


def checked() -> Iterator[tuple[str, FixedPointNetwork]]:
    """Yield seven networks that calibration has not seen."""
    for name, done, _ in bundled():
        yield name, done.lowered.network
    yield "five dense layers", drawn(101, shape=(128,), layers=[
        ("dense", 256, 0.1, 4, True, "all"), ("dense", 128, 0.1, 4, True, "all"),
        ("dense", 64, 0.3, 4, False, "none"), ("dense", 32, 1.0, 4, False, "none"),
        ("dense", 10, 1.0, 8, False, "all")])  # fmt: skip
    yield "strided convolutions", drawn(102, shape=(2, 34, 34), layers=[
        ("conv", 12, 5, 2, 4, False, "channel"), ("conv", 24, 3, 2, 4, False, "channel"),
        ("dense", 10, 0.2, 4, False, "none")])  # fmt: skip
    yield "wide and sparse", drawn(103, shape=(700,), layers=[
        ("dense", 400, 0.03, 8, True, "none"), ("dense", 20, 0.3, 8, True, "none")])  # fmt: skip
    yield "two bits", drawn(104, shape=(1, 28, 28), layers=[
        ("conv", 16, 3, 1, 2, True, "all"), ("conv", 16, 3, 2, 2, True, "all"),
        ("dense", 10, 0.1, 2, True, "all")])  # fmt: skip
    late = drawn(105, shape=(200,), layers=[("dense", 150, 0.2, 4, False, "all"),
                                            ("dense", 30, 1.0, 4, False, "all")])  # fmt: skip
    first, *others = late.projections
    delay = np.random.default_rng(105).integers(0, 9, first.connection.weight.shape)
    delayed = replace(first, connection=FixedDense(first.connection.weight, delay))
    yield "delayed lists", replace(late, projections=(delayed, *others))


def counted(
    program: Program, network: FixedPointNetwork, spikes: np.ndarray
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Return the operations of every step, and its instructions."""
    tables = lay_out(network)
    done = program.run(write_blob(network, tables), spikes, count=True)
    assert done.instructions is not None
    return dict(operations_of(network, tables, spikes)), done.instructions.astype(float)


def calibrate(core: str) -> dict[str, float]:
    """Return what each operation takes, on the networks drawn for that."""
    machine = next(m for m in MACHINES.values() if m.core == core)
    names = list(Costs.model_fields)
    rows, values = [], []
    with built(machine) as program:
        for network, spikes in itertools.chain(calibration(), apart(), rare()):
            operations, instructions = counted(program, network, spikes)
            unknown = set(operations) - set(names)
            assert not unknown, unknown
            found = [np.broadcast_to(operations.get(n, 0), instructions.shape) for n in names]
            rows.append(np.stack(found, axis=-1).reshape(-1, len(names)))
            values.append(instructions.ravel())
    matrix, target = np.concatenate(rows).astype(float), np.concatenate(values)
    solution, _ = nnls(matrix / target[:, None], np.ones_like(target))
    error = np.abs(matrix @ solution / target - 1)
    print(f"# {core}: {len(target)} steps, off by {error.mean():.1%} on average, at most "
          f"{error.max():.1%}")  # fmt: skip
    return {name: round(value, 1) for name, value in zip(names, solution.tolist(), strict=True)}


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--calibrate", action="store_true")
    parser.add_argument("--core", action="append", choices=CORES)
    parser.add_argument("--json", type=Path, default=OUT)
    given = parser.parse_args()
    cores = given.core or [m.core for m in MACHINES.values() if m.core and not m.missing]
    if given.calibrate:
        for core in cores:
            print("[instructions.costs]")
            for name, value in calibrate(core).items():
                print(f'{name} = {{ value = {value}, unit = "instructions", grade = "derived", '
                      'source = "qemu" }')  # fmt: skip
        return 0
    networks = list(checked())
    lines = []
    for core in cores:
        instructions = load_target(core).instructions
        assert instructions is not None
        with built(next(m for m in MACHINES.values() if m.core == core)) as program:
            for title, network in networks:
                for rate in RATES:
                    rng = np.random.default_rng(11)
                    shape = (2, 16, *network.input_shape)
                    spikes = (rng.random(shape) < rate).astype(np.uint8)
                    operations, measured = counted(program, network, spikes)
                    modelled = sum(
                        instructions.costs.each(name) * np.broadcast_to(n, (2, 16))
                        for name, n in operations.items()
                    )
                    off = float(modelled.mean() / measured.mean() - 1)
                    worst = float(modelled.max() / measured.max() - 1)
                    synapses = sum(
                        float(np.mean(operations.get(n, 0.0)))
                        for n in ("listed", "in_a_row", "apart", "late")
                    )
                    neurons = sum(p.size for p in network.populations)
                    line = {
                        "core": core, "network": title, "input_rate": rate,
                        "measured": round(float(measured.mean())),
                        "modelled": round(float(modelled.mean())),
                        "off": round(off, 4), "worst_step_off": round(worst, 4),
                        "neurons": neurons, "synaptic_events": round(synapses),
                    }  # fmt: skip
                    lines.append(line)
                    print(f"{core} {title} at {rate:.0%}: {line['measured']:,} measured, "
                          f"{line['modelled']:,} modelled, {off:+.1%} (largest step {worst:+.1%}); "
                          f"{neurons:,} neurons, {synapses:,.0f} synaptic events")  # fmt: skip
    given.json.write_text(json.dumps(lines, indent=1) + "\n", encoding="utf-8")
    most = max(abs(line["off"]) for line in lines)
    print(f"{len(lines)} comparisons, off by at most {most:.1%}")
    return int(most > 0.12)


if __name__ == "__main__":
    sys.exit(main())
