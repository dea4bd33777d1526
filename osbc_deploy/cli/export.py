"""``osbc-deploy export PATH --format c|image|netx|runtime -o PATH``: for what runs a network."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from osbc_deploy.cli.console import emit, say
from osbc_deploy.cli.options import config_option, json_option, quiet_option
from osbc_deploy.cli.places import Command, OutputFolder

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

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        from osbc_deploy.formats.format import FORMATS

        names = _written()
        if value not in names:
            self.fail(f"{value!r} is not one of {', '.join(map(repr, names))}.", param, ctx)
        if FORMATS.load(value).export is None:
            self.fail(f"{value!r} is only read, not written.", param, ctx)
        return value


class _Command(Command):
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
    type=OutputFolder(),
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
    "--repeat",
    type=click.IntRange(min=1),
    metavar="T",
    help="Steps to show samples without a time axis for, such as images.",
)
@click.option(
    "--compiler",
    multiple=True,
    metavar="GCC",
    help="Measure the library with this gcc; gcc and arm-none-eabi-gcc where they are installed.",
)
@click.option(
    "--measure",
    is_flag=True,
    help="Run the C runtime on --samples, here and on cores that QEMU emulates, and say what a "
    "step takes.",
)
@json_option
@quiet_option
@config_option
def export_command(
    path: Path,
    form: str,
    output: Path,
    target: str | None,
    as_json: bool,
    quiet: bool,
    **options: Any,
) -> int:
    """Write a deployed network for what runs it.

    PATH is a folder written with -o, a chip image (.img) or a NetX file (.net).
    """
    from osbc_deploy.exporting import export
    from osbc_deploy.formats.format import FORMATS

    done = export(path, output, format=form, target=target, **options)
    schema = {"schema": "osbc-deploy/export/1", "format": form, "output": str(output)}
    with FORMATS.running(form):
        facts, lines = json.dumps(schema | dict(done.facts), indent=1), list(map(str, done.lines))
    if as_json:
        emit(facts)
    elif not quiet:
        for line in lines:
            say(line)
    if not quiet:
        say(f"wrote {output}", err=True)
    return 0
