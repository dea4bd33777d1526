"""Releases and keys, against cryptography and the layout as it is written down."""

from __future__ import annotations

import hashlib
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization as form
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from osbc_deploy.errors import ArtefactError, UsageError
from osbc_deploy.release.keys import make_keys, read_private, read_public
from osbc_deploy.release.mcuboot import wrap
from osbc_deploy.release.signing import make_release

IMAGE, TEST = bytes(range(50)), b"self-test"


@pytest.fixture
def key(tmp_path: Path) -> Path:
    make_keys(tmp_path / "k.pem")
    return tmp_path / "k.pem"


def test_a_release_is_laid_out_as_written_down(key: Path) -> None:
    _, made = make_release(
        IMAGE, TEST, read_private(key), version=9, target="board-a", trial_samples=1000,
        silent_most=20, clipped_most=3,
    )  # fmt: skip
    public = read_public(key.with_name("k.pub.pem"))
    fields = struct.unpack("<4s2H6I", made[:32])
    assert fields == (b"OSBR", 1, 256, 9, 50, 9, 1000, 20, 3)
    assert made[32:64] == hashlib.sha256(IMAGE).digest()
    assert made[64:96] == hashlib.sha256(TEST).digest()
    assert made[96:128] == b"board-a".ljust(32, b"\0")
    assert made[128:136] == public[:8]
    assert made[136:144] == hashlib.sha256(IMAGE).digest()[:8]
    assert not any(made[144:160])
    assert not any(made[224:256])
    assert made[256:] == IMAGE.ljust(64, b"\xff") + TEST.ljust(32, b"\xff")
    Ed25519PublicKey.from_public_bytes(public).verify(made[160:224], made[:160])


def test_keys_are_made_once_and_the_private_one_is_private(key: Path) -> None:
    assert key.stat().st_mode & 0o777 == 0o600
    before = key.read_bytes()
    with pytest.raises(UsageError, match="exists, and keys are not overwritten"):
        make_keys(key)
    assert key.read_bytes() == before
    said = subprocess.run(
        ["openssl", "pkey", "-in", str(key), "-pubout"], capture_output=True, check=True
    )
    assert said.stdout == key.with_name("k.pub.pem").read_bytes()


def test_keys_that_do_not_fit_are_named(key: Path, tmp_path: Path) -> None:
    public, other, locked = key.with_name("k.pub.pem"), tmp_path / "ec.pem", tmp_path / "pw.pem"
    curve = ec.generate_private_key(ec.SECP256R1())
    pem, plain = (form.Encoding.PEM, form.PrivateFormat.PKCS8), form.NoEncryption()
    other.write_bytes(curve.private_bytes(*pem, plain))
    locked.write_bytes(
        read_private(key).private_bytes(*pem, form.BestAvailableEncryption(b"secret"))
    )
    (tmp_path / "pub.pem").write_bytes(
        curve.public_key().public_bytes(form.Encoding.PEM, form.PublicFormat.SubjectPublicKeyInfo)
    )
    (tmp_path / "text").write_text("a key")
    for read, path, kind, said in (
        (read_private, public, ArtefactError, "is a public key, and signing needs"),
        (read_private, other, ArtefactError, "is not an Ed25519 key"),
        (read_private, locked, ArtefactError, "is protected by a password"),
        (read_private, tmp_path / "text", ArtefactError, "is not a private key in PEM"),
        (read_private, tmp_path / "none", UsageError, "cannot be read"),
        (read_public, key, ArtefactError, "is a private key, which belongs on no device"),
        (read_public, tmp_path / "pub.pem", ArtefactError, "is not an Ed25519 key"),
        (read_public, tmp_path / "text", ArtefactError, "is not a public key in PEM"),
        (read_public, tmp_path, UsageError, "Is a directory"),
    ):
        with pytest.raises(kind, match=said):
            read(path)


def test_imgtool_finds_its_own_image_right(key: Path, tmp_path: Path) -> None:
    made = wrap(IMAGE, key=key, version=(3 << 24) + 65536 + 7, slot=4096)
    (tmp_path / "m.bin").write_bytes(made)
    said = subprocess.run(
        [sys.executable, "-m", "imgtool.main", "verify", "-k", str(key), str(tmp_path / "m.bin")],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert "Image was correctly validated" in said
    assert "Image version: 3.1.7" in said
    # MCUboot's magic, and the image right behind its header.
    assert made[:4] == struct.pack("<I", 0x96F3B83D)
    assert made[0x200 : 0x200 + 50] == IMAGE
    with pytest.raises(UsageError, match="imgtool refuses"):
        wrap(bytes(9000), key=key, version=1, slot=4096)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"version": 0}, "version: 0 is outside 1"),
        ({"version": 2**32}, "version: 4294967296"),
        ({"trial_samples": 0}, "--trial-samples: 0"),
        ({"clipped_most": -1}, "clipped: -1"),
        ({"target": "a b"}, "target: 'a b' is not a name"),
        ({"target": "x" * 32}, "is not a name of 1 to 31"),
    ],
)
def test_what_a_manifest_cannot_hold(values: dict[str, object], said: str, key: Path) -> None:
    right: dict[str, object] = {"version": 1, "target": "a", "trial_samples": 1, "silent_most": 0,
                                "clipped_most": 0}  # fmt: skip
    with pytest.raises(UsageError, match=said):
        make_release(IMAGE, TEST, read_private(key), **(right | values))  # type: ignore[arg-type]
