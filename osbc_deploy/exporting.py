"""A deployed network written for what runs it: a C library, a chip image, a NetX file."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from osbc_deploy.apart import Place, Role, check_apart, inputs_of
from osbc_deploy.arguments import Data
from osbc_deploy.chip.target import Target, load_target, target_names
from osbc_deploy.deployment import Deployment
from osbc_deploy.errors import ArtefactError, ChipLimitError, PluginError, UsageError
from osbc_deploy.fixedpoint.network import FixedPointNetwork
from osbc_deploy.formats.format import (
    FORMATS,
    Export,
    Exported,
    Format,
    format_of,
    listed_formats,
)
from osbc_deploy.formats.stored import read_stored
from osbc_deploy.limits import PARSED, read_text
from osbc_deploy.options import StrPath
from osbc_deploy.parsing import parse_json
from osbc_deploy.plugins import REPAIR
from osbc_deploy.writing import check_file, check_folder

__all__ = ["chip_of", "export"]


def export(
    network: Deployment | FixedPointNetwork | StrPath,
    output: StrPath,
    *,
    format: str,  # noqa: A002 - the field's word
    target: Target | StrPath | None = None,
    name: str | None = None,
    samples: Data | None = None,
    repeat: int | None = None,
    compiler: Sequence[str] = (),
    measure: bool = False,
) -> Exported:
    """Write a deployed network for what runs it, whole or not at all.

    Parameters
    ----------
    network : Deployment, FixedPointNetwork or path
        A path is a folder that a deployment was saved in, a chip image (``.img``) or a NetX file
        (``.net``).
    output : path
        A folder for ``c`` and ``runtime``, a file for all others.
    format : str
        "c", "image", "netx", "runtime", or that of a plugin.
    target : Target, str or path, optional
        The chip that an image is laid out for; by default the one deployed on.
    name : str, optional
        Prefix of the C library's files and symbols, "osbc_net" by default.
    samples : Samples, path, str, array or Dataset, optional
        Input of the C library's golden vectors, and of what is measured; random rasters by default.
    repeat : int, optional
        Time steps for which `samples` without a time axis are shown ("direct coding").
    compiler : sequence of str
        Compilers to measure the C library with; gcc and arm-none-eabi-gcc by default, where they
        are installed.
    measure : bool
        Whether to run the C runtime on `samples`, here and on the cores that QEMU emulates where
        that is installed, and say what their steps take.

    Returns
    -------
    Exported
        What was written.

    Raises
    ------
    OsbcError
        With the branch's meaning; see :mod:`osbc_deploy.errors`.
    """
    if not isinstance(network, Deployment | FixedPointNetwork | str | os.PathLike):
        raise UsageError(
            f"network: a {type(network).__name__} is not a deployed network. Give the result "
            "of deploy(), the `deployment` of a result of fit(), or the path of a saved folder, a "
            "chip image or a NetX file; deploy a model first."
        )
    output = Path(output)
    written = FORMATS.load(format)
    if written.export is None:
        raise UsageError(f"format: {format!r} is only read, not written.")
    options = {
        "name": name,
        "samples": samples,
        "repeat": repeat,
        "compiler": tuple(compiler) or None,
        "measure": measure or None,
    }
    _check_options(written, options)
    if written.folder is not None:
        check_folder(output, written.folder)
    else:
        check_file(output, parents=True)
    role = Role.FILE if written.folder is None else Role.FOLDER
    read = inputs_of(network=network, samples=samples, target=target)
    check_apart([Place.of("output", output, role), *read])
    chip = chip_of(network, target)
    if isinstance(network, Deployment):
        fixed = network.lowered.network
    elif isinstance(network, FixedPointNetwork):
        fixed = network
    else:
        fixed = read_stored(Path(network), chip.number_formats if chip else None)
    if (asked := fixed.formats.arithmetic) not in written.arithmetics:
        raise ChipLimitError(
            f"format: {format!r} holds integers of {' and '.join(written.arithmetics)}, those of "
            f"the network are of {asked}. Deploy it on a target of that arithmetic, or take "
            "another --format."
        )
    with FORMATS.running(format):
        done = written.export(fixed, output, Export(chip, options))
        if not isinstance(done, Exported) or not output.exists():
            raise PluginError(
                f"format {format!r}: did not write {output}, or did not say so. {REPAIR}"
            )
    return done


def _check_options(form: Format, options: Mapping[str, object]) -> None:
    """Refuse options that another format heeds."""
    foreign = [
        option
        for option, value in options.items()
        if value is not None and option not in form.export_options
    ]
    if foreign:
        listed = ", ".join(f"--{option}" for option in foreign)
        heeding = [
            entry.name
            for entry in listed_formats()
            if entry.plugin is not None and set(foreign) & set(entry.plugin.export_options)
        ]
        raise UsageError(f"{listed}: belong to --format {' and '.join(heeding)}. Leave them out.")


def chip_of(
    network: Deployment | FixedPointNetwork | StrPath, target: Target | StrPath | None
) -> Target | None:
    """Return the target asked for, or the one deployed on where it comes with the tool as it was.

    Raises
    ------
    ArtefactError
        When the report beside a network names no target.
    TargetError
        When there is no such target as was asked for.
    """
    if isinstance(target, Target):
        return target
    if target is not None:
        return load_target(str(target))
    if isinstance(network, Deployment):
        return network.target
    if isinstance(network, FixedPointNetwork):
        return None
    report = Path(network) / "report.json"
    if not report.is_file():
        found = format_of(Path(network))
        default = None if found is None else found[1].default_target
        return None if default is None else load_target(default)
    try:
        said = parse_json(read_text(report, each=PARSED))
        name, digest = str(said["target"]["name"]), said["provenance"]["target"]["sha256"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ArtefactError(
            f"{report}: is not a report ({error}). Deploy again, or give --target."
        ) from error
    # One of a file, or of another version, may be called like ours.
    chip = load_target(name) if name in target_names() else None
    return chip if chip is not None and chip.digest == digest else None
