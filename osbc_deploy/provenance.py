"""Where a deployment comes from: who asked for what, when, with which model, data and tools.

The block binds a report to its network, target and data by digest, and a digest over the whole
report binds the block to the rest. That shows what was mixed up or changed afterwards; it is no
signature: who computes the digests anew can claim anything that is not recomputed.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import platform
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Protocol

import numpy as np

from osbc_deploy._version import __version__
from osbc_deploy.chip.target import Target
from osbc_deploy.clock import now
from osbc_deploy.data.samples import Samples
from osbc_deploy.fixedpoint.network import FixedPointNetwork
from osbc_deploy.fixedpoint.record import EngineRun
from osbc_deploy.formats.folder import network_digest
from osbc_deploy.model.graph import Network
from osbc_deploy.options.option import Options, rows

__all__ = ["Call", "Request", "origin", "provenance", "report_digest", "request", "sealed"]

_PACKAGES = ("numpy", "scipy", "torch", "numba")
"""What the numbers come from."""


@dataclass(frozen=True)
class Call:
    """How the tool was called, where that was not from Python.

    Attributes
    ----------
    command : str
    seed : int
        Of everything random.
    """

    command: str
    seed: int


@dataclass(frozen=True)
class Request:
    """What was asked for, and when.

    Attributes
    ----------
    command : str
        The command line, or the call from Python.
    seed : int or None
        None where the caller seeds.
    options : dict
        All of them, as plain data.
    date : str
        UTC, as ISO 8601.
    """

    command: str = ""
    seed: int | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    date: str = field(default_factory=now)


class Asking(Protocol):
    """A call of one of the package's functions, with options beside these."""

    @property
    def module(self) -> object:
        """The model."""

    @property
    def calibration(self) -> object:
        """Samples."""

    @property
    def test(self) -> object:
        """Samples, or None."""

    @property
    def call(self) -> Call | None:
        """None for a call from Python, which is then written out."""


def request(function: Callable[..., Any], table: type[Options], given: Asking) -> Request:
    """Return what a call of one of the package's functions asks for.

    Parameters
    ----------
    function : callable
    table : type
        Its options, which `given` has as attributes.
    given : Asking
    """
    options = {row.name: _plain(getattr(given, row.name)) for row in rows(table)}
    if given.call is not None:
        return Request(given.call.command, given.call.seed, options)
    shown = [_shown(given.module), _shown(given.calibration)]
    for row in rows(table):
        if options[row.name] != _plain(row.default):
            shown.append(f"{row.name}={_shown(getattr(given, row.name))}")
        if row.name == "target" and given.test is not None:
            shown.append(f"test={_shown(given.test)}")
    name = f"{function.__module__}.{function.__qualname__}"
    return Request(f"{name}({', '.join(shown)})", None, options)


def _shown(value: Any) -> str:
    simple = value is None or isinstance(value, str | int | float | os.PathLike)
    return repr(_plain(value)) if simple else f"<{type(value).__name__}>"


def _plain(value: Any) -> Any:
    """Return a value as JSON holds it; its text or kind where JSON holds no such thing."""
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    if is_dataclass(value) and not isinstance(value, type):
        return {part.name: _plain(getattr(value, part.name)) for part in fields(value)}
    if isinstance(value, int) and abs(value) < 2**63:
        return int(value)
    if isinstance(value, float) and math.isfinite(value):
        return float(value)
    return str(value) if isinstance(value, int | float) else type(value).__qualname__


def provenance(
    asked: Request,
    *,
    model: Network,
    network: FixedPointNetwork,
    target: Target,
    calibration: Samples,
    test: Samples,
    run: EngineRun,
) -> dict[str, Any]:
    """Return the block of a deployment's report; its own digest comes with :func:`sealed`.

    Parameters
    ----------
    asked : Request
    model : Network
        As imported.
    network : FixedPointNetwork
        What became of it.
    target : Target
    calibration, test : Samples
    run : EngineRun
        Of `network` on `test`.
    """
    return {
        **origin(
            asked,
            model=model.source,
            model_sha256=model.fingerprint(),
            calibration=calibration,
            test=test,
        ),
        "network_sha256": network_digest(network),
        "target": {"name": target.name, "sha256": target.digest},
        "output_sha256": run.fingerprint(),
    }


def origin(
    asked: Request, *, model: str, model_sha256: str, calibration: Samples, test: Samples
) -> dict[str, Any]:
    """Return what every provenance says: who asked for what, when, with which model and data."""
    return {
        "date": asked.date,
        "tool": __version__,
        "command": asked.command,
        "seed": asked.seed,
        "options": dict(asked.options),
        "model": model,
        "model_sha256": model_sha256,
        "calibration": _data(calibration),
        "test": _data(test),
        "steps": test.steps,
        "environment": _environment(),
    }


def _data(samples: Samples) -> dict[str, Any]:
    return {
        "name": samples.name,
        "samples": len(samples),
        "labels": samples.labels is not None,
        "sha256": samples.fingerprint(),
    }


def _environment() -> dict[str, Any]:
    """Return what computes here: machine, Python, packages, and the BLAS kernels in this process.

    What the results are the same on, and where one would look first if they were not.
    """
    from threadpoolctl import threadpool_info

    # Two packages may bring the same library, and their order changes from run to run.
    pools = {
        (pool["internal_api"], pool.get("version"), pool.get("architecture"), pool["num_threads"])
        for pool in threadpool_info()
        if pool["user_api"] == "blas"
    }
    return {
        "machine": platform.machine(),
        "python": platform.python_version(),
        "packages": {name: found for name in _PACKAGES if (found := _version(name))},
        "blas": [
            {
                "name": name,
                "version": release or "unknown",
                "kernel": kernel or "unknown",
                "threads": threads,
            }
            for name, release, kernel, threads in sorted(pools, key=str)
        ],
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def report_digest(report: Mapping[str, Any]) -> str:
    """Return the SHA-256 of a report as canonical JSON, its own digest left out.

    Canonical is: keys sorted, no spaces, ASCII, numbers as Python writes them.
    """
    provenance = {k: v for k, v in report["provenance"].items() if k != "report_sha256"}
    text = json.dumps({**report, "provenance": provenance}, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def sealed(report: Mapping[str, Any]) -> dict[str, Any]:
    """Return a report with the digest over all the rest of it."""
    provenance = {**report["provenance"], "report_sha256": report_digest(report)}
    return {**report, "provenance": provenance}
