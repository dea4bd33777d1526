"""``osbc-deploy verify``: how the network's forms differ, as a report one can sign."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from osbc_deploy.cli.console import emit, table_console
from osbc_deploy.cli.deploy import exit_code
from osbc_deploy.cli.job import (
    check_inputs,
    command_line,
    job_options,
    load_inputs,
    save_results,
)
from osbc_deploy.cli.places import Command, OutputFile
from osbc_deploy.errors import FidelityError, GateError
from osbc_deploy.options import InputOptions, VerifyOptions

if TYPE_CHECKING:
    from osbc_deploy.verification import Verification

__all__ = ["verify_command"]


@click.command("verify", cls=Command)
@click.option(
    "--html",
    type=OutputFile(),
    metavar="FILE",
    help="Write the report as one self-contained page.",
)
@job_options(VerifyOptions)
def verify_command(
    model: str | None,
    inputs: InputOptions,
    options: VerifyOptions,
    as_json: bool,
    quiet: bool,
    html: Path | None,
) -> int:
    """Deploy MODEL and compare its forms, population by population, with each other.

    Float against pruned against quantized weights, these against fixed point, fixed point against
    the target's backend bit by bit: spikes, potentials, rates, accuracy with tests, and what each
    layer costs. Without MODEL the bundled network is verified on the bundled digits.

    Gates: accuracy (at least), accuracy_drop, agreement (at least), mismatch, lowering_mismatch,
    van_rossum, membrane_error, silenced, clipped, backend_mismatches. Exit code 5: a gate is
    broken; all of them are listed, and the report is written.
    """
    from osbc_deploy.cli.progress import Bars
    from osbc_deploy.writing import check_file, write_whole

    check_inputs(model, inputs, options)
    if html is not None:
        check_file(html, "--html")
    with Bars(quiet=quiet) as progress:
        from osbc_deploy.verification import verify

        found = verify(
            **load_inputs(model, inputs, progress),
            options=options,
            progress=progress,
            call=command_line(inputs),
        )
    report = found.report()
    if as_json:
        emit(json.dumps(report, indent=1))
    elif not quiet:
        from osbc_deploy.report.verification.terminal import print_verification

        print_verification(report, table_console())

    def write_page(path: Path) -> None:
        from osbc_deploy.report.verification.page import verify_page

        write_whole(path, verify_page(report))

    save_results((inputs.output, found.save), (html, write_page), quiet=quiet)
    if found.broken:
        listed = "\n".join(f"  - {f.name}: {f.message}" for f in found.broken)
        raise GateError(
            f"verify: {len(found.broken)} of {len(found.findings)} gates are broken:\n{listed}\n"
            "Keep more weights or bits, or allow more."
        )
    return _unasked(found)


def _unasked(found: Verification) -> int:
    """Return the exit code of what no gate asked for: bits that differ, a chip that is full."""
    from osbc_deploy.fidelity import Fidelity
    from osbc_deploy.report.deployment.terminal import sides

    backend = found.backend
    asked = any(f.name == "backend_mismatches" for f in found.findings)
    if backend is not None and backend.different and not asked:
        raise FidelityError(
            f"verify: {' and '.join(sides(backend.backend, backend.reference))} differ in "
            f"{backend.different} spikes, currents and potentials, 0 are allowed. Please report "
            "this with the output folder (-o), or allow some with --gate backend_mismatches=N."
        )
    return exit_code(replace(found.deployment, fidelity=Fidelity(None)))
