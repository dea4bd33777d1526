"""Resolve what a user names on the command line: models, weights and datasets."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from pathlib import Path
from typing import Any

from osbc_deploy.arguments import Data
from osbc_deploy.checkpoints import check_weights_file, fitted, read_state
from osbc_deploy.data.samples import (
    Samples,
    check_npz,
    check_samples,
    load_npz,
    samples_from_dataset,
)
from osbc_deploy.errors import NotFoundError, UsageError, WeightsError, described
from osbc_deploy.formats.format import broken_formats, format_of
from osbc_deploy.frameworks.plugin import FRAMEWORKS
from osbc_deploy.limits import is_there
from osbc_deploy.options.option import StrPath

__all__ = [
    "as_samples",
    "both_samples",
    "check_paths",
    "check_reference",
    "load_object",
    "load_samples",
    "load_weights",
]

EXTRAS = {"neurobench": "neurobench", "tonic": "datasets"}
"""Packages that are no framework of a model, and the extras that install them."""

FORM = "package.module:factory or path/to/file.py:factory"


def load_object(reference: str) -> Any:
    """Import ``package.module:name`` or ``path/to/file.py:name`` and call it if callable.

    The current directory is searched for packages, as ``python -m`` does.

    Raises
    ------
    UsageError
        When the module or the name does not exist, or the user's code raises.
    """
    place, name = check_reference(reference)
    try:
        module = _import_file(Path(place)) if place.endswith(".py") else _import_module(place)
    except UsageError:
        raise
    except (Exception, SystemExit) as error:
        _explain_missing(reference, error)
        raise UsageError(
            f"{reference}: importing it failed ({described(error)}). It is searched from "
            f"{os.getcwd()} and the Python path."
        ) from error
    if not hasattr(module, name):
        raise NotFoundError(
            f"{reference}: {place} has no '{name}'. Name a function that returns the object."
        )
    found = getattr(module, name)
    if not callable(found) or (hasattr(found, "state_dict") and not isinstance(found, type)):
        return found
    try:
        return found()
    except (Exception, SystemExit) as error:
        _explain_missing(reference, error)
        raise UsageError(
            f"{reference}: calling it failed ({described(error)}). It is called without arguments."
        ) from error


def check_reference(reference: str) -> tuple[str, str]:
    """Return the file or module, and the name in it, of a reference; nothing is imported yet.

    Raises
    ------
    UsageError
        When it has another form, or leads to no file or package.
    """
    place, _, name = reference.rpartition(":")
    if not place or not name.isidentifier():
        raise UsageError(f"{reference}: is not of the form {FORM}.{broken_formats()}")
    if place.endswith(".py"):
        if not is_there(Path(place)):
            raise NotFoundError(f"{place}: no such file. Give {FORM}.")
        return place, name
    _search_here()
    package = place.partition(".")[0]
    if package not in sys.modules and importlib.util.find_spec(package) is None:
        error = ModuleNotFoundError(f"No module named {package!r}", name=package)
        _explain_missing(reference, error)
        raise NotFoundError(
            f"{reference}: there is no package '{package}'. It is searched from {os.getcwd()} and "
            "the Python path."
        )
    return place, name


def check_paths(model: str | None, weights: StrPath | None, *samples: str | None) -> None:
    """Refuse what leads nowhere before torch is imported, which takes seconds.

    Raises
    ------
    UsageError
        When a file or package is not there.
    """
    for name in samples:
        if name is None:
            continue
        check_npz(Path(name)) if _is_file_name(name) else check_reference(name)
    form = None if model is None else format_of(model)
    if model is not None and form is None:
        check_reference(model)
    elif form is not None and not is_there(Path(str(model))):
        raise NotFoundError(f"{model}: no such file. Give a {form[0]} file, or {FORM}.")
    if weights is not None and form is None:
        check_weights_file(Path(weights))


def _explain_missing(reference: str, error: BaseException) -> None:
    """Say which command adds a framework that the user's code imports and that is not there."""
    name = (getattr(error, "name", None) or "") if isinstance(error, ModuleNotFoundError) else ""
    install = f"pip install 'osbc-deploy[{EXTRAS[name]}]'" if name in EXTRAS else ""
    if name in FRAMEWORKS.names():
        install = FRAMEWORKS.load(name).install
    if install:
        raise NotFoundError(
            f"{reference}: needs {name}, which is not installed. Add it with: {install}"
        ) from error


