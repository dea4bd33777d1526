"""Spikes, events, time and energy of 20 networks on Loihi 1: ours beside those of SANA-FE.

    python benchmarks/sanafe_crosscheck.py --sanafe PYTHON [--networks 20]

PYTHON is an interpreter that has SANA-FE 2.2.9 (pip install sanafe), which is under the GPL-3: it
runs as a program of its own, networks and runs go through files. Results in
benchmarks/results/sanafe_crosscheck.json; the table is in docs/time.md.

SANA-FE's Loihi keeps no current and truncates the potential to 64ths, which is our arithmetic for
du = 4095: networks without current, bias, delay and negative exponents, of single spikes. A core
lies there where our placement puts it; the input comes from cores that we leave free.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from osbc_deploy.chip.mapping import Core, Mapping, layers_of, map_layers
from osbc_deploy.chip.place import Placement, place
from osbc_deploy.chip.step import StepLoad, step_load
from osbc_deploy.chip.target import Target, load_target
from osbc_deploy.chip.traffic import traffic
from osbc_deploy.fixedpoint.engine import run
from osbc_deploy.fixedpoint.network import (
    FixedConv,
    FixedDense,
    FixedPointNetwork,
    FixedPopulation,
    FixedProjection,
)

TARGET = load_target("loihi1")
RESULTS = Path(__file__).parent / "results" / "sanafe_crosscheck.json"
STEPS = 50
INPUT = "input"

# What sanafe/examples/loihi.yaml of SANA-FE 2.2.9 says an event costs, in J.
SYNAPSE = {"dense": 35.5e-12, "sparse": 33.6e-12, "conv": 24.0e-12}
ACCESS, UPDATE, FIRE = 51.2e-12, 21.6e-12, 69.3e-12
MESSAGE, COLUMN_HOP, ROW_HOP = 111e-12, 3.0e-12, 4.2e-12


def population(rng: np.random.Generator, name: str, shape: tuple[int, ...]) -> FixedPopulation:
    """Return neurons without current, of one decay and threshold, or of several of either."""
    size = math.prod(shape)
    zero = np.zeros(size, np.int64)
    kinds = int(rng.integers(1, 6))
    pick = np.arange(size) % kinds if rng.random() < 0.5 else zero
    decay = rng.choice([0, 1, 100, 410, 2048, 4000, 4096 - 1], kinds)
    vth = rng.integers(200, 1500, kinds)[pick]
    subtract = bool(rng.random() < 0.5)
    return FixedPopulation(
        name, shape, zero + 4095, decay[pick], vth, zero, zero, zero, zero, True,
        zero + 1.0, zero + 0.0, reset="subtract" if subtract else "zero",
        drop=vth if subtract else None,
    )  # fmt: skip


def drawn(number: int) -> FixedPointNetwork:
    """Return one of the networks: dense, sparse, recurrent or with a convolution in front."""
    rng = np.random.default_rng(number)
    shape: tuple[int, ...] = (int(rng.integers(30, 300)),)
    populations, projections = [], []
    if number % 4 == 3:
        shape = (2, 12, 12)
        weight = 2 * rng.integers(-40, 90, (4, 2, 3, 3))
        conv = FixedConv(weight, (1, 1), (1, 1), (1, 1), 1)
        populations.append(population(rng, "conv", conv.output_shape(shape)))
        projections.append(FixedProjection("w conv", INPUT, "conv", conv, 8, 0))
    given = shape
    for depth in range(int(rng.integers(1, 4))):
        size, name = int(rng.integers(20, 600)), f"dense{depth}"
        before = populations[-1] if populations else None
        inputs = before.size if before else math.prod(shape)
        share = rng.choice([0.05, 0.3, 1.0])
        weight = 2 * rng.integers(-60, 120, (size, inputs)) * (rng.random((size, inputs)) < share)
        projections.append(
            FixedProjection(
                f"w {name}", before.name if before else INPUT, name, FixedDense(weight), 8, 0
            )
        )
        populations.append(population(rng, name, (size,)))
    if number % 4 == 1:
        last = populations[-1]
        weight = 2 * rng.integers(-60, 60, (last.size, last.size))
        weight *= rng.random(weight.shape) < 0.05
        projections.append(FixedProjection("again", last.name, last.name, FixedDense(weight), 8, 0))
    formats = TARGET.number_formats
    return FixedPointNetwork(given, tuple(populations), tuple(projections), formats, "sum")


def cores_of(number: int) -> Target:
    """Return Loihi 1, every other time with cores of 60 neurons, so that spikes travel far."""
    if number % 2 == 0:
        return TARGET
    caps = TARGET.memory.caps
    fact = caps.neurons.model_copy(update={"value": 60})
    memory = TARGET.memory.model_copy(update={"caps": caps.model_copy(update={"neurons": fact})})
    return TARGET.model_copy(update={"memory": memory})


def kind_of(core: Core) -> str:
    """Return the kind of synapse that a core has there, where one neuron has one kind alone."""
    return core.usage.encoding.split("+")[0]


def described(
    network: FixedPointNetwork, mapping: Mapping, placed: Placement, spikes: np.ndarray, steps: int
) -> dict[str, Any]:
    """Return what SANA-FE is told: groups of neurons on tiles and cores, and synapses."""
    column, row = placed.routers(TARGET)
    # Four rows of eight tiles there are numbered from top to bottom, then from left to right.
    tile = column * 4 + row
    inside = 2 * (placed.y % 2) + placed.x % 2
    taken = set(zip(tile.tolist(), inside.tolist(), strict=True))
    free = [(t, c) for t in range(31, -1, -1) for c in range(4) if (t, c) not in taken]
    size = spikes.shape[1]
    padded = np.zeros((steps, size), bool)
    padded[: len(spikes)] = spikes
    groups: list[dict[str, Any]] = [
        {
            "name": INPUT,
            "cores": [free[n // 1024] for n in range(size)],
            "spikes": padded.T.tolist(),
        }
    ]
    kinds: dict[str, list[str]] = {}
    for p in network.populations:
        cores: list[Any] = [None] * p.size
        kinds[p.name] = [""] * p.size
        for core in mapping.by_population()[p.name]:
            for n in core.members(p.shape).tolist():
                cores[n] = (int(tile[core.index]), int(inside[core.index]))
                kinds[p.name][n] = kind_of(core)
        groups.append(
            {
                "name": p.name,
                "cores": cores,
                "kinds": kinds[p.name],
                "threshold": p.vth.tolist(),
                "kept": (4096 - p.dv).tolist(),
                "reset": "soft" if p.reset == "subtract" else "hard",
            }
        )
    synapses = []
    for q in network.projections:
        shape = network.shape_of(q.pre)
        weight, stored = matrix(q.connection, shape)
        if not q.connection.convolutional:
            number = network.afferents(q.post).index(q)
            dense = np.zeros(len(weight), bool)
            for core in mapping.by_population()[q.post]:
                dense[core.members((len(weight),))] = core.usage.keeps_zeros(number)
            stored = dense[:, None] | (weight != 0)
        post, pre = np.nonzero(stored)
        listed = [[int(a), int(b), int(w)] for a, b, w in zip(pre, post, weight[post, pre],
                                                             strict=True)]  # fmt: skip
        synapses.append({"pre": q.pre, "post": q.post, "weights": listed})
    return {"groups": groups, "synapses": synapses, "steps": steps}


def matrix(connection: Any, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Return a connection's weights (n_post, n_pre), and which of them there are."""
    if not connection.convolutional:
        weight = connection.weight.astype(np.int64)
        return weight, np.ones(weight.shape, bool)
    single = np.eye(math.prod(shape))
    found = connection.total(single, connection.weight.astype(np.float64), shape).T
    every = connection.total(single, np.ones(connection.weight.shape), shape).T
    return np.rint(found).astype(np.int64), every > 0


