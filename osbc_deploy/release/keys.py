"""Ed25519 keys in PEM files: made, read, and refused by name when they are of another kind."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from osbc_deploy.errors import UntrustedError, UsageError
from osbc_deploy.limits import HAND_WRITTEN, read_bytes
from osbc_deploy.writing import write_new

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

__all__ = ["check_signature", "make_keys", "public_bytes", "read_private", "read_public", "sign"]

_MAKE = "'osbc-deploy release keygen' makes one"


def make_keys(path: Path) -> Path:
    """Make a pair of keys; the public one is written beside the private one, as ``NAME.pub.pem``.

    Raises
    ------
    UsageError
        When a file is there already: a key that is lost cannot be made again.
    """
    from cryptography.hazmat.primitives import serialization as form
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    public = path.with_name(f"{path.name.removesuffix('.pem')}.pub.pem")
    key = Ed25519PrivateKey.generate()
    secret = key.private_bytes(form.Encoding.PEM, form.PrivateFormat.PKCS8, form.NoEncryption())
    shared = key.public_key().public_bytes(
        form.Encoding.PEM, form.PublicFormat.SubjectPublicKeyInfo
    )
    for there in (path, public):
        if os.path.lexists(there):
            raise UsageError(f"{there}: exists, and keys are not overwritten. Choose another name.")
    write_new(public, shared, 0o644)
    try:
        write_new(path, secret, 0o600)
    except BaseException:
        # Half a pair would be in the way of a whole one.
        public.unlink(missing_ok=True)
        raise
    return public


def _read(path: Path) -> bytes:
    try:
        return read_bytes(path, most=HAND_WRITTEN)
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror}). {_MAKE}.") from error


def read_private(path: Path) -> Ed25519PrivateKey:
    """Read a private key.

    Raises
    ------
    UsageError
        When the file cannot be read.
    ArtefactError
        When it holds no private Ed25519 key, or one with a password.
    """
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    data = _read(path)
    if b"PUBLIC KEY" in data:
        raise UntrustedError(
            f"{path}: is a public key, and signing needs the private one. Give that; devices and "
            "gateways need the public one."
        )
    try:
        key = load_pem_private_key(data, None)
    except TypeError as error:
        raise UntrustedError(
            f"{path}: is protected by a password, which is not asked for. Give a key without one, "
            "kept where only the signer can read it."
        ) from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise UntrustedError(f"{path}: is not a private key in PEM. {_MAKE}.") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise UntrustedError(
            f"{path}: is not an Ed25519 key, and releases are signed with no other. {_MAKE}."
        )
    return key


def read_public(path: Path) -> bytes:
    """Read a public key.

    Returns
    -------
    bytes
        32 of them.

    Raises
    ------
    UsageError
        When the file cannot be read.
    ArtefactError
        When it holds no public Ed25519 key.
    """
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    data = _read(path)
    if b"PRIVATE KEY" in data:
        raise UntrustedError(
            f"{path}: is a private key, which belongs on no device. Give the public one; 'release "
            "keygen' wrote it beside the private one as NAME.pub.pem."
        )
    try:
        key = load_pem_public_key(data)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise UntrustedError(f"{path}: is not a public key in PEM. {_MAKE}.") from error
    if not isinstance(key, Ed25519PublicKey):
        raise UntrustedError(
            f"{path}: is not an Ed25519 key, and releases are signed with no other. {_MAKE}."
        )
    return key.public_bytes_raw()


def public_bytes(key: Ed25519PrivateKey) -> bytes:
    """Return the 32 bytes of the public key that belongs to a private one."""
    return key.public_key().public_bytes_raw()


def sign(key: Ed25519PrivateKey, message: bytes) -> bytes:
    """Return the 64 bytes of a signature."""
    return key.sign(message)


def check_signature(key: bytes, message: bytes, signature: bytes) -> bool:
    """Tell whether the owner of a key (32 bytes, public) signed a message."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        Ed25519PublicKey.from_public_bytes(key).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True
