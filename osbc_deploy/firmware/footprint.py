"""What a C library really takes, measured from what the compiler makes of it."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from osbc_deploy.errors import BackendError
from osbc_deploy.firmware.library import CExport
from osbc_deploy.firmware.machine import FLAGS, MACHINES, call

__all__ = ["Footprint", "check_compiler", "measure"]


@dataclass(frozen=True)
class Footprint:
    """Memory of a compiled library.

    Attributes
    ----------
    compiler : str
        Its command.
    version : str
        The first line it says about itself.
    code, tables : int
        Bytes of instructions, and of constants and initialized data.
    ram : int
        Bytes of variables of its own plus the state buffer.
    """

    compiler: str
    version: str
    code: int
    tables: int
    ram: int

    @property
    def flash(self) -> int:
        """Bytes of flash."""
        return self.code + self.tables


def measure(export: CExport, compiler: str = "gcc") -> Footprint:
    """Compile a library and measure its object files.

    Parameters
    ----------
    export : CExport
    compiler : str
        A gcc, whose ``size`` lies beside it; one for ``arm-none-eabi`` compiles for Cortex-M4.

    Raises
    ------
    BackendError
        When the compiler is missing, or refuses the code.
    """
    size_tool = check_compiler(compiler)
    arm = (*MACHINES["qemu-m4"].flags, "-ffreestanding")
    target = arm if "arm-none-eabi" in compiler else ()
    code = tables = ram = 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for file, text in export.sources.items():
            if "/" not in file:
                (folder / file).write_text(text, encoding="ascii")
        for unit in (export.name, f"{export.name}_weights"):
            source, built = folder / f"{unit}.c", folder / f"{unit}.o"
            _call([compiler, *FLAGS, *target, "-O2", "-c", str(source), "-o", str(built)])
            # One line for each section: its name, size and address.
            for line in _call([size_tool, "-A", str(built)]).splitlines():
                section, _, rest = line.strip().partition(" ")
                size = rest.split()[0] if rest.split() else ""
                if not size.isdigit():
                    continue
                if section.startswith(".text"):
                    code += int(size)
                elif section.startswith((".rodata", ".data")):
                    tables += int(size)
                if section.startswith((".data", ".bss")) and ".rel.ro" not in section:
                    ram += int(size)
    version = _call([compiler, "--version"]).splitlines()[0]
    return Footprint(compiler, version, code, tables, ram + export.state_bytes)


def check_compiler(compiler: str) -> str:
    """Return the ``size`` beside a compiler; BackendError where one of them is missing."""
    size_tool = (compiler.removesuffix("gcc") if compiler.endswith("gcc") else "") + "size"
    for tool in (compiler, size_tool):
        if shutil.which(tool) is None:
            package = "gcc-arm-none-eabi" if "arm" in compiler else "gcc and binutils"
            raise BackendError(f"{tool}: is not installed. Install {package}.")
    return size_tool


def _call(command: list[str]) -> str:
    try:
        return call(command)
    except BackendError as error:
        raise BackendError(
            f"{error} The library is written but not measured; name another gcc with --compiler."
        ) from error
