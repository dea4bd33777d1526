"""What is understood of a model, before anything is done to it."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from osbc_deploy.arguments import Data, Model
from osbc_deploy.data.samples import Samples, check_samples
from osbc_deploy.errors import UsageError
from osbc_deploy.model.graph import Network
from osbc_deploy.options import Reset, StrPath, Substitute
from osbc_deploy.references import as_samples
from osbc_deploy.results import Result

__all__ = ["Inspection", "inspect"]

RATES = (0.02, 0.1, 0.3, 0.6)
"""Spikes per input and step of the random samples that stand for data, sixteen of each."""
STEPS = 32
LARGEST = 2**20
"""Inputs that random samples are drawn for: 2 GiB of them."""
RANDOM = (
    f"no data given: a module was run on {16 * len(RATES)} random samples of {STEPS} steps with "
    f"{', '.join(map(str, RATES))} spikes per input and step"
)


@dataclass(frozen=True, eq=False, repr=False)
class Inspection(Result):
    """A model as it was understood.

    Attributes
    ----------
    network : Network
        What deploying would compress; :func:`osbc_deploy.deploy` takes it too.
    remarks : tuple of str
        How it was read, beside the notes of the network.
    """

    network: Network
    remarks: tuple[str, ...] = ()


def inspect(
    module: Model,
    calibration: Data | None = None,
    *,
    shape: str | Sequence[int] | None = None,
    weights: StrPath | None = None,
    dt: float | None = None,
    reset: Reset | None = None,
    substitute: Substitute | None = None,
    host_prefix: str | None = None,
    repeat: int | None = None,
) -> Inspection:
    """Import a model and show how it was understood.

    Parameters
    ----------
    module, calibration, weights, dt, reset, substitute, host_prefix, repeat
        As of :func:`osbc_deploy.deploy`. A file needs no samples.
    shape : str or sequence of int, optional
        Of one time step of input, such as ``"2,34,34"``: a module is then run on random spikes.

    Returns
    -------
    Inspection

    Raises
    ------
    OsbcError
        With the branch's meaning; see :mod:`osbc_deploy.errors`.
    """
    if calibration is not None and shape is not None:
        raise UsageError("--shape: the calibration data have one. Give one of the two.")
    samples = None
    if calibration is not None:
        samples = as_samples(calibration, "calibration", repeat)
    elif shape is not None:
        samples = _random(_sizes(shape if isinstance(shape, str) else ",".join(map(str, shape))))
    # norse and torch take seconds to import; a shape that is none should fail before that.
    from osbc_deploy.frameworks.hosting import HostPrefix
    from osbc_deploy.importing import import_network

    host = None if host_prefix is None else HostPrefix(host_prefix)
    network = import_network(
        module, weights, samples, dt=dt, reset=reset, substitute=substitute, host=host
    )
    random = shape is not None and any("own forward" in note for note in network.notes)
    notes = [f"readout: {network.readout}, read from the model"] if network.readout else []
    return Inspection(network, (*notes, *((RANDOM,) if random else ())))


def _sizes(text: str) -> tuple[int, ...]:
    parts = [part.strip() for part in text.replace("x", ",").split(",")]
    if not all(re.fullmatch("0*[1-9][0-9]{0,8}", part) for part in parts) or len(parts) > 3:
        raise UsageError(
            f"--shape: {text[:80]!r} is not a shape. Give one to three whole numbers of at most "
            "nine digits, such as 2,34,34."
        )
    return tuple(int(part) for part in parts)


def _random(sizes: tuple[int, ...]) -> Samples:
    """Return random spikes of a shape, on which a module can be run too."""
    if math.prod(sizes) > LARGEST:
        raise UsageError(
            f"--shape: {'x'.join(map(str, sizes))} are {math.prod(sizes):,} inputs, at most "
            f"{LARGEST:,} are allowed. Give samples with --calibration."
        )
    rng = np.random.default_rng(0)
    drawn = [rng.random((STEPS, *sizes), np.float32) < rate for rate in np.repeat(RATES, 16)]
    return check_samples("random spikes", np.stack(drawn))
