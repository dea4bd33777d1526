"""A gateway's round: judge what has arrived, and go back where the store's policy says so."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from osbc_deploy.errors import ArtefactError, OsbcError, UsageError
from osbc_deploy.monitor.baseline import Baseline
from osbc_deploy.monitor.intake import read_what_fits
from osbc_deploy.monitor.judgement import EXIT_CODES, NoRecordsError, judge
from osbc_deploy.release.journal import NOBODY, Reason
from osbc_deploy.release.store import open_store, read_facts
from osbc_deploy.telemetry.record import Window
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
        Of the images that may run, one or more.
    store : Path, optional
        The device's: what runs is the image it says, and its policy is followed. Without one, every
        image that has a baseline is judged: which of them runs, no record says.

    Returns
    -------
    dict
        The judgement with an ``action``: ``none``, ``rollback``, or why there was none. Of several
        images the worst, with a remark on each other one.

    Raises
    ------
    NoRecordsError
        While there are no records of the images that are judged, or none that can be read.
    ArtefactError
        When the image that runs has no baseline. A file that is too large is set aside, which a
        remark says.
    """
    windows, torn, aside = read_what_fits(arrived(folder), str(folder))
    if not windows and aside:
        raise NoRecordsError(f"{folder}: nothing in it can be judged ({_some(aside)}).")
    by_image = {baseline.identity: baseline for baseline in baselines}
    version = 0
    if store is not None:
        version, running = _running(store)
        if running not in by_image:
            raise ArtefactError(
                f"{folder}: the image that runs is {running or 'none'}, there are baselines of "
                f"{', '.join(by_image)}. Give the baseline of the image that runs."
            )
        by_image = {running: by_image[running]}
    found = _worst(windows, list(by_image.values()), torn)
    found["action"] = "none"
    if aside:
        found["remarks"].append(f"set aside: {_some(aside)}")
    if store is not None and found["verdict"] == "drift":
        found["action"] = _follow(store, version)
    return found


def _worst(windows: Sequence[Window], baselines: Sequence[Baseline], torn: int) -> dict[str, Any]:
    """Return the worst judgement of several images; one without records is none of them."""
    judged, without = [], []
    for baseline in baselines:
        try:
            found = judge(windows, baseline, torn)
        except NoRecordsError as error:
            without.append(error)
            continue
        judged.append(found)
    if not judged:
        raise NoRecordsError("\n".join(map(str, without)))
    worst = max(judged, key=lambda one: EXIT_CODES[one["verdict"]])
    worst["remarks"] += [
        f"image {other['identity']}: {other['verdict']} ({other['records']:,} records)"
        for other in judged
        if other is not worst
    ]
    return worst


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
    try:
        if read_facts(store).on_drift != "rollback":
            return "none: the store's policy is to report"
        with open_store(store, change=True) as slots:
            slots.rollback(Reason.HOST, version)
    except OsbcError as error:
        # The data drift, whatever becomes of the store.
        return f"none: {error}"
    return "rollback"
