"""The generated C computes what the engine computes, with every warning an error."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from osbc_deploy.errors import BackendError, UnsupportedModelError, UsageError
from osbc_deploy.export.firmware import MANIFEST, CExport, export_c
from osbc_deploy.export.footprint import FLAGS, measure
from osbc_deploy.fixedpoint.engine import run
from osbc_deploy.fixedpoint.formats import NumberFormats
from osbc_deploy.fixedpoint.network import (
    FixedDense,
    FixedPointNetwork,
    FixedPopulation,
    FixedProjection,
)
from osbc_deploy.network.simulate import decode
from random_networks import Case, collect

SANITIZE = ("-O1", "-g", "-fsanitize=undefined,address", "-fno-sanitize-recover=all")
NETWORKS = 12


@pytest.fixture(scope="module")
def drawn(formats: NumberFormats) -> list[Case]:
    return collect(NETWORKS, formats, start=5)[0]


def build(export: CExport, *options: str, main: str = "main_host.c") -> Path:
    sources = [f"{export.name}{part}.c" for part in ("", "_weights", "_selftest")]
    program = export.folder / "host"
    subprocess.run(
        ["gcc", *FLAGS, *options, main, *sources, "-o", str(program)], cwd=export.folder, check=True
    )
    return program


def outputs(program: Path, network: FixedPointNetwork, spikes: np.ndarray, *before: str) -> Any:
    graded = any(p.graded for p in network.projections)
    n, steps = spikes.shape[:2]
    rasters, answers = program.parent / "rasters", program.parent / "answers"
    kind = np.int16 if graded else np.uint8
    rasters.write_bytes(np.array([n, steps], np.uint32).tobytes() + spikes.astype(kind).tobytes())
    subprocess.run([*before, str(program), str(rasters), str(answers)], check=True)
    return np.fromfile(answers, np.int32).reshape(n, steps, -1)


@pytest.mark.parametrize("number", range(NETWORKS))
def test_random_networks_without_undefined_behavior(
    number: int, drawn: list[Case], tmp_path: Path
) -> None:
    case = drawn[number]
    # The golden vectors are the case's own: what it was drawn for is in range.
    export = export_c(case.network, tmp_path / "c", samples=case.spikes)
    program = build(export, *SANITIZE)
    expected = run(case.network, case.spikes).output
    assert np.array_equal(outputs(program, case.network, case.spikes), expected), case.features
    assert subprocess.run([str(program)], check=False).returncode == 0


@pytest.fixture(scope="module")
def chain(drawn: list[Case]) -> Case:
    return next(c for c in drawn if "dense" in c.features and run(c.network, c.spikes).output.any())


@pytest.mark.skipif(not shutil.which("valgrind"), reason="valgrind is not installed")
def test_valgrind_finds_nothing(chain: Case, tmp_path: Path) -> None:
    export = export_c(chain.network, tmp_path / "c", samples=chain.spikes)
    program = build(export, "-O1", "-g")
    found = outputs(
        program, chain.network, chain.spikes, "valgrind", "-q", "--error-exitcode=9",
        "--leak-check=full",
    )  # fmt: skip
    assert np.array_equal(found, run(chain.network, chain.spikes).output)


def test_a_changed_weight_fails_the_check(chain: Case, tmp_path: Path) -> None:
    export = export_c(chain.network, tmp_path / "c", samples=chain.spikes)
    path = export.folder / "osbc_net_weights.c"
    text = path.read_text()
    start = text.index("{", text.index("static const")) + 1
    end = text.index(",", start)
    path.write_text(text[:start] + f"\n    {(int(text[start:end]) + 1) % 100}" + text[end:])
    done = subprocess.run([str(build(export))], check=False, capture_output=True, text=True)
    assert done.returncode == 1
    assert "FAILED (-3)" in done.stdout


def test_another_answer_fails_the_self_test(chain: Case, tmp_path: Path) -> None:
    export = export_c(chain.network, tmp_path / "c", samples=chain.spikes)
    path = export.folder / "osbc_net_selftest.c"
    head, tail = path.read_text().split("expected[] = {")
    place = next(i for i, c in enumerate(tail) if c in "0123456789")
    path.write_text(head + "expected[] = {" + tail[:place] + "7" + tail[place:])
    done = subprocess.run([str(build(export))], check=False, capture_output=True, text=True)
    assert "FAILED (-4)" in done.stdout


BUFFERS = """
#include <stdio.h>
#include "net.h"
static int32_t state[NET_STATE_BYTES / 4 + 1];
static net_input input[NET_INPUTS * 4];
int main(void)
{
    int64_t evidence[NET_OUTPUTS];
    uint32_t found = 99;
    printf("%d %d %d %d", net_reset(NULL, sizeof state), net_reset(state, NET_STATE_BYTES - 1u),
           net_reset((char *)state + 1, NET_STATE_BYTES), net_reset(state, sizeof state));
    input[0] = input[3] = 1;
    printf(" %d", net_run(state, sizeof state, input, 4, evidence, &found));
    printf(" %ld", found == NET_NO_CLASS ? -1L : (long)found);
    return 0;
}
"""


@pytest.mark.parametrize("readout", ["sum", "last", "max"])
def test_buffers_are_checked_and_classes_decoded(readout: Any, chain: Case, tmp_path: Path) -> None:
    network = replace(chain.network, readout=readout)
    export = export_c(network, tmp_path / "c", name="net")
    (export.folder / "buffers.c").write_text(BUFFERS)
    program = build(export, "-O1", "-fsanitize=undefined", main="buffers.c")
    printed = subprocess.run([str(program)], check=True, capture_output=True, text=True).stdout
    size = int(np.prod(network.input_shape))
    spikes = np.zeros(4 * size, np.uint8)
    spikes[[0, 3]] = 1
    output = run(network, spikes.reshape(1, 4, *network.input_shape)).output
    found = decode(output, readout, spiking=network.output.spiking)[0]
    assert printed == f"-1 -1 -1 0 0 {found}"


CLASSES = """
#include <stdio.h>
#include "net.h"
static int32_t state[NET_STATE_BYTES / 4];
/* Three steps of three inputs: none; input 1 at first; inputs 1 and 2; all three. */
static const net_input samples[4][9] = {
    {0, 0, 0, 0, 0, 0, 0, 0, 0}, {0, 1, 0, 0, 0, 0, 0, 0, 0},
    {0, 1, 1, 0, 1, 1, 0, 1, 1}, {1, 1, 1, 1, 1, 1, 1, 1, 1},
};
int main(void)
{
    int64_t evidence[NET_OUTPUTS];
    uint32_t k, found = 0;
    for (k = 0; k < 5u; k++) {
        int result = net_run(state, sizeof state, samples[k % 4u], k < 4u ? 3u : 0u, evidence,
                             &found);
        printf("%d %ld\\n", result, found == NET_NO_CLASS ? -1L : (long)found);
    }
    return 0;
}
"""


@pytest.mark.parametrize(
    ("readout", "spiking", "expected"),
    [
        ("sum", True, [-1, 1, 1, 0]),
        ("last", True, [-1, -1, 1, 0]),
        ("max", True, [-1, 1, 1, 0]),
        # A potential that is the same for all is no evidence, whatever it is.
        ("sum", False, [-1, 1, 1, -1]),
        ("last", False, [-1, -1, 1, -1]),
        ("max", False, [-1, 1, 1, -1]),
    ],
)
def test_outputs_that_say_nothing_give_no_class(
    readout: Any, spiking: bool, expected: list[int], formats: NumberFormats, tmp_path: Path
) -> None:
    """Each output passes its input on: 64 * 2^6 is above the threshold of 50 * 2^6, then gone."""
    same = np.ones(3, np.int32)
    population = FixedPopulation(
        "out", (3,), du=4095 * same, dv=4095 * same, vth=(50 if spiking else 131071) * same,
        bias_mant=0 * same, bias_exp=0 * same, u_init=0 * same, v_init=0 * same, spiking=spiking,
        v_scale=same, v_offset=0 * same,
    )  # fmt: skip
    projection = FixedProjection("p", "input", "out", FixedDense(64 * np.eye(3)), 8, 0)
    network = FixedPointNetwork((3,), (population,), (projection,), formats, readout)
    spikes = np.array([[[0, 0, 0]] * 3, [[0, 1, 0], [0, 0, 0], [0, 0, 0]], [[0, 1, 1]] * 3,
                       [[1, 1, 1]] * 3], np.uint8)  # fmt: skip
    output = run(network, spikes).output
    # Of a potential, one part in 4096 is left to the next step.
    assert np.array_equal(output if spiking else output // 4096, spikes)
    assert decode(output, readout, spiking=spiking).tolist() == expected
    export = export_c(network, tmp_path / "c", name="net")
    (export.folder / "classes.c").write_text(CLASSES)
    program = build(export, *SANITIZE, main="classes.c")
    printed = subprocess.run([str(program)], check=True, capture_output=True, text=True).stdout
    # A run of no steps says nothing either.
    assert printed.splitlines() == [f"0 {found}" for found in (*expected, -1)]


def test_the_footprint_is_what_was_estimated(chain: Case, tmp_path: Path) -> None:
    export = export_c(chain.network, tmp_path / "c")
    found = measure(export)
    assert found.ram == export.state_bytes
    # The structs that describe the tables come on top, a few hundred bytes for each.
    parts = len(chain.network.projections) + len(chain.network.populations)
    assert export.table_bytes <= found.tables <= export.table_bytes + 400 * (parts + 1)
    assert 500 < found.code < 20_000
    with pytest.raises(BackendError, match="no-such-gcc: is not installed. Install gcc"):
        measure(export, "no-such-gcc")


ARM = pytest.mark.skipif(
    not shutil.which("arm-none-eabi-gcc"), reason="gcc-arm-none-eabi is not installed"
)


@ARM
def test_the_library_compiles_for_a_cortex_m4(chain: Case, tmp_path: Path) -> None:
    export = export_c(chain.network, tmp_path / "c", samples=chain.spikes)
    assert measure(export, "arm-none-eabi-gcc").ram == export.state_bytes
    subprocess.run(["make", "-s", "m4"], cwd=export.folder, check=True)
    if not shutil.which("qemu-system-arm"):
        pytest.skip("qemu-system-arm is not installed")
    done = subprocess.run(
        ["make", "-s", "qemu"], cwd=export.folder, capture_output=True, text=True, timeout=60,
        check=False,
    )  # fmt: skip
    assert "self-test: passed (0)" in done.stdout + done.stderr


@pytest.mark.parametrize("name", ["", "9lives", "my-net", "a" * 32, "größe", "x;y"])
def test_names_that_c_cannot_use_are_refused(name: str, chain: Case, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be a prefix in C"):
        export_c(chain.network, tmp_path / "c", name=name)
    assert not (tmp_path / "c").exists()


def test_numbers_out_of_range_are_all_named(chain: Case, tmp_path: Path) -> None:
    p = chain.network.populations[0]
    broken = replace(p, vth=np.full(p.size, 2**17), dv=np.full(p.size, 5000))
    network = replace(chain.network, populations=(broken, *chain.network.populations[1:]))
    with pytest.raises(UnsupportedModelError, match=r"(?s)dv: 5000.*vth: 131072"):
        export_c(network, tmp_path / "c")
    assert not (tmp_path / "c").exists()


def test_sums_beyond_32_bits_are_refused(chain: Case, tmp_path: Path) -> None:
    first = chain.network.projections[0]
    if not isinstance(first.connection, FixedDense):
        pytest.skip("a dense layer is needed")
    wide = FixedDense(np.full((chain.network.populations[0].size, 70_000), 254))
    network = replace(
        chain.network,
        input_shape=(70_000,),
        projections=(replace(first, connection=wide, weight_bits=8, weight_exp=7, sign="mixed"),
                     *chain.network.projections[1:]),
    )  # fmt: skip
    with pytest.raises(UnsupportedModelError, match="sums up to"):
        export_c(network, tmp_path / "c")


def test_someone_elses_folder_is_left_alone(chain: Case, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(UsageError, match="was not written by osbc-deploy"):
        export_c(chain.network, tmp_path)
    export = export_c(chain.network, tmp_path / "c")
    assert (export_c(chain.network, tmp_path / "c").folder / MANIFEST).is_file()
    assert export.crc == export_c(chain.network, tmp_path / "d").crc
