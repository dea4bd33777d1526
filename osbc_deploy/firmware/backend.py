"""The C runtime as a backend: on this computer, and on processors that QEMU emulates."""

from __future__ import annotations

import time
from collections.abc import Collection

import numpy as np

from osbc_deploy.arrays import IntArray
from osbc_deploy.backends import Availability, BackendRun
from osbc_deploy.firmware.blob import write_blob
from osbc_deploy.firmware.machine import MACHINES, Machine, MachineRun, built, remedy, version_of
from osbc_deploy.firmware.read import Blob, read_blob
from osbc_deploy.firmware.tables import lay_out
from osbc_deploy.fixedpoint.network import FixedPointNetwork
from osbc_deploy.progress import Progress, task

__all__ = ["HOST", "QEMU_M0PLUS", "QEMU_M4", "QEMU_M7", "QEMU_RV32", "RuntimeBackend"]

_HELD = 2**26
"""Bytes of states that are held at a time."""


class RuntimeBackend:
    """Runs the C runtime's code, built here for the core of a machine.

    Parameters
    ----------
    machine : Machine
    """

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.name = machine.name
        self.summary = machine.summary

    def availability(self) -> Availability:
        """Return whether compiler and emulator are installed."""
        if self.machine.missing:
            missing = " and ".join(self.machine.missing)
            return Availability(False, f"{missing} cannot be found", remedy(self.machine))
        return Availability(True, version_of(self.machine))

    def run(
        self,
        network: FixedPointNetwork,
        spikes: IntArray,
        *,
        time_limit: float,
        progress: Progress,
        states: Collection[str] = (),
    ) -> BackendRun:
        """Run samples; see :class:`osbc_deploy.backends.Backend`."""
        blob = write_blob(network, lay_out(network))
        loaded = read_blob(blob)
        each = loaded.state_bytes * spikes.shape[1]
        batch = max(1, _HELD // each)
        parts, ends = [], time.monotonic() + time_limit
        with built(self.machine) as program, task(progress, self.name, len(spikes)):
            for start in range(0, len(spikes), batch):
                left = max(0.0, ends - time.monotonic())
                done = program.run(
                    blob, spikes[start : start + batch], states=True, time_limit=left
                )
                parts.append(_parts(done, network, loaded, states))
                progress.advance(len(done.output))
        return BackendRun(
            {n: np.concatenate([p.spikes[n] for p in parts]) for n in parts[0].spikes},
            np.concatenate([p.output for p in parts]),
            {n: np.concatenate([p.u[n] for p in parts]) for n in parts[0].u},
            {n: np.concatenate([p.v[n] for p in parts]) for n in parts[0].v},
        )


def _parts(
    done: MachineRun, network: FixedPointNetwork, blob: Blob, wanted: Collection[str]
) -> BackendRun:
    """Return the populations' parts of the state buffer; a current that is not kept is left out."""
    states = np.zeros(0, np.int32) if done.states is None else done.states
    spikes, u, v = {}, {}, {}
    for p, part in zip(network.populations, blob.populations, strict=True):
        at = part.fields["state"] + p.size * part.fields["keeps_u"]
        if p.spiking:
            fired = np.ascontiguousarray(states[..., at + p.size : at + p.size - (-p.size // 4)])
            spikes[p.name] = fired.view(np.uint8)[..., : p.size].copy()
        if p.name in wanted:
            v[p.name] = states[..., at : at + p.size].copy()
        if p.name in wanted and part.fields["keeps_u"]:
            u[p.name] = states[..., at - p.size : at].copy()
    return BackendRun(spikes, done.output, u, v)


HOST, QEMU_M0PLUS, QEMU_M4, QEMU_M7, QEMU_RV32 = map(RuntimeBackend, MACHINES.values())
