"""``osbc-deploy export PATH --format c|image|netx -o PATH``: files for what runs a network."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from osbc_deploy.cli.console import say
from osbc_deploy.cli.options import config_option, json_option, quiet_option
from osbc_deploy.errors import ArtefactError, UsageError
from osbc_deploy.folders import C_LIBRARY
from osbc_deploy.limits import PARSED, read_text
from osbc_deploy.parsing import parse_json
from osbc_deploy.writing import check_file, check_folder

if TYPE_CHECKING:
    from osbc_deploy.chip.target import Target
    from osbc_deploy.fixedpoint.network import FixedPointNetwork

__all__ = ["export_command"]

_COMPILERS = ("gcc", "arm-none-eabi-gcc")
"""Measured with where they are installed, unless others are named."""


@click.command("export")
@click.argument("path", type=click.Path(path_type=Path, exists=True))
@click.option(
    "--format",
    "form",
    type=click.Choice(["c", "image", "netx"]),
    required=True,
    help="A C99 library; one binary image, core by core; a NetX file for lava-dl.",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    required=True,
    metavar="PATH",
    help="Folder of the library, or file.",
)
@click.option(
    "--target",
    metavar="NAME|FILE.toml",
    help="Chip that an image is laid out for; by default the one deployed on.",
)
@click.option(
    "--name",
    default="osbc_net",
    show_default=True,
    help="Prefix of the library's files and symbols.",
)
@click.option(
    "--samples",
    metavar="DATA",
    help="Input of the library's golden vectors; random rasters by default.",
)
@click.option(
    "--compiler",
    multiple=True,
    metavar="GCC",
    help="Measure the library with this gcc; gcc and arm-none-eabi-gcc where they are installed.",
)
@json_option
@quiet_option
@config_option
def export_command(
    path: Path,
    form: str,
    output: Path,
    target: str | None,
    name: str,
    samples: str | None,
    compiler: tuple[str, ...],
    as_json: bool,
    quiet: bool,
) -> int:
    """Write a deployed network for what runs it.

    PATH is a folder written with -o, a chip image (.img) or a NetX file (.net).
    """
    from osbc_deploy.formats.stored import read_stored

    if form != "c" and (samples or compiler):
        raise UsageError("--samples, --compiler: belong to --format c. Leave them out.")
    if form == "c":
        check_folder(output, C_LIBRARY)
    else:
        check_file(output, parents=True)
    chip = _chip(path, target)
    network = read_stored(path, chip.number_formats if chip else None)
    if form == "c":
        about = _export_c(network, output, name, samples, compiler)
    elif form == "image":
        about = _export_image(network, output, chip)
    else:
        about = _export_netx(network, output)
    if as_json:
        schema = {"schema": "osbc-deploy/export/1", "format": form, "output": str(output)}
        click.echo(json.dumps(schema | about, indent=1))
    elif not quiet:
        for line in _lines(form, about):
            say(line)
    if not quiet:
        say(f"wrote {output}", err=True)
    return 0


def _chip(path: Path, target: str | None) -> Target | None:
    """Return the target asked for, or the one of the folder's report."""
    from osbc_deploy.chip.target import load_target

    if target is not None:
        return load_target(target)
    report = path / "report.json"
    if not report.is_file():
        return load_target("loihi2-netx") if path.suffix == ".net" else None
    try:
        return load_target(str(parse_json(read_text(report, each=PARSED))["target"]["name"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ArtefactError(
            f"{report}: is no report ({error}). Deploy again, or give --target."
        ) from error


def _export_c(
    network: FixedPointNetwork,
    output: Path,
    name: str,
    samples: str | None,
    compilers: tuple[str, ...],
) -> dict[str, Any]:
    from osbc_deploy.firmware.footprint import check_compiler, measure
    from osbc_deploy.firmware.library import export_c

    for compiler in compilers:
        check_compiler(compiler)
    vectors = None
    if samples is not None:
        from osbc_deploy.references import as_samples

        few = as_samples(samples, "samples").take(4)
        vectors = few.spikes.reshape(*few.spikes.shape[:2], *network.input_shape)
    done = export_c(network, output, name=name, samples=vectors)
    used = compilers or tuple(c for c in _COMPILERS if shutil.which(c))
    return {
        "name": name,
        "crc32": f"{done.crc:08x}",
        "tables": done.tables,
        "estimated": {"tables": done.table_bytes, "ram": done.state_bytes},
        "measured": {
            c: {"code": f.code, "tables": f.tables, "flash": f.flash, "ram": f.ram,
                "version": f.version}
            for c in used
            for f in [measure(done, c)]
        },
    }  # fmt: skip


def _export_image(network: FixedPointNetwork, output: Path, chip: Target | None) -> dict[str, Any]:
    from osbc_deploy.chip.mapping import map_network
    from osbc_deploy.formats.image.write import write_image

    if chip is None:
        raise UsageError("--target: is missing, and there is no report that names one. Give it.")
    if output.suffix != ".img":
        raise UsageError(f"{output}: an image is read by its ending. Name it {output.name}.img.")
    return write_image(network, map_network(network, chip), output).as_dict()


def _export_netx(network: FixedPointNetwork, output: Path) -> dict[str, Any]:
    from osbc_deploy.chip.mapping import map_network
    from osbc_deploy.chip.target import load_target
    from osbc_deploy.formats.netx.write import write_netx

    write_netx(network, output)
    loaded = []
    for name, sparse in (("loihi2-netx", False), ("loihi2-netx-sparse", True)):
        mapping = map_network(network, load_target(name))
        loaded.append({"target": name, "sparse_fc_layer": sparse, "cores": mapping.cores_used})
    return {"bytes": output.stat().st_size, "loaded": loaded}


def _lines(form: str, about: dict[str, Any]) -> list[str]:
    if form == "c":
        lines = [f"{part}: {size:,} B" for part, size in about["tables"].items()]
        estimated = about["estimated"]
        lines.append(
            f"estimated: {estimated['tables']:,} B of tables in flash, "
            f"{estimated['ram']:,} B of RAM"
        )
        lines += [
            f"measured with {compiler}: {f['flash']:,} B of flash ({f['code']:,} code, "
            f"{f['tables']:,} tables), {f['ram']:,} B of RAM"
            for compiler, f in about["measured"].items()
        ]
        return lines
    if form == "image":
        lines = []
        for section in about["sections"]:
            for part in section.get("slices", ()):
                lines.append(
                    f"core {section['core']}: {part['layer']}[{part['slice']}] at "
                    f"{part['offset']}, {part['length']:,} B in the image, "
                    f"{part['memory_bytes']:,} B on the core"
                )
        return [*lines, f"image: {about['image_bytes']:,} B, SHA-256 {about['sha256'][:16]}"]
    how = {False: "", True: ", sparse_fc_layer=True"}
    return [
        f"NetX: {about['bytes']:,} B",
        *(
            f"lava.lib.dl.netx.hdf5.Network(net_config=...{how[entry['sparse_fc_layer']]}): "
            f"{entry['cores']} cores ({entry['target']})"
            for entry in about["loaded"]
        ),
    ]
