"""Commands on finished deployments: report, check, diff, map; no torch, no Lava is imported."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from osbc_deploy.cli.console import emit, say, table_console
from osbc_deploy.cli.options import Size, config_option, json_option, verbose_option
from osbc_deploy.cli.places import Command, OutputFile, UpdatedFile
from osbc_deploy.errors import NotFoundError, UsageError
from osbc_deploy.options.option import BYTES
from osbc_deploy.plain_text import visible
from osbc_deploy.writing import check_file, write_whole

__all__ = [
    "check_command",
    "diff_command",
    "map_command",
    "report_command",
]

REPORT = click.Path(path_type=Path)


@click.command("report", cls=Command)
@click.argument("path", type=REPORT)
@click.option(
    "--format",
    "form",
    type=click.Choice(["table", "json", "csv", "html"]),
    default="table",
    show_default=True,
    help="What to write.",
)
@click.option(
    "-o",
    "--output",
    type=OutputFile(),
    metavar="FILE",
    help="Write to a file instead of stdout.",
)
@verbose_option
@config_option
def report_command(path: Path, form: str, output: Path | None, verbose: bool) -> int:
    """Show the report of a deployment (a folder written with -o, or its report.json)."""
    from osbc_deploy.report.read import read_report

    if verbose and form != "table":
        raise UsageError("-v: is for --format table; all others hold everything. Leave it out.")
    if output is not None:
        check_file(output, parents=True)
    report = read_report(path)
    if form == "table":
        text = _table(report, verbose)
    elif form == "json":
        text = json.dumps(report, indent=1) + "\n"
    elif form == "csv":
        from osbc_deploy.report.formats import cores_csv

        text = cores_csv(report)
    else:
        from osbc_deploy.report.deployment.page import report_page

        text = report_page(report)
    if output is None:
        emit(text, nl=False)
    else:
        write_whole(output, text)
        say(f"wrote {output}", err=True)
    return 0


def _table(report: dict[str, Any], details: bool) -> str:
    import io

    from osbc_deploy.report.deployment.terminal import print_report

    out = io.StringIO()
    print_report(report, table_console(out), details=details)
    return out.getvalue()


@click.command("check", cls=Command)
@click.argument("path", type=REPORT)
@click.option(
    "--budget",
    type=click.Path(path_type=Path),
    metavar="FILE.toml",
    help="The limits to keep.",
)
@click.option("--flash", type=Size(), metavar=BYTES, help="Flash of the microcontroller.")
@click.option("--ram", type=Size(), metavar=BYTES, help="RAM of the microcontroller.")
@click.option(
    "--instructions",
    type=click.IntRange(min=1),
    metavar="N",
    help="Instructions that a step may take there: the modelled most of the calibration samples.",
)
@click.option(
    "--baseline",
    type=UpdatedFile("update_baseline"),
    help="Report that growth is measured against.",
)
@click.option(
    "--update-baseline", is_flag=True, help="Make this report the baseline, if it keeps the limits."
)
@click.option(
    "--format",
    "form",
    type=click.Choice(["table", "json", "junit", "markdown"]),
    default="table",
    show_default=True,
    help="What to print.",
)
@click.option(
    "--target",
    metavar="NAME|FILE.toml",
    help="Chip the deployment must be for; by default the one of that name that comes with the "
    "tool.",
)
@click.option(
    "--test",
    metavar="DATA",
    help="The data it was evaluated on: run the integer network on them again.",
)
@config_option
def check_command(
    path: Path,
    budget: Path | None,
    flash: int | None,
    ram: int | None,
    instructions: int | None,
    baseline: Path | None,
    update_baseline: bool,
    form: str,
    target: str | None,
    test: str | None,
) -> int:
    """Check a deployment (a folder written with -o) against a budget, or limits given here.

    Fit, cores and memory are counted again from network and target; the report must agree and
    belong to them. Exit code 4: over budget, or does not fit. 5: below the quality asked, or
    backend and engine differ. 6: report, network, target or baseline do not belong together, or
    were changed.
    """
    from osbc_deploy.report.check.budget import Growth, read_budget, with_limits
    from osbc_deploy.report.check.findings import check_report
    from osbc_deploy.report.check.recount import read_recounted
    from osbc_deploy.report.read import read_report

    if update_baseline and baseline is None:
        raise UsageError("--update-baseline: needs --baseline FILE to write to.")
    if baseline is not None and not update_baseline and not baseline.exists():
        raise NotFoundError(
            f"{baseline}: no such file. Make this report the first baseline with --update-baseline."
        )
    if update_baseline and baseline is not None:
        check_file(baseline, parents=True)
    asked = {"flash": flash, "ram": ram, "instructions": instructions}
    limits = with_limits(None if budget is None else read_budget(budget), asked)
    report = read_recounted(path, target, test, some=limits.budget.samples is not None)
    known = None
    if baseline is not None and not (update_baseline and not baseline.exists()):
        known = read_report(baseline)
    if known is None and update_baseline:
        # The first baseline has nothing before it to grow from.
        limits = limits.model_copy(update={"growth": Growth()})
    elif not limits.growth.limited and not update_baseline and baseline is not None:
        say(
            f"note: {baseline} limits nothing, since the budget has no [growth]. Add one, such as "
            "memory = 0.05, or drop --baseline.",
            err=True,
        )
    findings = check_report(report, limits, known)
    emit(_findings(findings, form), nl=False)
    failed = [f for f in findings if not f.ok]
    for finding in failed:
        say(f"over: {finding.name}: {finding.message}", err=True)
    if failed:
        return 4 if any(f.kind == "resource" for f in failed) else 5
    if update_baseline and baseline is not None:
        write_whole(baseline, json.dumps(report, indent=1) + "\n")
        say(f"wrote {baseline}", err=True)
    return 0


def _findings(findings: Sequence[Any], form: str) -> str:
    from osbc_deploy.report.formats import findings_junit, findings_markdown

    if form == "json":
        entries = [asdict(f) for f in findings]
        ok = all(f.ok for f in findings)
        return json.dumps({"ok": ok, "findings": entries}, indent=1) + "\n"
    if form == "junit":
        return findings_junit(findings)
    if form == "markdown":
        return findings_markdown(findings)
    width = max(len(f.name) for f in findings)
    return "".join(
        visible(f"{'ok  ' if f.ok else 'FAIL'}  {f.name:<{width}}  {f.message}") + "\n"
        for f in findings
    )


@click.command("map", cls=Command)
@click.argument("path", type=REPORT)
@click.option(
    "--target",
    required=True,
    metavar="NAME|FILE.toml",
    help="Chip to count for; it need not be the one deployed on.",
)
@json_option
@config_option
def map_command(path: Path, target: str, as_json: bool) -> int:
    """Count what a network takes on any chip: a folder written with -o, a .img or a .net file.

    The integers are taken as they are, and poolings stay merged into weights unless the chip's
    cores pool themselves; nothing is run. Exit code 4 when the network does not fit.
    """
    from osbc_deploy.chip.mapping import map_network
    from osbc_deploy.chip.target import load_target
    from osbc_deploy.formats.format import format_of
    from osbc_deploy.formats.stored import read_stored

    chip = load_target(target)
    # A chip that is only counted for has no registers; a NetX file then gets Loihi 2's.
    formats = chip if chip.formats is not None else load_target("loihi2")
    mapping = map_network(read_stored(path, formats.number_formats), chip)
    cores = [core.as_dict(mapping.word_bits) for core in mapping.cores]
    remarks = [*chip.remarks, *mapping.notes]
    if (form := format_of(path)) is not None:
        remarks += form[1].remarks(chip)
    if as_json:
        summary = {
            "schema": "osbc-deploy/map/1",
            "target": {"name": chip.name, "title": chip.title, "sha256": chip.digest},
            "fits": mapping.fits,
            "excesses": mapping.excesses(),
            "cores_used": mapping.cores_used,
            "cores_available": mapping.available,
            "cores_lower_bound": mapping.lower_bound,
            "bytes": mapping.bytes,
            "remarks": remarks,
            "cores": cores,
        }
        emit(json.dumps(summary, indent=1))
    else:
        from osbc_deploy.plain_text import many
        from osbc_deploy.report.deployment.terminal import cores_tables

        title = f"{chip.title}: {mapping.cores_used} of {mapping.available:,} cores"
        console = table_console()
        for table in cores_tables(cores, title, console.width):
            console.print(table)
        say(f"memory: {mapping.bytes:,} B; at least {many(mapping.lower_bound, 'core')} needed")
        for remark in remarks:
            say(f"note: {remark}")
        say(f"verdict: {'FITS' if mapping.fits else 'DOES NOT FIT'} {chip.name}")
    for excess in mapping.excesses():
        say(f"over: {excess}", err=True)
    return 0 if mapping.fits else 4


@click.command("diff", cls=Command)
@click.argument("before", type=REPORT)
@click.argument("after", type=REPORT)
@json_option
@config_option
def diff_command(before: Path, after: Path, as_json: bool) -> int:
    """Show what changed from one deployment to another."""
    from osbc_deploy.report.difference import difference
    from osbc_deploy.report.read import read_report

    rows = difference(read_report(before), read_report(after))
    if as_json:
        emit(json.dumps(rows, indent=1))
        return 0
    if not rows:
        say("no difference")
    for row in rows:
        change = "" if row["change"] is None else f"({_signed(row['change'])})"
        say(
            f"{row['where']:<14} {row['what']:<22} {_shown(row['before']):>14} -> "
            f"{_shown(row['after']):>14} {change}"
        )
    return 0


def _shown(value: Any) -> str:
    if value is None:
        return "-"
    return (
        f"{value:,}"
        if isinstance(value, int)
        else f"{value:.4g}"
        if isinstance(value, float)
        else str(value)
    )


def _signed(value: float) -> str:
    return f"{value:+,}" if isinstance(value, int) else f"{value:+.4g}"
