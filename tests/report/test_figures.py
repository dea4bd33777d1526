"""Pictures are drawn whatever window system the environment names."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

DRAW = """
import os
from osbc_deploy.report.figures import axes, drawn, style
with style():
    figure, _ = axes(90, 90)
    print(drawn(figure, "nothing")[:4], os.environ["MPLBACKEND"])
import matplotlib
print(matplotlib.rcParams["backend"])
"""


@pytest.mark.parametrize(("backend", "then"), [("none-such", "agg"), ("svg", "svg")])
def test_a_window_system_that_is_not_known_does_not_matter(backend: str, then: str) -> None:
    env = {name: value for name, value in os.environ.items() if name != "DISPLAY"}
    done = subprocess.run(
        [sys.executable, "-c", DRAW],
        env={**env, "MPLBACKEND": backend},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["<svg", backend, then]
