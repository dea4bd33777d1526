"""The generated C computes what the engine computes, with every warning an error."""

from __future__ import annotations

import re
import shutil
import subprocess
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from osbc_deploy.errors import BackendError, UnsupportedModelError, UsageError
from osbc_deploy.firmware.blob import write_blob
from osbc_deploy.firmware.footprint import measure
from osbc_deploy.firmware.library import CExport, export_c
from osbc_deploy.firmware.machine import FLAGS
from osbc_deploy.firmware.names import check_name
from osbc_deploy.firmware.tables import lay_out
from osbc_deploy.fixedpoint.coding import InputFormat
from osbc_deploy.fixedpoint.engine import run
from osbc_deploy.fixedpoint.formats import NumberFormats
from osbc_deploy.fixedpoint.network import (
    FixedDense,
    FixedPointNetwork,
    FixedPopulation,
    FixedProjection,
)
from osbc_deploy.folders import C_LIBRARY
from osbc_deploy.model.readout import decode
from osbc_deploy.testing import Case, random_networks

SANITIZE = ("-O0", "-g", "-fsanitize=undefined,address", "-fno-sanitize-recover=all")
"""Nothing is optimized away before it is looked at, and gcc takes a sixth of the time; that builds
with -O2 compute the same, test_machine.py shows."""
NETWORKS = 12
DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture(scope="module")
def drawn(formats: NumberFormats) -> list[Case]:
    return random_networks(NETWORKS, formats, start=5)


def build(export: CExport, *options: str, main: str = "examples/host.c") -> Path:
    sources = [f"{export.name}{part}.c" for part in ("", "_weights", "_selftest")]
    program = export.folder / "host"
    subprocess.run(
        ["gcc", *FLAGS, *options, main, *sources, "-o", str(program)], cwd=export.folder, check=True
    )
    return program


def outputs(program: Path, network: FixedPointNetwork, spikes: np.ndarray, *before: str) -> Any:
    width = next(w for w in (8, 16, 32) if network.input.bits <= w)
    n, steps = spikes.shape[:2]
    rasters, answers = program.parent / "rasters", program.parent / "answers"
    kind = np.dtype(f"{'' if network.input.signed else 'u'}int{width}")
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


def test_the_lowest_current_wraps_in_c_too(formats: NumberFormats, tmp_path: Path) -> None:
    # 4 * -256 * 2^7 * 64 = -2^23, which the register holds as 2^23; a bias of -2^12 * 2^7 takes
    # the potential below the largest threshold.
    size = {"du": 4095, "dv": 4095, "vth": 131071, "bias_mant": -4096, "bias_exp": 7, "u_init": 0,
            "v_init": 0}  # fmt: skip
    registers: dict[str, Any] = {name: np.array([value]) for name, value in size.items()}
    population = FixedPopulation(
        "a", (1,), **registers, spiking=False, v_scale=np.ones(1), v_offset=np.zeros(1)
    )
    weight = FixedDense(np.full((1, 4), -256))
    projection = FixedProjection("p", "input", "a", weight, 8, 7)
    network = FixedPointNetwork((4,), (population,), (projection,), formats, "sum")
    spikes = np.zeros((1, 2, 4), np.uint8)
    spikes[0, 0] = 1
    program = build(export_c(network, tmp_path / "c", samples=spikes))
    first, second = outputs(program, network, spikes)[0, :, 0]
    assert (first, second) == (2**23 - 2**19, ((2**23 - 2**19) >> 12) - 2**19)


