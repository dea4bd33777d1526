"""What each verb of command line and Python takes: tables put together from tables."""


# Annotations are read by `option`, so this module does without their postponement.

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from osbc_deploy.errors import UsageError
from osbc_deploy.options.notation import Readout, outputs_per_class, removed_by
from osbc_deploy.options.option import Options, StrPath, option
from osbc_deploy.options.search import (
    BudgetOptions,
    GridOptions,
    NeuronOptions,
    SearchOptions,
)
from osbc_deploy.options.solver import (
    BOTH,
    SHARING,
    VERIFIED,
    Allocation,
    AugmentOptions,
    Compression,
    Method,
    MethodOptions,
    SolverOptions,
    TriedAllocation,
    impossible,
    other_sparsity,
)
from osbc_deploy.options.unasked import Unasked, unasked
from osbc_deploy.options.work import ClusterOptions, DeviceOptions, ResumeOptions

__all__ = [
    "CompressOptions", "DataOptions", "Dataset", "DatasetOptions", "DeployOptions", "FitOptions",
    "InputOptions", "InspectOptions", "ModelOptions", "NamedData", "Reset", "RunOptions", "Split",
    "Substitute", "SweepOptions", "TargetOptions", "VerifyOptions",
]  # fmt: skip

Reset: TypeAlias = Literal["zero", "subtract"]
Substitute: TypeAlias = Literal["maxpool=avg"]
Split: TypeAlias = Literal["time", "number"]
Dataset: TypeAlias = Literal["nmnist", "cifar10dvs", "dvs128gesture"]


@dataclass(frozen=True, kw_only=True)
class TargetOptions(Options):
    """The chip."""

    target: str = option(
        "loihi2-sim",
        "Chip to deploy on; 'osbc-deploy targets list' shows them.",
        metavar="NAME|FILE.toml",
        required=True,
    )


@dataclass(frozen=True, kw_only=True)
class WeightsOptions(Options):
    """Parameters of a module."""

    weights: StrPath | None = option(
        None, "Weights to load into MODEL.", metavar="FILE.safetensors|FILE.pth"
    )


@dataclass(frozen=True, kw_only=True)
class ModelOptions(WeightsOptions):
    """What belongs to the model: parameters of a module, what a NIR graph leaves open."""

    dt: float | None = option(
        None, "Time step of a NIR file, in the unit of its time constants.", metavar="SECONDS"
    )
    reset: Reset | None = option(
        None, "What a spike does in a NIR file: set to v_reset, or take the threshold away."
    )
    substitute: Substitute | None = option(
        None, "Replace max pooling of currents by average pooling, refitted; reports the cost."
    )
    host_prefix: str | None = option(
        None,
        "Run MODEL's layers up to this one on the host; its spikes are the chip's input.",
        metavar="LAYER",
    )


@dataclass(frozen=True, kw_only=True)
class ReadoutOptions(Options):
    """How samples are shown to a network, and how it is read out."""

    readout: Readout | None = option(
        None,
        "How the output over time becomes a class: as MODEL's own answer does, or sum; vote:N sums "
        "N outputs in a row for each.",
        metavar="sum|last|max|vote:N",
        reported=[VERIFIED],
    )
    repeat: int | None = option(
        None, "Steps to show samples without a time axis for, such as images.", metavar="T", least=1
    )
    classes: int | None = option(
        None,
        "Number of classes of MODEL, where the labels hold only the first of them.",
        metavar="N",
    )

    def _contradictions(self) -> Iterator[str]:
        yield from super()._contradictions()
        try:
            outputs_per_class(self.readout or "sum")
        except UsageError as error:
            yield str(error)


@dataclass(frozen=True, kw_only=True)
class RunOptions(ReadoutOptions):
    """The same, and what it is run on."""

    input_bits: int | None = option(
        None,
        "Bits of graded input; by default 8 for real values, one to spare for whole numbers.",
        metavar="N", least=1, most=24,
    )  # fmt: skip
    backend: str | None = option(None, "Run on another backend than the target's.", metavar="NAME")
    backend_samples: int = option(
        16, "Samples to run on the backend and compare spike by spike.", least=0
    )
    time_limit: float = option(600.0, "How long the backend may take.", metavar="SECONDS", above=0)


@dataclass(frozen=True, kw_only=True)
class DeployOptions(
    RunOptions, ClusterOptions, DeviceOptions, ResumeOptions, NeuronOptions, AugmentOptions,
    Compression, ModelOptions, TargetOptions,
):  # fmt: skip
    """What ``deploy`` is asked to do."""

    allocation: Allocation = option("lamps", SHARING, formerly="budget", reported=BOTH)


