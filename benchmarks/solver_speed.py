"""The solver's time and memory: one layer against exact greedy, and whole networks.

    python benchmarks/solver_speed.py [--data FOLDER] [--rows N]
    python benchmarks/solver_speed.py --whole conv mlp [--channels 128] [--size 128]
        [--methods osbc magnitude] [--tune] [--old FOLDER] [--rounds N]

The first compresses the 2312 x 800 layer at 97 %. Exact greedy is timed on a sample of rows on both
cores and extrapolated; losses are compared on those rows with as many weights kept in each as the
module keeps there.

The second compresses networks of random weights (at 90 % and 4 bits; 100 samples of 16 steps), each
in a process of its own: 5Conv2FC as on DVS128 Gesture, and 4096-4096-10. With --old, a checkout of
another version does the same in turn, ROUNDS times.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from _accuracy import Clock, parser, saccade, table, write
from threadpoolctl import threadpool_limits

from osbc_deploy.compress import CompressionOptions, compress
from osbc_deploy.compress.allocation import lamps_allocation
from osbc_deploy.compress.hessian import membrane_moments
from osbc_deploy.compress.layer import prune_layer, quantize_layer, rank_layer
from osbc_deploy.compress.paths import path_mask
from osbc_deploy.compress.problem import pose
from osbc_deploy.compress.selection import eliminate
from osbc_deploy.compress.support import least_squares, loss
from osbc_deploy.frameworks.norse.neurons import IF, LIF
from osbc_deploy.model.graph import (
    AvgPool,
    Connection,
    Conv,
    Dense,
    Network,
    Population,
    Projection,
)

SPARSITY = 0.97


def main() -> None:
    arguments = parser(__doc__ or "")
    arguments.add_argument("--rows", type=int, default=16)
    arguments.add_argument("--whole", nargs="+", choices=["conv", "mlp"])
    arguments.add_argument("--channels", type=int, default=128)
    arguments.add_argument("--size", type=int, default=128)
    arguments.add_argument("--methods", nargs="+", default=["osbc"])
    arguments.add_argument("--tune", action="store_true")
    arguments.add_argument("--old", help="a checkout of another version")
    arguments.add_argument("--rounds", type=int, default=1)
    arguments.add_argument("--child", action="store_true")
    given = arguments.parse_args()
    if given.child:
        compress_one(given)
        return
    if given.whole:
        beside(given)
        return
    task = saccade(given.data)
    projection, population = task.network.projections[0], task.network.populations[0]
    keep = lamps_allocation([p.connection.weight for p in task.network.projections], SPARSITY)[0]

    with Clock() as all_of_it:
        with Clock() as hessian:
            moments = membrane_moments(
                [projection], population.neuron.dynamics(), [task.calibration]
            )
            problem = pose([projection], population, moments)
        with Clock() as ranking:
            ranked = rank_layer(problem, keep)
        with Clock() as solving:
            pruned = prune_layer(problem, keep, ranked)
        with Clock() as quantizing:
            quantize_layer(problem, pruned, [4], 8)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2
    print(
        f"{keep:,} of {problem.size:,} weights kept by {ranked.selection} selection\n"
        f"Hessian {hessian.seconds:.1f} s, selection {ranking.seconds:.1f} s, least squares "
        f"{solving.seconds:.1f} s, 4-bit quantization {quantizing.seconds:.1f} s\n"
        f"whole module {all_of_it.seconds:.1f} s, peak memory {peak:.2f} GiB"
    )

    d = problem.damped[0]
    W = problem.blocks[0][:, d.live]
    rows = np.linspace(0, len(W) - 1, given.rows).astype(int)
    mask = pruned.masks[0][:, d.live]
    counts = mask[rows].sum(axis=1)
    inverse = np.linalg.inv(d.H)
    with threadpool_limits(1, user_api="blas"), ThreadPoolExecutor(2) as pool, Clock() as greedy:
        orders = list(pool.map(lambda r: rank_one(W[r], inverse), rows))
    estimate = greedy.seconds / len(rows) * len(W)
    kept = np.zeros((len(rows), W.shape[1]), bool)
    for row, (order, count) in enumerate(zip(orders, counts, strict=True)):
        kept[row, order[len(order) - count :]] = True
    whole = loss(W[rows], 0 * W[rows], d.H).sum()
    ours, theirs = (
        float(loss(W[rows], least_squares(W[rows], d.H, m), d.H).sum() / whole)
        for m in (mask[rows], kept)
    )
    with Clock() as blocked:
        exact = eliminate(W[rows], d.H)
    same = np.mean(path_mask(exact, counts, W.shape[1]) == kept)
    print(
        f"exact greedy, one weight at a time: {greedy.seconds:.1f} s for {len(rows)} rows, "
        f"{estimate:.0f} s for all: {estimate / all_of_it.seconds:.0f} times the whole module, "
        f"{estimate / ranking.seconds:.0f} times the selection\n"
        f"relative loss on these rows: {ours:.4f} ours, {theirs:.4f} exact greedy "
        f"({ours / theirs - 1:+.2%})\n"
        f"exact greedy in blocks: {blocked.seconds / len(rows) * len(W):.0f} s for all, "
        f"{same:.2%} of the mask the same"
    )
    write(
        "solver_speed",
        {
            "sparsity": SPARSITY,
            "module_seconds": all_of_it.seconds,
            "hessian_seconds": hessian.seconds,
            "selection_seconds": ranking.seconds,
            "least_squares_seconds": solving.seconds,
            "quantization_seconds": quantizing.seconds,
            "peak_gib": peak,
            "greedy_seconds_estimated": estimate,
            "greedy_blocked_seconds_estimated": blocked.seconds / len(rows) * len(W),
            "times_faster": estimate / all_of_it.seconds,
            "relative_loss": ours,
            "greedy_relative_loss": theirs,
        },
    )


def beside(given: argparse.Namespace) -> None:
    """Run every case in a process of its own, this version and the other in turn."""
    here = Path(__file__).parents[1]
    versions = {"this": here} | ({"other": Path(given.old).resolve()} if given.old else {})
    found, rows = [], []
    for network in given.whole:
        for method in given.methods:
            for _ in range(given.rounds):
                for version, folder in versions.items():
                    command = [sys.executable, __file__, "--child", "--whole", network]
                    command += ["--channels", str(given.channels), "--size", str(given.size)]
                    command += ["--methods", method] + ["--tune"] * given.tune
                    done = subprocess.run(
                        command,
                        env={**os.environ, "PYTHONPATH": str(folder)},
                        stdout=subprocess.PIPE,
                        text=True,
                        check=True,
                    )
                    each = json.loads(done.stdout.splitlines()[-1])
                    found.append({"network": network, "method": method, "version": version, **each})
                    cells = [f"{each[k]:.1f}" for k in ("cpu_seconds", "seconds", "peak_gib")]
                    rows.append([network, method, version, *cells, str(each["losses"])])
    table(["network", "method", "version", "CPU s", "s", "peak GiB", "losses"], rows)
    write("solver_speed_whole", {"given": vars(given), "found": found})


def compress_one(given: argparse.Namespace) -> None:
    """Compress one network, and print what it took as JSON."""
    network = five_conv(given.channels, given.size) if given.whole == ["conv"] else mlp()
    spikes = events(network.input_shape)
    options = CompressionOptions(method=given.methods[0], tune=given.tune)
    start = os.times()
    with Clock() as clock:
        done = compress(network, spikes, options)
    spent = os.times()
    content = {
        "cpu_seconds": spent.user + spent.system - start.user - start.system,
        "seconds": clock.seconds,
        "peak_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2,
        "losses": [
            round(p.relative_loss["total"], 4) if p.relative_loss else None
            for p in done.projections.values()
        ],
        "rates": {name: round(rate, 4) for name, rate in done.rates.items()},
    }
    print(json.dumps(content))


def five_conv(channels: int, size: int) -> Network:
    """Return 5Conv2FC: five convolutions, each pooled by two, and two dense layers."""
    rng = np.random.default_rng(0)
    shape: tuple[int, ...] = (2, size, size)
    populations, projections, pre, pool = [], [], "input", None
    for number in range(7):
        before = shape if pool is None else pool.output_shape(shape)
        connection: Connection
        if number < 5:
            drawn = rng.standard_normal((channels, before[0], 3, 3)) * 1.8 / np.sqrt(9 * before[0])
            connection = Conv(drawn.astype(np.float32), None, (1, 1), (1, 1))
        else:
            outputs, inputs = (512 if number == 5 else 11), int(np.prod(before))
            drawn = rng.standard_normal((outputs, inputs)) * 1.8 / np.sqrt(inputs)
            connection = Dense(drawn.astype(np.float32))
        name = f"p{number}"
        # As trained networks do, neurons fire in a few steps of a hundred.
        zero = np.zeros(())
        neuron = LIF(np.array(0.5), zero, np.array(0.35 if number == 0 else 0.2), zero)
        shape = connection.output_shape(before)
        populations.append(Population(name, shape, neuron))
        projections.append(Projection(f"w{number}", pre, name, connection, pool))
        pre, pool = name, (AvgPool((2, 2), (2, 2)) if number < 5 else None)
    return Network((2, size, size), tuple(populations), tuple(projections))


def mlp() -> Network:
    """Return 4096-4096-10 of integrate-and-fire neurons."""
    rng = np.random.default_rng(0)
    neuron = IF(np.array(1.0), np.zeros(()))
    weights = (
        rng.standard_normal((outputs, 4096)).astype(np.float32) * np.float32(0.03)
        for outputs in (4096, 10)
    )
    first, second = (Dense(weight) for weight in weights)
    return Network(
        (4096,),
        (Population("hidden", (4096,), neuron), Population("out", (10,), neuron)),
        (
            Projection("w0", "input", "hidden", first),
            Projection("w1", "hidden", "out", second),
        ),
    )


def events(shape: tuple[int, ...]) -> np.ndarray:
    """Return 100 samples of 16 steps: places differ in how often they see an event."""
    rng = np.random.default_rng(1)
    rates = rng.gamma(0.5, 0.1, shape)
    return np.stack([(rng.random((16, *shape)) < rates).astype(np.uint8) for _ in range(100)])


def rank_one(w: np.ndarray, inverse: np.ndarray) -> np.ndarray:
    """Remove all weights of a row, the inverse updated at each step; the order of removal."""
    n = len(w)
    w, inverse, columns = w.copy(), inverse.copy(), np.arange(n)
    order = np.empty(n, int)
    for step in range(n):
        if step and step % 256 == 0:
            # Dropping what is gone now and then keeps the baseline an honest one.
            left = np.flatnonzero(np.isfinite(w))
            w, columns = w[left], columns[left]
            inverse = inverse[np.ix_(left, left)]
        diagonal = np.diagonal(inverse).copy()
        gone = ~np.isfinite(w)
        diagonal[gone] = 1.0
        p = int(np.argmin(w * w / diagonal))
        column = inverse[:, p] / np.sqrt(diagonal[p])
        order[step] = columns[p]
        w = w - w[p] / column[p] * column
        inverse -= np.outer(column, column)
        w[p] = np.inf
    return order


if __name__ == "__main__":
    main()