def compared(number: int, python: str) -> dict[str, Any]:
    """Run one network here and there."""
    network = drawn(number)
    rng = np.random.default_rng(1000 + number)
    size = math.prod(network.input_shape)
    given = rng.random((STEPS, size)) < rng.uniform(0.02, 0.3)
    names = [p.name for p in network.populations]
    done = run(network, given.reshape(1, STEPS, *network.input_shape), record=names)
    # On the chip, every population starts a step after the one before it.
    late = {name: depth for depth, name in enumerate([INPUT, *names])}
    steps = STEPS + len(names) + 1
    fired = {INPUT: given.astype(float)}
    fired |= {name: done.spikes[name][0].reshape(STEPS, -1).astype(float) for name in names}
    layers = layers_of(network)
    mapping = map_layers(layers, cores_of(number))
    assert mapping.fits, mapping.excesses()
    total = {name: counts.sum(axis=0) for name, counts in fired.items()}
    placed = place(traffic(mapping, layers, total), TARGET)
    assert placed is not None
    theirs = asked(described(network, mapping, placed, given, steps), python)
    seen = {name: np.zeros((steps, len(total[name])), bool) for name in total}
    for step, neurons in enumerate(theirs["fired"]):
        for neuron in neurons:
            name, index = neuron.rsplit(".", 1)
            if name != INPUT:
                seen[name][step, int(index)] = True
    differ = compared_spikes = 0
    for name in names:
        differ += int((seen[name][late[name] : late[name] + STEPS] != fired[name]).sum())
        compared_spikes += int(fired[name].sum())
    # What the chip goes on to do behind the last step is SANA-FE's word.
    on_chip = {name: seen[name].astype(float) for name in names}
    on_chip[INPUT] = np.concatenate([fired[INPUT], np.zeros((steps - STEPS, size))])
    loads = [
        step_load(mapping, layers, {n: on_chip[n][t] for n in on_chip}, placed, TARGET)
        for t in range(steps)
    ]
    return {
        "network": number,
        "layers": len(names),
        "neurons": sum(p.size for p in network.populations),
        "cores": mapping.cores_used,
        "spikes": compared_spikes,
        "differ": differ,
        **beside(mapping, loads, theirs, on_chip, names),
    }


