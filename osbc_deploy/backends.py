"""Backends: plugins that run a fixed-point network, found by entry point.

A backend is an object with the attributes of :class:`Backend`, registered under the entry-point
group ``osbc_deploy.backends``. The core never imports one by name, and believes none: its interface
is checked before any work, its answer right after (:func:`run_backend`).
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import DTypeLike

from osbc_deploy.arrays import IntArray, SpikeArray
from osbc_deploy.deadline import OverdueError, ended_after
from osbc_deploy.errors import BackendError, described
from osbc_deploy.fixedpoint.arithmetics import LOIHI, arithmetic_of
from osbc_deploy.fixedpoint.formats import RANGES, NumberFormats
from osbc_deploy.fixedpoint.network import FixedPointNetwork
from osbc_deploy.plugins import REPAIR, Group, stdout_kept
from osbc_deploy.progress import SILENT, Progress

__all__ = [
    "BACKENDS",
    "Availability",
    "Backend",
    "BackendRun",
    "check_arithmetic",
    "checked_backend",
    "load_backend",
    "run_backend",
]

_SKIP = f"{REPAIR[:-1]}, or skip the comparison with --backend-samples 0."
_MOST_FAULTS = 5
"""Faults of one answer that a message lists."""
_GRACE = 10.0
"""Seconds that a backend may take beyond its time limit, to end what it started."""


@dataclass(frozen=True)
class Availability:
    """Whether a backend can run here.

    Attributes
    ----------
    ok : bool
    detail : str
        Versions where it can run, the reason where it cannot.
    remedy : str
        What to do about it; empty where it can run.
    """

    ok: bool
    detail: str
    remedy: str = ""


@dataclass(frozen=True, eq=False)
class BackendRun:
    """What a backend computed.

    Attributes
    ----------
    spikes : dict of ndarray of uint8 (n, T, size)
        Of every spiking population, 0 or 1.
    output : ndarray of int32 (n, T, size)
        Spikes of the output population, or its potentials if it is a readout.
    u, v : dict of ndarray of int32 (n, T, size)
        Synaptic current and membrane potential after each step, of the populations whose states
        were asked for; a backend that cannot see one of the two leaves it out.
    restarts : int
        Times the backend hung and was started again; its results are what they would have been.
    """

    spikes: Mapping[str, SpikeArray]
    output: IntArray
    u: Mapping[str, IntArray] = field(default_factory=dict)
    v: Mapping[str, IntArray] = field(default_factory=dict)
    restarts: int = 0


class Backend(Protocol):
    """What a backend plugin provides.

    One that cannot change widths of registers has them as `registers`, a mapping by their names in
    :class:`~osbc_deploy.fixedpoint.formats.NumberFormats`; networks of others are refused.
    """

    @property
    def name(self) -> str:
        """Name of the backend, as its entry point and targets give it."""

    @property
    def summary(self) -> str:
        """One line for the list of backends."""

    @property
    def arithmetics(self) -> Collection[str] | None:
        """Names of the arithmetics it computes, None for any; Loihi's alone where it is absent."""

    def availability(self) -> Availability:
        """Tell whether the backend can run here, quickly and without importing heavy parts."""

    def run(
        self,
        network: FixedPointNetwork,
        spikes: IntArray,
        *,
        time_limit: float,
        progress: Progress,
        states: Collection[str] = (),
    ) -> BackendRun:
        """Run samples (n, T, *input_shape), spikes of uint8 or a graded input of int32.

        `states` names the populations whose u and v are wanted. BackendError for a network that it
        cannot run, and after `time_limit` seconds; what goes on beyond them is interrupted. The
        arrays it is given are read-only.
        """


def _accept(name: str, plugin: Any) -> Backend:
    if isinstance(plugin, type):
        raise ValueError(f"it is the class {plugin.__name__}, not an object of it")
    faults = []
    if (called := getattr(plugin, "name", None)) != name:
        faults.append(f"its name is {called!r:.60}, its entry point's {name!r}")
    if not isinstance(summary := getattr(plugin, "summary", None), str):
        faults.append(f"its summary is {summary!r:.60}, no text")
    registers = getattr(plugin, "registers", {})
    if not isinstance(registers, Mapping) or not RANGES.keys() >= registers.keys():
        faults.append(f"its registers are {registers!r:.60}, no mapping of names in a target")
    keywords = dict.fromkeys(("time_limit", "progress", "states"))
    for method, given, named in (("availability", (), {}), ("run", (None, None), keywords)):
        found = getattr(plugin, method, None)
        if not callable(found):
            faults.append(f"it has no method {method}")
            continue
        try:
            inspect.signature(found).bind(*given, **named)
        except (TypeError, ValueError) as error:
            faults.append(f"{method} cannot be called as Backend.{method} is: {error}")
    if faults:
        raise ValueError("; ".join(faults))
    return _Guarded(name, plugin)