@pytest.mark.parametrize(
    ("bits", "signed", "kind"),
    [(1, False, "uint8"), (8, True, "int8"), (16, False, "uint16"), (17, True, "int32")],
)
def test_payloads_of_every_width_in_the_type_that_holds_them(
    bits: int, signed: bool, kind: str, formats: NumberFormats, tmp_path: Path
) -> None:
    """Weights of 2 and -2 without memory: potentials are 2^7 times differences of payloads."""
    one = np.ones(2, np.int64)
    population = FixedPopulation(
        "a", (2,), du=4095 * one, dv=4095 * one, vth=131071 * one, bias_mant=0 * one,
        bias_exp=0 * one, u_init=0 * one, v_init=0 * one, spiking=False, v_scale=one,
        v_offset=0 * one,
    )  # fmt: skip
    weight = np.array([[2, 0], [0, -2]])
    projection = FixedProjection("p", "input", "a", FixedDense(weight), 8, -3, graded=True)
    given = InputFormat("integers", bits, signed)
    network = FixedPointNetwork((2,), (population,), (projection,), formats, "sum", given)
    ends = np.array([[[given.low, given.high]], [[given.high, given.low]], [[0, 1]]])
    export = export_c(network, tmp_path / "c", samples=ends)
    header = (export.folder / "osbc_net.h").read_text()
    assert f"typedef {kind}_t osbc_net_input;" in header
    assert f"#define OSBC_NET_INPUT_HIGH {given.high} " in header
    program = build(export, *SANITIZE)
    expected = (ends @ weight.T >> 3) << 6
    assert np.array_equal(outputs(program, network, ends), expected)
    if bits < 8 * np.dtype(kind).itemsize:
        # What the type holds and the input does not is refused.
        for beyond in (given.high + 1, given.low - 1)[: 1 + signed]:
            with pytest.raises(subprocess.CalledProcessError) as caught:
                outputs(program, network, np.array([[[beyond, 0]]]))
            assert caught.value.returncode == 1


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
    start = text.rindex(" ", 0, text.rindex(","))
    path.write_text(f"{text[:start]} {(int(text[start : text.rindex(',')]) + 1) % 100},\n}};\n")
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


USER = """
#include <stdio.h>
#include <math.h>
#include <string.h>
#include "net.h"
static int32_t state[NET_STATE_BYTES / 4];
int main(void)
{
    printf("%d", net_selftest(state, sizeof state));
    return 0;
}
"""


def test_a_build_that_takes_every_source_links(chain: Case, tmp_path: Path) -> None:
    export = export_c(chain.network, tmp_path / "c", name="net", samples=chain.spikes)
    (export.folder / "user_main.c").write_text(USER)
    sources = sorted(path.name for path in export.folder.glob("*.c"))
    subprocess.run(["gcc", "-I.", *sources, "-o", "a"], cwd=export.folder, check=True)
    done = subprocess.run([export.folder / "a"], check=True, capture_output=True, text=True)
    assert done.stdout == "0"
    (export.folder / "user_main.c").unlink()
    subprocess.run(["make", "-s"], cwd=export.folder, check=True)
    done = subprocess.run(["make", "-s", "selftest"], cwd=export.folder, check=True,
                          capture_output=True, text=True)  # fmt: skip
    assert done.stdout == "net self-test: passed (0)\n"


def test_the_host_program_says_what_is_wrong_with_its_files(chain: Case, tmp_path: Path) -> None:
    export = export_c(chain.network, tmp_path / "c", samples=chain.spikes)
    program = build(export)
    outputs(program, chain.network, chain.spikes)
    whole = (tmp_path / "c" / "rasters").read_bytes()
    for name, data in (("short", whole[:-1]), ("long", whole + b"1"), ("none", b"\0\0\0")):
        (tmp_path / name).write_bytes(data)
    for arguments, said in (
        (["nofile"], "usage: osbc_net_host [RASTERS OUTPUTS]"),
        (["nofile", "out"], "nofile: cannot be opened"),
        (["short", "out"], "short: ends before the last step"),
        (["long", "out"], "long: goes on after the last step"),
        (["none", "out"], "none: is shorter than its two sizes"),
        (["short", "no/such/out"], "no/such/out: cannot be written"),
        (["a", "b", "c"], "usage: "),
    ):
        done = subprocess.run(
            [program, *arguments], cwd=tmp_path, check=False, capture_output=True, text=True
        )
        assert (done.returncode, done.stdout) == (2, ""), arguments
        assert said in done.stderr
    assert not (tmp_path / "nofile").exists()


