"""Write a network as a C99 library that computes the chip's bits on a host or microcontroller.

The engine of the library is fixed C; what differs are tables, sizes and golden vectors. All of it
is generated into one folder that builds with its own Makefile.
"""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from osbc_deploy._version import __version__
from osbc_deploy.arrays import IntArray
from osbc_deploy.firmware.names import check_name
from osbc_deploy.firmware.tables import (
    FirmwareTables,
    ProjectionTables,
    Table,
    lay_out,
)
from osbc_deploy.fixedpoint.engine import run
from osbc_deploy.fixedpoint.network import FixedPointNetwork
from osbc_deploy.folders import C_LIBRARY
from osbc_deploy.model.readout import classes_of
from osbc_deploy.notation import Readout, outputs_per_class
from osbc_deploy.plain_text import c_comment
from osbc_deploy.writing import new_folder

__all__ = ["FORMAT", "CExport", "export_c"]

FORMAT = 1

_GOLDEN_VECTORS = 3
_GOLDEN_STEPS = 16
_GOLDEN_RATES = (0.02, 0.1, 0.3)
_ACCUMULATE = {
    "sum": "evidence[i] = (t == 0u ? 0 : evidence[i]) + output[i];",
    "last": "evidence[i] = output[i];",
    "max": "evidence[i] = t == 0u || output[i] > evidence[i] ? output[i] : evidence[i];",
}
_READOUT = {"sum": "sum over time", "last": "last value", "max": "largest value"}
_VOTES = "evidence[i / {n}u] = (t == 0u && i % {n}u == 0u ? 0 : evidence[i / {n}u]) + output[i];"


@dataclass(frozen=True)
class CExport:
    """What was written.

    Attributes
    ----------
    folder : Path
    name : str
        Prefix of all files and symbols.
    table_bytes : int
        Flash for weights and registers.
    state_bytes : int
        RAM for the state.
    crc : int
        Of the tables.
    tables : dict of int
        Bytes of flash by projection and population.
    """

    folder: Path
    name: str
    table_bytes: int
    state_bytes: int
    crc: int
    tables: dict[str, int]


def export_c(
    network: FixedPointNetwork,
    folder: Path,
    *,
    name: str = "osbc_net",
    samples: IntArray | None = None,
) -> CExport:
    """Write the C library of a network into a folder, whole or not at all.

    Parameters
    ----------
    network : FixedPointNetwork
    folder : Path
        Replaced if an export wrote it.
    name : str
        Prefix of files and symbols, a C identifier.
    samples : ndarray (n, T, *input_shape), optional
        Input of the golden vectors; by default a few random rasters of a fixed seed.

    Raises
    ------
    UsageError
        For a name that C cannot use, samples whose values the library does not take, or a folder
        of someone else's.
    UnsupportedModelError
        For numbers out of range; see :func:`osbc_deploy.firmware.tables.lay_out`.
    """
    check_name(name)
    tables = lay_out(network)
    if samples is not None:
        network.input.check(samples)
    crc = zlib.crc32(tables.serialized())
    values = _values(network, tables, name, crc)
    sources = {
        f"{name}.h": "net.h", f"{name}.c": "net.c", f"{name}_tables.h": "tables.h",
        "examples/host.c": "host.c", "examples/m4.c": "m4.c", "examples/m4.ld": "m4.ld",
        "Makefile": "Makefile",
    }  # fmt: skip
    texts = {file: _render(template, values) for file, template in sources.items()}
    texts[f"{name}_weights.c"] = _weights(network, tables, name)
    golden = _golden(network, tables, crc if samples is None else samples)
    texts[f"{name}_selftest.c"] = _render("selftest.c", values | golden)
    parts = {p.name: 0 for p in tables.projections}
    for p in tables.projections:
        parts[p.name] += sum(t.size for t in p.tables.values())
    for q in tables.populations:
        parts[q.population.name] = sum(t.size for t in q.tables.values())
    done = CExport(folder, name, tables.size, 4 * tables.state_words, crc, parts)
    with new_folder(folder, C_LIBRARY) as work:
        # Not beside the library: a build that takes every source of its folder has its own main.
        (work / "examples").mkdir()
        for file, text in texts.items():
            (work / file).write_text(text, encoding="ascii")
        manifest = {
            "format": f"osbc-deploy/firmware/{FORMAT}",
            "generator": f"osbc-deploy {__version__}",
            "name": name,
            "files": sorted(texts),
            "crc32": f"{crc:08x}",
            "table_bytes": done.table_bytes,
            "state_bytes": done.state_bytes,
            "tables": parts,
        }
        (work / C_LIBRARY.marker).write_text(
            json.dumps(manifest, indent=1) + "\n", encoding="utf-8"
        )
    return done


