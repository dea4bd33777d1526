"""``osbc-deploy run IMAGE --test DATA``: a deployed network on one's own data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from osbc_deploy.cli.console import emit, say, table_console
from osbc_deploy.cli.options import config_option, json_option, quiet_option
from osbc_deploy.cli.places import Command, OutputFolder
from osbc_deploy.errors import FidelityError
from osbc_deploy.plain_text import many

if TYPE_CHECKING:
    from osbc_deploy.running.run import Ran

__all__ = ["run_command"]


class _On(click.ParamType):  # type: ignore[type-arg]
    """Where to run; what there is is known only once a command runs."""

    name = "where"

    def get_metavar(self, param: click.Parameter, ctx: click.Context | None = None) -> str:
        return f"[{'|'.join(_places())}]"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if value not in _places():
            self.fail(f"{value!r} is not one of {', '.join(map(repr, _places()))}.", param, ctx)
        return value


def _places() -> list[str]:
    from osbc_deploy.firmware.machine import MACHINES

    return ["engine", *MACHINES]


@click.command("run", cls=Command)
@click.argument("image", type=click.Path(path_type=Path))
@click.option("--test", required=True, metavar="DATA", help="Samples to run, with labels or not.")
@click.option("--on", type=_On(), default="engine", show_default=True, help="What computes.")
@click.option("--pick", metavar="NUMBERS", help="Only these samples, such as 0-9,17.")
@click.option("--repeat", type=click.IntRange(min=1), metavar="T",
              help="Steps to show samples without a time axis for, such as images.")  # fmt: skip
@click.option("--target", metavar="NAME|FILE.toml",
              help="Chip of a file that does not say; by default the one deployed on.")  # fmt: skip
@click.option("--golden", type=OutputFolder(), metavar="FOLDER",
              help="Write the samples and what came out as golden vectors.")  # fmt: skip
@click.option("--time-limit", type=float, default=1800.0, show_default=True,
              help="Seconds that a machine's program may take.")  # fmt: skip
@json_option
@quiet_option
@config_option
def run_command(
    image: Path,
    test: str,
    on: str,
    pick: str | None,
    repeat: int | None,
    target: str | None,
    golden: Path | None,
    time_limit: float,
    as_json: bool,
    quiet: bool,
) -> int:
    """Run your own data on a deployed network, and count what is right, class by class.

    IMAGE is a folder written with -o, one of 'export --format runtime' or its network.bin, a chip
    image (.img) or a NetX file (.net). The engine computes the device's bits; any other place
    builds the C runtime, runs it there, and is compared with the engine. Exit code 5: they differ.
    """
    from osbc_deploy.cli.progress import Bars
    from osbc_deploy.folders import GOLDEN
    from osbc_deploy.references import as_samples, check_paths
    from osbc_deploy.writing import check_folder

    if golden is not None:
        check_folder(golden, GOLDEN)
    check_paths(None, None, test)
    with Bars(quiet=quiet) as progress:
        from osbc_deploy.running.golden import write_golden
        from osbc_deploy.running.run import picked, places, run_image
        from osbc_deploy.running.runnable import read_image

        found = read_image(image, target)
        samples = as_samples(test, "test", repeat)
        numbers = list(range(len(samples))) if pick is None else places(pick, len(samples))
        if pick is not None:
            samples = picked(samples, numbers)
        ran = run_image(found, samples, on, time_limit=time_limit, progress=progress)
    if golden is not None and not ran.differ:
        write_golden(ran, golden, numbers)
    if as_json:
        emit(json.dumps(_facts(ran, numbers), indent=1))
    elif not quiet:
        _show(ran)
    if ran.differ:
        nothing = "" if golden is None else " No golden vectors are written."
        raise FidelityError(
            f"{on}: {ran.differ:,} of {ran.output.size:,} outputs are not the engine's.{nothing} "
            "This is a fault of the compiler, of the machine, or ours: please report it."
        )
    if golden is not None and not quiet:
        say(f"wrote {golden}", err=True)
    return 0


def _facts(ran: Ran, numbers: list[int]) -> dict[str, Any]:
    confusion, samples = ran.confusion, ran.samples
    return {
        "schema": "osbc-deploy/run/1",
        "image": ran.image.name,
        "identity": ran.image.identity,
        "on": ran.on,
        "data": samples.name,
        "samples": len(samples),
        "steps": samples.steps,
        "accuracy": ran.accuracy,
        "no_answer": ran.silent,
        "engine_differs": ran.differ,
        "classes": None if confusion is None else [
            {"class": label, "samples": int(row.sum()), "right": int(row[label]),
             "no_answer": int(row[-1]), "answers": [int(n) for n in row[:-1]]}
            for label, row in enumerate(confusion)
        ],
        "answers": [
            {"sample": number, "class": None if found < 0 else int(found)}
            for number, found in zip(numbers, ran.classes, strict=True)
        ],
    }  # fmt: skip


def _show(ran: Ran) -> None:
    import numpy as np

    from osbc_deploy.report.tables import PlainTable

    confusion, n = ran.confusion, len(ran.samples)
    say(f"{ran.image.name} on {ran.on}: {many(n, 'sample')} of {ran.samples.name}")
    table = PlainTable("Classes")
    if confusion is None:
        table.add_column("class", justify="right")
        table.add_column("answers", justify="right")
        for label, count in zip(*np.unique(ran.classes, return_counts=True), strict=True):
            table.add_row("none" if label < 0 else str(label), f"{count:,}")
    else:
        for name in ("class", "samples", "right", "accuracy", "no answer", "most often taken for"):
            table.add_column(name, justify="right")
        for label, row in enumerate(confusion):
            if not (total := int(row.sum())):
                continue
            wrong = row[:-1].copy()
            wrong[label] = 0
            taken = f"{wrong.argmax()} ({wrong.max()})" if wrong.any() else ""
            table.add_row(str(label), f"{total:,}", f"{row[label]:,}", f"{row[label] / total:.2%}",
                          f"{row[-1]:,}", taken)  # fmt: skip
    table_console().print(table)
    right = "" if ran.accuracy is None else f"accuracy: {ran.accuracy:.2%}; "
    say(f"{right}{ran.silent:,} of {many(n, 'sample')} without an answer")
    if ran.differ is not None:
        say(f"against the engine: {ran.differ:,} of {ran.output.size:,} outputs differ")
