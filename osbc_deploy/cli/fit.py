"""``osbc-deploy fit``: sparsity and bits of each layer for a budget."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from osbc_deploy.cli.console import say, table_console
from osbc_deploy.cli.deploy import exit_code, show_report
from osbc_deploy.cli.job import check_inputs, job_options, save_results
from osbc_deploy.cli.options import OutputFile
from osbc_deploy.errors import UsageError

if TYPE_CHECKING:
    from osbc_deploy.data.datasets import DatasetRequest
    from osbc_deploy.fitting import FitResult, Plan

__all__ = ["fit_command"]

_ROWS = 12


def _widths(_: click.Context, option: click.Parameter, value: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in value.split(","))
    except ValueError as error:
        raise UsageError(
            f"--{option.name}: {value!r} is no list of widths. Give numbers such as 2,3,4,8."
        ) from error


@click.command("fit")
@click.option("--cores", type=int, help="Cores the network may take; the target's by default.")
@click.option("--memory", type=int, metavar="BYTES", help="Memory it may take on all cores.")
@click.option(
    "--max-accuracy-drop",
    "accuracy_drop",
    type=float,
    metavar="SHARE",
    help="Accuracy that may be lost, such as 0.01; asks for the smallest network that keeps it.",
)
@click.option(
    "--bits",
    default="8,6,5,4,3,2",
    show_default=True,
    callback=_widths,
    help="Bits per weight that may be taken.",
)
@click.option(
    "--max-sparsity", type=float, default=0.99, show_default=True, help="Most that may be removed."
)
@click.option(
    "--plot",
    type=OutputFile(),
    metavar="FILE.svg",
    help="Draw the Pareto front.",
)
@job_options
def fit_command(
    model: str | None,
    target: str,
    weights: Path | None,
    calibration: str | None,
    test: str | None,
    dataset: DatasetRequest | None,
    seed: int,
    output: Path | None,
    as_json: bool,
    quiet: bool,
    cores: int | None,
    memory: int | None,
    accuracy_drop: float | None,
    plot: Path | None,
    **options: Any,
) -> int:
    """Find sparsity and bits of each layer of MODEL for a budget, deploy, and show the front.

    Without a limit, the target's cores are the budget and the network of least loss is taken.
    Exit code 4: nothing keeps cores, memory and accuracy drop; what is over and the cheapest
    changes are said. Exit code 5: in fixed point, more accuracy is lost than allowed.
    """
    from osbc_deploy.cli.progress import Bars
    from osbc_deploy.writing import check_file, write_whole

    inputs = check_inputs(model, weights, calibration, test, seed, output, dataset)
    if plot is not None:
        check_file(plot, "--plot")
    with Bars(quiet=quiet) as progress:
        from osbc_deploy.fitting import FitBudget, fit

        budget = FitBudget(cores, memory, accuracy_drop)
        result = fit(
            **inputs.load(progress),
            budget=budget,
            target=target,
            progress=progress,
            call=inputs.call(),
            **options,
        )
    if as_json:
        click.echo(json.dumps(result.report(), indent=1))
    else:
        show_report(result.deployment.report())
        _show_front(result)

    def write_plot(path: Path) -> None:
        from osbc_deploy.report.fitting.plot import front_svg

        write_whole(path, front_svg(result))

    save_results((output, result.save), (plot, write_plot), quiet=quiet)
    code = exit_code(result.deployment)
    if code == 0 and not result.keeps_accuracy:
        say(
            f"error: fixed point loses {result.lost:.2%} of the samples, {accuracy_drop:.2%} are "
            "allowed. Allow more cores or memory, or a larger drop.",
            err=True,
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
    if not any(_same(plan, result.plan) for plan in rows):
        rows = sorted([*rows, result.plan], key=lambda p: (getattr(p, result.resource), p.loss))
    for plan in rows:
        table.add_row(
            ">" if _same(plan, result.plan) else "",
            f"{plan.cores:,}",
            f"{round(plan.words * per_word):,}",
            f"{plan.loss:.4f}",
            *(f"{c.sparsity:.0%} {c.bits} bit" for c in plan.choices.values()),
        )
    table_console().print(table)
    built = "as predicted" if result.as_predicted else "NOT as predicted"
    say(
        f"built: {result.deployment.mapping.cores_used} cores, "
        f"{result.deployment.mapping.bytes:,} B, {built}; {len(result.front)} plans on the front"
    )


def _thinned(front: Sequence[Plan], most: int) -> list[Plan]:
    if len(front) <= most:
        return list(front)
    return [front[round(k * (len(front) - 1) / (most - 1))] for k in range(most)]


def _same(a: Plan, b: Plan) -> bool:
    return all(a.choices[name] is b.choices[name] for name in a.choices)
