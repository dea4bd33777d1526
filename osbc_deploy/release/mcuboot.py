"""An image wrapped as MCUboot has it, by its own imgtool."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

from osbc_deploy.errors import PluginError, UsageError

__all__ = ["check_imgtool", "wrap"]

_TIMEOUT = 60.0
_HEADER = 0x200


def check_imgtool() -> None:
    """Make sure that imgtool is installed.

    Raises
    ------
    PluginError
    """
    if find_spec("imgtool") is None:
        raise PluginError(
            "imgtool: is not installed, and --mcuboot needs it. Add it with: pip install "
            "'osbc-deploy[mcuboot]'"
        )


def wrap(content: bytes, *, key: Path, version: int, slot: int) -> bytes:
    """Return content as a signed MCUboot image with a security counter.

    Parameters
    ----------
    content : bytes
        An image.
    key : Path
        Private Ed25519 key in PEM, which MCUboot takes too.
    version : int
        Becomes the security counter, and MCUboot's version in the same order (65536 is 0.1.0).
    slot : int
        Bytes of MCUboot's slot.

    Raises
    ------
    PluginError
        When imgtool is missing.
    UsageError
        When it refuses.
    """
    check_imgtool()
    with tempfile.TemporaryDirectory() as name:
        source, made = Path(name) / "image.bin", Path(name) / "signed.bin"
        source.write_bytes(content)
        command = [
            sys.executable, "-m", "imgtool.main", "sign", "--key", str(key.resolve()),
            "--version", f"{version >> 24}.{version >> 16 & 255}.{version & 65535}",
            "--security-counter", str(version),
            "--header-size", hex(_HEADER), "--pad-header", "--align", "4",
            "--slot-size", str(slot), str(source), str(made),
        ]  # fmt: skip
        done = subprocess.run(  # noqa: S603 - imgtool of this environment
            command, capture_output=True, text=True, timeout=_TIMEOUT, check=False
        )
        if done.returncode or not made.is_file():
            said = " ".join((done.stderr or done.stdout).split())[-300:]
            raise UsageError(
                f"--mcuboot: imgtool refuses ({said}). A slot must hold image, header and "
                "signature; give a larger --mcuboot-slot."
            )
        return made.read_bytes()
