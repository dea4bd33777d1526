"""What can be run: a deployed network in any of its forms, and the blob that a device loads."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from osbc_deploy.chip.target import Target
from osbc_deploy.errors import ArtefactError, UsageError
from osbc_deploy.exporting import chip_of
from osbc_deploy.firmware.about import FILE, About, read_about
from osbc_deploy.firmware.blob import write_blob
from osbc_deploy.firmware.layout import HEADER, MAGIC
from osbc_deploy.firmware.read import read_blob
from osbc_deploy.firmware.restore import network_of
from osbc_deploy.firmware.runtime import BLOB
from osbc_deploy.firmware.tables import lay_out
from osbc_deploy.fixedpoint.formats import LOIHI, NumberFormats
from osbc_deploy.fixedpoint.network import FixedPointNetwork
from osbc_deploy.folders import C_LIBRARY, RUNTIME
from osbc_deploy.formats.folder import network_digest
from osbc_deploy.formats.format import broken_formats, format_of
from osbc_deploy.formats.stored import read_stored
from osbc_deploy.limits import read_bytes
from osbc_deploy.release.manifest import MAGIC as RELEASE
from osbc_deploy.writing import recover

__all__ = ["Image", "read_image"]

_KINDS = (
    "Name a folder written with -o, one that 'export --format runtime' wrote or its network.bin, a "
    "chip image (.img) or a NetX file (.net)."
)


@dataclass(frozen=True, eq=False)
class Image:
    """A deployed network.

    Attributes
    ----------
    name : str
        What it was called.
    network : FixedPointNetwork
        For the engine.
    blob : bytes or None
        What a device loads, where that is what was named.
    """

    name: str
    network: FixedPointNetwork
    blob: bytes | None = None

    def loaded(self) -> bytes:
        """Return what a device loads.

        Raises
        ------
        UnsupportedModelError
            For a network whose sums a 32-bit machine may not hold.
        """
        return write_blob(self.network, lay_out(self.network)) if self.blob is None else self.blob

    @property
    def identity(self) -> str:
        """What tells it from others, in hexadecimal."""
        if self.network.formats.arithmetic != LOIHI:
            # No device of ours loads it.
            return network_digest(self.network)
        identity: bytes = HEADER.unpack(self.loaded())["identity"]
        return identity.hex()


def read_image(path: Path, target: Target | str | None = None) -> Image:
    """Read what can be run.

    Parameters
    ----------
    path : Path
    target : Target or str, optional
        Chip of a file that does not say; by default the one deployed on.

    Raises
    ------
    UsageError
        When there is none, it cannot be read, or it is not for a target to say.
    ArtefactError
        When it is damaged, or of another kind.
    """
    recover(path)
    if not path.exists():
        raise UsageError(f"{path}: is not there. {_KINDS}")
    form = format_of(path)
    if target is not None and (form is None or form[1].default_target is None):
        raise UsageError(
            f"--target: {path} holds its own registers. Leave it out; 'osbc-deploy map' counts the "
            "network for another chip."
        )
    if path.is_dir() and (path / C_LIBRARY.marker).is_file():
        raise ArtefactError(
            f"{path}: is a C library with its network compiled in, which 'make selftest' in it "
            f"runs. {_KINDS}"
        )
    file = path / BLOB if path.is_dir() and (path / RUNTIME.marker).is_file() else path
    start = _start(file)
    if start.startswith(RELEASE):
        raise ArtefactError(f"{path}: is a signed release, which a store runs. {_KINDS}")
    if start.startswith(MAGIC) or file != path:
        return _from_blob(str(path), file)
    if form is None and file.is_file():
        raise ArtefactError(
            f"{path}: is no network: it does not begin with {MAGIC[:7].decode()}, as a network.bin "
            f"does, nor end as other files do. {_KINDS}{broken_formats()}"
        )
    return Image(str(path), read_stored(path, _formats(path, target)))


def _formats(path: Path, target: Target | str | None) -> NumberFormats | None:
    chip = chip_of(path, target)
    return chip.number_formats if chip else None


def _start(file: Path) -> bytes:
    if not file.is_file():
        return b""
    try:
        with file.open("rb") as opened:
            return opened.read(len(MAGIC))
    except OSError as error:
        raise UsageError(f"{file}: cannot be read ({error.strerror}). {_KINDS}") from error


def _from_blob(name: str, file: Path) -> Image:
    try:
        data = read_bytes(file)
    except OSError as error:
        raise UsageError(f"{file}: cannot be read ({error.strerror}). {_KINDS}") from error
    try:
        blob = read_blob(data)
        return Image(name, network_of(blob, _about(file, blob.identity, name)), data)
    except ArtefactError as error:
        raise ArtefactError(f"{file}: {error}") from error


def _about(file: Path, identity: bytes, name: str) -> About | None:
    """Return what the file beside a blob says of it; a blob alone needs none."""
    alone = str(file) == name
    try:
        found = read_about(file.parent / FILE)
    except ArtefactError:
        if alone:
            return None
        raise
    if found.identity != identity.hex():
        if alone:
            return None
        raise ArtefactError(
            f"is {identity.hex()}, {FILE} beside it describes {found.identity}. Export the network "
            "again."
        )
    return found
