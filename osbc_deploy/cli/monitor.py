"""``osbc-deploy monitor``: what devices report, held against a baseline."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from osbc_deploy.cli.console import complain, emit, say
from osbc_deploy.cli.options import config_option, given, json_option, quiet_option
from osbc_deploy.cli.places import Group, GrowingFolder, OutputFile
from osbc_deploy.errors import OsbcError, UsageError
from osbc_deploy.plain_text import many

if TYPE_CHECKING:
    from osbc_deploy.monitor.intake import Intake

__all__ = ["monitor_group"]

_LONGEST = 366 * 24 * 3600
"""Seconds between two rounds; systems cannot wait for any number of them."""
_BASELINE = click.Path(path_type=Path)


@click.group("monitor", cls=Group)
def monitor_group() -> None:
    """Judge what devices report: drift, and health."""


@monitor_group.command("baseline")
@click.argument("network", type=click.Path(path_type=Path, exists=True))
@click.option("-o", "--output", type=OutputFile(), required=True, metavar="FILE.json",
              help="The baseline.")  # fmt: skip
@click.option("--samples", metavar="DATA", help="Held-out samples, in the order of their time.")
@click.option("--window", type=int, default=10, show_default=True, help="Samples of a record.")
@click.option(
    "--records", type=click.Path(path_type=Path), multiple=True, metavar="FILE",
    help="Records of a healthy device instead of samples; several times for several files.",
)  # fmt: skip
@click.option("--days", type=float, default=30.0, show_default=True,
              help="One false alarm in this many days is promised.")  # fmt: skip
@click.option("--per-day", type=float, default=1440.0, show_default=True, help="Records a day.")
@click.option("--silent", type=float, default=0.5, show_default=True,
              help="Share of silent samples that is a fault, not drift.")  # fmt: skip
@click.option(
    "--clipped", type=float,
    help="Clipped values by sample of a layer that are a fault.  [default: ten times the worst "
    "record's, and one]",
)  # fmt: skip
@click.option("--short", is_flag=True,
              help="Take a baseline that is too short for its promise.")  # fmt: skip
@quiet_option
@config_option
def baseline_command(
    network: Path,
    output: Path,
    samples: str | None,
    window: int,
    records: tuple[Path, ...],
    days: float,
    per_day: float,
    silent: float,
    clipped: float | None,
    short: bool,
    quiet: bool,
) -> int:
    """Make the baseline of NETWORK: a folder written with -o, or a file that holds its integers.

    From samples it is exact: the engine counts what the device would. Their order and their
    correlations must be those of the field; records of the device itself have them.
    """
    from osbc_deploy.formats.stored import read_stored
    from osbc_deploy.monitor.baseline import Promise, make_baseline, save_baseline
    from osbc_deploy.writing import check_file

    check_file(output, "-o")
    if samples is None and not records:
        raise UsageError("--samples, --records: one of them is needed. Give data, or records.")
    if records and (idle := given("samples", "window")):
        raise UsageError(f"{', '.join(idle)}: --records are counted already. Drop one of the two.")
    if not (0 < days < math.inf and 0 < per_day < math.inf):
        raise UsageError("--days, --per-day: must be finite and above 0. Give what is promised.")
    if not 0 <= silent <= 1 or (clipped is not None and not 0 <= clipped < math.inf):
        raise UsageError(
            "--silent is a share from 0 to 1, --clipped finite and not below 0. Give such."
        )
    known = read_stored(network, None)
    layers = [known.layers[p.name] for p in known.populations]
    intake = _counted(known, samples, window) if samples else _received(known, records)
    found = make_baseline(
        intake, layers, Promise(days=days, per_day=per_day),
        source="engine" if samples else "device", silent=silent, clipped=clipped, short=short,
    )  # fmt: skip
    save_baseline(found, output)
    if not quiet:
        for reason, count in intake.left_out.items():
            say(f"left out: {count:,} {reason}", err=True)
        for remark in intake.remarks:
            say(f"note: {remark}", err=True)
        if not found.kept:
            say(
                f"warning: {many(found.records, 'record')}, the promise needs {found.needed:,}: "
                "false alarms may come more often.",
                err=True,
            )
        say(f"wrote {output}: {many(found.records, 'record')} of image {found.identity}", err=True)
    return 0


def _counted(network: Any, samples: str, window: int) -> Intake:
    """Return the records that a device would make of samples."""
    from osbc_deploy.monitor.intake import Intake
    from osbc_deploy.references import as_samples
    from osbc_deploy.telemetry.counting import count_windows

    given = as_samples(samples, "samples")
    if not 1 <= window <= len(given):
        raise UsageError(f"--window: {window} is outside 1 to {len(given)}, the samples given.")
    codes = network.input.codes(given.spikes)
    payloads = codes.reshape(*codes.shape[:2], *network.input_shape)
    return Intake(tuple(count_windows(network, payloads, window)), {}, ())


def _received(network: Any, paths: Sequence[Path]) -> Intake:
    from osbc_deploy.monitor.intake import put_in_order, read_whole
    from osbc_deploy.telemetry.counting import blob_of
    from osbc_deploy.telemetry.record import IDENTITY_BYTES

    blob = blob_of(network)
    windows, torn = read_whole(paths)
    return put_in_order(
        windows, identity=blob.identity[:IDENTITY_BYTES], layers=len(network.populations),
        classes=blob.classes, torn=torn,
    )  # fmt: skip


@monitor_group.command("judge")
@click.argument("records", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--baseline", type=_BASELINE, required=True, metavar="FILE.json",
              help="What 'monitor baseline' wrote.")  # fmt: skip
@click.option("--html", type=OutputFile(), metavar="FILE",
              help="Write the judgement as one self-contained page.")  # fmt: skip
@json_option
@config_option
def judge_command(
    records: tuple[Path, ...], baseline: Path, html: Path | None, as_json: bool
) -> int:
    """Judge RECORDS, files of one device. Exit code 0: ok; 7: drift; 8: unhealthy."""
    from osbc_deploy.monitor.baseline import read_baseline
    from osbc_deploy.monitor.intake import read_whole
    from osbc_deploy.monitor.judgement import EXIT_CODES, judge
    from osbc_deploy.writing import check_file

    if html is not None:
        check_file(html, "--html")
    known = read_baseline(baseline)
    windows, torn = read_whole(records)
    found = judge(windows, known, torn)
    _say(found, as_json)
    if html is not None:
        _write_page(found, html)
        say(f"wrote {html}", err=True)
    return EXIT_CODES[found["verdict"]]


@monitor_group.command("watch")
@click.argument("folder", type=GrowingFolder())
@click.option("--baseline", "baselines", type=_BASELINE, required=True, multiple=True,
              metavar="FILE.json", help="Of an image that may run; repeatable.")  # fmt: skip
@click.option("--store", type=GrowingFolder(), metavar="STORE",
              help="The device's store; its policy says whether drift goes back.")  # fmt: skip
@click.option("--every", type=float, default=60.0, show_default=True, help="Seconds.")
@click.option("--once", is_flag=True, help="Judge once and end with the verdict's exit code.")
@click.option("--html", type=OutputFile(), metavar="FILE", help="Keep this page up to date.")
@json_option
@config_option
def watch_command(
    folder: Path,
    baselines: tuple[Path, ...],
    store: Path | None,
    every: float,
    once: bool,
    html: Path | None,
    as_json: bool,
) -> int:
    """Judge the files of records that arrive in FOLDER, those of one device, again and again.

    With --store, drift of its confirmed image goes back to the image before, where the store was
    made with --on-drift rollback. Ends on Ctrl-C; with --once, exit codes are those of judge.
    """
    import time

    from osbc_deploy.monitor.baseline import read_baseline
    from osbc_deploy.monitor.judgement import EXIT_CODES
    from osbc_deploy.monitor.watch import watch_once
    from osbc_deploy.writing import check_file

    if html is not None:
        check_file(html, "--html")
    if not 0 < every <= _LONGEST:
        raise UsageError(
            f"--every: {every:g} is not above 0 and at most {_LONGEST:,} (a year). Give seconds."
        )
    if once and given("every"):
        raise UsageError("--every: has no use with --once. Drop one of the two.")
    known = [read_baseline(path) for path in baselines]
    said: object = None
    shown: dict[str, Any] | None = None
    complaint: str | None = None
    while True:
        found = None
        try:
            found = watch_once(folder, known, store)
            if once or _news(found) != said:
                _say(found, as_json)
                # Before the page: a disk that is full must not hide that the device went back.
                if found["action"] != "none":
                    say(f"action: {found['action']}", err=True)
            said = _news(found)
            if html is not None and found != shown:
                _write_page(found, html)
                shown = found
            complaint = None
        except OsbcError as error:
            if once:
                raise
            # A gateway goes on: the next file may be whole, the next lock free, the disk less full.
            if str(error) != complaint:
                complain(error, error.code, lines=True)
            complaint = str(error)
            if found is None:
                said = None
        if once and found is not None:
            return EXIT_CODES[found["verdict"]]
        time.sleep(every)


def _news(judgement: dict[str, Any]) -> object:
    """Return what of a judgement is worth saying when it changes."""
    unwell = [(fault["what"], fault["layer"]) for fault in judgement["health"]]
    return [judgement[key] for key in ("identity", "verdict", "moved", "action")] + unwell


def _say(judgement: dict[str, Any], as_json: bool) -> None:
    from osbc_deploy.report.monitoring.page import lines

    if as_json:
        emit(json.dumps(judgement, indent=1))
    else:
        for line in lines(judgement):
            say(line)


def _write_page(judgement: dict[str, Any], path: Path) -> None:
    from osbc_deploy.report.monitoring.page import judgement_page
    from osbc_deploy.writing import write_whole

    write_whole(path, judgement_page(judgement))
