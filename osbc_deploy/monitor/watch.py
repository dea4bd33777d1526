"""A gateway's round: judge what has arrived, and go back where the store's policy says so."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from osbc_deploy.errors import ArtefactError, UsageError
from osbc_deploy.monitor.baseline import Baseline
from osbc_deploy.monitor.intake import read_what_fits
from osbc_deploy.monitor.judgement import NoRecordsError, judge
from osbc_deploy.release.checks import RefusedError
from osbc_deploy.release.journal import NOBODY, Reason
from osbc_deploy.release.store import open_store, read_facts
from osbc_deploy.writing import is_temporary

__all__ = ["arrived", "watch_once"]


def arrived(folder: Path) -> list[Path]:
    """Return the files of a folder, by name; what is being written, hidden, is none.

    Raises
    ------
    UsageError
    """
    try:
        return sorted(
            path
            for path in folder.iterdir()
            if path.is_file() and not path.name.startswith(".") and not is_temporary(path)
        )
    except OSError as error:
        raise UsageError(f"{folder}: cannot be read ({error.strerror}). Name a folder.") from error


def watch_once(
    folder: Path, baselines: Sequence[Baseline], store: Path | None = None
) -> dict[str, Any]:
    """Judge all records in a folder once.

    Parameters
    ----------
    folder : Path
    baselines : sequence of Baseline
        Of the images that may run; records of the others are left out.
    store : Path, optional
        The device's: what runs is the image it says, and its policy is followed.

    Returns
    -------
    dict
        The judgement with an ``action``: ``none``, ``rollback``, or why there was none.

    Raises
    ------
    NoRecordsError
        While there are no records of the image that runs, or none that can be read.
    ArtefactError
        When the image that runs has no baseline. A file that is too large is set aside, which a
        remark says.
    """
    windows, torn, aside = read_what_fits(arrived(folder), str(folder))
    if not windows and aside:
        raise NoRecordsError(f"{folder}: nothing in it can be judged ({_some(aside)}).")
    by_image = {baseline.identity: baseline for baseline in baselines}
    last = windows[-1].identity.hex() if windows else baselines[0].identity
    version, running = _running(store) if store is not None else (0, last)
    if running not in by_image:
        raise ArtefactError(
            f"{folder}: the image that runs is {running or 'none'}, there are baselines of "
            f"{', '.join(by_image)}. Give the baseline of the image that runs."
        )
    found = judge(windows, by_image[running], torn)
    found["action"] = "none"
    if aside:
        found["remarks"].append(f"set aside: {_some(aside)}")
    if store is not None and found["verdict"] == "drift":
        found["action"] = _follow(store, version)
    return found


def _some(faults: Sequence[str]) -> str:
    more = f", and {len(faults) - 1} more" if len(faults) > 1 else ""
    return faults[-1].rstrip(".") + more


def _running(store: Path) -> tuple[int, str]:
    """Return version and identity of the confirmed image of a store."""
    with open_store(store, change=False) as slots:
        record = slots.journal().record
        manifest = None if record.good == NOBODY else slots.manifest(record.good)
    return (0, "") if manifest is None else (manifest.version, manifest.image_id.hex())


def _follow(store: Path, version: int) -> str:
    """Do what a store's policy says about drift of a version; return what was done."""
    if read_facts(store).on_drift != "rollback":
        return "none: the store's policy is to report"
    try:
        with open_store(store, change=True) as slots:
            slots.rollback(Reason.HOST, version)
    except RefusedError as error:
        return f"none: {error}"
    return "rollback"