@pytest.mark.parametrize("name", ["blob.md", "image-format.md"])
def test_the_crc_of_the_pages_is_zlibs(name: str) -> None:
    page = " ".join((DOCS / name).read_text("utf-8").split())
    numbers = re.search(
        r"polynomial (0x\w+) \(reflected (0x\w+)\), initial value (0x\w+), input and output "
        r"reflected, final XOR (0x\w+); of the nine bytes `123456789` it is (0x\w+)",
        page,
    )
    assert numbers is not None
    plain, reflected, start, final, check = (int(number, 16) for number in numbers.groups())
    assert int(f"{plain:032b}"[::-1], 2) == reflected
    for data in (b"123456789", b"", bytes(range(256))):
        crc = start
        for byte in data:
            crc ^= byte
            for _ in range(8):
                crc = crc >> 1 ^ reflected * (crc & 1)
        assert crc ^ final == zlib.crc32(data)
    assert zlib.crc32(b"123456789") == check


def test_the_tables_are_the_blob_and_the_crc_is_that_of_its_body(
    drawn: list[Case], tmp_path: Path
) -> None:
    for number, case in enumerate(drawn[:3]):
        folder = export_c(case.network, tmp_path / str(number), name="net").folder
        text = (folder / "net_weights.c").read_text().split("net_blob[] = {")[1].split("}")[0]
        blob = bytes(int(word) for word in text.split(",") if word.strip())
        assert blob == write_blob(case.network, lay_out(case.network))
        header = (folder / "net.h").read_text()
        assert f"#define NET_CRC32 UINT32_C(0x{zlib.crc32(blob[44:]):08X})" in header


BUFFERS = """
#include <stdio.h>
#include "net.h"
static int32_t state[NET_STATE_BYTES / 4 + 1];
static net_input input[NET_INPUTS * 4];
int main(void)
{
    int64_t evidence[NET_CLASSES];
    uint32_t found = 99;
    printf("%d %d %d %d", net_reset(NULL, sizeof state), net_reset(state, NET_STATE_BYTES - 1u),
           net_reset((char *)state + 1, NET_STATE_BYTES), net_reset(state, sizeof state));
    input[0] = input[3] = 1;
    printf(" %d", net_run(state, sizeof state, input, 4, evidence, &found));
    printf(" %ld", found == NET_NO_CLASS ? -1L : (long)found);
    return 0;
}
"""


@pytest.mark.parametrize("readout", ["sum", "last", "max", "vote:2"])
def test_buffers_are_checked_and_classes_decoded(
    readout: Any, chain: Case, drawn: list[Case], tmp_path: Path
) -> None:
    even = next(case for case in drawn if case.network.output.size % 2 == 0)
    network = replace((even if readout == "vote:2" else chain).network, readout=readout)
    export = export_c(network, tmp_path / "c", name="net")
    (export.folder / "buffers.c").write_text(BUFFERS)
    program = build(export, "-O0", "-fsanitize=undefined", main="buffers.c")
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
    int64_t evidence[NET_CLASSES];
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
    assert 500 < found.code < 40_000
    with pytest.raises(BackendError, match="no-such-gcc: is not installed. Install gcc"):
        measure(export, "no-such-gcc")
    # Another run may have put its own library there meanwhile, or nothing yet.
    shutil.rmtree(export.folder)
    assert measure(export) == found
    broken = {**export.sources, "osbc_net.c": "#error of some kind\n"}
    with pytest.raises(BackendError, match=r"(?s)error of some kind.*not measured"):
        measure(replace(export, sources=broken))


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
        ["make", "-s", "qemu"], cwd=export.folder, capture_output=True, text=True, timeout=1800,
        check=False,
    )  # fmt: skip
    assert "self-test: passed (0)" in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("name", "why"),
    [
        *((n, "cannot be a prefix in C") for n in ("", "9lives", "my-net", "a" * 32, "größe")),
        *((n, "cannot be a prefix in C") for n in ("x;y", "_x", "__x", "_X", "x__y", "x_", "x\n")),
        *((n, f"would shadow the system's {n.lower()}.h") for n in ("math", "Math", "stdint")),
        *((n, f"would shadow the system's {n}.h") for n in ("string", "stdio", "unistd", "task")),
        *((n, "is a keyword of C or C\\+\\+") for n in ("int", "Inline", "class")),
        ("main", "the program's main.c"),
        ("NUL", "is a device on Windows"),
    ],
)
def test_names_that_c_cannot_use_are_refused(
    name: str, why: str, chain: Case, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=why):
        export_c(chain.network, tmp_path / "c", name=name)
    assert not (tmp_path / "c").exists()


