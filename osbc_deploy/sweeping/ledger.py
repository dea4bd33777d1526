"""The ledger of a sweep on disk: finished points, so that none is computed twice.

A file for each point, which is there whole or not at all and never written again: whatever the
moment of death, all that was finished is kept. The folder belongs to one network, one set of
options and one version of this program, and each seed in it to one draw of the samples; for
anything else it is refused. Each point says so itself, too: where the files that refuse were
removed, points of anything else are not found. One sweep at a time writes into it.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from osbc_deploy.belonging import BelongsTo, broken, changed
from osbc_deploy.errors import UsageError, unwritable
from osbc_deploy.limits import PARSED, read_text
from osbc_deploy.parsing import parse_json
from osbc_deploy.sweeping.grid import Point
from osbc_deploy.sweeping.record import check_record
from osbc_deploy.writing import check_growing, write_whole

__all__ = ["Ledger", "check_ledger", "open_ledger"]

FORMAT = "osbc-deploy/ledger/2"
_MANIFEST = "ledger.json"
_LOCK = "lock"

Record = dict[str, Any]


class Ledger:
    """A folder of finished points; see :func:`open_ledger`.

    Parameters
    ----------
    folder : Path
    digests : dict of str
        Of the targets, by name.
    origins : dict of str
        By seed, the digest of all else that its points depend on.
    """

    def __init__(
        self, folder: Path, digests: Mapping[str, str], origins: Mapping[int | None, str]
    ) -> None:
        self._folder, self._digests, self._origins = folder, digests, origins

    def load(self, point: Point) -> Record | None:
        """Return what is known of a point, or None.

        Raises
        ------
        ArtefactError
            When its file is broken.
        """
        path = self._path(point)
        if not path.is_file():
            return None
        found = _read(path)
        if found.get("point") != self._identity(point):
            raise broken(path, _MANIFEST, "it is that of another point")
        try:
            record: Record = found["record"]
            check_record(record)
        except (KeyError, ValueError) as error:
            raise broken(path, _MANIFEST, error) from error
        return record

    def save(self, point: Point, record: Record) -> None:
        """Keep a finished point."""
        _write(self._path(point), {"point": self._identity(point), "record": record})

    def _identity(self, point: Point) -> dict[str, Any]:
        # A target whose file was changed makes other points, and so do other samples.
        return {
            **point.as_dict(),
            "target_sha256": self._digests[point.configuration.target],
            "origin_sha256": self._origins[point.seed],
        }

    def _path(self, point: Point) -> Path:
        return self._folder / f"point-{_digest(self._identity(point))[:32]}.json"


@contextmanager
def open_ledger(
    folder: Path,
    belongs_to: BelongsTo,
    draws: Mapping[int | None, Mapping[str, str]],
    digests: Mapping[str, str],
) -> Iterator[Ledger]:
    """Open a ledger for one sweep alone; it is made if it is not there.

    Parameters
    ----------
    folder : Path
    belongs_to : dict
        What all points depend on.
    draws : dict of dict
        The same of the samples of each seed.
    digests : dict of str
        Of the targets, by name.

    Raises
    ------
    UsageError
        When the folder holds the ledger of something else, or other files, or another sweep has it
        open.
    ArtefactError
        When it is broken.
    """
    check_ledger(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
    except OSError as error:
        raise UsageError(f"{folder}: {unwritable(error)}") from error
    try:
        try:
            # Ends with the process, however that ends.
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UsageError(
                f"{folder}: another sweep is writing this ledger. Wait for its end, or choose "
                "another folder."
            ) from error
        except OSError as error:
            raise UsageError(
                f"{folder}: cannot be locked ({error.strerror}). Choose a folder of another file "
                "system."
            ) from error
        _claim(folder / _MANIFEST, "", belongs_to)
        for seed, samples in draws.items():
            name = "given" if seed is None else str(seed)
            of = "" if seed is None else f" of seed {seed}"
            _claim(folder / f"samples-{name}.json", of, samples)
        origins = {seed: _digest({**belongs_to, **samples}) for seed, samples in draws.items()}
        yield Ledger(folder, digests, origins)
    finally:
        os.close(lock)


def check_ledger(folder: Path) -> None:
    """Make sure that a folder holds a ledger, or nothing, and can be written into.

    Raises
    ------
    UsageError
    """
    check_growing(folder, _MANIFEST, "ledger", [_LOCK])


def _claim(path: Path, of: str, wanted: BelongsTo) -> None:
    """Write what the ledger belongs to, or compare it."""
    if not path.is_file():
        _write(path, {"format": FORMAT, "belongs_to": dict(wanted)})
        return
    found = _read(path)
    if (version := found.get("format")) != FORMAT:
        raise UsageError(
            f"{path.parent}: ledger of format {repr(version)[:60]}, this program writes "
            f"{FORMAT!r}. Choose another folder."
        )
    known = found.get("belongs_to")
    if not isinstance(known, dict):
        raise broken(path, _MANIFEST, "it does not say what it belongs to")
    if other := ", ".join(f"{name}{of}" for name in changed(known, wanted)):
        raise UsageError(
            f"{path.parent}: is the ledger of another sweep; changed since: {other}. Resume "
            "with the same settings, or choose another folder."
        )


def _write(path: Path, content: dict[str, Any]) -> None:
    write_whole(path, json.dumps({**content, "sha256": _digest(content)}, indent=1) + "\n")


def _read(path: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = parse_json(read_text(path, each=PARSED))
        if not isinstance(found, dict) or found.pop("sha256") != _digest(found):
            raise ValueError("its content is not what was written")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise broken(path, _MANIFEST, error) from error
    return found


def _digest(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
