"""Cores and words of a 2312-800-10 network (N-MNIST) over sparsity and bits, both encodings.

Run: ``python benchmarks/memory_table.py``; the table stands in docs/memory-model.md.
"""

from __future__ import annotations

import itertools

import numpy as np
from _synthetic import dense_stack

from osbc_deploy.chip.mapping import map_network
from osbc_deploy.chip.target import Target, load_target

SHAPE = (2312, 800, 10)


def weights(sparsity: float, seed: int = 0) -> list[np.ndarray]:
    """Return weights of which exactly a share is zero, at random places."""
    rng = np.random.default_rng(seed)
    found = []
    for pre, post in itertools.pairwise(SHAPE):
        weight = np.full(pre * post, 2, np.int16)
        weight[rng.permutation(weight.size)[: round(sparsity * weight.size)]] = 0
        found.append(weight.reshape(post, pre))
    return found


def cost(sparsity: float, bits: int, target: Target) -> tuple[int, int]:
    """Return cores and words."""
    mapping = map_network(dense_stack(weights(sparsity), bits), target)
    assert mapping.fits
    return mapping.cores_used, mapping.words


def rows() -> list[str]:
    """Return the table's rows."""
    target = load_target("loihi2")
    lines = []
    for sparsity in (0.0, 0.9, 0.97):
        for bits in (8, 4, 2):
            dense = cost(0.0, bits, target)
            chosen = cost(sparsity, bits, target)
            nonzero = sum(int(np.count_nonzero(w)) for w in weights(sparsity))
            naive = -(-nonzero * bits // 64)
            lines.append(
                f"| {sparsity:.0%} | {bits} | {dense[0]} | {dense[1]:,} | {chosen[0]} | "
                f"{chosen[1]:,} | {naive:,} | {chosen[1] / naive:.1f} |"
            )
    return lines


def main() -> None:
    print(
        "| sparsity | bits | dense: cores | dense: words | chosen: cores | chosen: words | "
        "non-zero x bits: words | true / that |"
    )
    print("|---|---|---|---|---|---|---|---|")
    print("\n".join(rows()))


if __name__ == "__main__":
    main()
