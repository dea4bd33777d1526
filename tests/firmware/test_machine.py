"""The runtime gives the engine's bits here and on every core that QEMU emulates."""

from __future__ import annotations

import zlib
from dataclasses import replace

import numpy as np
import pytest

from osbc_deploy.errors import BackendError
from osbc_deploy.firmware import tables
from osbc_deploy.firmware.blob import write_blob
from osbc_deploy.firmware.layout import HEADER
from osbc_deploy.firmware.machine import MACHINES, Machine, built
from osbc_deploy.firmware.read import read_blob
from osbc_deploy.firmware.tables import ProjectionTables, lay_out
from osbc_deploy.fixedpoint.formats import NumberFormats
from osbc_deploy.testing import random_networks
from osbc_deploy.testing.backends import engine_states

SHORT = "-DOSBC_LONG_MULTIPLY=0"
"""As for a core that does not multiply to 64 bits."""


SANITIZE = ("-g", "-fsanitize=undefined,address", "-fno-sanitize-recover=all")


@pytest.mark.parametrize(("name", "option"), [*((n, "-O2") for n in MACHINES), ("host-c", SHORT)])
def test_one_program_computes_the_engines_bits(
    name: str, option: str, formats: NumberFormats
) -> None:
    machine = MACHINES[name]
    if machine.missing:
        pytest.skip(f"{', '.join(machine.missing)} cannot be found")
    with built(machine, (option, *SANITIZE) if name == "host-c" else (option,)) as program:
        for case in random_networks(3, formats, start=5):
            blob = write_blob(case.network, lay_out(case.network))
            done = program.run(blob, case.spikes, states=True, count=machine.counts)
            expected = engine_states(case)
            assert np.array_equal(done.output, expected.output), case.features
            assert done.states is not None
            for p, part in zip(case.network.populations, read_blob(blob).populations, strict=True):
                v = part.fields["state"] + p.size * part.fields["keeps_u"]
                assert np.array_equal(done.states[:, :, v : v + p.size], expected.v[p.name])
            if done.instructions is not None:
                # Every neuron and every input is looked at.
                looked_at = sum(p.size for p in case.network.populations)
                assert done.instructions.shape == case.spikes.shape[:2]
                assert (done.instructions > looked_at).all()


def test_what_an_earlier_version_wrote_gives_the_same_bits(
    formats: NumberFormats, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Layout 1 has no direct projections: all have sums of their own."""

    def all_with_sums(parts: list[ProjectionTables]) -> list[ProjectionTables]:
        return [replace(part, direct=False) for part in parts]

    monkeypatch.setattr(tables, "together", all_with_sums)
    with built(MACHINES["host-c"], ("-O2", *SANITIZE)) as program:
        for case in random_networks(6, formats, start=5):
            blob = bytearray(write_blob(case.network, lay_out(case.network)))
            blob[HEADER.offset("layout")] = 1
            crc = zlib.crc32(blob[: HEADER.offset("header_crc")])
            blob[HEADER.offset("header_crc") : HEADER.size] = crc.to_bytes(4, "little")
            done = program.run(bytes(blob), case.spikes, states=True)
            assert np.array_equal(done.output, engine_states(case).output), case.features


def test_what_cannot_be_is_said(formats: NumberFormats) -> None:
    case = random_networks(1, formats)[0]
    with built(MACHINES["host-c"]) as program:
        blob = write_blob(case.network, lay_out(case.network))
        with pytest.raises(BackendError, match="host-c: does not count instructions"):
            program.run(blob, case.spikes, count=True)
        with pytest.raises(BackendError, match=r"host-c: ended with code 2 .*before the last step"):
            program.run(blob, case.spikes[..., :-1])
    missing = Machine("m", "", "", "gcc", emulator=("no-such-qemu",))
    for machine, options, said in (
        (missing, [], "m: no-such-qemu cannot be found. Install no-such-qemu"),
        (MACHINES["host-c"], ["-Dlong=short"], "gcc: ended with code 1"),
    ):
        with pytest.raises(BackendError, match=said), built(machine, options):
            pass
