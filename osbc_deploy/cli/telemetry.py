"""``osbc-deploy telemetry decode RECORDS...``: what devices counted, linked to the user's model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from osbc_deploy.cli.console import emit, say, table_console
from osbc_deploy.cli.options import config_option, json_option, quiet_option
from osbc_deploy.cli.places import Group, OutputFile
from osbc_deploy.plain_text import many

__all__ = ["telemetry_group"]


@click.group("telemetry", cls=Group)
def telemetry_group() -> None:
    """Read what devices counted while a network ran on them."""


@telemetry_group.command("decode")
@click.argument(
    "records", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True, dir_okay=False)
)
@click.option(
    "--network",
    type=click.Path(path_type=Path, exists=True),
    required=True,
    metavar="FOLDER",
    help="Folder that 'export --format runtime' wrote, or its network.json.",
)
@click.option(
    "-o",
    "--output",
    type=OutputFile(),
    metavar="FILE",
    help="File to write: JSON, or CBOR where it ends in .cbor.",
)
@json_option
@quiet_option
@config_option
def decode_command(
    records: tuple[Path, ...], network: Path, output: Path | None, as_json: bool, quiet: bool
) -> int:
    """Decode RECORDS, files that each hold one record or more, one after another.

    Every counter is linked to the layer of the model that the network was made of.
    """
    from osbc_deploy.firmware.about import read_about
    from osbc_deploy.telemetry.decoding import decoded, encoded, read_files
    from osbc_deploy.writing import check_file, write_whole

    if output is not None:
        check_file(output, "--output")
    data = decoded(read_files(records), read_about(network))
    if output is not None:
        write_whole(output, encoded(data, "cbor" if output.suffix == ".cbor" else "json"))
    if as_json:
        emit(encoded(data, "json"), nl=False)
    elif not quiet:
        _show(data)
    if output is not None and not quiet:
        say(f"wrote {output}", err=True)
    return 0


def _show(data: dict[str, Any]) -> None:
    from osbc_deploy.report.tables import PlainTable

    windows = data["windows"]
    counted = ("samples", "silent", "faults")
    samples, silent, faults = (sum(w[key] for w in windows) for key in counted)
    say(
        f"network {data['network']['identity']}: {many(len(windows), 'window')}, "
        f"{many(samples, 'sample')}, "
        f"{silent:,} without an answer, {faults:,} with an error"
    )
    answers = [sum(w["answers"][c] for w in windows) for c in range(len(windows[0]["answers"]))]
    say("answers: " + ", ".join(f"{c}: {n:,}" for c, n in enumerate(answers)))
    table = PlainTable("Layers")
    for name in ("layer", "population", "neurons", "spikes a sample", "most neurons that fired",
                 "clipped currents", "clipped potentials"):  # fmt: skip
        table.add_column(name, justify="left" if name in ("layer", "population") else "right")
    for number, about in enumerate(data["network"]["layers"]):
        seen = [w["layers"][number] for w in windows]
        table.add_row(
            about["layer"], about["population"], f"{about['neurons']:,}",
            f"{sum(s['spikes'] for s in seen) / max(samples, 1):,.1f}",
            f"{max(s['fired'] for s in seen):,}",
            f"{sum(s['clipped_currents'] for s in seen):,}",
            f"{sum(s['clipped_potentials'] for s in seen):,}",
        )  # fmt: skip
    table_console().print(table)
    if any(w["stopped"] or any(s["stopped"] for s in w["layers"]) for w in windows):
        say("some counters stand at their largest value; --json says which")
