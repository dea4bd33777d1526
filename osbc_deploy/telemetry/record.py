"""The record of a window of samples: bytes from a device, and back; see docs/telemetry.md."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass

from osbc_deploy.errors import ArtefactError
from osbc_deploy.firmware.layout import LAYER, RECORD, RECORD_LAYOUT, RECORD_MAGIC

__all__ = ["BUCKETS", "IDENTITY_BYTES", "LayerCounts", "Window", "place_of", "read_windows"]

BUCKETS = 8
"""Places of a histogram."""
IDENTITY_BYTES = 8
"""Of a network's identity in a record."""
_LARGEST = {"u16": 2**16 - 1, "u32": 2**32 - 1}
_CRC_BYTES = 4
_LISTED = 5
"""Faults that an error lists; the rest is counted."""


def place_of(value: int, unit: int) -> int:
    """Return the place of a value in a histogram of powers of two, counted in units of 2^unit."""
    return min((value >> unit).bit_length(), BUCKETS - 1)


@dataclass(frozen=True)
class LayerCounts:
    """What happened in a population in a window.

    Attributes
    ----------
    spikes : int
    fired : int
        Neurons that fired at least once.
    clipped_currents, clipped_potentials : int
        Times a current wrapped, and a potential stopped, at the end of its register.
    counts : tuple of int
        Histogram of the spikes of a sample.
    """

    spikes: int
    fired: int
    clipped_currents: int
    clipped_potentials: int
    counts: tuple[int, ...]


@dataclass(frozen=True)
class Window:
    """A record. Counters that stand at their largest value may have stopped there.

    Attributes
    ----------
    identity : bytes
        The first 8 bytes of the identity of the network's blob.
    sequence : int
        Windows since the start of the device.
    samples, boots, silent, faults : int
        Samples that ended, starts of the device, samples without an answer, and with an error.
    margins : tuple of int
        Histogram of the evidence of the winner less the runner-up's.
    layers : tuple of LayerCounts
        In the order of the network's populations.
    answers : tuple of int
        Samples of each class.
    """

    identity: bytes
    sequence: int
    samples: int
    boots: int
    silent: int
    faults: int
    margins: tuple[int, ...]
    layers: tuple[LayerCounts, ...]
    answers: tuple[int, ...]

    def to_bytes(self) -> bytes:
        """Return the record; counters that are too large for their field stop, as on a device."""
        data = RECORD.pack(
            {
                "magic": RECORD_MAGIC, "version": RECORD_LAYOUT, "layers": len(self.layers),
                "classes": len(self.answers), "identity": self.identity,
                "sequence": self.sequence, "samples": _stopped(self.samples, "u32"),
                "boots": _stopped(self.boots), "silent": _stopped(self.silent),
                "faults": _stopped(self.faults), "margins": _numbers(self.margins),
            }
        )  # fmt: skip
        for layer in self.layers:
            data += LAYER.pack(
                {
                    "spikes": _stopped(layer.spikes, "u32"), "fired": _stopped(layer.fired),
                    "clipped_currents": _stopped(layer.clipped_currents),
                    "clipped_potentials": _stopped(layer.clipped_potentials),
                    "counts": _numbers(layer.counts),
                }
            )  # fmt: skip
        data += _numbers(self.answers)
        return data + zlib.crc32(data).to_bytes(_CRC_BYTES, "little")


def read_windows(data: bytes, name: str = "records") -> list[Window]:
    """Read records that follow each other.

    Parameters
    ----------
    data : bytes
    name : str
        What messages call them, such as a path.

    Raises
    ------
    ArtefactError
        When anything is not a record, torn, changed or of another layout; all are listed.
    """
    windows, faults, at = [], [], 0
    while at < len(data):
        fault, size = _fault(data, at)
        if fault:
            faults.append(f"byte {at:,}: {fault}")
        else:
            windows.append(_window(data[at : at + size]))
        if not size:
            break
        at += size
    if not data:
        faults.append("there is none")
    if faults:
        more = f", and {len(faults) - _LISTED} more" if len(faults) > _LISTED else ""
        raise ArtefactError(
            f"{name}: records are broken ({'; '.join(faults[:_LISTED])}{more}). Read the "
            "whole ones again from the device, or leave the broken ones out."
        )
    return windows


def _fault(data: bytes, at: int) -> tuple[str, int]:
    """Return what is wrong with a record, if anything, and its size, or 0 where it is not known."""
    if data[at : at + len(RECORD_MAGIC)] != RECORD_MAGIC:
        return "no record starts here", 0
    if len(data) - at < RECORD.size:
        return "is cut short", 0
    head = RECORD.unpack(data, at)
    if head["version"] != RECORD_LAYOUT:
        return f"version {head['version']}, this program reads {RECORD_LAYOUT}", 0
    size = RECORD.size + head["layers"] * LAYER.size + 2 * head["classes"] + _CRC_BYTES
    if len(data) - at < size:
        return f"is cut short ({len(data) - at:,} of {size:,} bytes)", 0
    body, crc = data[at : at + size - _CRC_BYTES], data[at + size - _CRC_BYTES : at + size]
    if zlib.crc32(body).to_bytes(_CRC_BYTES, "little") != crc:
        return "is changed: its CRC is another's", size
    return "", size


def _window(data: bytes) -> Window:
    head = RECORD.unpack(data)
    layers, at = [], RECORD.size
    for _ in range(head["layers"]):
        fields = LAYER.unpack(data, at)
        layers.append(LayerCounts(**fields | {"counts": _values(fields["counts"])}))
        at += LAYER.size
    named = {key: head[key] for key in ("identity", "sequence", "samples", "boots", "silent",
                                        "faults")}  # fmt: skip
    return Window(
        **named,
        margins=_values(head["margins"]),
        layers=tuple(layers),
        answers=_values(data[at:-_CRC_BYTES]),
    )


def _stopped(value: int, kind: str = "u16") -> int:
    return min(value, _LARGEST[kind])


def _numbers(values: tuple[int, ...]) -> bytes:
    return struct.pack(f"<{len(values)}H", *map(_stopped, values))


def _values(data: bytes) -> tuple[int, ...]:
    return struct.unpack(f"<{len(data) // 2}H", data)
