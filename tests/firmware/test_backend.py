"""The C runtime as a backend gives the engine's states."""

from __future__ import annotations

import numpy as np
import pytest

from osbc_deploy.backends import load_backend, run_backend
from osbc_deploy.errors import BackendError
from osbc_deploy.firmware.backend import RuntimeBackend
from osbc_deploy.firmware.machine import Machine
from osbc_deploy.fixedpoint.formats import NumberFormats
from osbc_deploy.testing import random_networks
from osbc_deploy.testing.backends import engine_states


def test_spikes_potentials_and_outputs_are_the_engines(formats: NumberFormats) -> None:
    backend = load_backend("host-c")
    assert backend.availability().ok
    for case in random_networks(3, formats, start=20):
        names = [p.name for p in case.network.populations]
        done = run_backend(backend, case.network, case.spikes, time_limit=1800, states=names)
        expected = engine_states(case)
        assert np.array_equal(done.output, expected.output)
        assert all(np.array_equal(done.v[name], expected.v[name]) for name in names)
        assert all(np.array_equal(done.u[name], expected.u[name]) for name in done.u)
        assert all(np.array_equal(s, expected.spikes[n]) for n, s in done.spikes.items())


def test_one_without_its_programs_says_what_to_install(formats: NumberFormats) -> None:
    missing = Machine("m", "", "", "gcc", emulator=("qemu-system-arm-of-none",))
    found = RuntimeBackend(missing).availability()
    assert (found.ok, found.remedy) == (False, "Install qemu-system-arm-of-none.")
    case = random_networks(1, formats)[0]
    with pytest.raises(BackendError, match="cannot be found"):
        run_backend(RuntimeBackend(missing), case.network, case.spikes, time_limit=1)
