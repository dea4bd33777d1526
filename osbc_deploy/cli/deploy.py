"""``osbc-deploy [deploy] [MODEL] --target NAME``: the main job."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from osbc_deploy.cli.console import complain, emit, table_console
from osbc_deploy.cli.job import (
    check_inputs,
    command_line,
    job_options,
    load_inputs,
    save_results,
)
from osbc_deploy.cli.options import verbose_option
from osbc_deploy.cli.places import Command, OutputFile
from osbc_deploy.errors import FidelityError, FitError
from osbc_deploy.options import DeployOptions, InputOptions

if TYPE_CHECKING:
    from osbc_deploy.deployment import Deployment

__all__ = ["deploy_command", "exit_code", "show_report"]


@click.command("deploy", cls=Command)
@click.option(
    "--nir",
    "nir_file",
    type=OutputFile(),
    metavar="FILE.nir",
    help="Write the compressed float network here, as a NIR graph.",
)
@verbose_option
@job_options(DeployOptions)
def deploy_command(
    model: str | None,
    inputs: InputOptions,
    options: DeployOptions,
    as_json: bool,
    quiet: bool,
    verbose: bool,
    nir_file: Path | None,
) -> int:
    """Compress MODEL, lower it to integers, map it on cores, run it, and report.

    MODEL is package.module:factory or path/to/file.py:factory, a function that returns a network of
    norse, snnTorch or SpikingJelly, or a NIR (.nir) or NetX file (.net). Without MODEL the bundled
    network is deployed on the bundled digits.
    """
    from osbc_deploy.cli.progress import Bars

    check_inputs(model, inputs, options)
    if nir_file is not None:
        from osbc_deploy.formats.nir.write import check_nir

        check_nir(nir_file)
    with Bars(quiet=quiet) as progress:
        # Imported here because torch takes seconds; the bars are already on screen.
        from osbc_deploy.pipeline import deploy

        deployment = deploy(
            **load_inputs(model, inputs, progress),
            options=options,
            progress=progress,
            call=command_line(inputs),
        )
    report = deployment.report()
    if as_json:
        emit(json.dumps(report, indent=1))
    elif not quiet:
        show_report(report, verbose)

    def write_graph(path: Path) -> None:
        from osbc_deploy.formats.nir.write import write_nir

        write_nir(deployment.compressed.network, path, dt=options.dt)

    save_results((inputs.output, deployment.save), (nir_file, write_graph), quiet=quiet)
    return exit_code(deployment)


def show_report(report: dict[str, Any], details: bool) -> None:
    """Print the summary of a report, or all of it."""
    from osbc_deploy.report.deployment.terminal import print_report

    print_report(report, table_console(), details=details)


def exit_code(deployment: Deployment) -> int:
    """Say what is wrong with a deployment, and return the exit code for it."""
    if not deployment.fidelity.exact:
        from osbc_deploy.report.deployment.terminal import sides

        f = deployment.fidelity
        here, there = sides(f.backend or "", f.reference or "")
        complain(
            f"{here} and {there} differ in {f.mismatched_spikes} spikes and "
            f"{f.mismatched_potentials} potentials, 0 are allowed. Please report this with "
            "the output folder (-o).",
            FidelityError.code,
        )
        return 5
    if not deployment.fits:
        from osbc_deploy.chip.target import larger_targets

        target, mapping = deployment.target, deployment.mapping
        remedy = mapping.remedy() or (
            "'osbc-deploy fit' with the same model, data and target looks for neurons to remove, "
            "and for the sparsity and bits of each layer, so that it does"
        )
        if mapping.cores_used > mapping.available:
            larger = larger_targets(target, mapping.cores_used)
            remedy += (
                f"; {larger[0].name} has {larger[0].cores:,} cores"
                if larger
                else "; no system known here has that many cores"
            )
        complain(
            f"does not fit {target.name}: {'; '.join(mapping.excesses()[:3])}. {remedy}.",
            FitError.code,
        )
        return 4
    return 0
