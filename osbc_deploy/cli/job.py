"""What the commands that run a network share: their options, and the network and data to run."""

from __future__ import annotations

import functools
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from osbc_deploy.cli.console import say
from osbc_deploy.cli.options import ARGUMENTS, SEED, config_option, json_option, quiet_option
from osbc_deploy.errors import OsbcError, UsageError
from osbc_deploy.folders import DEPLOYMENT
from osbc_deploy.progress import SILENT, Progress
from osbc_deploy.writing import check_folder

if TYPE_CHECKING:
    from osbc_deploy.data.datasets import DatasetRequest
    from osbc_deploy.provenance import Call

__all__ = [
    "Inputs",
    "check_inputs",
    "compression_options",
    "job_options",
    "save_results",
    "seed_everything",
]

F = TypeVar("F", bound=Callable[..., Any])

_OPTIONS = (
    click.argument("model", required=False),
    click.option(
        "--target",
        required=True,
        metavar="NAME|FILE.toml",
        help="Chip to deploy on; 'osbc-deploy targets list' shows them.",
    ),
    click.option(
        "--weights",
        type=click.Path(path_type=Path),
        metavar="FILE.safetensors",
        help="Weights to load into MODEL.",
    ),
    click.option(
        "--dt",
        type=float,
        metavar="SECONDS",
        help="Time step of a NIR file, in the unit of its time constants.",
    ),
    click.option(
        "--reset",
        type=click.Choice(["zero", "subtract"]),
        help="What a spike does in a NIR file: set to v_reset, or take the threshold away.",
    ),
    click.option(
        "--calibration",
        metavar="DATA",
        help="Typical input: .npz with spikes (n, T, ...), or package.module:factory.",
    ),
    click.option(
        "--test",
        metavar="DATA",
        help="Labelled input to evaluate; the calibration data by default.",
    ),
    click.option(
        "--dataset",
        type=click.Choice(["nmnist", "cifar10dvs", "dvs128gesture"]),
        help="Calibrate and evaluate on a published data set in --data-root.",
    ),
    click.option(
        "--data-root",
        type=click.Path(path_type=Path),
        metavar="FOLDER",
        help="The data set's files as published, extracted; nothing is downloaded.",
    ),
    click.option(
        "--steps", type=int, help="Time steps of a recording of --dataset.  [default: 15]"
    ),
    click.option(
        "--size",
        type=int,
        metavar="PIXELS",
        help="Side of a frame of --dataset; the sensor's by default.",
    ),
    click.option(
        "--samples-per-class",
        type=int,
        help="Recordings of each class of --dataset to calibrate on.  [default: 20]",
    ),
    click.option(
        "--test-samples-per-class",
        type=int,
        help="Recordings of each class of --dataset to evaluate on; all by default.",
    ),
    click.option(
        "--method",
        type=click.Choice(["osbc", "obc", "magnitude"]),
        default="osbc",
        show_default=True,
        help="Membrane Hessian, current Hessian, or magnitude alone.",
    ),
    click.option(
        "--readout",
        metavar="sum|last|max|vote:N",
        default="sum",
        show_default=True,
        help="How the output over time becomes a class; vote:N sums N outputs in a row for each.",
    ),
    click.option(
        "--classes",
        type=int,
        metavar="N",
        help="Classes that MODEL tells apart, where the labels hold only the first of them.",
    ),
    click.option("--backend", metavar="NAME", help="Run on another backend than the target's."),
    click.option(
        "--backend-samples",
        type=int,
        default=16,
        show_default=True,
        help="Samples to run on the backend and compare spike by spike.",
    ),
    click.option(
        "--time-limit",
        type=float,
        default=600.0,
        show_default=True,
        metavar="SECONDS",
        help="How long the backend may take.",
    ),
    click.option(
        "--seed",
        type=SEED,
        default=0,
        show_default=True,
        help="Seed of numpy and torch, and of the bundled data.",
    ),
    click.option(
        "-o",
        "--output",
        type=click.Path(path_type=Path),
        metavar="FOLDER",
        help="Write the integer network and the report here.",
    ),
    json_option,
    quiet_option,
    config_option,
)


_OF_A_DATASET = ("data_root", "steps", "size", "samples_per_class", "test_samples_per_class")

_COMPRESSION = (
    click.option(
        "--sparsity",
        type=float,
        default=0.9,
        show_default=True,
        help="Share of weights to remove, 0 <= S < 1.",
    ),
    click.option("--bits", type=int, default=4, show_default=True, help="Bits per weight, 1 to 8."),
    click.option("--mixed", is_flag=True, help="Take --bits as an average, shared for least loss."),
    click.option(
        "--budget",
        type=click.Choice(["lamps", "uniform", "global"]),
        default="lamps",
        show_default=True,
        help="How layers share --sparsity; global is by loss.",
    ),
    click.option(
        "--pattern",
        default="weights",
        show_default=True,
        metavar="weights|N:M|inputs|outputs",
        help="What is removed together: single weights, all but N of M, whole neurons or channels.",
    ),
    click.option(
        "--tune/--no-tune",
        default=True,
        show_default=True,
        help="Try variants of every layer on held-out calibration samples.",
    ),
    click.option(
        "--solver-memory",
        type=int,
        default=4 * 1024**3,
        show_default=True,
        metavar="BYTES",
        help="What the Hessians of a layer may take; as much again is worked with beside them.",
    ),
    click.option(
        "--resume",
        type=click.Path(path_type=Path),
        metavar="FOLDER",
        help="Keep finished layers here, and go on from them when killed.",
    ),
)


