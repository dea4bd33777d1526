"""The runtime computes what the engine computes, from blobs that it was not built for."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from osbc_deploy.arrays import IntArray, SpikeArray
from osbc_deploy.errors import UsageError
from osbc_deploy.firmware import RUNTIME
from osbc_deploy.firmware.machine import FLAGS
from osbc_deploy.firmware.runtime import RuntimeExport, export_runtime, runtime_sources
from osbc_deploy.firmware.tables import lay_out
from osbc_deploy.fixedpoint.engine import run
from osbc_deploy.fixedpoint.formats import NumberFormats
from osbc_deploy.fixedpoint.network import (
    FixedDense,
    FixedPointNetwork,
    FixedPopulation,
    FixedProjection,
)
from osbc_deploy.formats.format import Export
from osbc_deploy.model.readout import decode
from osbc_deploy.telemetry.counting import count_window
from osbc_deploy.telemetry.record import LayerCounts, Window, read_windows
from osbc_deploy.testing import Case, random_networks
from osbc_deploy.testing.backends import engine_states
from register_ends import SATURATIONS, WRAPS, U, V, register_ends

SANITIZE = ("-O0", "-g", "-fsanitize=undefined,address", "-fno-sanitize-recover=all")
SOURCES = ("osbc_runtime.c", "osbc_load.c", "osbc_telemetry.c")
HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def drawn(formats: NumberFormats) -> list[Case]:
    return random_networks(12, formats, start=5)


@pytest.fixture(scope="module")
def folder(drawn: list[Case], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An export of the first network, with programs that load any."""
    done = export_runtime(drawn[0].network, tmp_path_factory.mktemp("runtime") / "rt")
    options = [*FLAGS, *SANITIZE, *SOURCES]
    subprocess.run(
        ["gcc", *options, "examples/host.c", "-o", "osbc_host"], cwd=done.folder, check=True
    )
    counter = [*SANITIZE, "-DOSBC_TELEMETRY", "-I.", *SOURCES, str(HERE / "counter.c")]
    subprocess.run(["gcc", *counter, "-o", "counter"], cwd=done.folder, check=True)
    return done.folder


def rasters(network: FixedPointNetwork, spikes: IntArray) -> bytes:
    width = next(w for w in (8, 16, 32) if network.input.bits <= w)
    kind = np.dtype(f"{'' if network.input.signed else 'u'}int{width}")
    return np.array(spikes.shape[:2], np.uint32).tobytes() + spikes.astype(kind).tobytes()