def _render(template: str, values: dict[str, Any]) -> str:
    text = (files("osbc_deploy.firmware") / "templates" / template).read_text(encoding="ascii")
    return re.sub(r"@(\w+)@", lambda found: str(values[found[1]]), text)


def _input_values(network: FixedPointNetwork, name: str) -> dict[str, Any]:
    """Return what the templates say of the input; `name` in capitals."""
    given = network.input
    if not given.graded:
        return {
            "input_type": "uint8_t", "input_check": "", "input_constants": "",
            "input_meaning": "0, or anything else for a spike",
        }  # fmt: skip
    width = next(w for w in (8, 16, 32) if given.bits <= w)
    whole = f"{'' if given.signed else 'u'}int{width}_t"
    bounds = [f"input[i] > {name}_INPUT_HIGH"] * (given.bits < width)
    bounds += [f"input[i] < {name}_INPUT_LOW"] * (given.bits < width and given.signed)
    check = (
        f"    for (i = 0; i < {name}_INPUTS; i++) {{\n        if ({' || '.join(bounds)}) {{\n"
        f"            return {name}_OUT_OF_RANGE;\n        }}\n    }}\n"
    )
    meaning = "a whole number as it is"
    if given.kind == "values":
        meaning = (
            "the value divided by INPUT_SCALE, rounded to the nearest whole number (to even)\n"
        )
        meaning += " * and cut off at LOW and HIGH"
    constants = {
        "BITS": (given.bits, "of the payload, the sign included"),
        "LOW": (given.low, "the least that is taken"),
        "HIGH": (given.high, "the largest"),
        "SCALE": (repr(float(given.scale)), "what 1 stands for"),
    }
    return {
        "input_type": whole,
        "input_check": check if bounds else "",
        "input_meaning": meaning,
        "input_constants": "".join(
            f"#define {name}_INPUT_{key} {value} /* {what} */\n"
            for key, (value, what) in constants.items()
        ),
    }


def _values(
    network: FixedPointNetwork, tables: FirmwareTables, name: str, crc: int
) -> dict[str, Any]:
    formats, out = network.formats, network.output
    return {
        "name": name, "NAME": name.upper(), "version": __version__, "format": FORMAT,
        "inputs": f"{int(np.prod(network.input_shape))}u", "input_shape": network.input_shape,
        "outputs": f"{out.size}u", "output_shape": out.shape,
        "potential": int(not out.spiking),
        "state_bytes": f"{4 * tables.state_words}u", "table_bytes": f"{tables.size}u",
        "crc": f"0x{crc:08X}",
        **_input_values(network, name.upper()),
        "output_meaning": "spikes (0 or 1)" if out.spiking else "membrane potentials",
        "classes": f"{classes_of(network.readout, out.size)}u",
        "readout_meaning": _meaning(network.readout),
        "silence": "all are 0" if out.spiking else "all are one number",
        "accumulate": _accumulate(network.readout),
        "depth": network.depth[out.name],
        "projections": len(tables.projections), "populations": len(tables.populations),
        "decay_bits": formats.decay_bits, "state_shift": formats.state_shift,
        "limit": formats.state_limit, "cycle": tables.cycle,
    }  # fmt: skip


def _meaning(readout: Readout) -> str:
    if (n := outputs_per_class(readout)) > 1:
        return f"{_READOUT['sum']} and over its {n} outputs in a row"
    return _READOUT[readout]


def _accumulate(readout: Readout) -> str:
    return _VOTES.format(n=n) if (n := outputs_per_class(readout)) > 1 else _ACCUMULATE[readout]


def _numbers(values: Iterable[Any]) -> str:
    """Return numbers as lines of an initializer."""
    words = [str(int(v)) for v in values] or ["0"]
    lines, line = [], ""
    for word in words:
        if len(line) + len(word) > 96:
            lines.append(line)
            line = ""
        line += f" {word},"
    return "\n   ".join(["", *lines, line]) + "\n"


