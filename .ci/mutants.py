"""Which changes of a module do its tests not notice? ``make mutants MODULE=osbc_deploy/limits.py``.

Works on a copy of the tree, with Cosmic Ray: one change after the other is written into the module,
and the tests of its room run, or those that TESTS names. Survivors are printed as differences, for
somebody to kill with a test or with the removal of code that does nothing.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
LEFT_OUT = shutil.ignore_patterns(".*", "*.egg-info", "__pycache__", "build", "dist")


def tests_of(module: Path) -> str:
    """Return the test file that mirrors a module, or else the tests of its room."""
    if module.parts[0] == "backends":
        return "tests/backends"
    inside = module.relative_to(module.parts[0])
    mirror = Path("tests") / inside.with_name(f"test_{inside.name}")
    for place in (mirror, *mirror.parents):
        if place == Path("tests"):
            break
        if (ROOT / place).exists():
            return str(place)
    raise SystemExit(f"{module}: no tests are found for it. Name them with TESTS=...")


def main(name: str, *named: str) -> int:
    module = Path(name)
    if module.is_absolute() or module.suffix != ".py" or not (ROOT / module).is_file():
        raise SystemExit(
            f"{name}: is not a module below this folder, such as osbc_deploy/limits.py"
        )
    tests = " ".join(named) or tests_of(module)
    with tempfile.TemporaryDirectory() as work:
        tree = Path(work) / "tree"
        shutil.copytree(ROOT, tree, ignore=LEFT_OUT)
        run = f"{sys.executable} -m pytest -x -q -p no:cacheprovider {tests}"
        (tree / "mutants.toml").write_text(
            f"[cosmic-ray]\nmodule-path = {str(module)!r}\ntimeout = 600.0\n"
            f"excluded-modules = []\ntest-command = {run!r}\n"
            "[cosmic-ray.distributor]\nname = 'local'\n"
        )
        # The copy comes before what is installed, and its modules are compiled anew each time.
        env = {**os.environ, "PYTHONPATH": f"{tree}{os.pathsep}{tree / 'backends'}",
               "PYTHONDONTWRITEBYTECODE": "1"}  # fmt: skip
        bin_ = Path(sys.executable).parent
        for command in (
            ["cosmic-ray", "init", "mutants.toml", "mutants.sqlite"],
            ["cosmic-ray", "baseline", "mutants.toml"],
            ["cosmic-ray", "exec", "mutants.toml", "mutants.sqlite"],
            ["cr-report", "--surviving-only", "--show-diff", "mutants.sqlite"],
        ):
            done = subprocess.run([bin_ / command[0], *command[1:]], cwd=tree, env=env, check=False)
            if done.returncode:
                return done.returncode
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
