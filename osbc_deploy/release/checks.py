"""What a store takes, and why it refuses the rest."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from osbc_deploy.errors import ArtefactError
from osbc_deploy.release.journal import Record, State
from osbc_deploy.release.keys import check_signature
from osbc_deploy.release.manifest import (
    KEY_ID_BYTES,
    SIGNATURE_BYTES,
    SIGNED_BYTES,
    Manifest,
)
from osbc_deploy.release.storage import Geometry

__all__ = ["Device", "Refusal", "RefusedError", "fault", "untimely"]


class Refusal(IntEnum):
    """Why nothing was done; the C library returns the same numbers, negative."""

    NOT_A_RELEASE = 1
    TARGET = 2
    KEY = 3
    SIGNATURE = 4
    VERSION = 5
    SIZE = 6
    BUSY = 7
    DAMAGED = 8
    STATE = 9
    OTHER = 10
    JOURNAL = 11


class RefusedError(ArtefactError):
    """A store refused what it was asked.

    Attributes
    ----------
    why : Refusal
    """

    def __init__(self, why: Refusal, message: str) -> None:
        self.why = why
        super().__init__(message)


@dataclass(frozen=True)
class Device:
    """What a store takes.

    Attributes
    ----------
    target : str
        The kind of device.
    keys : tuple of bytes
        Public keys whose signatures count.
    geometry : Geometry
    """

    target: str
    keys: tuple[bytes, ...]
    geometry: Geometry


def fault(manifest: Manifest, head: bytes, device: Device) -> RefusedError | None:
    """Return why a manifest is not one for this device; None if it is."""
    if manifest.target != device.target:
        return RefusedError(
            Refusal.TARGET,
            f"is for target {manifest.target!r}, this store takes {device.target!r}. Sign the "
            "image of that target, or install it on a device of its own.",
        )
    if manifest.total_bytes > device.geometry.slot:
        return RefusedError(
            Refusal.SIZE,
            f"has {manifest.total_bytes:,} B, a slot holds {device.geometry.slot:,}. Compress "
            "the network further, give the self-test fewer samples, or use larger slots.",
        )
    key = next((k for k in device.keys if k[:KEY_ID_BYTES] == manifest.key_id), None)
    if key is None:
        return RefusedError(
            Refusal.KEY,
            f"is signed with the key {manifest.key_id.hex()}, this store knows "
            f"{', '.join(k[:KEY_ID_BYTES].hex() for k in device.keys)}. Sign it with one of "
            "these.",
        )
    signature = head[SIGNED_BYTES : SIGNED_BYTES + SIGNATURE_BYTES]
    if not check_signature(key, head[:SIGNED_BYTES], signature):
        return RefusedError(
            Refusal.SIGNATURE,
            "its signature does not belong to its manifest: it was changed, or never signed. "
            "Take the file from whoever signs.",
        )
    return None


def untimely(manifest: Manifest, record: Record) -> RefusedError | None:
    """Return why a store in this state does not take a release; None if it does."""
    if record.state is State.TRIAL:
        return RefusedError(
            Refusal.BUSY,
            f"cannot be installed while version {record.candidate} is on trial. Confirm that "
            "or roll it back first.",
        )
    if manifest.version <= record.floor:
        return RefusedError(
            Refusal.VERSION,
            f"is version {manifest.version}, and only versions above {record.floor} are taken: "
            "that one was confirmed or rolled back. Sign it with a higher --version.",
        )
    return None
