"""Whether a backend computes the engine's bits, on networks with all that there is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np

from osbc_deploy.backends import Backend, BackendRun, checked_backend, load_backend, run_backend
from osbc_deploy.child import check_ready
from osbc_deploy.errors import BackendError
from osbc_deploy.fixedpoint.engine import EngineRun, run
from osbc_deploy.fixedpoint.formats import NumberFormats
from osbc_deploy.testing.networks import Case, random_networks
from osbc_deploy.verification.bits import first_difference, quantities

__all__ = ["assert_backend_conforms", "assert_same_bits", "engine_states"]

_DRAWN = 40
"""Networks that are drawn at most for each that is asked for."""


def assert_backend_conforms(
    backend: Backend | str,
    n: int = 20,
    *,
    formats: NumberFormats | None = None,
    start: int = 0,
    supports: Callable[[Case], bool] | None = None,
    time_limit: float = 600.0,
) -> Counter[str]:
    """Make sure that a backend keeps its contract and computes the engine's bits.

    It is asked about itself, then runs random networks (:func:`random_networks`). Every spike,
    current and potential it gives must be the engine's, and a sample must give the same alone as
    among others.

    Parameters
    ----------
    backend : Backend or str
        The object that the plugin registers, or the name of one that is installed.
    n : int
        Networks to run.
    formats : NumberFormats, optional
        The registers of the chip; Loihi 2's by default.
    start : int
        Seed of the networks.
    supports : callable, optional
        Tells whether the backend can run a network; others are not given to it. All by default.
    time_limit : float
        Seconds that a run may take.

    Returns
    -------
    Counter
        Networks by feature, and the numbers compared by quantity ("spikes", "u", "v").

    Raises
    ------
    AssertionError
        With the first difference, the network it is in, and how to draw it again.
    """
    cases = _supported(n, formats, start, supports)
    counted: Counter[str] = Counter()
    try:
        runner = load_backend(backend) if isinstance(backend, str) else checked_backend(backend)
        check_ready(runner)
    except BackendError as error:
        raise AssertionError(str(error)) from error
    for number, case in cases:
        where = (
            f"backend {runner.name!r}, network {number} ({', '.join(case.features)}; "
            f"random_networks({number + 1}, start={start})[{number}])"
        )
        names = [p.name for p in case.network.populations]
        try:
            theirs = run_backend(
                runner, case.network, case.spikes, time_limit=time_limit, states=names
            )
            alone = run_backend(runner, case.network, case.spikes[-1:], time_limit=time_limit)
        except BackendError as error:
            raise AssertionError(f"{where}: {error}") from error
        counted += assert_same_bits(case, theirs, where)
        if not np.array_equal(alone.output[0], theirs.output[-1]):
            raise AssertionError(
                f"{where}: the last sample alone gives another output than after the others. "
                "Start every sample from the initial state, with nothing on its way."
            )
        counted.update(set(case.features))
    return counted


def _supported(
    n: int,
    formats: NumberFormats | None,
    start: int,
    supports: Callable[[Case], bool] | None,
) -> list[tuple[int, Case]]:
    """Return the first networks that can be run, with their numbers."""
    if supports is None:
        return list(enumerate(random_networks(n, formats, start=start)))
    drawn = 0
    found: list[tuple[int, Case]] = []
    while len(found) < n and drawn < _DRAWN * n:
        drawn = min(max(2 * n, 4 * drawn), _DRAWN * n)
        cases = random_networks(drawn, formats, start=start)
        found = [(number, case) for number, case in enumerate(cases) if supports(case)][:n]
    if len(found) < n:
        raise AssertionError(
            f"supports: is true of {len(found)} of {drawn} random networks, {n} were asked for. "
            "Ask for fewer, or support more."
        )
    return found


def assert_same_bits(case: Case, theirs: BackendRun | EngineRun, where: str = "") -> Counter[str]:
    """Make sure that a run gave every spike, current and potential that the engine gives.

    Parameters
    ----------
    case : Case
    theirs : BackendRun or EngineRun
        Of its network on its samples; currents and potentials are compared as far as it has them.
    where : str
        What to say in front of a difference.

    Returns
    -------
    Counter
        Numbers compared by quantity ("spikes", "u", "v").

    Raises
    ------
    AssertionError
        With the first difference.
    """
    ours = engine_states(case)
    counted: Counter[str] = Counter()
    differences = []
    for population in case.network.populations:
        pairs: dict[str, Any] = quantities(population.name, ours, theirs)
        if population is case.network.output and not population.spiking:
            pairs.setdefault("v", (ours.output, theirs.output))
        for quantity, (a, b) in pairs.items():
            if a.shape != b.shape:
                raise AssertionError(
                    f"{where}: {quantity} of {population.name!r} has shape {b.shape}, needed "
                    f"{a.shape}"
                )
            counted[quantity] += a.size
        first = first_difference(population.name, pairs)
        if first is not None:
            wrong = {q: int(np.count_nonzero(a != b)) for q, (a, b) in pairs.items()}
            differences.append((first, wrong))
    if differences:
        # Of populations that run in their own time, the cause comes first in the network.
        first, wrong = differences[0]
        listed = ", ".join(f"{count} of {quantity}" for quantity, count in wrong.items() if count)
        raise AssertionError(
            f"{where or 'run'}: {first.population!r} is not what the engine computes ({listed} "
            f"differ): first in sample {first.sample}, step {first.step}, neuron {first.neuron}, "
            f"where {first.quantity} is {first.backend}, {first.engine} is right"
        )
    return counted


def engine_states(case: Case, **options: Any) -> EngineRun:
    """Run a network on the engine and keep everything; `options` are those of its `run`."""
    names = [p.name for p in case.network.populations]
    return run(case.network, case.spikes, record=names, states=names, **options)