BACKENDS: Group[Backend] = Group(
    "osbc_deploy.backends", "backend",
    ("engine", "lava", "sinabs", "xylo", "host-c",
     *(f"qemu-{machine}" for machine in ("m0plus", "m4", "m7", "rv32"))), _accept, BackendError,
)  # fmt: skip


def load_backend(name: str) -> Backend:
    """Load a backend plugin and check its interface.

    Raises
    ------
    UsageError
        When no such backend is installed.
    BackendError
        When its package cannot be imported, or is not a backend.
    """
    return BACKENDS.load(name)


def checked_backend(backend: Any) -> Backend:
    """Return an object as a backend, once it has the interface of one.

    Raises
    ------
    BackendError
        With all that is wrong.
    """
    if isinstance(backend, _Guarded):
        return backend
    called = type(backend).__name__
    try:
        name = getattr(backend, "name", None)
        called = name if isinstance(name, str) else called
        return _accept(called, backend)
    except Exception as error:
        said = str(error) if type(error) is ValueError else described(error)
        raise BackendError(f"backend {called!r}: cannot be used ({said}). {REPAIR}") from error


class _Guarded:
    """A plugin whose errors are those of a backend, whatever its code raises or answers."""

    def __init__(self, name: str, plugin: Backend) -> None:
        self._plugin = plugin
        self.name = name
        self.summary = plugin.summary
        self.arithmetics = getattr(plugin, "arithmetics", (LOIHI,))
        self.registers = getattr(plugin, "registers", {})

    def availability(self) -> Availability:
        try:
            with stdout_kept():
                found: Any = self._plugin.availability()
            kinds = {"ok": bool, "detail": str, "remedy": str}
            for attribute, kind in kinds.items():
                if not isinstance(value := getattr(found, attribute), kind):
                    raise TypeError(f"{attribute} is {value!r:.60}, no {kind.__name__}")
            return Availability(found.ok, found.detail, found.remedy)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - the plugin's own code
            return Availability(False, f"asking it failed: {described(error)}", REPAIR)

    def run(
        self,
        network: FixedPointNetwork,
        spikes: IntArray,
        *,
        time_limit: float,
        progress: Progress,
        states: Collection[str] = (),
    ) -> BackendRun:
        check_arithmetic(self, network.formats)
        given = spikes.view()
        given.flags.writeable = False
        try:
            with (
                stdout_kept(),
                ended_after(math.inf if self.name in BACKENDS.ours else time_limit + _GRACE),
            ):
                answer: Any = self._plugin.run(
                    network, given, time_limit=time_limit, progress=progress, states=tuple(states)
                )
            with stdout_kept():
                faults = list(_faults(answer, network, spikes.shape[:2], states))
        except BackendError as error:
            if self.name in str(error):
                raise
            raise BackendError(f"backend {self.name!r}: {error}") from error
        except OverdueError as error:
            raise BackendError(
                f"backend {self.name!r}: not done {_GRACE:g} s after {time_limit:g} s, the time "
                "limit. Compare fewer samples (--backend-samples) or raise --time-limit."
            ) from error
        except (Exception, SystemExit) as error:
            raise BackendError(
                f"backend {self.name!r}: failed ({described(error)}). {_SKIP}"
            ) from error
        if faults:
            more = len(faults) - _MOST_FAULTS
            listed = [*faults[:_MOST_FAULTS], *([f"and {more} more"] if more > 0 else [])]
            raise BackendError(
                f"backend {self.name!r}: its answer cannot be used ({'; '.join(listed)}). {_SKIP}"
            )
        run: BackendRun = answer
        return run


def check_arithmetic(backend: Backend, formats: NumberFormats) -> None:
    """Refuse, by a BackendError, a backend of another arithmetic or registers than a chip's."""
    known, asked = backend.arithmetics, formats.arithmetic
    if known is not None and asked not in known:
        raise BackendError(
            f"backend {backend.name!r}: computes the arithmetic of {' and '.join(known)}, the "
            f"network is in that of {asked}. Take a backend of it, or --backend engine."
        )
    other = [
        f"{name} {width}, the network has {getattr(formats, name)}"
        for name, width in getattr(backend, "registers", {}).items()
        if getattr(formats, name) != width
    ]
    if other:
        raise BackendError(
            f"backend {backend.name!r}: computes with {'; '.join(other)}. Take a backend of other "
            "registers, or --backend engine."
        )


