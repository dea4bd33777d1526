"""NetX files of lava-dl: the file, reading and writing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from osbc_deploy.formats.format import Export, Exported, Format

if TYPE_CHECKING:
    from osbc_deploy.chip.target import Target
    from osbc_deploy.fixedpoint.formats import NumberFormats
    from osbc_deploy.fixedpoint.network import FixedPointNetwork
    from osbc_deploy.model.graph import Network

__all__ = ["FORMAT"]

_TARGET = "loihi2-netx"
_LOADED = ((_TARGET, False), ("loihi2-netx-sparse", True))
"""Targets that count what lava-dl's loader makes of a file, and its option sparse_fc_layer."""


def _read_network(model: Any, **_: Any) -> Network:
    from osbc_deploy.formats.netx.read import read_netx

    return read_netx(Path(model))


def _read_integers(path: Path, formats: NumberFormats | None) -> FixedPointNetwork:
    from osbc_deploy.chip.target import load_target
    from osbc_deploy.formats.netx.read import read_netx_fixed

    return read_netx_fixed(path, formats or load_target(_TARGET).number_formats)


def _export(network: FixedPointNetwork, path: Path, asked: Export) -> Exported:
    from osbc_deploy.chip.mapping import map_network
    from osbc_deploy.chip.target import load_target
    from osbc_deploy.formats.netx.write import write_netx

    del asked
    write_netx(network, path)
    size = path.stat().st_size
    loaded, lines = [], [f"NetX: {size:,} B"]
    for name, sparse in _LOADED:
        cores = map_network(network, load_target(name)).cores_used
        loaded.append({"target": name, "sparse_fc_layer": sparse, "cores": cores})
        how = ", sparse_fc_layer=True" if sparse else ""
        lines.append(f"lava.lib.dl.netx.hdf5.Network(net_config=...{how}): {cores} cores ({name})")
    return Exported({"bytes": size, "loaded": loaded}, lines)


def _check_network(network: Network) -> None:
    from osbc_deploy.formats.netx.limits import check_network

    check_network(network)


def _check_integers(network: FixedPointNetwork) -> None:
    from osbc_deploy.formats.netx.limits import check_writable

    check_writable(network)


def _remarks(target: Target) -> Sequence[str]:
    if target.exchange is not None or target.memory.model != "records":
        return ()
    return (
        "fully connected layers are counted as the chip could store them; lava-dl's loader stores "
        "all as Dense, or all as Sparse with sparse_fc_layer=True: --target loihi2-netx and "
        "loihi2-netx-sparse count those",
    )


FORMAT = Format(
    title="NetX file",
    suffix=".net",
    read_network=_read_network,
    read_integers=_read_integers,
    default_target=_TARGET,
    export=_export,
    help="a NetX file for lava-dl",
    check_network=_check_network,
    check_integers=_check_integers,
    remarks=_remarks,
)