def asked(about: dict[str, Any], python: str) -> dict[str, Any]:
    """Run SANA-FE on a described network."""
    script = Path(__file__).parent / "peers" / "sanafe_run.py"
    with tempfile.TemporaryDirectory() as folder:
        network, result = Path(folder, "network.json"), Path(folder, "run.json")
        network.write_text(json.dumps(about))
        subprocess.run(
            [python, str(script), str(network), str(result)], check=True, capture_output=True
        )
        found: dict[str, Any] = json.loads(result.read_text())
    return found


def beside(
    mapping: Mapping,
    loads: list[StepLoad],
    theirs: dict[str, Any],
    on_chip: dict[str, np.ndarray],
    names: list[str],
) -> dict[str, Any]:
    """Return events, energy and time of both."""
    steps = len(loads)
    synaptic = sum(load.synaptic for load in loads)
    kinds = {core.index: kind_of(core) for core in mapping.cores}
    own, outside = theirs["messages"]["chip"], theirs["messages"]["input"]
    events = {
        "synaptic operations": (float(synaptic.sum()), own["synaptic"] + outside["synaptic"]),
        "spikes between neurons": (float(sum(ld.received.sum() for ld in loads)), own["sent"]),
        "hops": (sum(ld.columns + ld.rows for ld in loads), own["columns"] + own["rows"]),
    }
    energies = [load.energy(TARGET) for load in loads]
    times = [load.time(TARGET) for load in loads]
    ours = sum(e.total for e in energies if e is not None) * 1e-12
    # Our counts at what SANA-FE takes an event to cost: energies equal if the counts are.
    neurons = sum(core.neurons for core in mapping.cores)
    fired = sum(on_chip[name].sum() for name in names)
    updated = theirs["updated"] - on_chip[INPUT].sum()
    at_their_cost = {
        "synapse": sum(SYNAPSE[kinds[c]] * met for c, met in enumerate(synaptic)),
        "soma": neurons * steps * ACCESS + updated * UPDATE + fired * FIRE,
        "network": (own["sent"] + outside["sent"]) * MESSAGE
        + (own["columns"] + outside["columns"]) * COLUMN_HOP
        + (own["rows"] + outside["rows"]) * ROW_HOP,
    }
    return {
        "events": events,
        "events_equal": all(a == b for a, b in events.values()),
        "energy_ours": ours,
        "energy_sanafe": theirs["energy"]["total"],
        "parts_sanafe": theirs["energy"],
        "our_counts_at_their_cost": at_their_cost,
        "seconds_ours": sum(t.total for t in times if t is not None),
        "seconds_sanafe": sum(theirs["seconds"]),
        "steps": steps,
    }


HEADS = ["network", "layers", "neurons", "cores", "spikes", "differ", "synaptic operations"]
HEADS += ["spikes sent", "hops", "energy, uJ: ours / SANA-FE", "our counts at its costs"]
HEADS += ["us a step: ours / SANA-FE"]


def line(row: dict[str, Any]) -> str:
    """Return a network's row of the table; one number of events where both count the same."""
    events = " | ".join(
        f"{a:,.0f}" if a == b else f"{a:,.0f} / {b:,.0f}" for a, b in row["events"].values()
    )
    at_cost = sum(row["our_counts_at_their_cost"].values())
    return (
        f"| {row['network']} | {row['layers']} | {row['neurons']} | {row['cores']} | "
        f"{row['spikes']:,} | {row['differ']} | {events} | "
        f"{row['energy_ours'] * 1e6:.2f} / {row['energy_sanafe'] * 1e6:.2f} | "
        f"{at_cost * 1e6:.2f} | {row['seconds_ours'] / row['steps'] * 1e6:.2f} / "
        f"{row['seconds_sanafe'] / row['steps'] * 1e6:.2f} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--sanafe", metavar="PYTHON", required=True)
    parser.add_argument("--networks", type=int, default=20)
    options = parser.parse_args()
    rows = []
    print(f"| {' | '.join(HEADS)} |\n{'|---' * len(HEADS)}|")
    for number in range(options.networks):
        rows.append(compared(number, options.sanafe))
        print(line(rows[-1]), flush=True)
    RESULTS.write_text(json.dumps({"sanafe": "2.2.9", "steps": STEPS, "networks": rows}, indent=1))
    unequal = [row["network"] for row in rows if row["differ"] or not row["events_equal"]]
    if unequal:
        raise SystemExit(f"spikes or events differ in networks {unequal}")


if __name__ == "__main__":
    main()
