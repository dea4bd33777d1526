"""The table of all options: name, type, default, limits, help, and which reports hold them.

A field of :mod:`.verbs` or of the tables that these are put together from (:mod:`.solver`,
:mod:`.search`, :mod:`.work`) is an option of the command line (``--solver-memory``), a key of the
configuration file (``solver-memory``), a keyword in Python (``solver_memory=``), a line of the
report's provenance, and, where `reported` says so, of a report and its schema. Nothing else lists
options. What a field declares is in :mod:`.option`.

Of the tables that make up another one, fields of one that is named later come first. This package
is imported before the command line is read, so it imports nothing heavy.
"""

from osbc_deploy.options.notation import Readout
from osbc_deploy.options.option import StrPath
from osbc_deploy.options.search import BITS, FitBudget
from osbc_deploy.options.solver import (
    REQUESTED,
    VERIFIED,
    Allocation,
    Compression,
    CompressionRequest,
    Method,
    TriedAllocation,
)
from osbc_deploy.options.verbs import (
    CompressOptions,
    DataOptions,
    Dataset,
    DatasetOptions,
    DeployOptions,
    FitOptions,
    InputOptions,
    InspectOptions,
    ModelOptions,
    NamedData,
    Reset,
    RunOptions,
    Split,
    Substitute,
    SweepOptions,
    TargetOptions,
    VerifyOptions,
)

__all__ = [
    "BITS", "REQUESTED", "VERIFIED", "Allocation", "CompressOptions", "Compression",
    "CompressionRequest", "DataOptions", "Dataset", "DatasetOptions", "DeployOptions", "FitBudget",
    "FitOptions", "InputOptions", "InspectOptions", "Method", "ModelOptions", "NamedData",
    "Readout", "Reset", "RunOptions", "Split", "StrPath", "Substitute", "SweepOptions",
    "TargetOptions", "TriedAllocation", "VerifyOptions",
]  # fmt: skip
