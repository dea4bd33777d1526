"""What the commands that run a network share: their options, and the network and data to run."""

from __future__ import annotations

import functools
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from osbc_deploy.cli.console import complain, say
from osbc_deploy.cli.options import (
    ARGUMENTS,
    config_option,
    given,
    json_option,
    log_option,
    quiet_option,
    takes,
)
from osbc_deploy.errors import OsbcError, UsageError
from osbc_deploy.folders import DEPLOYMENT
from osbc_deploy.options import (
    DataOptions,
    DatasetOptions,
    DeployOptions,
    FitOptions,
    InputOptions,
    NamedData,
    StrPath,
)
from osbc_deploy.options.option import Options, rows
from osbc_deploy.progress import SILENT, Progress
from osbc_deploy.writing import check_folder

if TYPE_CHECKING:
    from osbc_deploy.data.datasets import DatasetRequest
    from osbc_deploy.provenance import Call

__all__ = [
    "check_data",
    "check_inputs",
    "check_resume",
    "command_line",
    "job_options",
    "load_inputs",
    "save_results",
]

F = TypeVar("F", bound=Callable[..., Any])


def job_options(
    options: type[Options], inputs: type[DataOptions] = InputOptions
) -> Callable[[F], F]:
    """Give a command what every command that runs a network takes.

    It gets the model as `model`, what it is run on as `inputs`, the options of the verb as
    `options`, `as_json` and `quiet`.
    """

    def of(command: F) -> F:
        for common in (config_option, log_option, quiet_option, json_option):
            command = common(command)
        return click.argument("model", required=False)(
            takes(options=options, inputs=inputs)(command)
        )

    return of


def check_inputs(
    model: str | None, inputs: InputOptions, options: DeployOptions | FitOptions
) -> None:
    """Refuse combinations that make no sense, before anything heavy is imported."""
    check_data(model, inputs, options.weights)
    from osbc_deploy.chip.target import load_target

    load_target(options.target)
    if inputs.output is not None:
        check_folder(Path(inputs.output), DEPLOYMENT)
    if isinstance(options, DeployOptions):
        check_resume(options.resume)


def check_data(model: str | None, inputs: DataOptions, weights: StrPath | None) -> None:
    """Refuse data that no model goes with, and a model without data."""
    _check_dataset(inputs)
    _check_together(model, inputs, weights)
    if model is not None:
        from osbc_deploy.references import check_paths

        check_paths(model, weights, inputs.calibration, inputs.test)


def _check_together(model: str | None, inputs: DataOptions, weights: StrPath | None) -> None:
    if model is None:
        for name, value in (
            ("--weights", weights),
            ("--calibration", inputs.calibration),
            ("--test", inputs.test),
            ("--dataset", inputs.dataset),
        ):
            if value:
                raise UsageError(f"{name}: needs a MODEL. Name yours as package.module:factory.")
    elif inputs.dataset is not None:
        if inputs.calibration or inputs.test:
            raise UsageError(
                f"--dataset: {inputs.dataset} holds calibration and test samples. Leave "
                f"{'--calibration' if inputs.calibration else '--test'} out."
            )
    elif inputs.calibration is None:
        raise UsageError(
            "--calibration: is missing for MODEL. Give an .npz with spikes (n, T, ...)"
            ", package.module:factory, or a --dataset."
        )


def check_resume(resume: StrPath | None) -> None:
    """Refuse a folder of finished layers that is none."""
    if resume is not None:
        from osbc_deploy.compress.state import check_state_folder

        check_state_folder(Path(resume))


def _check_dataset(inputs: DataOptions) -> None:
    if inputs.dataset is not None:
        if inputs.data_root is None:
            raise UsageError(
                f"--data-root: is missing. Give the folder that holds {inputs.dataset}."
            )
        _dataset_of(inputs, inputs.dataset, inputs.data_root)
        return
    names = {row.name for row in (*rows(NamedData), *rows(DatasetOptions))} - {"test"}
    if found := given(*names):
        raise UsageError(f"{', '.join(found)}: needs --dataset. Name the data set, such as nmnist.")


def _dataset_of(options: DatasetOptions, name: str, root: StrPath) -> DatasetRequest:
    from osbc_deploy.data.datasets import DatasetRequest

    asked = {row.name: getattr(options, row.name) for row in rows(DatasetOptions)}
    return DatasetRequest(name, Path(root), **asked)


def command_line(inputs: DataOptions) -> Call:
    """Return the command line that runs, for the provenance."""
    from osbc_deploy.provenance import Call

    arguments = click.get_current_context().meta.get(ARGUMENTS, ())
    return Call(shlex.join(["osbc-deploy", *arguments]), inputs.seed)


def load_inputs(
    model: str | None, inputs: DataOptions, progress: Progress = SILENT
) -> dict[str, Any]:
    """Return model and data as arguments of a verb; without a model, what is bundled."""
    from osbc_deploy.job import seed_everything

    seed_everything(inputs.seed)
    if inputs.dataset is not None and inputs.data_root is not None:
        from osbc_deploy.data.datasets import load_dataset

        request = _dataset_of(inputs, inputs.dataset, inputs.data_root)
        # Read when asked for: target and backend are checked before minutes of reading.
        read = functools.partial(load_dataset, request, seed=inputs.seed, progress=progress)
        return {
            "module": model,
            "calibration": functools.partial(read, "train"),
            "test": functools.partial(read, "test"),
        }
    if model is not None:
        return {"module": model, "calibration": inputs.calibration, "test": inputs.test}
    from osbc_deploy.bundled.digits import digits_events
    from osbc_deploy.bundled.models import weights_path
    from osbc_deploy.data.samples import check_samples

    parts = []
    for split in ("calibration", "test"):
        data = digits_events(split, seed=inputs.seed)
        parts.append(check_samples(f"digits/{split}", data.spikes, data.labels))
    return {
        "module": "osbc_deploy.bundled.models:digits_conv",
        "calibration": parts[0],
        "test": parts[1],
        "weights": weights_path("digits_conv"),
    }


def save_results(*results: tuple[StrPath | None, Callable[[Path], None]], quiet: bool) -> None:
    """Write each result to the path that was asked for; one that fails keeps no other back.

    Called after the result is printed, so that no failure takes that away.

    Raises
    ------
    Exception
        The first that was met, a bug before all others, when these have been written or said.
    """
    failed: list[Exception] = []
    for path, save in results:
        if path is None:
            continue
        try:
            save(Path(path))
        except Exception as error:  # noqa: BLE001 - a bug keeps the others back no more than a disk
            failed.append(error)
            continue
        if not quiet:
            say(f"wrote {path}", err=True)
    failed.sort(key=lambda error: isinstance(error, OsbcError))
    for other in failed[1:]:
        complain(other, getattr(other, "code", OsbcError.code), lines=True)
    if failed:
        raise failed[0]
