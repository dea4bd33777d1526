"""Recordings of event cameras: their files read, and their events binned into frames.

The formats are those the data sets were published in:

- N-MNIST: 40 bits an event (Orchard, Jayawant, Cohen, Thakor 2015), read by tonic.
- AEDAT 2.0 of jAER, with the addresses of a DVS128: CIFAR10-DVS (Li et al. 2017). Read here:
  tonic 1.7's own ``read_dvs_128`` fails on its header, and took x for y.
- AEDAT 3.1 of cAER: DVS128 Gesture (Amir et al. 2017). Read here: tonic's ``read_dvs_ibm`` fails
  in the same way, and knows neither invalid events nor packets of other kinds.
- AEDAT 4 of DV: later copies of CIFAR10-DVS. Read by tonic with the package ``aedat``.

The AEDAT formats are specified at
https://docs.inivation.com/software/software-advanced-usage/file-formats/.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from osbc_deploy.arrays import IntArray, frozen
from osbc_deploy.errors import DataError, UsageError, unreadable
from osbc_deploy.limits import Allowance, array_bytes, read_bytes
from osbc_deploy.options import Split

__all__ = ["Events", "bin_events", "read_aedat2", "read_aedat3", "read_aedat4", "read_nmnist"]

_AGAIN = "Extract or copy the file again."
_LONGEST = 2**40
"""Microseconds, twelve days: stamps further apart are damaged, and would overflow."""
_EACH = 16
"""Bytes of memory that a byte of a recording becomes while its events are read and binned."""


@dataclass(frozen=True, eq=False)
class Events:
    """The events of one recording.

    Attributes
    ----------
    name : str
        The file.
    x, y : ndarray of int64 (events,)
        Column and row.
    polarity : ndarray of int64 (events,)
        0 for OFF, 1 for ON.
    t : ndarray of int64 (events,)
        Microseconds.
    """

    name: str
    x: IntArray
    y: IntArray
    polarity: IntArray
    t: IntArray

    def __post_init__(self) -> None:
        for field in ("x", "y", "polarity", "t"):
            object.__setattr__(self, field, frozen(getattr(self, field), np.int64))

    def __len__(self) -> int:
        return len(self.t)

    def between(self, start: int, stop: int) -> Events:
        """Return the events with ``start <= t < stop``, in microseconds."""
        there = (self.t >= start) & (self.t < stop)
        parts = (self.x[there], self.y[there], self.polarity[there], self.t[there])
        return Events(f"{self.name} from {start} to {stop} us", *parts)


def bin_events(
    events: Events,
    steps: int,
    sensor: int,
    size: int | None = None,
    interval: tuple[int, int] | None = None,
    *,
    split: Split = "time",
    count: bool = False,
) -> IntArray:
    """Bin events into frames: 1 where at least one event falls, or how many do.

    An event at `t` of a recording that lasts from `start` to `stop` falls into step
    ``floor((t - start) steps / (stop - start))``, in whole microseconds and so exactly: time slices
    of the same length, none lost. Split by number, steps have the same number of events, in the
    order of the file: event k of n falls into step ``floor(k / floor(n / steps))``, those left over
    at the end into the last. A pixel of a smaller frame stands for all sensor pixels with
    ``floor(x size / sensor)`` equal to its own place.

    Parameters
    ----------
    events : Events
    steps : int
        Time steps T.
    sensor : int
        Pixels along each side of the sensor.
    size : int, optional
        Pixels along each side of a frame; the sensor's by default.
    interval : (int, int), optional
        Start and stop in microseconds, events outside left out; from the first event to right
        after the last by default.
    split : {"time", "number"}
        What steps have the same of.
    count : bool
        Count the events that fall on a pixel in a step.

    Returns
    -------
    ndarray of uint8, or of int32 where they are counted, (steps, 2, size, size)
        Channel 0 holds the OFF events, 1 the ON events; rows before columns.

    Raises
    ------
    ArtefactError
        For a recording without events, with events outside the sensor, of impossible length, or
        with fewer events than steps to share them.
    """
    size = size or sensor
    if interval is not None:
        events = events.between(*interval)
    if len(events) == 0:
        raise DataError(f"{events.name}: holds no events, at least 1 is needed. {_AGAIN}")
    outside = np.count_nonzero(
        (np.minimum(events.x, events.y) < 0) | (np.maximum(events.x, events.y) >= sensor)
    )
    if outside:
        raise DataError(
            f"{events.name}: {outside} of {len(events)} events are outside the sensor (x up to "
            f"{events.x.max()}, y up to {events.y.max()}), {sensor} x {sensor} pixels are known. "
            "Check --dataset, or extract the file again."
        )
    start, stop = interval or (int(events.t.min()), int(events.t.max()) + 1)
    if stop - start > _LONGEST:
        raise DataError(
            f"{events.name}: its time stamps span {(stop - start) / 1e6:.3g} s, "
            f"{_LONGEST / 1e6:.3g} s are allowed. {_AGAIN}"
        )
    remedy = "Ask for fewer steps or pixels"
    shape = (steps, 2, size, size)
    # Counted in 8 bytes.
    Allowance(events.name, remedy=remedy).take(array_bytes(shape, 12 if count else 1))
    if split == "number":
        each = len(events) // steps
        if not each:
            raise DataError(
                f"{events.name}: holds {len(events):,} events, {steps:,} steps by number need as "
                "many. Ask for fewer steps, or split by time."
            )
        step = np.minimum(np.arange(len(events)) // each, steps - 1)
    else:
        step = (events.t - start) * steps // (stop - start)
    at = (step, events.polarity, events.y * size // sensor, events.x * size // sensor)
    if count:
        found = np.bincount(np.ravel_multi_index(at, shape), minlength=steps * 2 * size * size)
        return found.reshape(shape).astype(np.int32)
    frames = np.zeros(shape, np.uint8)
    frames[at] = 1
    return frames


def read_nmnist(path: Path) -> Events:
    """Read a recording of N-MNIST: x, y, then the polarity bit and 23 bits of time, big-endian.

    Raises
    ------
    UsageError
        Without tonic.
    ArtefactError
        For a file that ends within an event.
    """
    # Only here, so that nothing else needs tonic, an optional package that takes seconds.
    io = _tonic("N-MNIST")
    _whole(path, len(_read(path)), 5)
    found = io.read_mnist_file(str(path), dtype=io.events_struct)
    return Events(str(path), found["x"], found["y"], found["p"], found["t"])


def read_aedat2(path: Path) -> Events:
    """Read an AEDAT 2.0 recording of a DVS128.

    An address holds an external event in bit 15 (left out here), 7 bits of the camera's row from
    bit 8, 7 bits of its column from bit 1 and the polarity in bit 0. As jAER does, columns count
    from the other side and polarity 0 is ON. The camera lay on its side: the pictures are upright
    with the camera's row as x, and both counted downwards (as in SpikingJelly).

    Raises
    ------
    ArtefactError
        For another format, a file that ends within an event, or another camera's addresses.
    """
    data = _read(path)
    body = data[_header(path, data, b"#!AER-DAT2") :]
    _whole(path, len(body), 8)
    words = np.frombuffer(body, ">u4").astype(np.int64).reshape(-1, 2)
    address, stamp = words[:, 0], words[:, 1]
    if (address >> 16).any():
        raise DataError(
            f"{path}: holds addresses up to {address.max():#x}, a DVS128 has 16 bits (0xffff). "
            "Give the recordings of CIFAR10-DVS as published."
        )
    # Stamps are signed and may run over; differences modulo 2^32 do not mind.
    passed = np.diff(stamp, prepend=stamp[:1])
    t = np.cumsum((passed + 2**31) % 2**32 - 2**31)
    pixel = (address >> 15) == 0
    address, t = address[pixel], t[pixel]
    columns = 127 - (address >> 8 & 127), 127 - (address >> 1 & 127), 1 - (address & 1), t
    return Events(str(path), *_given(columns))


_PACKET = struct.Struct("<hhiiiiii")
"""Type, source, event size, offset of the stamp, its overflows, capacity, number, valid events."""
_POLARITY_PACKET = 1
_POLARITY_BYTES = 8


def read_aedat3(path: Path) -> Events:
    """Read the polarity events of an AEDAT 3.1 recording; packets of other kinds are passed over.

    Raises
    ------
    ArtefactError
        For another format, a file that ends within a packet, or a packet that cannot be.
    """
    data = _read(path)
    place = _header(path, data, b"#!AER-DAT3.1", end=b"#!END-HEADER\r\n")
    words, overflows = [], []
    while place < len(data):
        if place + _PACKET.size > len(data):
            raise DataError(f"{path}: ends within the header of a packet. {_AGAIN}")
        kind, _, width, _, overflow, capacity, number, _ = _PACKET.unpack_from(data, place)
        place += _PACKET.size
        polarity = kind == _POLARITY_PACKET
        if not 0 <= number <= capacity or width < 1 or (polarity and width != _POLARITY_BYTES):
            raise DataError(
                f"{path}: the packet before byte {place} claims {number} of {capacity} events of "
                f"{width} bytes; polarity events have {_POLARITY_BYTES}. {_AGAIN}"
            )
        if place + capacity * width > len(data):
            raise DataError(
                f"{path}: ends within a packet of {capacity} events ({len(data) - place} of "
                f"{capacity * width} bytes). {_AGAIN}"
            )
        if polarity:
            words.append(np.frombuffer(data, "<u4", 2 * number, place).reshape(-1, 2))
            overflows.append(np.full(number, overflow, np.int64))
        place += capacity * width
    if not words:
        raise DataError(f"{path}: holds no packet of polarity events. {_AGAIN}")
    event, stamp = np.concatenate(words).astype(np.int64).T
    t = np.concatenate(overflows) << 31 | stamp
    valid = (event & 1) == 1
    event, t = event[valid], t[valid]
    return Events(str(path), *_given((event >> 17, event >> 2 & 0x7FFF, event >> 1 & 1, t)))


def read_aedat4(path: Path) -> Events:
    """Read the events of an AEDAT 4 recording with tonic and the package aedat.

    Raises
    ------
    UsageError
        Without tonic or aedat.
    ArtefactError
        When it cannot be read.
    """
    io = _tonic("AEDAT 4")
    try:
        import aedat  # noqa: F401 - tonic imports it late, and says nothing of where it is from
    except ImportError as error:
        raise UsageError(
            f"{path}: AEDAT 4 needs the package aedat. Install it with pip install aedat, or give "
            "the published AEDAT 2.0 files."
        ) from error
    # What its packets expand to is known to the package alone.
    Allowance(str(path), remedy="Give a shorter recording").take(64 * path.stat().st_size)
    try:
        found = io.read_aedat4(str(path))
        columns = [np.asarray(found[name], np.int64) for name in ("x", "y", "on", "t")]
    except Exception as error:
        # aedat and tonic raise bare exceptions of their own.
        raise DataError(f"{path}: cannot be read as AEDAT 4 ({error}). {_AGAIN}") from error
    return Events(str(path), *columns)


def _given(columns: tuple[IntArray, ...]) -> tuple[IntArray, ...]:
    """Give new arrays away: read-only, they are not copied again."""
    for column in columns:
        column.flags.writeable = False
    return columns


def _tonic(what: str) -> Any:
    try:
        from tonic import io
    except ImportError as error:
        raise UsageError(
            f"{what}: reading it needs tonic. Install it with pip install 'osbc-deploy[datasets]'."
        ) from error
    return io


def _read(path: Path) -> bytes:
    try:
        return read_bytes(path, each=_EACH)
    except OSError as error:
        raise DataError(f"{path}: {unreadable(error)}") from error


def _whole(path: Path, size: int, event: int) -> None:
    if size % event:
        raise DataError(f"{path}: ends within an event ({size % event} of {event} bytes). {_AGAIN}")


def _header(path: Path, data: bytes, version: bytes, end: bytes | None = None) -> int:
    """Return where the events start, after lines that begin with #."""
    if not data.startswith(version):
        begins = data[:12].decode("ascii", "replace")
        raise DataError(
            f"{path}: begins with {begins!r}, needed {version.decode()!r}. Give the recordings of "
            "the data set as published."
        )
    place = 0
    while data[place : place + 1] == b"#":
        line = data.find(b"\n", place) + 1
        if line == 0:
            raise DataError(f"{path}: ends within its header. {_AGAIN}")
        if data[place:line] == end:
            return line
        place = line
    if end is not None:
        raise DataError(f"{path}: its header has no last line {end.decode().strip()!r}.")
    return place
