"""Write a network as a C99 library that computes the chip's bits on a host or microcontroller.

It is the runtime with one blob compiled in; what differs are the blob, sizes and golden vectors.
All of it is generated into one folder that builds with its own Makefile.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from osbc_deploy._version import __version__
from osbc_deploy.arrays import IntArray
from osbc_deploy.firmware.blob import write_blob
from osbc_deploy.firmware.layout import HEADER
from osbc_deploy.firmware.names import check_name
from osbc_deploy.firmware.packages import PACKAGE_FILES, package_values
from osbc_deploy.firmware.runtime import m4_start, render, runtime_sources
from osbc_deploy.firmware.tables import FirmwareTables, lay_out
from osbc_deploy.fixedpoint.engine import run
from osbc_deploy.fixedpoint.network import FixedPointNetwork
from osbc_deploy.folders import C_LIBRARY
from osbc_deploy.model.readout import classes_of
from osbc_deploy.options.notation import Readout, outputs_per_class
from osbc_deploy.plain_text import c_comment
from osbc_deploy.writing import new_folder

__all__ = ["FORMAT", "CExport", "export_c", "golden_input"]

FORMAT = 2

_GOLDEN_VECTORS = 3
_GOLDEN_STEPS = 16
_GOLDEN_RATES = (0.02, 0.1, 0.3)
_READOUT = {"sum": "sum over time", "last": "last value", "max": "largest value"}


@dataclass(frozen=True)
class CExport:
    """What was written.

    Attributes
    ----------
    folder : Path
    name : str
        Prefix of all files and symbols.
    table_bytes : int
        Flash for weights and registers: the network's blob.
    state_bytes : int
        RAM for the state.
    crc : int
        Of the body of the blob.
    tables : dict of int
        Bytes of flash by projection and population.
    sources : dict of str
        The text of each file, by its name in the folder, which another run may have replaced.
    """

    folder: Path
    name: str
    table_bytes: int
    state_bytes: int
    crc: int
    tables: dict[str, int]
    sources: dict[str, str]


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
    blob = write_blob(network, tables)
    crc = HEADER.unpack(blob)["body_crc"]
    values = _values(network, tables, name, blob) | {"start": m4_start()}
    sources = {
        f"{name}.h": "net.h", f"{name}.c": "net.c", "examples/host.c": "host.c",
        "examples/m4.c": "m4.c", "examples/m4.ld": "m4.ld", "Makefile": "Makefile",
    }  # fmt: skip
    texts = {file: render(template, values) for file, template in sources.items()}
    runtime = runtime_sources(f"{name}_rt")
    texts |= {file: text for file, text in runtime.items() if file.endswith(".h")}
    code = [text for file, text in runtime.items() if file.endswith(".c")]
    texts[f"{name}.c"] = "\n".join([*code, texts[f"{name}.c"]])
    texts[f"{name}_weights.c"] = _weights(tables, name, blob)
    golden = _golden(network, tables, crc if samples is None else samples)
    package = package_values(
        name,
        list(texts),
        header=f"{name}.h",
        description="A spiking neural network in fixed point",
        golden=f"{name}_selftest.c",
    )
    texts |= {file: render(f"packages/{t}", package) for file, t in PACKAGE_FILES.items()}
    texts[f"{name}_selftest.c"] = render("selftest.c", values | golden)
    parts = {p.name: 0 for p in tables.projections}
    for p in tables.projections:
        parts[p.name] += sum(t.size for t in p.tables.values())
    for q in tables.populations:
        parts[q.population.name] = sum(t.size for t in q.tables.values())
    done = CExport(folder, name, len(blob), 4 * tables.state_words, crc, parts, texts)
    with new_folder(folder, C_LIBRARY) as work:
        # Not beside the library: a build that takes every source of its folder has its own main.
        for file, text in texts.items():
            (work / file).parent.mkdir(exist_ok=True)
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
    network: FixedPointNetwork, tables: FirmwareTables, name: str, blob: bytes
) -> dict[str, Any]:
    out = network.output
    return {
        "name": name, "NAME": name.upper(), "version": __version__, "format": FORMAT,
        "inputs": f"{int(np.prod(network.input_shape))}u", "input_shape": network.input_shape,
        "outputs": f"{out.size}u", "output_shape": out.shape,
        "potential": int(not out.spiking),
        "state_bytes": f"{4 * tables.state_words}u", "table_bytes": f"{len(blob)}u",
        "crc": f"0x{HEADER.unpack(blob)['body_crc']:08X}",
        **_input_values(network, name.upper()),
        "output_meaning": "spikes (0 or 1)" if out.spiking else "membrane potentials",
        "classes": f"{classes_of(network.readout, out.size)}u",
        "readout_meaning": _meaning(network.readout),
        "silence": "all are 0" if out.spiking else "all are one number",
        "depth": network.depth[out.name],
    }  # fmt: skip


def _meaning(readout: Readout) -> str:
    if (n := outputs_per_class(readout)) > 1:
        return f"{_READOUT['sum']} and over its {n} outputs in a row"
    return _READOUT[readout]


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


def _weights(tables: FirmwareTables, name: str, blob: bytes) -> str:
    """Return the source of the blob, with the names of what is in it."""
    names = [p.name for p in tables.projections] + [q.population.name for q in tables.populations]
    listed = "".join(f"    /* {c_comment(part)} */\n" for part in names)
    return (
        f"/* The blob of {name}: its projections, then its populations, in the order of their\n"
        f" * records; docs/blob.md of osbc-deploy {__version__} describes it. */\n"
        f"#include <stdint.h>\n\n{listed}\nextern const uint8_t {name}_blob[];\n"
        f"const uint8_t {name}_blob[] = {{{_numbers(blob)}}};\n"
    )


def golden_input(network: FixedPointNetwork, seed: int = 0) -> IntArray:
    """Return a few random rasters (n, T, *input_shape), quiet and busy ones."""
    graded = network.input.graded
    rng = np.random.default_rng(seed)
    shape = (_GOLDEN_VECTORS, _GOLDEN_STEPS, *network.input_shape)
    rates = np.reshape(_GOLDEN_RATES, (-1,) + (1,) * (len(shape) - 1))
    spikes: IntArray = (rng.random(shape) < rates).astype(np.int32 if graded else np.uint8)
    if graded:
        low, high = max(network.input.low, -9), min(network.input.high, 9)
        spikes = spikes * rng.integers(low, high + 1, shape)
    return spikes


def _golden(network: FixedPointNetwork, tables: FirmwareTables, source: Any) -> dict[str, Any]:
    """Return the self-test's vectors; `source` is samples or a seed."""
    graded = network.input.graded
    drawn = isinstance(source, (int, np.integer))
    spikes: IntArray = golden_input(network, int(source)) if drawn else source
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