@dataclass(frozen=True, kw_only=True)
class CompressOptions(
    ReadoutOptions, ClusterOptions, DeviceOptions, ResumeOptions, Compression, WeightsOptions
):
    """What ``compress`` is asked to do."""

    # Models of any kind may be deep and their layers unlike: there it pays to try both.
    allocation: TriedAllocation = option(
        "auto",
        "How layers share --sparsity; global is by loss, auto tries it against lamps.",
        formerly="budget",
        reported=BOTH,
    )
    exclude: Sequence[str] = option(
        (),
        "A layer, or a module of layers, to leave as it is; may be repeated.",
        metavar="LAYER",
    )


@dataclass(frozen=True, kw_only=True)
class VerifyOptions(DeployOptions):
    """What ``verify`` is asked to do: deploy, and compare."""

    samples: int | None = option(
        None,
        "Test samples to evaluate; all of them by default.",
        metavar="N",
        least=1,
        remedy="Give how many to evaluate.",
    )
    tau: float = option(
        5.0,
        "Time constant of the van Rossum distance, in steps.",
        metavar="STEPS",
        above=0,
        below=math.inf,
        reported=[VERIFIED],
    )
    neurons: Sequence[str] = option(
        (),
        "Neurons to draw; the most active and most different ones by default.",
        metavar="LAYER:3,7",
    )
    gates: Sequence[str] = option(
        (),
        "A limit that must hold, such as accuracy_drop=0.02; may be repeated.",
        metavar="NAME=VALUE",
        flags=["--gate"],
    )


@dataclass(frozen=True, kw_only=True)
class FitOptions(
    RunOptions, AugmentOptions, MethodOptions, SearchOptions, ModelOptions, TargetOptions,
    BudgetOptions,
):  # fmt: skip
    """What ``fit`` is asked to do."""


@dataclass(frozen=True, kw_only=True)
class SweepOptions(
    RunOptions, AugmentOptions, SolverOptions, ClusterOptions, ModelOptions, GridOptions
):
    """What ``sweep`` is asked to do."""

    allocation: Allocation = option("lamps", SHARING, formerly="budget", reported=BOTH)
    methods: Sequence[Method] = option(
        ("osbc",), "Method of compression; may be repeated.", flags=["--method"]
    )

    def _settled(self) -> dict[str, Any]:
        removed = removed_by(self.pattern)
        if removed is None or not unasked(self.sparsities):
            return {}
        return {"sparsities": (Unasked(removed),)}

    def _contradictions(self) -> Iterator[str]:
        yield from super()._contradictions()
        yield from other_sparsity(self.pattern, self.sparsities)
        if not self.methods:
            yield "methods: is empty, so the sweep has no points. Give one or more."
        faults = (fault for method in self.methods for fault in impossible(self, method))
        yield from dict.fromkeys(faults)


@dataclass(frozen=True, kw_only=True)
class SampleOptions(Options):
    """Typical input, by name, and what is random."""

    calibration: str | None = option(
        None,
        "Typical input: .npz with spikes (n, T, ...), or package.module:factory.",
        metavar="DATA",
    )
    seed: int = option(
        0, "Seed of numpy and torch, and of the bundled data.", least=0, most=2**32 - 1
    )


@dataclass(frozen=True, kw_only=True)
class InspectOptions(SampleOptions, ModelOptions):
    """What ``inspect`` is asked to do."""

    shape: str | None = option(
        None,
        "Shape of one time step of input, where there is no data; a file knows its own.",
        metavar="C,H,W",
    )
    repeat: int | None = option(
        None, "Steps to show samples without a time axis for, such as images.", metavar="T", least=1
    )


@dataclass(frozen=True, kw_only=True)
class DatasetOptions(Options):
    """How the recordings of a published data set become samples."""

    steps: int = option(15, "Time steps of a recording of --dataset.", least=1)
    split: Split = option("time", "What steps of --dataset have the same of: time, or events.")
    count_events: bool = option(False, "Count the events of a pixel and step of --dataset.")
    size: int | None = option(
        None, "Side of a frame of --dataset; the sensor's by default.", metavar="PIXELS"
    )
    samples_per_class: int | None = option(
        20, "Recordings of each class of --dataset to calibrate on.", least=1
    )
    test_samples_per_class: int | None = option(
        None, "Recordings of each class of --dataset to evaluate on; all by default.", least=1
    )


@dataclass(frozen=True, kw_only=True)
class NamedData(Options):
    """Data beside the calibration samples, by name."""

    test: str | None = option(
        None, "Labelled input to evaluate; the calibration data by default.", metavar="DATA"
    )
    dataset: Dataset | None = option(
        None, "Calibrate and evaluate on a published data set in --data-root."
    )
    data_root: StrPath | None = option(
        None,
        "The data set's files as published, extracted; nothing is downloaded.",
        metavar="FOLDER",
    )


@dataclass(frozen=True, kw_only=True)
class DataOptions(DatasetOptions, NamedData, SampleOptions):
    """What the command line runs a network on."""


@dataclass(frozen=True, kw_only=True)
class InputOptions(DataOptions):
    """The same, and where the results go."""

    output: StrPath | None = option(
        None,
        "Write the integer network and the report here.",
        metavar="FOLDER",
        flags=["-o", "--output"],
    )
