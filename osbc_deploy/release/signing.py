"""Releases made and taken apart: an image, its self-test and its manifest in one file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from osbc_deploy.errors import UntrustedError, UsageError
from osbc_deploy.limits import read_bytes
from osbc_deploy.release.journal import BLANK
from osbc_deploy.release.keys import public_bytes, sign
from osbc_deploy.release.manifest import (
    HEAD_BYTES,
    KEY_ID_BYTES,
    Manifest,
    check_name,
    padded,
)

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

__all__ = ["MOST", "make_release", "read_image"]

MOST = 2**32 - 1


def read_image(path: Path, what: str = "image") -> bytes:
    """Read an image, a release or another file whole.

    Raises
    ------
    UsageError
        When it cannot be read.
    ArtefactError
        When it is empty, or needs more memory than allowed.
    """
    try:
        found = read_bytes(path, each=3)
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror}). Give the {what}.") from error
    if not found:
        raise UntrustedError(f"{path}: is empty. Give the {what}.")
    return found


def make_release(
    image: bytes,
    selftest: bytes,
    key: Ed25519PrivateKey,
    *,
    version: int,
    target: str,
    trial_samples: int,
    silent_most: int,
    clipped_most: int,
) -> tuple[Manifest, bytes]:
    """Return a signed release.

    Parameters
    ----------
    image, selftest : bytes
    key : Ed25519PrivateKey
    version : int
    target : str
    trial_samples, silent_most, clipped_most : int
        See :class:`Manifest`.

    Returns
    -------
    Manifest
    bytes
        The file, which is also what lies in a slot.

    Raises
    ------
    UsageError
        For numbers and names that a manifest cannot hold.
    """
    check_name(target)
    for name, value, least in (
        ("version", version, 1),
        ("trial-samples", trial_samples, 1),
        ("silent", silent_most, 0),
        ("clipped", clipped_most, 0),
    ):
        if not least <= value <= MOST:
            raise UsageError(f"--{name}: {value} is outside {least} to {MOST}. Give one of these.")
    manifest = Manifest.of(
        image, selftest, version=version, target=target, trial_samples=trial_samples,
        silent_most=silent_most, clipped_most=clipped_most,
        key_id=public_bytes(key)[:KEY_ID_BYTES],
    )  # fmt: skip
    signed = manifest.pack()
    blank = bytes([BLANK])
    parts = (part.ljust(padded(len(part)), blank) for part in (image, selftest))
    return manifest, (signed + sign(key, signed)).ljust(HEAD_BYTES, b"\0") + b"".join(parts)
