"""A network in C99: a library with its tables compiled in, or a runtime that loads it as a blob."""

from __future__ import annotations

import math
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from osbc_deploy import folders
from osbc_deploy.errors import UsageError
from osbc_deploy.formats.format import Export, Exported, Format

if TYPE_CHECKING:
    from osbc_deploy.arguments import Data
    from osbc_deploy.arrays import IntArray
    from osbc_deploy.data.samples import Samples
    from osbc_deploy.fixedpoint.network import FixedPointNetwork

__all__ = ["FORMAT", "RUNTIME", "payloads_of"]

_NAME = "osbc_net"
_PROCESSOR = "cortex-m4"
"""What is estimated for where the target is no microcontroller."""
_COMPILERS = ("gcc", "arm-none-eabi-gcc")
"""Measured with where they are installed, unless others are named."""


def _export(network: FixedPointNetwork, path: Path, asked: Export) -> Exported:
    from osbc_deploy.firmware.footprint import check_compiler, measure
    from osbc_deploy.firmware.library import export_c

    compilers = asked.options.get("compiler") or ()
    for compiler in compilers:
        check_compiler(compiler)
    vectors = _given(network, asked)
    name = asked.options.get("name")
    name = _NAME if name is None else name
    done = export_c(network, path, name=name, samples=vectors)
    used = compilers or tuple(c for c in _COMPILERS if shutil.which(c))
    measured = {compiler: measure(done, compiler) for compiler in used}
    lines = [f"{part}: {size:,} B" for part, size in done.tables.items()]
    estimated, said = _estimated(asked, done.table_bytes, done.state_bytes)
    lines += [
        *said,
        *(
            f"measured with {compiler}: {f.flash:,} B of flash ({f.code:,} code, {f.tables:,} "
            f"tables), {f.ram:,} B of RAM"
            for compiler, f in measured.items()
        ),
    ]
    facts = {
        "name": name,
        "crc32": f"{done.crc:08x}",
        "tables": done.tables,
        "estimated": estimated,
        "measured": {
            compiler: {"code": f.code, "tables": f.tables, "flash": f.flash, "ram": f.ram,
                       "version": f.version}
            for compiler, f in measured.items()
        },
    }  # fmt: skip
    found, more = _steps(network, vectors, asked)
    return Exported(facts | found, [*lines, *more])


def _estimated(asked: Export, tables: int, state: int) -> tuple[dict[str, Any], list[str]]:
    """Return what library or blob take on the microcontroller asked for, code included."""
    from osbc_deploy.chip.target import load_target
    from osbc_deploy.firmware.memory import RuntimeMemory

    chip = asked.target
    memory = None if chip is None else chip.memory
    if chip is None or not isinstance(memory, RuntimeMemory):
        chip = load_target(_PROCESSOR)
        memory = RuntimeMemory.model_validate(chip.memory.model_dump())
    code, stack = memory.code.value, memory.stack.value
    facts = {
        "target": chip.name, "tables": tables, "code": code, "flash": tables + code,
        "ram": state, "stack": stack,
    }  # fmt: skip
    line = (
        f"estimated on {chip.name}: {tables + code:,} B of flash ({code:,} code, {tables:,} "
        f"tables), {state:,} B of RAM and {stack:,} B of stack"
    )
    return facts, [line]


def _steps(
    network: FixedPointNetwork, samples: IntArray | None, asked: Export
) -> tuple[dict[str, Any], list[str]]:
    """Return what the steps of samples take where they can be run, if that was asked for."""
    from osbc_deploy.firmware.measuring import measure_steps

    if not asked.options.get("measure"):
        return {}, []
    found, left_out = measure_steps(network, samples)
    facts: dict[str, Any] = {"steps": [asdict(part) for part in found]}
    if left_out:
        facts["not_measured"] = left_out
    return facts, [*(str(part) for part in found), *left_out]


def _given(network: FixedPointNetwork, asked: Export) -> IntArray | None:
    """Return the samples asked for as the network's input."""
    samples, repeat = (asked.options.get(option) for option in ("samples", "repeat"))
    if samples is not None:
        return _vectors(network, samples, repeat)
    if repeat is not None:
        raise UsageError("--repeat: shows --samples, and there are none. Give both, or neither.")
    return None


def _vectors(network: FixedPointNetwork, samples: Data, repeat: int | None) -> IntArray:
    """Return the first few samples as the network's input."""
    from osbc_deploy.references import as_samples

    return payloads_of(network, as_samples(samples, "samples", repeat).take(4))


def payloads_of(network: FixedPointNetwork, samples: Samples) -> IntArray:
    """Return samples as the network's input, (n, T, *input_shape).

    Raises
    ------
    UsageError
        For samples that it does not take.
    """
    from osbc_deploy.data.samples import STATIC

    if math.prod(samples.input_shape) != math.prod(network.input_shape):
        raise UsageError(
            f"{samples.name}: samples have shape {samples.input_shape} per time step, the "
            f"network's input is {network.input_shape}. Give samples of that shape; {STATIC}."
        )
    return network.input.codes(samples.shaped(network.input_shape).spikes)


FORMAT = Format(
    title="C library",
    export=_export,
    export_options=("name", "samples", "repeat", "compiler", "measure"),
    folder=folders.C_LIBRARY,
    help="a C99 library",
)


def _export_runtime(network: FixedPointNetwork, path: Path, asked: Export) -> Exported:
    from osbc_deploy.firmware.runtime import export_runtime

    vectors = _given(network, asked)
    done = export_runtime(network, path)
    estimated, said = _estimated(asked, len(done.blob), done.state_bytes)
    lines = [
        f"network {done.identity.hex()}: {len(done.blob):,} B of flash, "
        f"{done.state_bytes:,} B of RAM",
        *said,
    ]
    facts = {
        "identity": done.identity.hex(),
        "blob_bytes": len(done.blob),
        "state_bytes": done.state_bytes,
        "estimated": estimated,
    }
    found, more = _steps(network, vectors, asked)
    return Exported(facts | found, [*lines, *more])


RUNTIME = Format(
    title="C runtime",
    export=_export_runtime,
    export_options=("samples", "repeat", "measure"),
    folder=folders.RUNTIME,
    help="a C99 library that loads networks, and the network as a blob for it",
)
