"""Every error a user can cause, and the exit code each branch ends with.

::

    OsbcError                     1
    ├── UsageError                2   a command line, option or configuration that is not valid,
    │   │                             or output that cannot be written
    │   └── TargetError           2   a target description that cannot be found, read or believed
    ├── UnsupportedModelError     3   a network, or a part of it, that cannot be represented
    ├── FitError                  4   the network does not fit the chip, or a budget is exceeded
    ├── FidelityError             5   backend and engine disagree, or an accuracy gate failed
    ├── ArtefactError             6   data, weights or an artefact that is broken or not trusted
    ├── ClusterError              2   workers or a scheduler that do not answer, die, or run another
    │                                 version
    └── PluginError               2   a plugin that cannot be loaded, fails or breaks its contract
        └── BackendError          2   a backend that is missing, broken or out of time

Two codes are verdicts, not errors: ``monitor`` ends with 7 when the data drift and with 8 when a
device is unhealthy.

A message reads ``<thing>: <what is wrong> (<got>), <limit> (<allowed>). <what to do>``.
Code 0 is success, 1 is a bug of ours, 130 an interruption (143 by SIGTERM, 129 by SIGHUP), and 141
that all was done but the reader of stdout went away.
"""

from __future__ import annotations

import errno
import math
from collections.abc import Sequence

__all__ = [
    "ArtefactError",
    "BackendError",
    "ChipLimitError",
    "ClusterError",
    "DataError",
    "FidelityError",
    "FitError",
    "GateError",
    "NotFoundError",
    "OsbcError",
    "PluginError",
    "TargetError",
    "UnsupportedModelError",
    "UntrustedError",
    "UsageError",
    "WeightsError",
    "WritingError",
    "described",
    "reason",
    "unreadable",
    "unwritable",
]

_READING = {
    errno.ENOENT: "Give the path of one that is there",
    errno.ENOTDIR: "Give the path of one that is there",
    errno.EISDIR: "Name a file in it",
    errno.EACCES: "Let this user read it",
    errno.EPERM: "Let this user read it",
}
_WRITING = {
    errno.ENAMETOOLONG: "Choose a shorter name",
    errno.ENOSPC: "Free some of the disk, or choose another place",
    errno.EDQUOT: "Free some of the disk, or choose another place",
    errno.EFBIG: "Choose a place that takes files of this size",
}
"""What to do about what cannot be read or written, by the number of the system's error."""


def reason(error: BaseException) -> str:
    """Return what a library's error says, in one line, or its kind where it says nothing."""
    # The text of a KeyError is the repr of its argument.
    said = error.args[0] if isinstance(error, KeyError) and error.args else error
    try:
        text = " ".join(str(said).split())[:200]
    except Exception:  # noqa: BLE001 - errors of others may fail even at that
        text = ""
    return text or type(error).__name__


def described(error: BaseException) -> str:
    """Return the kind of an error, and what it says if it says anything."""
    said, kind = reason(error), type(error).__name__
    return kind if said == kind else f"{kind}: {said}"


def unreadable(error: OSError) -> str:
    """Return that something cannot be read, why, and what to do about it."""
    remedy = _READING.get(error.errno or 0, "Mend the disk, or give a copy")
    return f"cannot be read ({error.strerror or reason(error)}). {remedy}."


def unwritable(error: OSError) -> str:
    """Return that something cannot be written, why, and what to do about it."""
    remedy = _WRITING.get(error.errno or 0, "Choose another place, or let this user write there")
    return f"cannot be written ({error.strerror or reason(error)}). {remedy}."


class OsbcError(Exception):
    """Root of all errors that have a cause outside this program."""

    code = "E100"
    exit_code = 1


class UsageError(OsbcError):
    """An option, argument or configuration value is out of its range."""

    code = "E200"
    exit_code = 2


class TargetError(UsageError):
    """A target description is unknown, unreadable or inconsistent."""

    code = "E210"


class NotFoundError(UsageError):
    """A file, a folder, a package or a name in it is not there."""

    code = "E201"


class WritingError(UsageError):
    """What should be written cannot be, where it should be."""

    code = "E202"


class UnsupportedModelError(OsbcError):
    """Parts of a model cannot be represented.

    Attributes
    ----------
    offenders : tuple of str
        One line for every unsupported part, each with its place in the model.
    """

    code = "E300"
    exit_code = 3

    def __init__(self, summary: str, offenders: Sequence[str] = (), remedy: str = "") -> None:
        self.summary = summary
        self.offenders = tuple(offenders)
        self.remedy = remedy
        lines = [summary, *(f"  - {line}" for line in self.offenders)]
        if remedy:
            lines.append(remedy)
        super().__init__("\n".join(lines))


class ChipLimitError(UnsupportedModelError):
    """A network that was read well needs what the target does not have."""

    code = "E310"


class FitError(OsbcError):
    """The network exceeds the chip or a budget.

    Attributes
    ----------
    excess : float
        The share of a limit that is over it; infinite where that is no number.
    """

    code = "E400"
    exit_code = 4

    def __init__(self, message: str, excess: float = math.inf) -> None:
        super().__init__(message)
        self.excess = excess


class FidelityError(OsbcError):
    """Two simulations that must agree do not, or an accuracy gate failed."""

    code = "E500"
    exit_code = 5


class GateError(FidelityError):
    """A gate or a limit on accuracy that was asked for is broken."""

    code = "E501"


class ArtefactError(OsbcError):
    """A file is broken, holds the wrong kind of data, or cannot be trusted."""

    code = "E600"
    exit_code = 6


class DataError(ArtefactError):
    """Samples or labels are not what the network or the verb can take."""

    code = "E601"


class WeightsError(ArtefactError):
    """Weights cannot be read, or are not those of the model."""

    code = "E602"


class UntrustedError(ArtefactError):
    """A signature, a key or a digest does not prove what it should."""

    code = "E603"


class ClusterError(OsbcError):
    """Processes that work is spread over cannot be started or reached, or do not do it."""

    code = "E220"
    exit_code = 2


class PluginError(OsbcError):
    """A plugin cannot be loaded, fails, or does not keep the contract of its kind."""

    code = "E230"
    exit_code = 2


class BackendError(PluginError):
    """A backend is not installed, failed, or ran out of time."""

    code = "E231"
