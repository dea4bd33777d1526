"""What the steps of a network take on the machines that are here: run, not modelled."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np

from osbc_deploy.arrays import IntArray
from osbc_deploy.errors import BackendError
from osbc_deploy.firmware.blob import write_blob
from osbc_deploy.firmware.library import golden_input
from osbc_deploy.firmware.machine import MACHINES, Machine, Program, built, version_of
from osbc_deploy.firmware.tables import lay_out
from osbc_deploy.fixedpoint.engine import run
from osbc_deploy.fixedpoint.network import FixedPointNetwork

__all__ = ["MeasuredSteps", "measure_steps"]

_TIMED = 200
"""Samples that are run to time one on this computer, at least."""
_HELD = 2**26
"""Bytes that samples may take to be as many."""


@dataclass(frozen=True)
class MeasuredSteps:
    """The steps of some samples on one machine.

    Attributes
    ----------
    machine, version : str
        Its name, and what compiler and emulator say about themselves.
    steps : int
    instructions, most : float or None
        Of a step on average, and of the longest; None where they cannot be counted.
    microseconds : float or None
        Of a step on average, reading its input from a file; None where the core is emulated.
    equal : bool
        Whether outputs were those of the engine.
    """

    machine: str
    version: str
    steps: int
    instructions: float | None
    most: float | None
    microseconds: float | None
    equal: bool

    def __str__(self) -> str:
        took = (
            f"{self.microseconds:,.1f} us a step, its input from a file"
            if self.instructions is None
            else f"{self.instructions:,.0f} instructions a step, {self.most:,.0f} at most"
        )
        bits = "outputs equal the engine's" if self.equal else "outputs DIFFER from the engine's"
        return f"measured on {self.machine}: {took}, {self.steps} steps; {bits} ({self.version})"


def measure_steps(
    network: FixedPointNetwork, samples: IntArray | None = None
) -> tuple[list[MeasuredSteps], list[str]]:
    """Run samples on every machine that is here; go on where one cannot, such as for want of RAM.

    Parameters
    ----------
    network : FixedPointNetwork
    samples : ndarray (n, T, *input_shape), optional
        As the chip is given them; a few random rasters by default.

    Returns
    -------
    found : list of MeasuredSteps
    left_out : list of str
        The machines that could not run them, and why.

    Raises
    ------
    BackendError
        When there is no machine, or all fail.
    """
    here = [machine for machine in MACHINES.values() if not machine.missing]
    if not here:
        raise BackendError(
            "--measure: neither gcc nor an emulated core is available. Install gcc, or "
            "gcc-arm-none-eabi and qemu-system-arm."
        )
    given = golden_input(network) if samples is None else samples
    blob, expected = write_blob(network, lay_out(network)), run(network, given).output
    found, left_out = [], []
    for machine in here:
        try:
            found.append(_measured(machine, blob, given, expected))
        except BackendError as error:  # noqa: PERF203 - others may run it
            left_out.append(f"not measured on {error}")
            failed = error
    if not found:
        raise failed
    return found, left_out


def _measured(machine: Machine, blob: bytes, given: IntArray, expected: IntArray) -> MeasuredSteps:
    """Run samples on one machine."""
    with built(machine) as program:
        done = program.run(blob, given, count=machine.counts)
        seconds = None if machine.counts else _seconds_a_step(program, blob, given)
    taken, steps = done.instructions, given.shape[0] * given.shape[1]
    return MeasuredSteps(
        machine.name,
        version_of(machine),
        steps,
        None if taken is None else float(taken.mean()),
        None if taken is None else float(taken.max()),
        None if seconds is None else seconds * 1e6,
        bool(np.array_equal(done.output, expected)),
    )


def _seconds_a_step(program: Program, blob: bytes, samples: IntArray) -> float:
    """Return how long a step takes: many samples less one, which leaves out starting a process."""

    def seconds(given: IntArray) -> float:
        start = time.perf_counter()
        program.run(blob, given)
        return time.perf_counter() - start

    # One after the other again where there are few: memory that the samples took, a few times.
    again = range(max(len(samples), min(_TIMED, _HELD // max(1, int(samples[0].nbytes))), 2))
    many = samples[[number % len(samples) for number in again]]
    one = min(seconds(samples[:1]) for _ in range(3))
    return float(max(0.0, seconds(many) - one) / ((len(many) - 1) * samples.shape[1]))
