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


def _code(marker: str, name: str | None = None) -> FolderKind:
    """Return a kind of folder of C code: files its manifest lists, and what its Makefile makes.

    The library that is made has the name given, or the manifest's.
    """

    def files(folder: Path) -> Collection[str]:
        try:
            manifest = parse_json(read_text(folder / marker, each=PARSED))
            stem = str(manifest["name"]) if name is None else name
            listed = {str(file) for file in manifest["files"]}
        except (OSError, ValueError, KeyError, TypeError):
            return {marker}
        made = {f"lib{stem}.a", f"{stem}_host", f"{stem}_m4.elf"}
        made |= {f"{file.removesuffix('.c')}.o" for file in listed if file.endswith(".c")}
        return {marker, *listed, *made}

    return FolderKind(marker, files)


DEPLOYMENT = FolderKind(
    "network.json",
    lambda _: (
        "network.json", "network.safetensors", "report.json", "fit.json", "verify.json",
        "verify.html",
    ),
)  # fmt: skip
"""What ``-o`` of ``deploy``, ``fit`` and ``verify`` names."""

C_LIBRARY = _code("firmware.json")
"""What ``export --format c`` writes."""

RUNTIME = _code("runtime.json", name="osbc")
"""What ``export --format runtime`` writes."""

GOLDEN = FolderKind(
    "golden.json", lambda _: ("golden.json", "rasters.bin", "outputs.bin", "selftest.bin")
)
"""What ``run --golden`` writes."""

KINDS = (DEPLOYMENT, C_LIBRARY, RUNTIME, GOLDEN)
"""All of them."""
