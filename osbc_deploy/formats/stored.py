"""Networks in any of the forms that osbc-deploy writes or reads as integers."""

from __future__ import annotations

from pathlib import Path

from osbc_deploy.fixedpoint.formats import NumberFormats
from osbc_deploy.fixedpoint.network import FixedPointNetwork
from osbc_deploy.formats.folder import read_network

__all__ = ["read_stored"]


def read_stored(path: Path, formats: NumberFormats | None) -> FixedPointNetwork:
    """Read a deployment's folder, a chip image (``.img``) or a NetX file (``.net``).

    Parameters
    ----------
    path : Path
    formats : NumberFormats or None
        Registers of the chip, which a NetX file does not say; the other forms hold their own.

    Raises
    ------
    ArtefactError
        When it is damaged or none of these.
    UnsupportedModelError
        For a NetX file that these registers cannot hold.
    """
    if path.suffix == ".img":
        from osbc_deploy.formats.image.read import read_image

        return read_image(path)
    if path.suffix == ".net" and formats is not None:
        from osbc_deploy.formats.netx.read import read_netx_fixed

        return read_netx_fixed(path, formats)
    return read_network(path)
