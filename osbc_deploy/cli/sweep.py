"""``osbc-deploy sweep``: many deployments of one network, side by side."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from osbc_deploy.cli.console import complain, emit, table_console
from osbc_deploy.cli.job import check_data, command_line, job_options, load_inputs, save_results
from osbc_deploy.cli.places import Command, OutputFile
from osbc_deploy.errors import FitError, UsageError
from osbc_deploy.options import DataOptions, SweepOptions
from osbc_deploy.options.option import rows

__all__ = ["sweep_command"]

_FILE: dict[str, Any] = {"type": OutputFile(), "metavar": "FILE"}


@click.command("sweep", cls=Command)
@click.option("--csv", "csv_file", help="Write a row for each point here.", **_FILE)
@click.option("--html", help="Write table and front as one self-contained page.", **_FILE)
@click.option("--report", "report_file", help="Write the report here, as JSON.", **_FILE)
@job_options(SweepOptions, DataOptions)
def sweep_command(
    model: str | None,
    inputs: DataOptions,
    options: SweepOptions,
    as_json: bool,
    quiet: bool,
    csv_file: Path | None,
    html: Path | None,
    report_file: Path | None,
) -> int:
    """Deploy MODEL at every combination of sparsity, bits, method and target, and compare.

    Each point is what 'deploy' makes with the same options, to the byte, whoever computes it. With
    --ledger a sweep that was killed goes on where it was, and one with more points computes only
    those. Without MODEL the bundled network is swept on the bundled digits.

    Exit code 4: no point fits its target. 5: backend and engine disagree at some point. Of a point
    that cannot be deployed, the code of 'deploy'; all others are computed.
    """
    from osbc_deploy.chip.target import load_target
    from osbc_deploy.cli.progress import Bars
    from osbc_deploy.report.sweeping.build import build_sweep, points_csv
    from osbc_deploy.report.sweeping.page import sweep_page
    from osbc_deploy.report.sweeping.terminal import print_sweep
    from osbc_deploy.writing import check_file, write_whole

    check_data(model, inputs, options.weights)
    for name in options.targets:
        load_target(name)
    _check_seed(options)
    for path, name in ((csv_file, "--csv"), (html, "--html"), (report_file, "--report")):
        if path is not None:
            check_file(path, name)
    if options.ledger is not None:
        from osbc_deploy.sweeping.ledger import check_ledger

        check_ledger(Path(options.ledger))
    with Bars(quiet=quiet) as progress:
        from osbc_deploy.sweeping.run import SweepCall, swept

        def drawn(seed: int | None) -> Mapping[str, Any]:
            chosen = inputs if seed is None else replace(inputs, seed=seed)
            return load_inputs(model, chosen, progress)

        asked = {row.name: getattr(options, row.name) for row in rows(SweepOptions)}
        call = command_line(inputs)
        found = swept(
            SweepCall(**{**asked, **drawn(None)}, progress=progress, call=call),
            (lambda seed: {}) if not options.seeds else drawn,
        )
    report = build_sweep(found)
    if as_json:
        emit(json.dumps(report, indent=1))
    elif not quiet:
        print_sweep(report, table_console())

    def write(path: Path, text: str) -> None:
        write_whole(path, text)

    save_results(
        (csv_file, functools.partial(write, text=points_csv(report))),
        (html, functools.partial(write, text=sweep_page(report))),
        (report_file, functools.partial(write, text=json.dumps(report, indent=1) + "\n")),
        quiet=quiet,
    )
    return _exit_code(report)


def _check_seed(options: SweepOptions) -> None:
    given = click.get_current_context().get_parameter_source("seed") is not ParameterSource.DEFAULT
    if options.seeds and given:
        raise UsageError("--seed: --seeds say which there are. Leave one of the two out.")


def _exit_code(report: Mapping[str, Any]) -> int:
    if report["failures"]:
        code: int = report["failures"][0]["exit_code"]
        return code
    if not all(point["exact"] for point in report["points"]):
        return 5
    if not any(point["fits"] for point in report["points"]):
        complain("\n".join(_excesses(report)), FitError.code, lines=True)
        return 4
    return 0


def _excesses(report: Mapping[str, Any]) -> Iterator[str]:
    """Say what all points of a target exceed, or each of them, and what to change."""
    from osbc_deploy.report.sweeping.terminal import named

    yield "no point fits its target"
    for target in dict.fromkeys(point["target"] for point in report["points"]):
        points = [point for point in report["points"] if point["target"] == target]
        remedies = {point["remedy"] for point in points}
        remedy = remedies.pop() if len(remedies) == 1 else ""
        remedy = remedy or "Sweep higher sparsities or fewer bits, or take a larger target"
        for lines in ([p["excesses"] for p in points], [_of_layers(p) for p in points]):
            if all(line == lines[0] for line in lines):
                yield f"  - {target}: {'; '.join(lines[0])}. {remedy}."
                break
        else:
            for point in points:
                yield f"  - {named(point)}: {'; '.join(point['excesses'])}"
            yield f"  - {target}: {remedy}."


def _of_layers(point: Mapping[str, Any]) -> list[str]:
    """Return what a point exceeds by layer: which slices lie on a core is another in every one."""
    found = []
    for line in point["excesses"]:
        core = re.match(r"core \d+ \((.*?)\): ", line)
        where = "" if core is None else re.sub(r"\[.*?\]", "", core[1]) + ": "
        found.append(where + line[0 if core is None else core.end() :])
    return list(dict.fromkeys(found))
