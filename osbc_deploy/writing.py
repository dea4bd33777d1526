"""One way of writing: a file or a folder is there whole or not at all.

What is written lies under an unpredictable name beside its place, is synced, and takes the place
in one step; a place that holds a link, a device or anything this program did not write is refused,
before the work whose result is to be written. Modes follow the umask.

A folder that is there already is swapped with the new one at once, where the system can
(``renameat2`` of Linux, on most file systems). Elsewhere it is put aside under a name that
:func:`recover` knows, so that a run that is killed in between loses nothing: whoever reads or
writes the folder next has the old one back.
"""

from __future__ import annotations

import ctypes
import errno
import os
import re
import shutil
import stat
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from osbc_deploy.errors import UsageError, WritingError, unreadable, unwritable
from osbc_deploy.folders import KINDS, FolderKind

__all__ = [
    "check_file",
    "check_folder",
    "check_growing",
    "check_inside",
    "is_temporary",
    "new_folder",
    "recover",
    "write_new",
    "write_whole",
]

_TEMPORARY = ".osbc-deploy-"
_FORGOTTEN = 3600
"""Seconds after which a temporary file belongs to a run that was killed."""
_LISTED = 5
"""Names that an error lists; the rest is counted."""


def check_file(path: Path, option: str = "", *, parents: bool = False, room: int = 0) -> None:
    """Make sure that a file can be written there, before any work is done.

    Parameters
    ----------
    path : Path
    option : str
        The option that names it, for an error.
    parents : bool
        Whether missing folders on the way are made.
    room : int
        Bytes that the disk must have room for.

    Raises
    ------
    UsageError
    """
    what = f"{option}: {path}" if option else f"{path}:"
    if (mode := _mode(path, what)) is not None and stat.S_ISDIR(mode):
        raise WritingError(f"{what} is a folder. Name a file in it.")
    if not parents and not path.parent.is_dir():
        raise WritingError(f"{option or path}: {path.parent} is not a folder. Create it first.")
    _check_parent(path, what, room)


def check_folder(path: Path, kind: FolderKind) -> None:
    """Make sure that a folder can be written there, before any work is done.

    One that is there already must be empty, or of this kind and hold nothing else.

    Raises
    ------
    UsageError
    """
    recover(path)
    what = f"{path}:"
    mode = _mode(path, what)
    if mode is not None:
        ours = stat.S_ISDIR(mode) and _is_ours(path, kind)
        here = Path.cwd()
        if stat.S_ISDIR(mode) and path.resolve() in (here, *here.parents):
            raise WritingError(
                f"{what} is the current folder, or one that holds it. Name a folder in it."
            )
        if (another := _is_another(path, kind)) or not ours:
            why = "is a folder of another kind" if another else "was not written by osbc-deploy"
            raise WritingError(f"{what} exists and {why}. Choose another output folder.")
        if path.is_mount():
            raise WritingError(f"{what} is the root of a file system. Name a folder in it.")
        if others := _others(path, kind):
            more = f" and {len(others) - _LISTED} more" if len(others) > _LISTED else ""
            raise UsageError(
                f"{what} holds {', '.join(others[:_LISTED])}{more}, which is no part of what is "
                "written there and would be lost. Move that away, or choose another output folder."
            )
    _check_parent(path, what)


def check_inside(path: Path) -> None:
    """Make sure that files can be written into a folder, which is made if it is not there.

    Raises
    ------
    UsageError
    """
    what = f"{path}:"
    _mode(path, what, links=True)
    if path.exists() and not path.is_dir():
        raise WritingError(f"{what} is not a folder. Choose another one.")
    _check_parent(path / "x", what)


def check_growing(path: Path, marker: str, what: str, beside: Collection[str] = ()) -> None:
    """Make sure that a folder that grows file by file is ours, or empty, and can be written into.

    Parameters
    ----------
    path : Path
    marker : str
        File that tells it is ours.
    what : str
        What it is, in an error.
    beside : collection of str
        Names that are no content either.

    Raises
    ------
    UsageError
    """
    check_inside(path)
    if not path.is_dir() or (path / marker).is_file():
        return
    # What a killed run leaves behind is not content.
    if not all(is_temporary(entry) or entry.name in beside for entry in path.iterdir()):
        raise WritingError(
            f"{path}: exists and is not a {what} of osbc-deploy. Choose another folder."
        )


def _mode(path: Path, what: str, *, links: bool = False) -> int | None:
    """Return the mode of what lies there, or None; refuse what must not be replaced."""
    if "\0" in str(path):
        raise WritingError(f"{str(path)!r}: holds a NUL character. Choose another name.")
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return None
    except OSError as error:
        raise WritingError(f"{what} {unwritable(error)}") from error
    if stat.S_ISLNK(mode):
        if links:
            return mode
        raise UsageError(
            f"{what} is a link, and links are not replaced. Name the place it leads to."
        )
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        raise WritingError(
            f"{what} is a device, pipe or socket, and these are not replaced. Name a file."
        )
    return mode


def _is_ours(path: Path, kind: FolderKind) -> bool:
    try:
        return (path / kind.marker).is_file() or not any(path.iterdir())
    except OSError as error:
        raise WritingError(f"{path}: {unreadable(error)}") from error


def _is_another(path: Path, kind: FolderKind) -> bool:
    """Tell whether a folder is one of ours, of another kind."""
    foreign = {other.marker for other in KINDS} - set(kind.files(path))
    return any((path / marker).is_file() for marker in foreign)