STANDARD = """
    assert complex ctype errno fenv float inttypes iso646 limits locale math setjmp signal stdalign
    stdarg stdatomic stdbool stddef stdint stdio stdlib stdnoreturn string tgmath threads time uchar
    wchar wctype dirent fcntl pthread sched strings sys/types sys/stat unistd
"""


def test_no_library_takes_the_place_of_a_header_of_this_compiler(tmp_path: Path) -> None:
    source = tmp_path / "a.c"
    source.write_text("".join(f"#include <{name}.h>\n" for name in STANDARD.split()))
    done = subprocess.run(["gcc", "-M", str(source)], check=True, capture_output=True, text=True)
    paths = [Path(word) for word in done.stdout.split() if word.endswith(".h")]
    # What a source includes without a folder, as <features.h>; others begin with an underscore.
    names = {p.stem for p in paths if p.parent.name == "include" and p.stem.isidentifier()}
    assert {"stdint", "math", "features"} <= names
    for name in names:
        with pytest.raises(UsageError, match="name: "):
            check_name(name)
    assert check_name("digits") is None


def test_numbers_out_of_range_are_all_named(chain: Case, tmp_path: Path) -> None:
    p = chain.network.populations[0]
    broken = replace(p, vth=np.full(p.size, 2**17), dv=np.full(p.size, 5000))
    network = replace(chain.network, populations=(broken, *chain.network.populations[1:]))
    with pytest.raises(UnsupportedModelError, match=r"(?s)dv: 5000.*vth: 131072"):
        export_c(network, tmp_path / "c")
    assert not (tmp_path / "c").exists()


def test_values_beyond_the_input_type_are_refused(drawn: list[Case], tmp_path: Path) -> None:
    case = next(c for c in drawn if any(p.graded for p in c.network.projections))
    spikes = np.zeros((1, 2, *case.network.input_shape), np.int64)
    for value in (case.network.input.high + 1, case.network.input.low - 1):
        spikes.flat[0] = value
        with pytest.raises(UsageError, match="the network's input takes "):
            export_c(case.network, tmp_path / "c", samples=spikes)
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
    with pytest.raises(UnsupportedModelError, match="sums? up to"):
        export_c(network, tmp_path / "c")


def test_someone_elses_folder_is_left_alone(chain: Case, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(UsageError, match="was not written by osbc-deploy"):
        export_c(chain.network, tmp_path)
    export = export_c(chain.network, tmp_path / "c")
    assert (export_c(chain.network, tmp_path / "c").folder / C_LIBRARY.marker).is_file()
    assert export.crc == export_c(chain.network, tmp_path / "d").crc


def test_what_was_built_is_replaced_and_what_was_written_beside_it_is_kept(
    chain: Case, tmp_path: Path
) -> None:
    folder = export_c(chain.network, tmp_path / "c", name="net").folder
    for target in ("all", "net_selftest.o"):
        subprocess.run(["make", "-s", target], cwd=folder, check=True)
    export_c(chain.network, folder, name="other")
    assert not (folder / "libnet.a").exists()
    (folder / "examples" / "mine.c").write_text("years")
    (folder / "libnet.a").write_text("of another name")
    with pytest.raises(UsageError, match=r"c: holds examples/mine\.c, libnet\.a, which"):
        export_c(chain.network, folder)
    assert (folder / "examples" / "mine.c").read_text() == "years"
    (folder / C_LIBRARY.marker).write_text("{}")
    with pytest.raises(UsageError, match=r"c: holds CMakeLists\.txt, Makefile, examples, "):
        export_c(chain.network, folder)
