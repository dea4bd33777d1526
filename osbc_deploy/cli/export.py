"""``osbc-deploy export PATH --format c|image|netx -o PATH``: files for what runs a network."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from osbc_deploy.cli.console import say
from osbc_deploy.cli.options import config_option, json_option, quiet_option
from osbc_deploy.errors import ArtefactError, PluginError, UsageError
from osbc_deploy.limits import PARSED, read_text
from osbc_deploy.parsing import parse_json
from osbc_deploy.writing import check_file, check_folder

if TYPE_CHECKING:
    from osbc_deploy.chip.target import Target
    from osbc_deploy.formats.format import Format

__all__ = ["export_command"]


def _written() -> dict[str, str]:
    """Return the formats that can be written, with what each writes; imports only our own."""
    from osbc_deploy.formats.format import FORMATS

    found = {}
    for name in FORMATS.names():
        if name not in FORMATS.ours:
            found[name] = "that of a plugin"
        elif (form := FORMATS.load(name)).export is not None:
            found[name] = form.help
    return found


# Generic since click 8.2.
class _FormatType(click.ParamType):  # type: ignore[type-arg]
    """The name of a format that can be written; what is installed says which there are."""

    name = "format"

    def get_metavar(self, param: click.Parameter, ctx: click.Context | None = None) -> str:
        return f"[{'|'.join(_written())}]"

    def convert(
        self, value: str, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, Format]:
        from osbc_deploy.formats.format import FORMATS

        names = _written()
        if value not in names:
            self.fail(f"{value!r} is not one of {', '.join(map(repr, names))}.", param, ctx)
        form = FORMATS.load(value)
        if form.export is None:
            self.fail(f"{value!r} is only read, not written.", param, ctx)
        return value, form


class _Command(click.Command):
    """Says in its help what each format writes."""

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Formats"):
            formatter.write_dl(list(_written().items()))


@click.command("export", cls=_Command)
@click.argument("path", type=click.Path(path_type=Path, exists=True))
@click.option(
    "--format",
    "form",
    type=_FormatType(),
    required=True,
    help="What to write.",
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
    help="Prefix of the library's files and symbols.  [default: osbc_net]",
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
    form: tuple[str, Format],
    output: Path,
    target: str | None,
    as_json: bool,
    quiet: bool,
    **options: Any,
) -> int:
    """Write a deployed network for what runs it.

    PATH is a folder written with -o, a chip image (.img) or a NetX file (.net).
    """
    from osbc_deploy.formats.format import FORMATS, Export, Exported
    from osbc_deploy.formats.stored import read_stored
    from osbc_deploy.plugins import REPAIR

    name, written = form
    _check_options(written, options)
    if written.folder is not None:
        check_folder(output, written.folder)
    else:
        check_file(output, parents=True)
    chip = _chip(path, target)
    network = read_stored(path, chip.number_formats if chip else None)
    assert written.export is not None  # noqa: S101 - the option's type sees to that
    with FORMATS.running(name):
        done = written.export(network, output, Export(chip, options))
        if not isinstance(done, Exported) or not output.exists():
            raise PluginError(
                f"format {name!r}: did not write {output}, or did not say so. {REPAIR}"
            )
        schema = {"schema": "osbc-deploy/export/1", "format": name, "output": str(output)}
        facts, lines = json.dumps(schema | dict(done.facts), indent=1), list(map(str, done.lines))
    if as_json:
        click.echo(facts)
    elif not quiet:
        for line in lines:
            say(line)
    if not quiet:
        say(f"wrote {output}", err=True)
    return 0


def _check_options(form: Format, options: dict[str, Any]) -> None:
    """Refuse options that another format heeds."""
    foreign = [
        option
        for option, value in options.items()
        if value not in (None, ()) and option not in form.export_options
    ]
    if foreign:
        from osbc_deploy.formats.format import listed_formats

        listed = ", ".join(f"--{option}" for option in foreign)
        heeding = [
            entry.name
            for entry in listed_formats()
            if entry.plugin is not None and set(foreign) & set(entry.plugin.export_options)
        ]
        raise UsageError(f"{listed}: belong to --format {' and '.join(heeding)}. Leave them out.")


def _chip(path: Path, target: str | None) -> Target | None:
    """Return the target asked for, or the one of the folder's report."""
    from osbc_deploy.chip.target import load_target
    from osbc_deploy.formats.format import format_of

    if target is not None:
        return load_target(target)
    report = path / "report.json"
    if not report.is_file():
        found = format_of(path)
        default = None if found is None else found[1].default_target
        return None if default is None else load_target(default)
    try:
        return load_target(str(parse_json(read_text(report, each=PARSED))["target"]["name"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ArtefactError(
            f"{report}: is no report ({error}). Deploy again, or give --target."
        ) from error
