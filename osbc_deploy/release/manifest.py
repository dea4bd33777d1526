"""A release: an image and its self-test behind a signed manifest, as they lie in a slot."""

from __future__ import annotations

import hashlib
import re
import struct
from dataclasses import dataclass

from osbc_deploy.errors import UsageError

__all__ = [
    "ALIGNMENT",
    "HEAD_BYTES",
    "KEY_ID_BYTES",
    "MAGIC",
    "SIGNATURE_BYTES",
    "SIGNED_BYTES",
    "Manifest",
    "check_name",
    "image_id",
    "padded",
]

HEAD_BYTES = 256
"""Manifest, signature and zeros; the image begins behind them."""
SIGNED_BYTES = 160
SIGNATURE_BYTES = 64
KEY_ID_BYTES = 8
ALIGNMENT = 32
"""Of the image, the self-test and the end: the largest unit that common storage writes."""

MAGIC = b"OSBR"
_BLOB = b"OSBCNET\0"
_LAYOUT = 1
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,30}")
_FIELDS = struct.Struct("<4sHHIIIIII32s32s32s8s8s16s")


def padded(size: int) -> int:
    """Return a size rounded up to the next multiple of :data:`ALIGNMENT`."""
    return -(-size // ALIGNMENT) * ALIGNMENT


def image_id(image: bytes) -> bytes:
    """Return the 8 bytes that telemetry records name an image by."""
    if image.startswith(_BLOB):
        return image[16:24]
    return hashlib.sha256(image).digest()[:8]


def check_name(target: str) -> None:
    """Make sure that a target's name fits into a manifest.

    Raises
    ------
    UsageError
    """
    if not _NAME.fullmatch(target):
        raise UsageError(
            f"target: {target!r} is not a name of 1 to 31 letters, digits, dots, dashes and "
            "underscores. Give the name that devices of this kind have in their firmware."
        )


@dataclass(frozen=True)
class Manifest:
    """What is signed.

    Attributes
    ----------
    version : int
        From 1 on; a store takes only higher ones than it had.
    target : str
        The kind of device that the image is for.
    image_bytes, selftest_bytes : int
        Sizes; a self-test of 0 bytes is none.
    image_digest, selftest_digest : bytes
        SHA-256.
    image_id : bytes
        8 bytes, which telemetry records name it by: of a blob the first ones of its identity, of
        any other image those of its digest.
    trial_samples : int
        Samples without a hard fault after which a device confirms the image.
    silent_most, clipped_most : int
        Samples without an answer, and clipped values, that a trial may have.
    key_id : bytes
        The first bytes of the public key.
    """

    version: int
    target: str
    image_bytes: int
    selftest_bytes: int
    image_digest: bytes
    selftest_digest: bytes
    image_id: bytes
    trial_samples: int
    silent_most: int
    clipped_most: int
    key_id: bytes

    @classmethod
    def of(
        cls,
        image: bytes,
        selftest: bytes,
        *,
        version: int,
        target: str,
        trial_samples: int,
        silent_most: int,
        clipped_most: int,
        key_id: bytes,
    ) -> Manifest:
        """Return the manifest of an image and its self-test."""
        return cls(
            version, target, len(image), len(selftest), hashlib.sha256(image).digest(),
            hashlib.sha256(selftest).digest(), image_id(image), trial_samples, silent_most,
            clipped_most, key_id,
        )  # fmt: skip

    @property
    def selftest_at(self) -> int:
        """Bytes from the start of the release to its self-test."""
        return HEAD_BYTES + padded(self.image_bytes)

    @property
    def total_bytes(self) -> int:
        """Size of the release."""
        return self.selftest_at + padded(self.selftest_bytes)

    def pack(self) -> bytes:
        """Return the bytes that are signed."""
        return _FIELDS.pack(
            MAGIC, _LAYOUT, HEAD_BYTES, self.version, self.image_bytes, self.selftest_bytes,
            self.trial_samples, self.silent_most, self.clipped_most, self.image_digest,
            self.selftest_digest, self.target.encode("ascii"), self.key_id, self.image_id, b"",
        )  # fmt: skip

    @classmethod
    def unpack(cls, head: bytes) -> Manifest | None:
        """Return the manifest at the start of a release, or None when there is none.

        Whether it is signed is another question.
        """
        if len(head) < HEAD_BYTES:
            return None
        (
            magic, layout, size, version, image, selftest, samples, silent, clipped, digest, tested,
            target, key, number, zeros,
        ) = _FIELDS.unpack(head[:SIGNED_BYTES])  # fmt: skip
        if (magic, layout, size) != (MAGIC, _LAYOUT, HEAD_BYTES) or version == 0 or image == 0:
            return None
        if any(zeros) or any(head[SIGNED_BYTES + SIGNATURE_BYTES : HEAD_BYTES]):
            return None
        name = target.rstrip(b"\0").decode("ascii", "replace")
        if not _NAME.fullmatch(name):
            return None
        return cls(
            version, name, image, selftest, digest, tested, number, samples, silent, clipped, key
        )

    def holds(self, image: bytes, selftest: bytes) -> bool:
        """Tell whether these are the bytes that the manifest is about."""
        return (
            hashlib.sha256(image).digest() == self.image_digest
            and hashlib.sha256(selftest).digest() == self.selftest_digest
        )
