"""The command line in this process: starting torch again and again would show nothing more."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from osbc_deploy.cli.main import main


@dataclass(frozen=True)
class Done:
    """What a process would have left; compare :class:`subprocess.CompletedProcess`."""

    returncode: int
    stdout: str
    stderr: str


def osbc(*args: Any, cwd: Path | None = None) -> Done:
    """Run the program, in another folder if one is given."""
    out, err = io.StringIO(), io.StringIO()
    with (
        _apart(cwd),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        pytest.raises(SystemExit) as left,
    ):
        main([str(a) for a in args])
    code = left.value.code
    return Done(code if isinstance(code, int) else 1, out.getvalue(), err.getvalue())


@contextlib.contextmanager
def _apart(cwd: Path | None) -> Iterator[None]:
    """Forget afterwards where modules were looked for, and those of the user's folder."""
    here, path, modules = Path.cwd(), [*sys.path], set(sys.modules)
    place = cwd or here
    os.chdir(place)
    try:
        yield
    finally:
        os.chdir(here)
        folders = {place, *map(Path, set(sys.path) - set(path))}
        sys.path[:] = path
        for name in set(sys.modules) - modules:
            file = getattr(sys.modules[name], "__file__", None)
            if file and Path(file).parent in folders:
                del sys.modules[name]
