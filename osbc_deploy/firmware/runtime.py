"""Write the C runtime, one library for all networks, and a network's blob beside it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from osbc_deploy._version import __version__
from osbc_deploy.firmware.about import FILE, about
from osbc_deploy.firmware.blob import write_blob
from osbc_deploy.firmware.layout import (
    GEOMETRY,
    HEADER,
    LAYER,
    LAYOUT,
    NETWORK,
    POPULATION,
    PROJECTION,
    RECORD,
    RECORD_LAYOUT,
    TABLE,
    Record,
)
from osbc_deploy.firmware.packages import PACKAGE_FILES, package_values
from osbc_deploy.firmware.tables import lay_out
from osbc_deploy.fixedpoint.network import FixedPointNetwork
from osbc_deploy.folders import RUNTIME
from osbc_deploy.writing import new_folder

__all__ = [
    "BLOB",
    "RuntimeExport",
    "export_runtime",
    "m4_start",
    "render",
    "runtime_sources",
    "snippet",
]

FORMAT = 1
BLOB = "network.bin"

_SOURCES = ("runtime.h", "layout.h", "runtime.c", "load.c", "telemetry.c")


@dataclass(frozen=True)
class RuntimeExport:
    """What was written.

    Attributes
    ----------
    folder : Path
    blob : bytes
        Of ``network.bin``.
    identity : bytes
        16 bytes that tell the network from others.
    state_bytes : int
        RAM for the state.
    """

    folder: Path
    blob: bytes
    identity: bytes
    state_bytes: int


def export_runtime(network: FixedPointNetwork, folder: Path) -> RuntimeExport:
    """Write the C runtime and the blob of a network into a folder, whole or not at all.

    Parameters
    ----------
    network : FixedPointNetwork
    folder : Path
        Replaced if an export wrote it.

    Raises
    ------
    UsageError
        For a folder of someone else's.
    UnsupportedModelError
        For numbers out of range; see :func:`osbc_deploy.firmware.tables.lay_out`.
    """
    blob = write_blob(network, lay_out(network))
    header = HEADER.unpack(blob)
    done = RuntimeExport(folder, blob, header["identity"], header["state_bytes"])
    texts = runtime_sources("osbc")
    package = package_values(
        "osbc",
        list(texts),
        header="osbc_runtime.h",
        description="Spiking neural networks in fixed point, loaded from blobs",
        arguments="${CMAKE_CURRENT_SOURCE_DIR}/network.bin",
    )
    texts |= {file: render(f"packages/{t}", package) for file, t in PACKAGE_FILES.items()}
    values = {"P": "osbc", "U": "OSBC", "start": m4_start(), "ticks": snippet("m4_ticks.c")}
    for path, template in (
        ("examples/host.c", "runtime/host.c"),
        ("examples/m4.c", "runtime/m4.c"),
        ("examples/m4.ld", "m4.ld"),
        ("Makefile", "runtime/Makefile"),
    ):
        texts[path] = render(template, values)
    contents = {path: text.encode("ascii") for path, text in texts.items()}
    contents[BLOB] = blob
    contents[FILE] = _json(about(network, blob).model_dump(by_alias=True))
    manifest = {
        "format": f"osbc-deploy/runtime/{FORMAT}",
        "generator": f"osbc-deploy {__version__}",
        "files": sorted(contents),
    }
    with new_folder(folder, RUNTIME) as work:
        # Not beside the library: a build that takes every source of its folder has its own main.
        for path, content in contents.items():
            (work / path).parent.mkdir(exist_ok=True)
            (work / path).write_bytes(content)
        (work / RUNTIME.marker).write_bytes(_json(manifest))
    return done


def runtime_sources(prefix: str) -> dict[str, str]:
    """Return the sources of the runtime by file name; all names in C begin with a prefix."""
    values: dict[str, Any] = {
        "P": prefix, "U": prefix.upper(), "version": __version__, "layout": LAYOUT,
        "record": RECORD_LAYOUT, "offsets": _offsets(prefix.upper()),
    }  # fmt: skip
    return {f"{prefix}_{name}": render(f"runtime/{name}", values) for name in _SOURCES}


def render(template: str, values: Mapping[str, Any]) -> str:
    """Return a template with its places filled in; a place is a name between two ``@``."""
    return re.sub(r"@(\w+)@", lambda found: str(values[found[1]]), _template(template))


def m4_start() -> str:
    """Return what every program for a Cortex-M4 starts with: no values in it."""
    return snippet("m4_start.c")


def snippet(template: str) -> str:
    """Return a template without places, to be put into another."""
    return _template(template).rstrip("\n")


def _template(name: str) -> str:
    return (files("osbc_deploy.firmware") / "templates" / name).read_text(encoding="ascii")


def _offsets(prefix: str) -> str:
    """Return where fields start, as definitions of C."""
    lines = []
    for part in (HEADER, NETWORK, TABLE, PROJECTION, POPULATION, GEOMETRY, RECORD, LAYER):
        lines += _offsets_of(part, f"{prefix}_{part.name.upper()}")
    return "\n".join(lines)


def _offsets_of(part: Record, start: str) -> list[str]:
    fields = [field for field in part.fields if not field.name.startswith("zero")]
    lines = [f"#define {start}_{field.name.upper()} {field.offset}u" for field in fields]
    return [*lines, f"#define {start}_BYTES {part.size}u"]


def _json(value: Any) -> bytes:
    return (json.dumps(value, indent=1) + "\n").encode()
