"""``osbc-deploy [deploy] [MODEL] --target NAME``: the main job."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from osbc_deploy.cli.options import config_option, json_option, quiet_option
from osbc_deploy.errors import UsageError

__all__ = ["deploy_command"]


@click.command("deploy")
@click.argument("model", required=False)
@click.option(
    "--target",
    required=True,
    metavar="NAME|FILE.toml",
    help="Chip to deploy on; 'osbc-deploy targets list' shows them.",
)
@click.option(
    "--weights",
    type=click.Path(path_type=Path),
    metavar="FILE.safetensors",
    help="Weights to load into MODEL.",
)
@click.option(
    "--calibration",
    metavar="DATA",
    help="Typical input: .npz with spikes (n, T, ...), or package.module:factory.",
)
@click.option(
    "--test", metavar="DATA", help="Labelled input to evaluate; the calibration data by default."
)
@click.option(
    "--sparsity",
    type=float,
    default=0.9,
    show_default=True,
    help="Share of weights to remove, 0 <= S < 1.",
)
@click.option("--bits", type=int, default=4, show_default=True, help="Bits per weight, 1 to 8.")
@click.option(
    "--method",
    type=click.Choice(["osbc", "obc", "magnitude"]),
    default="osbc",
    show_default=True,
    help="Membrane Hessian, current Hessian, or magnitude alone.",
)
@click.option(
    "--readout",
    type=click.Choice(["sum", "last", "max"]),
    default="sum",
    show_default=True,
    help="How the output over time becomes a class.",
)
@click.option("--backend", metavar="NAME", help="Run on another backend than the target's.")
@click.option(
    "--backend-samples",
    type=int,
    default=16,
    show_default=True,
    help="Samples to run on the backend and compare spike by spike.",
)
@click.option(
    "--time-limit",
    type=float,
    default=600.0,
    show_default=True,
    metavar="SECONDS",
    help="How long the backend may take.",
)
@click.option(
    "--seed",
    type=int,
    default=0,
    show_default=True,
    help="Seed of numpy and torch, and of the bundled data.",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    metavar="FOLDER",
    help="Write the integer network and the report here.",
)
@json_option
@quiet_option
@config_option
def deploy_command(
    model: str | None,
    target: str,
    weights: Path | None,
    calibration: str | None,
    test: str | None,
    seed: int,
    output: Path | None,
    as_json: bool,
    quiet: bool,
    **options: Any,
) -> int:
    """Compress MODEL, lower it to integers, map it on cores, run it, and report.

    MODEL is package.module:factory or path/to/file.py:factory, a function that returns a norse
    stack. Without MODEL the bundled network is deployed on the bundled digits.
    """
    from osbc_deploy.cli.progress import Bars

    if model is None:
        if weights or calibration or test:
            given = "--weights" if weights else "--calibration" if calibration else "--test"
            raise UsageError(f"{given}: needs a MODEL. Name yours as package.module:factory.")
    elif calibration is None:
        raise UsageError(
            "--calibration: is missing for MODEL. Give an .npz with spikes (n, T, ...)"
            " or package.module:factory."
        )
    if output is not None:
        _check_output(output)
    with Bars(quiet=quiet) as progress:
        # Imported here because torch takes seconds; the bars are already on screen.
        import numpy as np
        import torch

        from osbc_deploy.pipeline import deploy

        # Old-style seeding on purpose: it reaches the code of models and datasets.
        np.random.seed(seed % 2**32)
        torch.manual_seed(seed)
        source: Any = model
        data: tuple[Any, Any] = (calibration, test)
        if model is None:
            source, weights, data = _bundled(seed)
        deployment = deploy(
            source,
            data[0],
            target=target,
            test=data[1],
            weights=weights,
            progress=progress,
            **options,
        )
        if output is not None:
            deployment.save(output)
    report = deployment.report()
    if as_json:
        click.echo(json.dumps(report, indent=1))
    else:
        _show(report)
    if output is not None and not quiet:
        click.echo(f"wrote {output}", err=True)
    if not deployment.fidelity.exact:
        f = deployment.fidelity
        click.echo(
            f"error: {f.backend} and the engine differ in {f.mismatched_spikes} spikes and "
            f"{f.mismatched_potentials} potentials, 0 are allowed. Please report this with "
            "the output folder (-o).",
            err=True,
        )
        return 5
    if not deployment.fits:
        click.echo(
            f"error: does not fit {deployment.target.name}: "
            f"{'; '.join(deployment.mapping.excesses()[:3])}. Raise --sparsity, lower "
            "--bits, or use a smaller network.",
            err=True,
        )
        return 4
    return 0


def _bundled(seed: int) -> tuple[str, Path, tuple[Any, Any]]:
    from osbc_deploy.bundled.digits import digits_events
    from osbc_deploy.bundled.models import weights_path
    from osbc_deploy.data.samples import check_samples

    parts = []
    for split in ("calibration", "test"):
        data = digits_events(split, seed=seed)
        parts.append(check_samples(f"digits/{split}", data.spikes, data.labels))
    return (
        "osbc_deploy.bundled.models:digits_conv",
        weights_path("digits_conv"),
        (parts[0], parts[1]),
    )


def _check_output(output: Path) -> None:
    from osbc_deploy.artefact import check_replaceable

    check_replaceable(output)


def _show(report: dict[str, Any]) -> None:
    from rich.console import Console

    from osbc_deploy.report.terminal import print_report

    console = Console()
    # Output that is piped or redirected is not squeezed into 80 columns.
    print_report(report, console if console.is_terminal else Console(width=160))
