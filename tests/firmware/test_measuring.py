"""Steps measured on the machines that are here."""

from __future__ import annotations

from dataclasses import replace

import pytest

from osbc_deploy.errors import BackendError
from osbc_deploy.firmware import measuring
from osbc_deploy.firmware.machine import MACHINES
from osbc_deploy.testing import random_networks

HOST = MACHINES["host-c"]


@pytest.mark.skipif(bool(HOST.missing), reason="gcc is not installed")
def test_a_machine_that_cannot_run_a_network_is_left_out_and_said(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    case = next(c for c in random_networks(20) if not c.network.input.graded)
    # "false" is a compiler that fails.
    broken = replace(HOST, name="small", compiler="false")
    monkeypatch.setattr(measuring, "MACHINES", {"small": broken, "host-c": HOST})
    monkeypatch.setattr(measuring, "_TIMED", 2)
    found, left_out = measuring.measure_steps(case.network, case.spikes)
    assert [(part.machine, part.equal) for part in found] == [("host-c", True)]
    assert left_out == ["not measured on false: ended with code 1 ()."]
    monkeypatch.setattr(measuring, "MACHINES", {"small": broken})
    with pytest.raises(BackendError, match="false: ended with code 1"):
        measuring.measure_steps(case.network, case.spikes)
