"""What the Hessians of a network take, known before any of them is built.

A layer of fan-in n has Hessians of n x n numbers, and while it is solved there are several: of
two sets of samples, of the spikes that arrive and of those of the float network, damped, inverted.
How many at most was measured (the tests hold it), and how many arrays of its weights there are.
Batches of rows and of samples come on top, and stay within the solver's memory by themselves.
"""

from __future__ import annotations

from collections.abc import Mapping

from osbc_deploy.compress.options import CompressionOptions
from osbc_deploy.errors import UsageError
from osbc_deploy.limits import array_bytes, shown
from osbc_deploy.model.graph import Network, Population
from osbc_deploy.model.simulate import activity_bytes
from osbc_deploy.plain_text import many

__all__ = ["check_needed", "check_solver_memory", "hessian_bytes", "matrices_of", "run_bytes"]

_TUNED, _PLAIN, _SPARSE, _KEPT = 16, 6, 4, 3
"""Matrices of a layer: at most, by what is asked, and those that stay when all layers are held."""

_FEW = 0.75
"""Sparsity from which the weights of large layers are chosen without an inverse."""

_WEIGHTS = 15
"""Arrays of a layer's weights: as they were, wanted, pruned, ranked, rounded, and what passes."""


def hessian_bytes(network: Network, population: Population, matrices: int, steps: int) -> int:
    """Return what the weights into a population take, for this many matrices and time steps."""
    fan_in = groups = outputs = seen = unfolded = 0
    for projection in network.afferents(population.name):
        connection = projection.connection
        shape = network.shape_of(projection.pre)
        fan_in += connection.fan_in
        # Filtered spikes of a sample as float64, while they are and after; twice, for the float
        # network's. Batches are as large as the memory allows.
        seen += 4 * array_bytes((steps, *shape), 8)
        if projection.pool is not None:
            shape = projection.pool.output_shape(shape)
        places = array_bytes(connection.output_shape(shape)[1:], 1)
        groups = max(groups, connection.groups)
        outputs = max(outputs, len(connection.weight))
        unfolded += 4 * array_bytes((groups, connection.fan_in, places), 8)
    weights = (matrices if matrices == _KEPT else _WEIGHTS) * array_bytes((outputs, fan_in), 8)
    return matrices * array_bytes((groups, fan_in, fan_in), 8) + weights + seen + unfolded


def run_bytes(network: Network, samples: int, steps: int, *, tuned: bool) -> int:
    """Return what the spikes of all populations take, a bit each, and a sample's activity.

    Where variants are tried, spikes are kept with the float and with the compressed weights.
    """
    heard = {p.pre for p in network.projections}
    sizes = {p.name: p.size for p in network.populations}
    bits = sum(-(-steps * size // 8) for name, size in sizes.items() if name in heard)
    return (2 if tuned else 1) * samples * bits + activity_bytes(steps, list(sizes.values()))


def check_solver_memory(
    network: Network,
    samples: tuple[int, int],
    options: CompressionOptions,
    *,
    tuned: bool,
    together: bool,
) -> None:
    """Refuse a network whose Hessians do not fit into the solver's memory.

    Parameters
    ----------
    network : Network
    samples : (int, int)
        Calibration samples and their time steps.
    options : CompressionOptions
    tuned : bool
        Whether variants of each layer are tried.
    together : bool
        Whether all layers are held at once.

    Raises
    ------
    UsageError
        With every layer that needs more.
    """
    if options.method == "magnitude" and not together:
        return
    matrices = matrices_of(options, tuned=tuned)
    kept = run_bytes(network, *samples, tuned=tuned)
    if together:
        kept += sum(hessian_bytes(network, p, _KEPT, 0) for p in network.trained)

    def needed(matrices: int) -> dict[str, int]:
        return {
            p.name: kept + hessian_bytes(network, p, matrices, samples[1]) for p in network.trained
        }

    inputs = {
        p.name: (
            " + ".join(a.name for a in network.afferents(p.name)),
            sum(a.connection.fan_in for a in network.afferents(p.name)),
        )
        for p in network.trained
    }
    check_needed(needed(matrices), needed(matrices_of(options, tuned=False)), inputs, options)


def matrices_of(options: CompressionOptions, *, tuned: bool) -> int:
    """Return how many matrices of a layer there are at most."""
    if tuned and options.method != "magnitude":
        return _TUNED
    asked = [options.sparsity, *(choice.sparsity for choice in options.layers.values())]
    forward = options.method in ("osbc", "obc") and options.pattern == "weights"
    return _SPARSE if forward and min(asked) >= _FEW and not options.mixed else _PLAIN


def check_needed(
    needed: Mapping[str, int],
    plain: Mapping[str, int],
    inputs: Mapping[str, tuple[str, int]],
    options: CompressionOptions,
) -> None:
    """Refuse layers that need more than the solver's memory.

    Parameters
    ----------
    needed, plain : dict of int
        Bytes by layer: as asked, and where no variants are tried.
    inputs : dict of (str, int)
        What each layer is called, and the inputs of a neuron.
    options : CompressionOptions

    Raises
    ------
    UsageError
        With every layer that needs more.
    """
    over = {name: size for name, size in needed.items() if size > options.solver_memory}
    if not over:
        return
    lines = "\n".join(
        f"  - {inputs[name][0]}: needs {shown(size)} for {inputs[name][1]:,} inputs of a neuron"
        for name, size in over.items()
    )
    most, least = max(over.values()), max(plain.values())
    less = f"--no-tune needs {shown(least)}, " if least < most else ""
    raise UsageError(
        f"--solver-memory: {shown(options.solver_memory)} is less than the Hessians of "
        f"{many(len(over), 'layer')} need:\n{lines}\nGive it {most} bytes if the machine "
        f"has them; {less}what a layer needs grows with the square of its inputs."
    )