def run_backend(
    backend: Backend,
    network: FixedPointNetwork,
    spikes: IntArray,
    *,
    time_limit: float,
    progress: Progress = SILENT,
    states: Collection[str] = (),
) -> BackendRun:
    """Run samples on a backend, which is checked before, and its answer after.

    Parameters
    ----------
    backend : Backend
    network : FixedPointNetwork
    spikes : ndarray of uint8 or int32 (n, T, *input_shape)
    time_limit : float
        Seconds that it may take.
    progress : Progress
    states : collection of str
        Populations whose u and v are wanted.

    Returns
    -------
    BackendRun
        With the names, shapes, dtypes and values that a backend may give.

    Raises
    ------
    BackendError
        When the backend lacks what one has, fails, or answers anything else.
    """
    return checked_backend(backend).run(
        network, spikes, time_limit=time_limit, progress=progress, states=states
    )


def _faults(
    answer: Any, network: FixedPointNetwork, size: tuple[int, ...], states: Collection[str]
) -> Iterator[str]:
    """Yield what is wrong with an answer, if anything is."""
    if not isinstance(answer, BackendRun):
        yield f"a {type(answer).__name__}, a BackendRun is needed"
        return
    spiking = [p.name for p in network.populations if p.spiking]
    most = arithmetic_of(network.formats).most_spikes
    shapes = {p.name: (*size, p.size) for p in network.populations}
    output = network.output
    yield from _misnamed("spikes", answer.spikes, spiking, spiking)
    yield from _misnamed("u", answer.u, (), states)
    yield from _misnamed("v", answer.v, (), states)
    if not isinstance(answer.restarts, int) or answer.restarts < 0:
        yield f"restarts is {answer.restarts!r:.60}, a number of 0 or more is needed"
    for kind, dtype, found in (
        ("spikes", np.uint8, answer.spikes),
        ("u", np.int32, answer.u),
        ("v", np.int32, answer.v),
        ("output", np.int32, {output.name: answer.output}),
    ):
        for name, array in found.items() if isinstance(found, Mapping) else ():
            if name in shapes:
                what = kind if kind == "output" else f"{kind} of {name!r}"
                counted = kind == "spikes" or (kind == "output" and output.spiking)
                top = most if counted else None
                yield from _misshapen(what, array, shapes[name], dtype, most=top)
    if output.spiking and _differ(answer.output, _of(answer.spikes, output.name)):
        yield f"output and spikes of {output.name!r} differ, which are the same"
    if not output.spiking and _differ(answer.output, _of(answer.v, output.name)):
        yield f"output and v of {output.name!r} differ, which are the same"


def _misnamed(
    kind: str, found: Any, needed: Collection[str], allowed: Collection[str]
) -> Iterator[str]:
    if not isinstance(found, Mapping):
        yield f"{kind} is a {type(found).__name__}, a dict is needed"
        return
    yield from (f"{kind} of {name!r} is missing" for name in needed if name not in found)
    unknown = [name for name in found if name not in allowed]
    yield from (f"{kind} of {name!r:.60} was not asked for" for name in unknown)


def _misshapen(
    what: str, array: Any, shape: tuple[int, ...], dtype: DTypeLike, *, most: int | None
) -> Iterator[str]:
    if not isinstance(array, np.ndarray):
        yield f"{what} is a {type(array).__name__}, a NumPy array is needed"
        return
    if array.shape != shape:
        yield f"{what} has shape {array.shape}, needed {shape}"
    if array.dtype != dtype:
        floating = np.issubdtype(array.dtype, np.floating)
        wild = " and holds NaN or infinity" if floating and not np.isfinite(array).all() else ""
        yield f"{what} is of {array.dtype}{wild}, needed {np.dtype(dtype)}"
    elif most is not None and array.size and (array.min() < 0 or array.max() > most):
        allowed = "0 and 1" if most == 1 else f"0 to {most}"
        yield f"{what} ranges from {array.min()} to {array.max()}, {allowed} are allowed"


def _of(found: Any, name: str) -> Any:
    return found.get(name) if isinstance(found, Mapping) else None


def _differ(one: Any, other: Any) -> bool:
    """Tell whether two arrays of one shape differ."""
    arrays = isinstance(one, np.ndarray) and isinstance(other, np.ndarray)
    return arrays and one.shape == other.shape and not np.array_equal(one, other)
