"""Networks in any of the forms that osbc-deploy writes or reads as integers."""

from __future__ import annotations

from pathlib import Path

from osbc_deploy.errors import ArtefactError, PluginError
from osbc_deploy.fixedpoint.formats import NumberFormats
from osbc_deploy.fixedpoint.network import FixedPointNetwork
from osbc_deploy.folders import C_LIBRARY, GOLDEN, RUNTIME
from osbc_deploy.formats.folder import read_network
from osbc_deploy.formats.format import FORMATS, broken_formats, format_of, listed_formats
from osbc_deploy.plugins import REPAIR

__all__ = ["read_stored"]

_MADE = {
    C_LIBRARY: "a C library with its network compiled in",
    GOLDEN: "a folder of golden vectors",
    RUNTIME: "a C runtime with its network as a blob, which 'osbc-deploy run' takes",
}
"""Folders of ours that are made from a network, and hold none that is read here."""


def read_stored(path: Path, formats: NumberFormats | None) -> FixedPointNetwork:
    """Read a deployment's folder, or a file of a format that holds integers.

    Parameters
    ----------
    path : Path
    formats : NumberFormats or None
        Registers of the chip, for files that do not hold their own.

    Raises
    ------
    ArtefactError
        When it is damaged or none of these.
    UnsupportedModelError
        For a file whose numbers these registers cannot hold.
    """
    found = format_of(path)
    read = None if found is None else found[1].read_integers
    if found is None or read is None:
        if path.is_file():
            ends = [
                e.plugin.suffix for e in listed_formats() if e.plugin and e.plugin.read_integers
            ]
            raise ArtefactError(
                f"{path}: does not end in {' or '.join(ends)}, so it holds no network in integers. "
                f"Name such a file, or a folder written with -o.{broken_formats()}"
            )
        for kind, what in _MADE.items():
            if (path / kind.marker).is_file():
                raise ArtefactError(
                    f"{path}: is {what}. Name the folder written with -o that it was made from."
                )
        try:
            return read_network(path)
        except ArtefactError as error:
            raise ArtefactError(f"{error}{broken_formats()}") from error
    name = found[0]
    with FORMATS.running(name):
        network = read(path, formats)
    if not isinstance(network, FixedPointNetwork):
        raise PluginError(
            f"format {name!r}: reads {path} as a {type(network).__name__}, not a "
            f"FixedPointNetwork. {REPAIR}"
        )
    return network
