"""Networks in any of the forms that osbc-deploy writes or reads as integers."""

from __future__ import annotations

from pathlib import Path

from osbc_deploy.errors import ArtefactError, PluginError
from osbc_deploy.fixedpoint.formats import NumberFormats
from osbc_deploy.fixedpoint.network import FixedPointNetwork
from osbc_deploy.formats.folder import read_network
from osbc_deploy.formats.format import FORMATS, broken_formats, format_of
from osbc_deploy.plugins import REPAIR

__all__ = ["read_stored"]


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
