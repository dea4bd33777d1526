"""Records as they arrive: put in order, and what cannot be used left out and named.

Order is that of the device's own numbers (boots, then the sequence within one), never that of a
clock: gateways' clocks jump, and files arrive late.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from osbc_deploy.errors import ArtefactError, UsageError
from osbc_deploy.firmware.layout import LAYER, RECORD, RECORD_MAGIC
from osbc_deploy.limits import Allowance, read_bytes
from osbc_deploy.plain_text import many
from osbc_deploy.telemetry.record import Window, read_windows

__all__ = ["Intake", "put_in_order", "read_what_fits", "read_whole"]

_OBJECTS = 60
"""Bytes of memory that a byte of a record becomes."""
_SHORT, _LONG = 0.5, 2.0
"""Samples of a record, as shares of the baseline's, beyond which it says something else."""
_HALF_BOOTS, _HALF_SEQUENCE = 2**15, 2**31


@dataclass(frozen=True)
class Intake:
    """Records that can be judged, and why others cannot.

    Attributes
    ----------
    windows : tuple of Window
        In order.
    left_out : dict of int
        How many records by reason.
    remarks : tuple of str
        What is odd about those that are kept.
    starts : tuple of int
        How often the device started since the record before each, but for starts in which another
        image reported.
    """

    windows: tuple[Window, ...]
    left_out: dict[str, int]
    remarks: tuple[str, ...]
    starts: tuple[int, ...] = ()


def read_whole(paths: Sequence[Path]) -> tuple[list[Window], int]:
    """Return the whole records of files, and the number of broken places.

    After a broken one, reading goes on at the next that begins and is whole.

    Raises
    ------
    UsageError
        When files cannot be read; all are named.
    ArtefactError
        When one needs more memory than allowed.
    """
    found, torn, faults = _read(paths, None)
    if faults:
        raise UsageError("; ".join(faults) + ". Name files of records.")
    return found, torn


def read_what_fits(paths: Sequence[Path], name: str) -> tuple[list[Window], int, list[str]]:
    """Return the same of those files that can be read, and why others cannot, one after another.

    All of them share what memory is allowed; the last ones come first.

    Parameters
    ----------
    paths : sequence of Path
    name : str
        What they are called together.
    """
    return _read(paths, Allowance(name, remedy="Move old files away"))


def _read(paths: Sequence[Path], allowed: Allowance | None) -> tuple[list[Window], int, list[str]]:
    parts: list[list[Window]] = []
    torn, faults = 0, []
    for path in reversed(paths):
        try:
            if allowed is not None:
                allowed.take(path.stat().st_size * _OBJECTS, at=path.name)
            data = read_bytes(path, each=_OBJECTS)
        except OSError as error:
            faults.append(f"{path}: cannot be read ({error.strerror})")
            continue
        except ArtefactError as error:
            if allowed is None:
                raise
            faults.append(str(error))
            continue
        found, broken = _scan(data)
        parts.append(found)
        torn += broken
    return [window for part in reversed(parts) for window in part], torn, faults[::-1]


def _scan(data: bytes) -> tuple[list[Window], int]:
    windows: list[Window] = []
    at = torn = 0
    broken = False
    while at < len(data):
        size = _size(data, at)
        try:
            windows += read_windows(data[at : at + size]) if size else []
        except ArtefactError:
            size = 0
        if size:
            at, broken = at + size, False
            continue
        # One place, however many bytes of it are passed over.
        torn, broken = torn + (not broken), True
        following = data.find(RECORD_MAGIC, at + 1)
        at = len(data) if following < 0 else following
    return windows, torn


def _size(data: bytes, at: int) -> int:
    """Return the bytes that a record claims, or 0 where none begins or its end is missing."""
    if not data.startswith(RECORD_MAGIC, at) or len(data) - at < RECORD.size:
        return 0
    head = RECORD.unpack(data, at)
    size = RECORD.size + head["layers"] * LAYER.size + 2 * head["classes"] + 4
    return size if size <= len(data) - at else 0


def put_in_order(
    windows: Sequence[Window],
    *,
    identity: bytes,
    layers: int,
    classes: int,
    samples: float | None = None,
    torn: int = 0,
) -> Intake:
    """Return the records of one network in the device's order.

    Parameters
    ----------
    windows : sequence of Window
        As they arrived.
    identity : bytes
        Of the network.
    layers, classes : int
        That it has.
    samples : float, optional
        Of a record of the baseline.
    torn : int
        Broken places between them.
    """
    left_out: Counter[str] = Counter()
    left_out["torn"] = torn
    kept: dict[tuple[int, int], Window] = {}
    others: set[int] = set()
    moved = stopped = 0
    boots = sequence = latest = None
    for w in windows:
        # Counters go round: each is nearest to the one that arrived before it.
        boots = w.boots if boots is None else _near(w.boots, boots, _HALF_BOOTS)
        if w.identity != identity or (len(w.layers), len(w.answers)) != (layers, classes):
            left_out["of another image"] += 1
            others.add(boots)
            continue
        if w.samples == 0:
            left_out["without samples"] += 1
            continue
        if samples is not None and not _SHORT * samples <= w.samples <= _LONG * samples:
            left_out["with far fewer or more samples than the baseline's"] += 1
            continue
        sequence = w.sequence if sequence is None else _near(w.sequence, sequence, _HALF_SEQUENCE)
        key = (boots, sequence)
        if key in kept:
            same = kept[key] == w
            left_out["twice" if same else "with the number of another, of another device?"] += 1
            continue
        moved += latest is not None and key < latest
        latest = key if latest is None else max(latest, key)
        stopped += _stopped(w)
        kept[key] = w
    ordered = sorted(kept)
    remarks = []
    if moved:
        remarks.append(
            f"{many(moved, 'record')} arrived out of order and {'was' if moved == 1 else 'were'} "
            "put in order"
        )
    if stopped:
        remarks.append(
            f"{many(stopped, 'record')} {'holds' if stopped == 1 else 'hold'} a counter that "
            "stopped at its largest value; shorter "
            "windows count whole"
        )
    missing = sum(b[1] - a[1] - 1 for a, b in pairwise(ordered) if a[0] == b[0])
    if missing:
        remarks.append(
            f"{many(missing, 'record')} {'is' if missing == 1 else 'are'} missing between others "
            "of the same boot"
        )
    return Intake(
        tuple(kept[key] for key in ordered),
        {reason: count for reason, count in left_out.items() if count},
        tuple(remarks),
        _starts([boots for boots, _ in ordered], sorted(others)),
    )


def _starts(boots: Sequence[int], others: Sequence[int]) -> tuple[int, ...]:
    """Return the starts before each record, but for those in which another image reported."""
    found = [0] if boots else []
    for before, now in pairwise(boots):
        tried = max(bisect_left(others, now) - bisect_right(others, before), 0)
        found.append(now - before - tried)
    return tuple(found)


def _near(value: int, before: int, half: int) -> int:
    """Return the number, counted on, that is nearest to the one before it."""
    return before + (value - before + half) % (2 * half) - half


def _stopped(w: Window) -> bool:
    """Tell whether any 16-bit counter of a record stands at its largest value."""
    numbers = [w.silent, w.faults, *w.margins, *w.answers]
    for layer in w.layers:
        numbers += [layer.clipped_currents, layer.clipped_potentials, *layer.counts]
    return max(numbers) == 2**16 - 1
