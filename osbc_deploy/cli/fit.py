"""``osbc-deploy fit``: sparsity and bits of each layer for a budget."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from osbc_deploy.cli.console import complain, say, table_console
from osbc_deploy.cli.deploy import exit_code, show_report
from osbc_deploy.cli.job import (
    check_inputs,
    command_line,
    job_options,
    load_inputs,
    save_results,
)
from osbc_deploy.cli.options import OutputFile, verbose_option
from osbc_deploy.errors import GateError
from osbc_deploy.options import FitOptions, InputOptions

if TYPE_CHECKING:
    from osbc_deploy.fitting import FitResult, Plan

__all__ = ["fit_command"]

_ROWS = 12


@click.command("fit")
@click.option(
    "--plot",
    type=OutputFile(),
    metavar="FILE.svg",
    help="Draw the Pareto front.",
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
) -> int:
    """Find sparsity and bits of each layer of MODEL for a budget, deploy, and show the front.

    Without a limit, the target's cores are the budget and the network of least loss is taken.
    Exit code 4: nothing keeps cores, memory and accuracy drop; what is over and the cheapest
    changes are said. Exit code 5: in fixed point, more accuracy is lost than allowed.
    """
    from osbc_deploy.cli.progress import Bars
    from osbc_deploy.writing import check_file, write_whole

    check_inputs(model, inputs, options)
    if plot is not None:
        check_file(plot, "--plot")
    with Bars(quiet=quiet) as progress:
        from osbc_deploy.fitting import fit

        result = fit(
            **load_inputs(model, inputs, progress),
            options=options,
            progress=progress,
            call=command_line(inputs),
        )
    if as_json:
        click.echo(json.dumps(result.report(), indent=1))
    elif not quiet:
        show_report(result.deployment.report(), verbose)
        _show_front(result)

    def write_plot(path: Path) -> None:
        from osbc_deploy.report.fitting.plot import front_svg

        write_whole(path, front_svg(result))

    save_results((inputs.output, result.save), (plot, write_plot), quiet=quiet)
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
    from osbc_deploy.report.tables import PlainTable

    per_word = result.deployment.target.memory.word_bits.value / 8
    names = list(result.plan.choices)
    table = PlainTable(f"Least loss for {'cores' if result.resource == 'cores' else 'memory'}")
    for name in ("", "cores", "bytes", "loss", *(f"layer {name}" for name in names)):
        table.add_column(name, justify="left" if name == "" else "right")
    rows = _thinned(result.front, _ROWS)
    # What was tuned takes its place on the front.
    rows = [plan for plan in rows if not _same(plan, result.plan)] + [result.plan]
    rows.sort(key=lambda plan: (getattr(plan, result.resource), plan.loss))
    for plan in rows:
        table.add_row(
            ">" if plan is result.plan else "",
            f"{plan.cores:,}",
            f"{round(plan.words * per_word):,}",
            f"{plan.loss:.4f}",
            *(f"{c.sparsity:.0%} {c.bits} bit" for c in plan.choices.values()),
        )
    table_console().print(table)
    say(
        f"built: {result.deployment.mapping.cores_used} cores, "
        f"{result.deployment.mapping.bytes:,} B, {result.prediction}; "
        f"{len(result.front)} plans on the front"
    )


def _thinned(front: Sequence[Plan], most: int) -> list[Plan]:
    if len(front) <= most:
        return list(front)
    return [front[round(k * (len(front) - 1) / (most - 1))] for k in range(most)]


def _same(a: Plan, b: Plan) -> bool:
    return all(
        (chosen.sparsity, chosen.bits) == (b.choices[name].sparsity, b.choices[name].bits)
        for name, chosen in a.choices.items()
    )