def _import_module(name: str) -> Any:
    _search_here()
    return importlib.import_module(name)


def _search_here() -> None:
    here = os.getcwd()
    if here not in sys.path:
        sys.path.insert(0, here)


def _import_file(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise UsageError(f"{path}: not a Python file.")
    folder = str(path.resolve().parent)
    if folder not in sys.path:
        sys.path.insert(0, folder)
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


def as_samples(given: Any, name: str, repeat: int | None = None) -> Samples:
    """Turn whatever names or holds samples into checked samples.

    Parameters
    ----------
    given : Samples, path, str, tuple, array or Dataset
        An .npz file, ``package.module:factory``, a pair ``(spikes, labels)``, an array of spikes
        or a torch Dataset of ``(spikes (T, ...), label)``; a factory, or a function given instead
        of its name, may return any of these.
    name : str
        What to call the data in an error.
    repeat : int, optional
        Time steps for which samples without a time axis are shown.

    Raises
    ------
    OsbcError
        When they cannot be read, are not samples, or have the time axis that `repeat` gives.
    """
    if isinstance(given, Samples):
        if repeat is not None:
            raise UsageError(
                f"--repeat: {given.name} has a time axis already, of {given.steps} steps. Leave "
                "the option out."
            )
        return given
    if isinstance(given, os.PathLike):
        return load_npz(Path(given), repeat)
    if isinstance(given, str):
        if _is_file_name(given):
            return load_npz(Path(given), repeat)
        return as_samples(load_object(given), given, repeat)
    if isinstance(given, tuple) and len(given) == 2:
        return check_samples(name, *given, repeat=repeat)
    if hasattr(given, "spikes"):
        return check_samples(name, given.spikes, getattr(given, "labels", None), repeat)
    if hasattr(given, "ndim"):
        return check_samples(name, given, repeat=repeat)
    if callable(given) and not hasattr(given, "__getitem__"):
        return as_samples(given(), name, repeat)
    return samples_from_dataset(name, given, repeat=repeat)


def both_samples(
    calibration: Data, test: Data | None, repeat: int | None = None
) -> tuple[Samples, Samples]:
    """Load the samples to calibrate on and those to evaluate on: the same where `test` is None.

    Raises
    ------
    UsageError
        When they have different shapes, or as :func:`as_samples`.
    """
    typical = as_samples(calibration, "calibration", repeat)
    evaluated = typical if test is None else as_samples(test, "test", repeat)
    if evaluated.input_shape != typical.input_shape:
        raise UsageError(
            f"test: samples have shape {evaluated.input_shape}, the calibration "
            f"samples {typical.input_shape}. Give both the same."
        )
    return typical, evaluated


def _is_file_name(samples: str) -> bool:
    return ":" not in samples or samples.endswith(".npz")


def load_samples(data: Data, name: str = "samples", repeat: int | None = None) -> Samples:
    """Load and check samples once, to use them often.

    Parameters
    ----------
    data : path, str, tuple, array or Dataset
        An .npz file, ``package.module:factory``, a pair ``(spikes, labels)``, an array of spikes
        (n, T, ...) or a torch Dataset of ``(spikes (T, ...), label)``.
    name : str
        What to call the data in errors and reports.
    repeat : int, optional
        Time steps for which samples (n, ...) without a time axis are shown ("direct coding").

    Raises
    ------
    ArtefactError
        For data of the wrong kind, shape or range.
    UsageError
        When what is named cannot be found.
    """
    return as_samples(data, name, repeat)


def load_weights(module: Any, path: Path) -> None:
    """Load a file's weights into a torch module, strictly.

    Raises
    ------
    UsageError
        When the file does not exist.
    ArtefactError
        When it holds no weights (see :func:`osbc_deploy.checkpoints.read_state`), or its names or
        shapes are not the module's.
    """
    own = module.state_dict()
    state, faults = fitted(read_state(path), own)
    if faults:
        listed = "\n".join(f"  - {fault}" for fault in faults)
        raise WeightsError(
            f"{path}: does not match the model:\n{listed}\nGive the weights of this architecture."
        )
    module.load_state_dict(state)
