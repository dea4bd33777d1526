"""Peak memory of reading, in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

LIMIT = 64 * 2**20

_CHILD = """
import json, sys
from pathlib import Path
{imports}

def most():
    # Not ru_maxrss, which a child inherits.
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) * 1024

found = []
for path in map(Path, sys.argv[1:]):
    before = most()
    try:
        {read}
        said = ""
    except Exception as error:
        said = f"{{getattr(error, 'exit_code', type(error).__name__)}}: {{error}}"
    found.append((most() - before, said))
print(json.dumps(found))
"""


def reading(
    imports: str, read: str, paths: Sequence[Any], limit: int = LIMIT
) -> list[tuple[int, str]]:
    """Read each path in a child process that may take `limit` bytes for it.

    Returns
    -------
    list of (int, str)
        Bytes by which the peak grew, and the error.
    """
    if not Path("/proc/self/status").is_file():
        pytest.skip("this system does not tell the peak memory")
    done = subprocess.run(
        [sys.executable, "-c", _CHILD.format(imports=imports, read=read), *map(str, paths)],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "OSBC_DEPLOY_MEMORY": str(limit), "OMP_NUM_THREADS": "1"},
    )
    return [(size, said) for size, said in json.loads(done.stdout)]


def assert_refused(imports: str, read: str, bombs: dict[Path, str], limit: int = LIMIT) -> None:
    """Make sure that each file is refused with these words, within the memory it may take."""
    for (path, words), (size, said) in zip(
        bombs.items(), reading(imports, read, list(bombs), limit), strict=True
    ):
        assert said.startswith("6: "), f"{path.name}: {said}"
        assert words in said, f"{path.name}: {said}"
        assert size < limit, f"{path.name}: {size:,} bytes"
