"""``osbc-deploy compress MODEL -o weights.safetensors``: weights for any torch SNN."""

from __future__ import annotations

import json
from pathlib import Path

import click

from osbc_deploy.cli.console import emit, table_console
from osbc_deploy.cli.job import (
    check_data,
    check_resume,
    command_line,
    job_options,
    load_inputs,
    save_results,
)
from osbc_deploy.cli.places import Command, OutputFile
from osbc_deploy.options import CompressOptions, DataOptions

__all__ = ["compress_command"]


@click.command("compress", cls=Command)
@click.option(
    "-o",
    "--output",
    type=OutputFile(),
    metavar="FILE.safetensors",
    help="Write the state dict here; it loads into MODEL unchanged.",
)
@click.option(
    "--report",
    "report_file",
    type=OutputFile(),
    metavar="FILE.json",
    help="Write the report here.",
)
@job_options(CompressOptions, DataOptions)
def compress_command(
    model: str | None,
    inputs: DataOptions,
    options: CompressOptions,
    as_json: bool,
    quiet: bool,
    output: Path | None,
    report_file: Path | None,
) -> int:
    """Prune and quantize the weights of MODEL in its own framework, also if no chip holds it.

    MODEL is package.module:factory or path/to/file.py:factory, a function that returns a
    torch.nn.Module with neurons of norse, snnTorch or SpikingJelly. Linear, Conv1d and Conv2d are
    found by running it; each is compressed for the membrane potential of the neurons behind it.
    Accuracy before and after is the framework's own. Without MODEL the bundled network is
    compressed on the bundled digits.
    """
    from osbc_deploy.cli.progress import Bars
    from osbc_deploy.writing import check_file, write_whole

    check_data(model, inputs, options.weights)
    check_resume(options.resume)
    for path, name in ((output, "-o"), (report_file, "--report")):
        if path is not None:
            check_file(path, name)
    with Bars(quiet=quiet) as progress:
        # Imported here because torch takes seconds; the bars are already on screen.
        from osbc_deploy.modules import compress_model

        found = compress_model(
            **load_inputs(model, inputs, progress),
            options=options,
            progress=progress,
            call=command_line(inputs),
        )
    report = found.report()
    if as_json:
        emit(json.dumps(report, indent=1))
    elif not quiet:
        from osbc_deploy.report.modules.terminal import print_compression

        print_compression(report, table_console())

    def write_report(path: Path) -> None:
        write_whole(path, json.dumps(report, indent=1) + "\n")

    save_results((output, found.save), (report_file, write_report), quiet=quiet)
    return 0