@pytest.mark.parametrize("number", range(12))
def test_one_build_computes_s_u_and_v_of_any_network(
    number: int, drawn: list[Case], folder: Path, tmp_path: Path
) -> None:
    drawn_as = drawn[number]
    share = 2 - drawn_as.network.output.size % 2
    readout = ("sum", "last", "max", f"vote:{share}" if share > 1 else "sum")[number % 4]
    case = replace(drawn_as, network=replace(drawn_as.network, readout=readout))
    done = export_runtime(case.network, tmp_path / "rt")
    (tmp_path / "rasters").write_bytes(rasters(case.network, case.spikes))
    program = [folder / "osbc_host", done.folder / "network.bin", "rasters", "outputs", "states"]
    subprocess.run(program, cwd=tmp_path, check=True)
    n, steps = case.spikes.shape[:2]
    expected = engine_states(case)
    output = np.fromfile(tmp_path / "outputs", np.int32).reshape(n, steps, -1)
    assert np.array_equal(output, expected.output), case.features
    state = np.fromfile(tmp_path / "states", np.int32).reshape(n, steps, -1)
    tables = lay_out(case.network)
    for q, start in zip(tables.populations, tables.state_offsets, strict=True):
        name, size = q.population.name, q.population.size
        v, s = start + size * q.keeps_u, start + size * (1 + q.keeps_u)
        if q.keeps_u:
            assert np.array_equal(state[:, :, start:v], expected.u[name])
        assert np.array_equal(state[:, :, v:s], expected.v[name])
        fired = np.ascontiguousarray(state[:, :, s : s - (-size // 4)]).view(np.uint8)
        if name in expected.spikes:
            assert np.array_equal(fired[:, :, :size], expected.spikes[name])
    # And classes, by telemetry's own run of the samples, counted as the engine counts.
    program = [folder / "counter", done.folder / "network.bin", "rasters", "records"]
    subprocess.run(program, cwd=tmp_path, check=True)
    record = (tmp_path / "records").read_bytes()
    assert record == count_window(case.network, case.spikes, boots=3).to_bytes()
    [window] = read_windows(record)
    found = decode(expected.output, case.network.readout, spiking=case.network.output.spiking)
    assert window.answers == tuple(np.bincount(found[found >= 0], minlength=len(window.answers)))


@pytest.mark.parametrize("wide", [False, True])
def test_registers_end_where_they_end(
    wide: bool, formats: NumberFormats, folder: Path, tmp_path: Path
) -> None:
    network, spikes = register_ends(formats, wide=wide)
    done = export_runtime(network, tmp_path / "rt")
    (tmp_path / "rasters").write_bytes(rasters(network, spikes))
    program = [folder / "osbc_host", done.folder / "network.bin", "rasters", "outputs", "states"]
    subprocess.run(program, cwd=tmp_path, check=True)
    start = lay_out(network).state_offsets[0]
    state = np.fromfile(tmp_path / "states", np.int32)[start:]
    assert (state[:7].tolist(), state[7:14].tolist()) == (U, V)
    program = [folder / "counter", done.folder / "network.bin", "rasters", "records"]
    subprocess.run(program, cwd=tmp_path, check=True)
    [window] = read_windows((tmp_path / "records").read_bytes())
    (seen,) = window.layers
    assert (seen.clipped_currents, seen.clipped_potentials) == (WRAPS, SATURATIONS)


def test_windows_follow_each_other(drawn: list[Case], folder: Path, tmp_path: Path) -> None:
    case = next(c for c in drawn if len(c.spikes) == 3)
    done = export_runtime(case.network, tmp_path / "rt")
    (tmp_path / "rasters").write_bytes(rasters(case.network, case.spikes))
    program = [folder / "counter", done.folder / "network.bin", "rasters", "records", "1"]
    subprocess.run(program, cwd=tmp_path, check=True)
    expected = [
        count_window(case.network, case.spikes[i : i + 1], sequence=i, boots=3).to_bytes()
        for i in range(3)
    ]
    assert (tmp_path / "records").read_bytes() == b"".join(expected)


def single_neuron() -> FixedPopulation:
    one = np.ones(1, np.int64)
    return FixedPopulation(
        "a", (1,), du=0 * one, dv=0 * one, vth=9 * one, bias_mant=0 * one, bias_exp=0 * one,
        u_init=0 * one, v_init=0 * one, spiking=True, v_scale=1.0 * one, v_offset=0.0 * one,
    )  # fmt: skip


def counted_window(
    network: FixedPointNetwork, spikes: SpikeArray, folder: Path, tmp_path: Path
) -> Window:
    """What the runtime counts of all samples."""
    export_runtime(network, tmp_path / "rt")
    (tmp_path / "rasters").write_bytes(rasters(network, spikes))
    program = [folder / "counter", "rt/network.bin", "rasters", "records"]
    subprocess.run(program, cwd=tmp_path, check=True)
    [window] = read_windows((tmp_path / "records").read_bytes())
    return window


def test_a_sample_that_leaves_the_range_is_a_fault_and_in_no_histogram(
    formats: NumberFormats, folder: Path, tmp_path: Path
) -> None:
    """16 * -256 * 2^7 * 64 = -2^25; one wrap brings back 2^24 of 2^23 at most."""
    projection = FixedProjection("p", "input", "a", FixedDense(np.full((1, 16), -256)), 8, 7)
    network = FixedPointNetwork((16,), (single_neuron(),), (projection,), formats, "sum")
    spikes = np.zeros((3, 4, 16), np.uint8)
    spikes[1, 2] = 1
    window = counted_window(network, spikes, folder, tmp_path)
    assert (window.samples, window.silent, window.faults) == (3, 2, 1)
    assert (window.margins, window.answers) == ((0,) * 8, (0,))
    # The first step of the second sample's fault is its last.
    assert window.layers == (LayerCounts(0, 0, 1, 0, (2, 0, 0, 0, 0, 0, 0, 0)),)


def test_a_sum_that_32_bits_take_for_none_is_a_fault(
    formats: NumberFormats, folder: Path, tmp_path: Path
) -> None:
    """4096 * 128 * 2^7 * 64 = 2^32, beside another projection that brings nothing."""
    little, much = np.zeros((1, 4097), np.int64), np.full((1, 4097), 128)
    little[0, -1], much[0, -1] = 2, 0
    projections = tuple(
        FixedProjection(name, "input", "a", FixedDense(weight), 8, exponent)
        for name, weight, exponent in (("p", little, 0), ("q", much, 7))
    )
    network = FixedPointNetwork((4097,), (single_neuron(),), projections, formats, "sum")
    spikes = np.zeros((2, 2, 4097), np.uint8)
    spikes[1, 0, :-1] = 1
    window = counted_window(network, spikes, folder, tmp_path)
    assert (window.samples, window.silent, window.faults) == (2, 1, 1)


def without_telemetry(text: str) -> str:
    """The sources as if there were no counters in them."""
    return re.sub(r"^#ifdef OSBC_TELEMETRY\n.*?^#endif\n", "", text, flags=re.MULTILINE | re.DOTALL)


def test_telemetry_that_is_off_costs_nothing(tmp_path: Path) -> None:
    for title in ("with", "without"):
        folder = tmp_path / title
        folder.mkdir()
        for name, text in runtime_sources("osbc").items():
            (folder / name).write_text(text if title == "with" else without_telemetry(text))
        subprocess.run(["gcc", *FLAGS, "-O2", "-c", *SOURCES], cwd=folder, check=True)
    for source in SOURCES:
        name = source.replace(".c", ".o")
        text = (tmp_path / "without" / source).read_text()
        assert "OSBC_TELEMETRY" not in text
        assert (tmp_path / "with" / name).read_bytes() == (tmp_path / "without" / name).read_bytes()
    assert len((tmp_path / "without" / "osbc_telemetry.c").read_text()) < 200


def test_the_make_file_builds_and_runs(drawn: list[Case], tmp_path: Path) -> None:
    folder = export_runtime(drawn[0].network, tmp_path / "rt").folder
    done = subprocess.run(["make", "-s", "all", "check"], cwd=folder, check=True,
                          capture_output=True, text=True)  # fmt: skip
    about = json.loads((folder / "network.json").read_text())
    inputs = int(np.prod(drawn[0].network.input_shape))
    said = f"network.bin: {inputs} inputs, {drawn[0].network.output.size} outputs, "
    said += f"{about['blob_bytes']} B of flash, {about['state_bytes']} B of state\n"
    assert done.stdout == said
    # What was built is replaced with the rest.
    export_runtime(drawn[1].network, folder)
    (folder / "mine").write_text("years")
    with pytest.raises(UsageError, match="rt: holds mine, which"):
        export_runtime(drawn[1].network, folder)


def test_the_host_program_says_what_is_wrong(folder: Path, tmp_path: Path) -> None:
    blob = (folder / "network.bin").read_bytes()
    (tmp_path / "changed").write_bytes(blob[:-1] + bytes([blob[-1] ^ 1]))
    for arguments, code, said in (
        (["changed"], 1, "changed: is refused (-3)"),
        (["none"], 2, "none: cannot be read"),
        ([], 2, "usage: osbc_host NETWORK"),
        ([str(folder / "network.bin"), "none", "o"], 2, "none: cannot be opened"),
        ([str(folder / "network.bin"), "changed", "no/o"], 2, "no/o: cannot be written"),
    ):
        done = subprocess.run([folder / "osbc_host", *arguments], cwd=tmp_path, check=False,
                              capture_output=True, text=True)  # fmt: skip
        assert (done.returncode, done.stdout) == (code, ""), arguments
        assert said in done.stderr


ARM = pytest.mark.skipif(
    not (shutil.which("arm-none-eabi-gcc") and shutil.which("qemu-system-arm")),
    reason="gcc-arm-none-eabi and qemu-system-arm are not installed",
)


@ARM
def test_a_cortex_m4_runs_another_network_without_a_new_build(
    drawn: list[Case], folder: Path, tmp_path: Path
) -> None:
    subprocess.run(["make", "-s", "m4"], cwd=folder, check=True)
    for number, case in enumerate(drawn[:3]):
        done = export_runtime(case.network, tmp_path / str(number))
        (done.folder / "rasters.bin").write_bytes(rasters(case.network, case.spikes))
        shutil.copy(folder / "osbc_m4.elf", done.folder)
        qemu = "qemu-system-arm -M mps2-an386 -nographic -semihosting -kernel osbc_m4.elf"
        subprocess.run(qemu.split(), cwd=done.folder, check=True, timeout=1800)
        expected = run(case.network, case.spikes).output.astype(np.int32)
        assert (done.folder / "outputs.bin").read_bytes() == expected.tobytes()


def test_export_says_what_it_wrote(drawn: list[Case], tmp_path: Path) -> None:
    case = drawn[0]
    done: Any = RUNTIME.export(case.network, tmp_path / "rt", Export())
    again: RuntimeExport = export_runtime(case.network, tmp_path / "again")
    assert done.facts["identity"] == again.identity.hex()
    assert done.facts["blob_bytes"] == (tmp_path / "rt" / "network.bin").stat().st_size
    about = json.loads((tmp_path / "rt" / "network.json").read_text())
    # Every population is linked to the layer that users know.
    layers = [(p["name"], p["layer"]) for p in about["populations"]]
    assert layers == [(p.name, case.network.layers[p.name]) for p in case.network.populations]