def _others(path: Path, kind: FolderKind) -> list[str]:
    """Return what lies in a folder and does not belong in one of its kind."""
    files = {Path(file) for file in kind.files(path)}
    folders = {folder for file in files for folder in file.parents}

    def found(folder: Path) -> Iterator[str]:
        for entry in sorted(folder.iterdir()):
            name, mode = entry.relative_to(path), entry.lstat().st_mode
            if stat.S_ISDIR(mode) and name in folders:
                yield from found(entry)
            elif not (stat.S_ISREG(mode) and name in files) and not is_temporary(entry):
                yield str(name)

    try:
        return list(found(path))
    except OSError as error:
        raise WritingError(f"{path}: {unreadable(error)}") from error


def _check_parent(path: Path, what: str, room: int = 0) -> None:
    """Make sure that a file can be made where `path` is to be, by making one."""
    folder = path.parent
    try:
        # The name itself may be too long where a short one is not.
        with suppress(FileNotFoundError):
            path.lstat()
        while not folder.exists() and folder != folder.parent:
            folder = folder.parent
        # Not every system can say whether there is room.
        with _work_in(folder) as trial, trial.open("xb") as file:
            if room and hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, room)
    except OSError as error:
        raise WritingError(f"{what} {unwritable(error)}") from error


def write_whole(path: Path, content: str | bytes) -> None:
    """Write a file whole or not at all; folders on the way are made.

    Raises
    ------
    UsageError
        When it cannot be written, or something else lies there.
    """
    _write(path, content, 0o666, lambda work: work.replace(path))


def write_new(path: Path, content: bytes, mode: int) -> None:
    """Write a file whole or not at all, and never in the place of another.

    Raises
    ------
    UsageError
        When it cannot be written, or something lies there.
    """

    def put(work: Path) -> None:
        try:
            os.link(work, path)
        except OSError as error:
            if error.errno not in (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS):
                raise
            # The file system has no second names; the first look must do.
            if os.path.lexists(path):
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST)) from error
            work.rename(path)

    _write(path, content, mode, put)


def _write(path: Path, content: str | bytes, mode: int, put: Callable[[Path], object]) -> None:
    """Write a file under another name; `put` gives it its own."""
    check_file(path, parents=True)
    data = content.encode("utf-8") if isinstance(content, str) else content
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _forget(path.parent)
        with _work_in(path.parent) as work:
            handle = os.open(work, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            put(work)
        _sync(path.parent)
    except OSError as error:
        raise WritingError(f"{path}: {unwritable(error)}") from error


@contextmanager
def new_folder(path: Path, kind: FolderKind) -> Iterator[Path]:
    """Yield a temporary folder that becomes `path` when the block ends well.

    An existing folder is replaced only if it is empty, or of this kind and holds nothing else.

    Raises
    ------
    UsageError
        When something else is at `path`, or it cannot be written.
    """
    check_folder(path, kind)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _forget(path.parent)
        # What is left under this name is the new folder, or the old one.
        with _work_in(path.parent) as work:
            work.mkdir()
            yield work
            for file in work.rglob("*"):
                _sync(file)
            _sync(work)
            # Once more: what takes long leaves time to put something there.
            check_folder(path, kind)
            _put(work, path)
        _sync(path.parent)
    except OSError as error:
        raise WritingError(f"{path}: {unwritable(error)}") from error


def _put(work: Path, path: Path) -> None:
    """Give a folder its place; what was there is gone, or lies under the name of `work`."""
    try:
        # Takes the place of nothing, or of an empty folder.
        work.rename(path)
        return
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
    if _exchange(work, path):
        return
    old = _aside(path)
    shutil.rmtree(old, ignore_errors=True)
    try:
        path.rename(old)
        work.rename(path)
    except BaseException:
        recover(path)
        raise
    shutil.rmtree(old)


def _exchange(one: Path, other: Path) -> bool:
    """Swap two names in one step; False where the system cannot."""
    try:
        swap = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError):
        return False
    here, exchange = -100, 2
    return bool(swap(here, os.fsencode(one), here, os.fsencode(other), exchange) == 0)


def _aside(path: Path) -> Path:
    return path.with_name(f".{path.name}.osbc-deploy-old")


def recover(path: Path) -> None:
    """Put a folder back that a killed run had put aside, if nothing took its place."""
    if not path.name or "\0" in str(path) or os.path.lexists(path):
        return
    with suppress(OSError):
        if not _aside(path).is_symlink():
            _aside(path).rename(path)


def is_temporary(path: Path) -> bool:
    """Tell whether a name is one that this program writes under."""
    return re.fullmatch(re.escape(_TEMPORARY) + "[0-9a-f]{16}", path.name) is not None


@contextmanager
def _work_in(folder: Path) -> Iterator[Path]:
    """Yield a name in a folder under which nothing lies; what does at the end is removed."""
    work = folder / f"{_TEMPORARY}{os.urandom(8).hex()}"
    try:
        try:
            yield work
        finally:
            _remove(work)
    finally:
        # Ctrl-C may have fallen into that.
        _remove(work)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _forget(folder: Path) -> None:
    """Remove what runs that were killed long ago left in a folder."""
    with suppress(OSError):
        for entry in folder.iterdir():
            if is_temporary(entry) and entry.lstat().st_mtime < time.time() - _FORGOTTEN:
                _remove(entry)


def _sync(path: Path) -> None:
    """Wait until a file or folder is on the disk; some file systems cannot for folders."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EBADF, errno.ENOTSUP):
            raise
    finally:
        os.close(handle)
