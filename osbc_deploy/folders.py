"""The kinds of folders that are written, and what belongs in each: anything else is its owner's.

A new folder takes the place of an old one with all that is in it, so an old one is replaced only
when all of it can be written again.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

from osbc_deploy.limits import PARSED, read_text
from osbc_deploy.parsing import parse_json

__all__ = [
    "C_LIBRARY",
    "DEPLOYMENT",
    "GOLDEN",
    "KINDS",
    "RUNTIME",
    "FolderKind",
]


@dataclass(frozen=True)
class FolderKind:
    """A kind of folder.

    Attributes
    ----------
    marker : str
        The file that tells the kind.
    files : callable
        From such a folder to the names of the files that belong in it, ``/`` between their parts.
    """

    marker: str
    files: Callable[[Path], Collection[str]]


def _library(folder: Path) -> Collection[str]:
    """Return the files of a C library: those its manifest lists, and what its Makefile makes."""
    try:
        manifest = parse_json(read_text(folder / C_LIBRARY.marker, each=PARSED))
        name, files = str(manifest["name"]), {str(file) for file in manifest["files"]}
    except (OSError, ValueError, KeyError, TypeError):
        return {C_LIBRARY.marker}
    made = {f"lib{name}.a", f"{name}_host", f"{name}_m4.elf"}
    made |= {f"{file.removesuffix('.c')}.o" for file in files if file.endswith(".c")}
    return {C_LIBRARY.marker, *files, *made}


def _runtime(folder: Path) -> Collection[str]:
    """Return the files of a C runtime: those its manifest lists, and what its Makefile makes."""
    try:
        manifest = parse_json(read_text(folder / RUNTIME.marker, each=PARSED))
        files = {str(file) for file in manifest["files"]}
    except (OSError, ValueError, KeyError, TypeError):
        return {RUNTIME.marker}
    made = {"libosbc.a", "osbc_host", "osbc_m4.elf"}
    made |= {f"{file.removesuffix('.c')}.o" for file in files if file.endswith(".c")}
    return {RUNTIME.marker, *files, *made}


DEPLOYMENT = FolderKind(
    "network.json",
    lambda _: (
        "network.json", "network.safetensors", "report.json", "fit.json", "verify.json",
        "verify.html",
    ),
)  # fmt: skip
"""What ``-o`` of ``deploy``, ``fit`` and ``verify`` names."""

C_LIBRARY = FolderKind("firmware.json", _library)
"""What ``export --format c`` writes."""

RUNTIME = FolderKind("runtime.json", _runtime)
"""What ``export --format runtime`` writes."""

GOLDEN = FolderKind(
    "golden.json", lambda _: ("golden.json", "rasters.bin", "outputs.bin", "selftest.bin")
)
"""What ``run --golden`` writes."""

KINDS = (DEPLOYMENT, C_LIBRARY, RUNTIME, GOLDEN)
"""All of them."""
