"""The journal of a store: what it knows about its two slots, in two records that alternate.

A record is 32 bytes with a sequence number and a CRC, and is written over the older of the two. A
write that is cut short so leaves the newer one, and the store is what it was before.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass, replace
from enum import IntEnum

__all__ = ["BLANK", "NOBODY", "RECORD_BYTES", "Journal", "Reason", "Record", "State", "load"]

RECORD_BYTES = 32
NOBODY = 255
"""In the place of a slot's number: there is none."""
BLANK = 0xFF
"""What erased storage reads."""

_MAGIC = b"OSBJ"
_LAYOUT = 1
_FIELDS = struct.Struct("<4sIBBBBBBHIII")


class State(IntEnum):
    """What a store is doing."""

    EMPTY = 0
    STAGED = 1
    TRIAL = 2
    CONFIRMED = 3
    REVERTED = 4


class Reason(IntEnum):
    """Why a store went back."""

    NONE = 0
    SELF_TEST = 1
    BOOTS = 2
    SILENT = 3
    CLIPPED = 4
    HOST = 5
    DAMAGED = 6


@dataclass(frozen=True)
class Record:
    """What the journal says.

    Attributes
    ----------
    state : State
    good : int
        Slot of the confirmed image, or ``NOBODY``.
    fallback : bool
        Whether the other slot holds the image that was confirmed before that.
    boots : int
        Boots of the image on trial.
    reason : Reason
        Why the store went back last, while nothing has happened since.
    floor : int
        The highest version that was confirmed or barred; only higher ones are taken.
    candidate : int
        Version of the image that is staged or on trial, 0 if none is.
    sequence : int
        Of the record; the next one has one more.
    """

    state: State = State.EMPTY
    good: int = NOBODY
    fallback: bool = False
    boots: int = 0
    reason: Reason = Reason.NONE
    floor: int = 0
    candidate: int = 0
    sequence: int = 0

    @property
    def other(self) -> int:
        """The slot that does not hold the confirmed image."""
        return 0 if self.good == NOBODY else 1 - self.good

    @property
    def settled(self) -> State:
        """The state in which no image is staged, on trial, or gone back from."""
        return State.EMPTY if self.good == NOBODY else State.CONFIRMED

    def reverted(self, reason: Reason) -> Record:
        """Return the record without its candidate, whose version is barred if it was judged."""
        judged = self.floor if reason is Reason.DAMAGED else max(self.floor, self.candidate)
        return replace(
            self, state=State.REVERTED, fallback=False, boots=0, reason=reason, floor=judged,
            candidate=0,
        )  # fmt: skip

    def pack(self) -> bytes:
        """Return the record's bytes."""
        head = _FIELDS.pack(
            _MAGIC, self.sequence, _LAYOUT, self.state, self.good, self.fallback, self.boots,
            self.reason, 0, self.floor, self.candidate, 0,
        )  # fmt: skip
        return head + struct.pack("<I", zlib.crc32(head))

    @classmethod
    def unpack(cls, data: bytes) -> Record | None:
        """Return what bytes hold, or None when that is not a whole record."""
        head, (crc,) = data[:-4], struct.unpack("<I", data[-4:])
        magic, sequence, layout, state, good, fallback, boots, reason, zero, floor, new, more = (
            _FIELDS.unpack(head)
        )
        if (magic, layout, zero, more, crc) != (_MAGIC, _LAYOUT, 0, 0, zlib.crc32(head)):
            return None
        if state > State.REVERTED or reason > Reason.DAMAGED or good not in (0, 1, NOBODY):
            return None
        return cls(State(state), good, bool(fallback), boots, Reason(reason), floor, new, sequence)


@dataclass(frozen=True)
class Journal:
    """The newer of the two records.

    Attributes
    ----------
    record : Record
        Of a store without any, what an empty one has.
    place : int
        Where it is written, 0 or 1; 1 without any, so that the first record goes to 0.
    damaged : bool
        Whether there is something in both places and a record in neither, which no power cut does.
    """

    record: Record
    place: int
    damaged: bool


def load(first: bytes, second: bytes) -> Journal:
    """Return the journal that two places hold."""
    one, two = Record.unpack(first), Record.unpack(second)
    if one is None:
        if two is None:
            return Journal(Record(), 1, second != bytes([BLANK]) * RECORD_BYTES)
        return Journal(two, 1, False)
    # Numbers go round: the newer one is less than half of the way ahead.
    if two is not None and 0 < (two.sequence - one.sequence) % 2**32 < 2**31:
        return Journal(two, 1, False)
    return Journal(one, 0, False)