def _weights(network: FixedPointNetwork, tables: FirmwareTables, name: str) -> str:
    """Return the source of all tables and of the structs that describe them."""
    arrays: list[str] = []
    numbers = 0

    def initializer(table: Table) -> str:
        nonlocal numbers
        if table.data is None:
            return f"{{0, 0, {table.value}, 1, 0}}"
        kind = ("u" if table.data.dtype.kind == "u" else "") + f"int{8 * table.width}_t"
        arrays.append(
            f"static const {kind} table{numbers}[] = {{{_numbers(table.data.ravel())}}};\n"
        )
        numbers += 1
        return f"{{table{numbers - 1}, {table.data.size}, 0, {table.repeat}, {table.width}}}"

    def projection(p: ProjectionTables, sums: int) -> str:
        sizes = ("height", "width", "rows", "columns", "c_in", "c_out", "kh", "kw", "groups")
        g = p.geometry
        shape = ", ".join(str(g.get(key, 0)) for key in sizes)
        pairs = ", ".join(
            f"{{{g[key][0]}, {g[key][1]}}}" if g else "{0, 0}"
            for key in ("stride", "padding", "dilation")
        )
        parts = ",\n     ".join(initializer(t) for t in p.tables.values())
        return (
            f"    /* {c_comment(p.name)} */\n"
            f"    {{{name.upper()}_{p.kind.upper()}, {p.code_bits}, {p.shift}, {p.right}, "
            f"{int(p.wraps)}, {int(p.graded)},\n"
            f"     {p.pre}, {p.post}, {p.latency}, {p.ring}, {sums},\n"
            f"     {parts},\n     {shape}, {pairs}}},\n"
        )

    projections = "".join(
        projection(p, at) for p, at in zip(tables.projections, tables.sum_offsets, strict=True)
    )
    populations = ""
    for q, at in zip(tables.populations, tables.state_offsets, strict=True):
        p = q.population
        interval = p.reset_interval
        offset = p.reset_offset % interval if interval else 0
        parts = ",\n     ".join(initializer(t) for t in q.tables.values())
        populations += (
            f"    /* {c_comment(p.name)} */\n"
            f"    {{{p.size}, {at}, {int(q.keeps_u)}, {int(p.reset == 'subtract')}, "
            f"{interval}, {offset},\n"
            f"     {parts}}},\n"
        )
    sizes = [int(np.prod(network.input_shape)), *(p.size for p in network.populations)]
    return (
        f"/* Weights and registers of {name}, generated by osbc-deploy {__version__}. */\n"
        f'#include "{name}_tables.h"\n\n'
        + "\n".join(arrays)
        + f"\nconst {name}_projection {name}_projections[] = {{\n{projections}}};\n"
        f"\nconst {name}_population {name}_populations[] = {{\n{populations}}};\n"
        f"\nconst uint32_t {name}_sizes[] = {{{_numbers(sizes)}}};\n"
    )


def _golden(network: FixedPointNetwork, tables: FirmwareTables, source: Any) -> dict[str, Any]:
    """Return the self-test's vectors; `source` is samples or a seed."""
    graded = network.input.graded
    if isinstance(source, (int, np.integer)):
        rng = np.random.default_rng(source)
        shape = (_GOLDEN_VECTORS, _GOLDEN_STEPS, *network.input_shape)
        rates = np.reshape(_GOLDEN_RATES, (-1,) + (1,) * (len(shape) - 1))
        spikes: IntArray = (rng.random(shape) < rates).astype(np.int32 if graded else np.uint8)
        if graded:
            low, high = max(network.input.low, -9), min(network.input.high, 9)
            spikes = spikes * rng.integers(low, high + 1, shape)
    else:
        spikes = source
    names = [p.name for p in network.populations]
    done = run(network, spikes, states=names)
    n, steps = spikes.shape[:2]
    flat = spikes.reshape(n * steps, -1)
    states = []
    for sample in range(n):
        kept = [
            trace[sample, -1]
            for q in tables.populations
            for trace in ([done.u[q.population.name]] if q.keeps_u else [])
            + [done.v[q.population.name]]
        ]
        joined = b"".join(np.asarray(a, "<i4").tobytes() for a in kept)
        states.append(zlib.crc32(joined))
    at = np.nonzero(flat)
    kind = _input_values(network, "")["input_type"]
    values = f"static const {kind} values[] = {{{_numbers(flat[at])}}};\n" if graded else ""
    return {
        "vectors": n, "steps": steps, "counts": _numbers(np.count_nonzero(flat, axis=1)),
        "active": _numbers(at[1]), "values": values, "one": "values[event]" if graded else "1",
        "and_values": ", and their values" if graded else "",
        "expected": _numbers(done.output.ravel()),
        "states": " " + ", ".join(f"UINT32_C({s})" for s in states) + " ",
    }  # fmt: skip
