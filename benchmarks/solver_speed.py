"""The solver's time and memory on one layer, against exact greedy.

    python benchmarks/solver_speed.py [--data FOLDER] [--rows N]

Compresses the 2312 x 800 layer at 97 %. Exact greedy is timed on a sample of rows on both cores,
and extrapolated; losses are compared on those rows with as many weights kept in each as the module
keeps there. Whole networks: sizes.py.
"""

from __future__ import annotations

import resource
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from _accuracy import Clock, parser, saccade, write
from threadpoolctl import threadpool_limits

from osbc_deploy.compress.allocation import lamps_allocation
from osbc_deploy.compress.elimination import eliminate
from osbc_deploy.compress.hessian import membrane_moments
from osbc_deploy.compress.layer import prune_layer, quantize_layer, rank_layer
from osbc_deploy.compress.paths import path_mask
from osbc_deploy.compress.problem import pose
from osbc_deploy.compress.support import least_squares, loss

SPARSITY = 0.97


def main() -> None:
    arguments = parser(__doc__ or "")
    arguments.add_argument("--rows", type=int, default=16)
    given = arguments.parse_args()
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
