"""``osbc-deploy fit``: sparsity and bits of each layer for a budget."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from osbc_deploy.cli.console import complain, emit, say, table_console
from osbc_deploy.cli.deploy import exit_code, show_report
from osbc_deploy.cli.job import (
    check_inputs,
    command_line,
    job_options,
    load_inputs,
    save_results,
)
from osbc_deploy.cli.options import verbose_option
from osbc_deploy.cli.places import Command, OutputFile
from osbc_deploy.errors import GateError
from osbc_deploy.options import FitOptions, InputOptions
from osbc_deploy.plain_text import many

if TYPE_CHECKING:
    from osbc_deploy.fitting import FitResult

__all__ = ["fit_command"]

_ROWS = 12


@click.command("fit", cls=Command)
@click.option("--plot", type=OutputFile(), metavar="FILE.svg", help="Draw the Pareto front.")
@click.option(
    "--html",
    type=OutputFile(),
    metavar="FILE.html",
    help="Write front, budget and choice as one self-contained page.",
)
@verbose_option
@job_options(FitOptions)
def fit_command(
    model: str | None,
    inputs: InputOptions,
    options: FitOptions,
    as_json: bool,
    quiet: bool,
    verbose: bool,
    plot: Path | None,
    html: Path | None,
) -> int:
    """Find sparsity and bits of each layer of MODEL for a budget, deploy, and show the front.

    Without a limit, the target's cores are the budget and the network of least loss is taken.
    Exit code 4: nothing keeps cores, memory and accuracy drop; what is over and the cheapest
    changes are shown. Exit code 5: in fixed point, more accuracy is lost than allowed.
    """
    from osbc_deploy.cli.progress import Bars
    from osbc_deploy.writing import check_file, write_whole

    check_inputs(model, inputs, options)
    for path, name in ((plot, "--plot"), (html, "--html")):
        if path is not None:
            check_file(path, name)
    with Bars(quiet=quiet) as progress:
        from osbc_deploy.fitting import fit

        result = fit(
            **load_inputs(model, inputs, progress),
            options=options,
            progress=progress,
            call=command_line(inputs),
        )
    if as_json:
        emit(json.dumps(result.report(), indent=1))
    elif not quiet:
        show_report(result.deployment.report(), verbose)
        _show_front(result)

    def write_plot(path: Path) -> None:
        from osbc_deploy.report.fitting.plot import front_svg

        write_whole(path, front_svg(result) + "\n")

    def write_page(path: Path) -> None:
        from osbc_deploy.report.fitting.page import fit_page

        write_whole(path, fit_page(result))

    save_results((inputs.output, result.save), (plot, write_plot), (html, write_page), quiet=quiet)
    code = exit_code(result.deployment)
    if code == 0 and not result.keeps_accuracy:
        complain(
            f"fixed point loses {result.lost:.2%} of the samples, "
            f"{result.budget.accuracy_drop:.2%} are allowed. Allow more cores or memory, or a "
            "larger drop.",
            GateError.code,
        )
        return 5
    return code


def _show_front(result: FitResult) -> None:
    from osbc_deploy.report.fitting.table import columns_of, rows_of
    from osbc_deploy.report.tables import PlainTable

    table = PlainTable(f"Least loss for {'cores' if result.resource == 'cores' else 'memory'}")
    for name in columns_of(result):
        table.add_column(name, justify="left" if name == "" else "right")
    for cells, _ in rows_of(result, _ROWS):
        table.add_row(*cells)
    table_console().print(table)
    say(
        f"built: {many(result.deployment.mapping.cores_used, 'core')}, "
        f"{result.deployment.mapping.bytes:,} B, {result.prediction}; "
        f"{many(len(result.front), 'plan')} on the front"
    )
