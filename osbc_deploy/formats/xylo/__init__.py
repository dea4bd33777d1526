"""Configurations of Xylo cores, as Rockpool's users know them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from osbc_deploy.formats.format import Export, Exported, Format

if TYPE_CHECKING:
    from osbc_deploy.fixedpoint.network import FixedPointNetwork

__all__ = ["FORMAT"]


def _export(network: FixedPointNetwork, path: Path, asked: Export) -> Exported:
    from osbc_deploy.formats.xylo.specification import write_specification

    del asked
    return write_specification(network, path)


FORMAT = Format(
    title="Xylo configuration",
    export=_export,
    arithmetics=("xylo",),
    help="a JSON file with the arguments of Rockpool's XyloSim.from_specification and "
    "config_from_specification",
)
