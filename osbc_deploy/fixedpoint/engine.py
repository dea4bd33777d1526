"""The integer engine: runs a fixed-point network on samples, bit for bit as the chip does."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Literal, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from osbc_deploy.arrays import IntArray, SpikeArray, peak_of
from osbc_deploy.errors import UsageError
from osbc_deploy.fixedpoint.arithmetics import arithmetic_of
from osbc_deploy.fixedpoint.network import FixedPointNetwork
from osbc_deploy.fixedpoint.record import Activity, EngineRun, Traces
from osbc_deploy.progress import SILENT, Progress, task

T = TypeVar("T", bound=np.generic)
A = TypeVar("A")
R = TypeVar("R")

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
    """Run samples through a fixed-point network, in the arithmetic that its formats name.

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
        Samples side by side in the plain engine.
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
    signal = spikes.reshape(n, steps, math.prod(network.input_shape))
    sizes = {p.name: p.size for p in network.populations}
    out = network.output

    def rasters(names: Collection[str], count: int, dtype: type[T]) -> dict[str, NDArray[T]]:
        return {
            name: np.empty((count, steps, sizes[name]), dtype) for name in sizes if name in names
        }

    arithmetic = arithmetic_of(network.formats)
    known = {
        name: np.ascontiguousarray(
            np.clip(raster, 0, arithmetic.most_spikes).reshape(n, steps, sizes[name]), np.uint8
        )
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

    def traces_of(rows: slice) -> Traces:
        held = rows.start < first
        there = known | (kept if held else {})
        fired = {name: array[rows] for name, array in there.items()}
        if out.spiking and out.name not in fired:
            fired |= rasters([out.name], rows.stop - rows.start, np.uint8)
        potentials = {k: a[rows] for k, a in v.items() if held}
        if not out.spiking:
            potentials[out.name] = output[rows]
        return Traces(
            fired, {k: a[rows] for k, a in u.items() if held}, potentials, frozenset(known)
        )

    def done(rows: slice) -> tuple[int, Mapping[str, Activity]]:
        traces = traces_of(rows)
        seen = work(signal[rows], traces)
        if out.spiking:
            output[rows] = traces.spikes[out.name]
        return rows.stop - rows.start, seen

    if kernels == "plain":
        work: Work = partial(arithmetic.run_plain, network, strict=strict)
        size, count = batch_size, 1
    else:
        graded = any(p.graded for p in network.projections)
        peak = int(peak_of(signal)) if graded else 1
        plan = arithmetic.plan(network, peak, frozenset(known), strict=strict)
        count = threads or os.cpu_count() or 1
        work, size = plan.run, plan.batch(steps, -(-n // count))
    activity = {name: Activity() for name in sizes if name not in known}
    with task(progress, title, n), _each(done, count) as each:
        for samples, seen in each(_batches(first, n, size)):
            activity = {name: total + seen[name] for name, total in activity.items()}
            progress.advance(samples)
    return EngineRun(kept, u, v, output, activity)


Work: TypeAlias = Callable[[IntArray, Traces], Mapping[str, Activity]]


def _batches(first: int, n: int, size: int) -> Iterator[slice]:
    """Yield the first samples and the others in batches."""
    for start, stop in ((0, first), (first, n)):
        for begin in range(start, stop, size):
            yield slice(begin, min(begin + size, stop))


@contextmanager
def _each(
    function: Callable[[A], R], threads: int
) -> Iterator[Callable[[Iterable[A]], Iterable[R]]]:
    """Yield what applies a function to each of some things on several threads, in order."""
    if threads == 1:
        yield partial(map, function)
        return
    with ThreadPoolExecutor(max_workers=threads) as pool:
        try:
            yield partial(pool.map, function)
        except BaseException:
            # What has not begun is not wanted any more.
            pool.shutdown(cancel_futures=True)
            raise
