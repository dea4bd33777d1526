"""Where the C runtime is built and run here: on this computer, and on cores that QEMU emulates.

One build of a machine's program runs any network: it is given a blob and rasters as files, as
docs/blob.md describes, and leaves the outputs, and what it was asked for beside them.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from osbc_deploy.arrays import IntArray
from osbc_deploy.errors import BackendError
from osbc_deploy.firmware.read import Blob, read_blob
from osbc_deploy.firmware.runtime import render, runtime_sources, snippet

__all__ = [
    "FLAGS",
    "MACHINES",
    "Machine",
    "MachineRun",
    "Program",
    "built",
    "call",
    "rasters",
    "remedy",
    "version_of",
]

FLAGS = ("-std=c99", "-pedantic", "-Wall", "-Wextra", "-Wconversion", "-Werror")
_BARE = ("-ffreestanding", "-ffunction-sections", "-fdata-sections")
_LINKED = ("-nostdlib", "-Wl,--gc-sections")
_TIME_LIMIT = 600.0
_LONGEST = 1e6
"""Seconds that the system can wait for a program."""
_PACKAGES = {
    "arm-none-eabi-gcc": "gcc-arm-none-eabi",
    "riscv64-unknown-elf-gcc": "gcc-riscv64-unknown-elf",
    "qemu-system-riscv32": "qemu-system-misc",
}
"""What brings a program on Debian, where its name is another."""
_SHIFT = 6
"""Of QEMU's -icount: an instruction takes 64 ns, 1.6 ticks of the boards' timers of 25 MHz."""


@dataclass(frozen=True)
class Machine:
    """A computer that runs the C runtime.

    Attributes
    ----------
    name : str
        What users call it.
    summary : str
    core : str
        Name of the target whose core it is; empty for the computer here.
    compiler : str
        A gcc.
    flags : tuple of str
        Of its core, for the compiler.
    program, start, ticks, script : str
        Templates: the program that reads rasters, what it starts with, its timer, and where it is
        linked to; those of an emulated core alone but for the first.
    emulator : tuple of str
        Command that the program is appended to; none here.
    per_tick : float
        Instructions in a tick of the timer; 0 where they cannot be counted.
    """

    name: str
    summary: str
    core: str
    compiler: str
    flags: tuple[str, ...] = ()
    program: str = "runtime/m4.c"
    start: str = "m4_start.c"
    ticks: str = "m4_ticks.c"
    script: str = "m4.ld"
    emulator: tuple[str, ...] = ()
    per_tick: float = 0.0

    @property
    def missing(self) -> list[str]:
        """Programs that are needed and not installed here."""
        needed = (self.compiler, *self.emulator[:1])
        return [program for program in needed if shutil.which(program) is None]

    @property
    def counts(self) -> bool:
        """Whether it counts instructions."""
        return self.per_tick > 0


def _arm(name: str, core: str, board: str) -> Machine:
    return Machine(
        f"qemu-{name}",
        f"C runtime on a Cortex-{name.upper()} that QEMU emulates",
        core,
        "arm-none-eabi-gcc",
        (f"-mcpu={core}", "-mthumb"),
        emulator=("qemu-system-arm", "-M", board),
        per_tick=40 / 2**_SHIFT,
    )


_ALL = (
    Machine("host-c", "C runtime on this computer", "", "gcc", program="runtime/host.c"),
    # A Cortex-M0+ has a part of the instructions of a Cortex-M3.
    _arm("m0plus", "cortex-m0plus", "mps2-an385"),
    _arm("m4", "cortex-m4", "mps2-an386"),
    _arm("m7", "cortex-m7", "mps2-an500"),
    Machine(
        "qemu-rv32",
        "C runtime on a RV32IMAC core that QEMU emulates",
        "rv32imac",
        "riscv64-unknown-elf-gcc",
        ("-march=rv32imac_zicsr", "-mabi=ilp32", "-mcmodel=medany", "-msmall-data-limit=0"),
        start="rv32/start.c",
        ticks="rv32/ticks.c",
        script="rv32/link.ld",
        emulator=("qemu-system-riscv32", "-M", "virt", "-bios", "none"),
        # Its counter goes in nanoseconds under -icount, of which ticks.c makes instructions.
        per_tick=1.0,
    ),
)
MACHINES = {machine.name: machine for machine in _ALL}
"""All that are known, by name; :attr:`Machine.missing` says what one lacks here."""


@dataclass(frozen=True, eq=False)
class MachineRun:
    """What a program computed.

    Attributes
    ----------
    output : ndarray of int32 (n, T, outputs)
        Spikes of the output population, or its potentials.
    states : ndarray of int32 (n, T, words) or None
        The state buffer after every step, where it was asked for.
    instructions : ndarray of int64 (n, T) or None
        Of every step, where they were asked for.
    """

    output: IntArray
    states: IntArray | None = None
    instructions: IntArray | None = None


@dataclass(frozen=True)
class Program:
    """The program of a machine, built.

    Attributes
    ----------
    machine : Machine
    path : Path
    """

    machine: Machine
    path: Path

    def run(
        self,
        blob: bytes,
        samples: IntArray,
        *,
        states: bool = False,
        count: bool = False,
        time_limit: float = _TIME_LIMIT,
    ) -> MachineRun:
        """Run samples on the network of a blob.

        Parameters
        ----------
        blob : bytes
        samples : ndarray of int (n, T, *input_shape)
            Payloads, or spikes: what :meth:`.InputFormat.codes` returns.
        states, count : bool
            Whether to keep the state buffer of every step, and to count its instructions.
        time_limit : float
            Seconds that it may take.

        Raises
        ------
        BackendError
            When the program ends with an error, or does not end; when instructions are to be
            counted by a machine that cannot.
        ArtefactError
            For a blob that is broken.
        """
        read, (n, steps), machine = read_blob(blob), samples.shape[:2], self.machine
        if count and not machine.counts:
            raise BackendError(f"{machine.name}: does not count instructions.")
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            (folder / "network.bin").write_bytes(blob)
            (folder / "rasters.bin").write_bytes(rasters(read, samples))
            if machine.emulator:
                if states:
                    (folder / "states.bin").touch()
                ask = ("-icount", f"shift={_SHIFT},align=off,sleep=off") if count else ()
                common = ("-nographic", "-semihosting", "-monitor", "none", "-kernel")
                command = [*machine.emulator, *ask, *common, str(self.path)]
            else:
                names = ("network.bin", "rasters.bin", "outputs.bin", *["states.bin"] * states)
                command = [str(self.path), *names]
            _run(command, folder, machine.name, time_limit)

            def result(file: str) -> IntArray:
                return np.fromfile(folder / file, np.int32).reshape(n, steps, -1)

            ticks = np.fromfile(folder / "ticks.bin", np.uint32) if count else None
            return MachineRun(
                result("outputs.bin"),
                result("states.bin") if states else None,
                None if ticks is None else
                np.rint(ticks * machine.per_tick).astype(np.int64).reshape(n, steps),
            )  # fmt: skip


@contextmanager
def built(machine: Machine, options: Sequence[str] = ("-O2",)) -> Iterator[Program]:
    """Build the program of a machine, which is there until the context ends.

    Parameters
    ----------
    machine : Machine
    options : sequence of str
        For the compiler, beside those of the core.

    Raises
    ------
    BackendError
        When something that is needed is not installed, or the compiler refuses the code.
    """
    if machine.missing:
        missing = " and ".join(machine.missing)
        raise BackendError(f"{machine.name}: {missing} cannot be found. {remedy(machine)}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sources = runtime_sources("osbc")
        values: dict[str, Any] = {"P": "osbc", "U": "OSBC"}
        command = [machine.compiler, *FLAGS, *machine.flags, *options]
        if machine.emulator:
            values |= {"start": snippet(machine.start), "ticks": snippet(machine.ticks)}
            sources["link.ld"] = render(machine.script, {})
            command += _BARE
        sources["program.c"] = render(machine.program, values).replace('"../', '"')
        for file, text in sources.items():
            (folder / file).write_text(text, encoding="ascii")
        command += [file for file in sources if file.endswith(".c")]
        if machine.emulator:
            command += [*_LINKED, "-T", "link.ld", "-lgcc"]
        call([*command, "-o", "program"], cwd=folder)
        yield Program(machine, folder / "program")


def remedy(machine: Machine) -> str:
    """Return what to do about the programs that a machine lacks here."""
    packages = [_PACKAGES.get(program, program) for program in machine.missing]
    return f"Install {' and '.join(packages)}."


def version_of(machine: Machine) -> str:
    """Return what compiler and emulator say about themselves."""
    programs = (machine.compiler, *machine.emulator[:1])
    return ", ".join(call([program, "--version"]).splitlines()[0] for program in programs)


def rasters(blob: Blob, samples: IntArray) -> bytes:
    """Return samples (n, T, ...) as the programs read them for the network of a blob."""
    facts = blob.facts
    width = next(w for w in (8, 16, 32) if facts["input_bits"] <= w)
    kind = np.dtype(f"<{'i' if facts['input_signed'] else 'u'}{width // 8}")
    return np.array(samples.shape[:2], "<u4").tobytes() + samples.astype(kind).tobytes()


def call(command: Sequence[str], *, cwd: Path | None = None) -> str:
    """Run a compiler or one of its tools, and return what it prints.

    Raises
    ------
    BackendError
        When it ends with an error, or does not end.
    """
    return _run(command, cwd, command[0], _TIME_LIMIT)


def _run(command: Sequence[str], cwd: Path | None, name: str, time_limit: float) -> str:
    try:
        done = subprocess.run(  # noqa: S603 - ours, and the compiler that the user named
            command, cwd=cwd, capture_output=True, text=True, timeout=min(time_limit, _LONGEST),
            check=False, stdin=subprocess.DEVNULL,
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise BackendError(
            f"{name}: not done after {time_limit:g} s. Give it fewer samples or more time."
        ) from error
    if done.returncode:
        said = " ".join((done.stderr.strip() or done.stdout.strip()).split())[:500]
        raise BackendError(f"{name}: ended with code {done.returncode} ({said}).")
    return done.stdout
