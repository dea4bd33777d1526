"""The integer engine: runs a fixed-point network on samples, bit for bit as the chip does."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Literal, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from osbc_deploy.arrays import IntArray, SpikeArray, peak_of
from osbc_deploy.errors import UsageError
from osbc_deploy.fixedpoint.network import FixedPointNetwork
from osbc_deploy.fixedpoint.plain import run_plain
from osbc_deploy.fixedpoint.record import Activity, EngineRun, Traces
from osbc_deploy.progress import SILENT, Progress, task

T = TypeVar("T", bound=np.generic)

__all__ = ["Activity", "EngineRun", "Kernels", "run"]

Kernels: TypeAlias = Literal["compiled", "plain"]


def run(
    network: FixedPointNetwork,
    spikes: IntArray,
    *,
    record: Collection[str] = (),
    states: Collection[str] = (),
    given: Mapping[str, SpikeArray] | None = None,
    keep: int | None = None,
    kernels: Kernels = "compiled",
    batch_size: int = 32,
    threads: int | None = None,
    strict: bool = True,
    progress: Progress = SILENT,
    title: str = "fixed-point engine",
) -> EngineRun:
    """Run samples through a fixed-point network.

    The result depends on none of `kernels`, `batch_size` and `threads`.

    Parameters
    ----------
    network : FixedPointNetwork
    spikes : ndarray of uint8 (n, T, *input_shape), or of integers for a graded input
    record : collection of str
        Populations whose spikes are kept.
    states : collection of str
        Populations whose u and v are kept.
    given : dict of ndarray of uint8, each (n, T, ...), optional
        Spikes of populations that are taken as they are and not run; the output runs.
    keep : int, optional
        The first samples, of which `record` and `states` are kept; all by default.
    kernels : {"compiled", "plain"}
        The compiled engine, or the NumPy code that specifies it.
    batch_size : int
        Samples side by side in the plain engine, and between two signs of progress.
    threads : int, optional
        Of the compiled engine; the processor's cores by default.
    strict : bool
        Refuse currents out of the register's range; lowering looks at them instead.

    Raises
    ------
    FidelityError
        When a current leaves the range that one wrap of the register can represent.
    UsageError
        For samples of another shape than the network's input, or that are not what it takes.
    """
    if spikes.ndim < 3 or spikes.shape[2:] != network.input_shape:
        raise UsageError(
            f"samples: have shape {spikes.shape}, the network takes (n, T, "
            f"{', '.join(map(str, network.input_shape))}). Give samples of that shape."
        )
    network.input.check(spikes)
    n, steps = spikes.shape[:2]
    signal = spikes.reshape(n, steps, -1)
    sizes = {p.name: p.size for p in network.populations}
    out = network.output

    def rasters(names: Collection[str], count: int, dtype: type[T]) -> dict[str, NDArray[T]]:
        return {
            name: np.empty((count, steps, sizes[name]), dtype) for name in sizes if name in names
        }

    known = {
        name: np.ascontiguousarray(raster, np.uint8).reshape(n, steps, sizes[name])
        for name, raster in (given or {}).items()
    }
    first = n if keep is None else min(n, keep)
    kept = rasters(
        [p.name for p in network.populations if p.name in record and p.spiking], first, np.uint8
    )
    kept |= {name: known[name][:first] for name in kept if name in known}
    u = rasters(states, first, np.int32)
    v = rasters(states, first, np.int32)
    output = np.empty((n, steps, out.size), np.int32)
    if out.name in v and not out.spiking:
        v[out.name] = output[:first]
    activity = {name: Activity() for name in sizes if name not in known}
    with (
        task(progress, title, n),
        _workers(network, signal, kernels, threads, frozenset(known), strict=strict) as work,
    ):
        for rows in _batches(first, n, batch_size):
            count = rows.stop - rows.start
            held = rows.start < first
            there = known | (kept if held else {})
            fired = rasters([name for name in sizes if name not in there], count, np.uint8)
            fired |= {name: array[rows] for name, array in there.items()}
            potentials = {k: a[rows] for k, a in v.items() if held}
            if not out.spiking:
                potentials[out.name] = output[rows]
            traces = Traces(
                fired,
                {k: a[rows] for k, a in u.items() if held},
                potentials,
                frozenset(known),
            )
            for seen in work(signal[rows], traces):
                activity = {name: total + seen[name] for name, total in activity.items()}
            if out.spiking:
                output[rows] = fired[out.name]
            progress.advance(count)
    return EngineRun(kept, u, v, output, activity)


def _batches(first: int, n: int, size: int) -> Iterator[slice]:
    """Yield the first samples and the others in batches."""
    for start, stop in ((0, first), (first, n)):
        for begin in range(start, stop, size):
            yield slice(begin, min(begin + size, stop))


Work: TypeAlias = Callable[[IntArray, Traces], Iterable[dict[str, Activity]]]


@contextmanager
def _workers(
    network: FixedPointNetwork,
    signal: IntArray,
    kernels: Kernels,
    threads: int | None,
    given: frozenset[str],
    *,
    strict: bool,
) -> Iterator[Work]:
    """Yield the function that runs a batch and tells what each sample, or all, went through."""
    if kernels == "plain":
        yield lambda batch, traces: [run_plain(network, batch, traces, strict=strict)]
        return
    # Imported here: numba takes half a second, which reading a network need not.
    from osbc_deploy.fixedpoint.compiled import plan_of

    graded = any(p.graded for p in network.projections)
    peak = int(peak_of(signal)) if graded else 1
    plan = plan_of(network, peak, given)
    with ThreadPoolExecutor(max_workers=threads or os.cpu_count()) as pool:

        def work(batch: IntArray, traces: Traces) -> Iterable[dict[str, Activity]]:
            return pool.map(
                lambda sample: plan.run(batch[sample], sample, traces, strict=strict),
                range(len(batch)),
            )

        yield work