def compression_options(command: F) -> F:
    """Add the options of every command that compresses as it is told."""
    for option in reversed(_COMPRESSION):
        command = option(command)
    return command


def job_options(command: F) -> F:
    """Add the model and the options of every command that runs one.

    The options of a data set reach the command as one argument, ``dataset``: a
    :class:`DatasetRequest` or None.
    """

    @functools.wraps(command)
    def gathered(*args: Any, dataset: str | None, **options: Any) -> Any:
        given = {name: options.pop(name) for name in _OF_A_DATASET}
        return command(*args, dataset=_dataset(dataset, given), **options)

    wrapped: Any = gathered
    for option in reversed(_OPTIONS):
        wrapped = option(wrapped)
    return wrapped  # type: ignore[no-any-return]


def _dataset(name: str | None, options: dict[str, Any]) -> DatasetRequest | None:
    given = {option: value for option, value in options.items() if value is not None}
    if name is None:
        if given:
            listed = ", ".join(f"--{option.replace('_', '-')}" for option in given)
            raise UsageError(f"{listed}: needs --dataset. Name the data set, such as nmnist.")
        return None
    root = given.pop("data_root", None)
    if root is None:
        raise UsageError(f"--data-root: is missing. Give the folder that holds {name}.")
    from osbc_deploy.data.datasets import DatasetRequest

    return DatasetRequest(name, root, **given)


@dataclass(frozen=True)
class Inputs:
    """The network and the data to run, by reference until :meth:`load`."""

    model: str | None
    weights: Path | None
    calibration: str | None
    test: str | None
    seed: int
    dataset: DatasetRequest | None = None

    def call(self) -> Call:
        """Return the command line that runs, for the provenance."""
        from osbc_deploy.provenance import Call

        given = click.get_current_context().meta.get(ARGUMENTS, ())
        return Call(shlex.join(["osbc-deploy", *given]), self.seed)

    def load(self, progress: Progress = SILENT) -> dict[str, Any]:
        """Return the arguments of :func:`osbc_deploy.deploy`; without a model, what is bundled."""
        seed_everything(self.seed)
        if self.dataset is not None:
            from osbc_deploy.data.datasets import load_dataset

            # Read when asked for: target and backend are checked before minutes of reading.
            read = functools.partial(load_dataset, self.dataset, seed=self.seed, progress=progress)
            return {
                "module": self.model,
                "calibration": functools.partial(read, "train"),
                "test": functools.partial(read, "test"),
                "weights": self.weights,
            }
        if self.model is not None:
            return {
                "module": self.model,
                "calibration": self.calibration,
                "test": self.test,
                "weights": self.weights,
            }
        from osbc_deploy.bundled.digits import digits_events
        from osbc_deploy.bundled.models import weights_path
        from osbc_deploy.data.samples import check_samples

        parts = []
        for split in ("calibration", "test"):
            data = digits_events(split, seed=self.seed)
            parts.append(check_samples(f"digits/{split}", data.spikes, data.labels))
        return {
            "module": "osbc_deploy.bundled.models:digits_conv",
            "calibration": parts[0],
            "test": parts[1],
            "weights": weights_path("digits_conv"),
        }


def check_inputs(
    model: str | None,
    weights: Path | None,
    calibration: str | None,
    test: str | None,
    seed: int,
    output: Path | None,
    dataset: DatasetRequest | None = None,
    resume: Path | None = None,
) -> Inputs:
    """Refuse combinations that make no sense, before anything heavy is imported."""
    if model is None:
        given = next(
            (
                option
                for option, value in (
                    ("--weights", weights),
                    ("--calibration", calibration),
                    ("--test", test),
                    ("--dataset", dataset),
                )
                if value
            ),
            None,
        )
        if given:
            raise UsageError(f"{given}: needs a MODEL. Name yours as package.module:factory.")
    elif dataset is not None:
        if calibration or test:
            raise UsageError(
                f"--dataset: {dataset.name} holds calibration and test samples. Leave "
                f"{'--calibration' if calibration else '--test'} out."
            )
    elif calibration is None:
        raise UsageError(
            "--calibration: is missing for MODEL. Give an .npz with spikes (n, T, ...)"
            ", package.module:factory, or a --dataset."
        )
    if output is not None:
        check_folder(output, DEPLOYMENT)
    if resume is not None:
        if output is not None and output.absolute() == resume.absolute():
            raise UsageError(f"--resume: {resume} is what -o names. Choose another folder.")
        from osbc_deploy.compress.state import check_state_folder

        check_state_folder(resume)
    return Inputs(model, weights, calibration, test, seed, dataset)


def save_results(*results: tuple[Path | None, Callable[[Path], None]], quiet: bool) -> None:
    """Write each result to the path that was asked for; one that fails keeps no other back.

    Called after the result is printed, so that no failure takes that away.

    Raises
    ------
    OsbcError
        The first that was met, when all others have been written or said.
    """
    failed: list[OsbcError] = []
    for path, save in results:
        if path is None:
            continue
        try:
            save(path)
        except OsbcError as error:
            failed.append(error)
            continue
        if not quiet:
            say(f"wrote {path}", err=True)
    for other in failed[1:]:
        say(f"error: {other}", err=True, lines=True)
    if failed:
        raise failed[0]


def seed_everything(seed: int) -> None:
    """Seed what models and datasets may draw from."""
    import numpy as np
    import torch

    # Old-style seeding on purpose: it reaches the code of models and datasets.
    np.random.seed(seed)
    torch.manual_seed(seed)
