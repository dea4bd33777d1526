"""What others run of this repository: the action's step and the hook check a deployment."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import small_models
from osbc_deploy import deploy

ROOT = Path(__file__).parents[1]
BUDGET = "schema = 1\n[budget]\ncores = {}\nmismatched_spikes = 0\n"


def block(name: str, after: str) -> str:
    """The script of a step of the action."""
    text = (ROOT / name).read_text("utf-8")
    found = re.search(r"run: \|\n((?: {8}.*\n?)+)", text[text.index(after) :])
    assert found is not None
    return re.sub(r"^ {8}", "", found[1], flags=re.M)


def test_the_action_and_the_hook_check_a_deployment(tmp_path: Path) -> None:
    common: dict[str, Any] = {"backend": "engine", "backend_samples": 1, "tune": False}
    done = deploy(small_models.model(), small_models.data(), target="loihi2", **common)
    done.save(tmp_path / "image")
    summary = tmp_path / "summary.md"
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    env = {**os.environ, "PATH": path, "CHECKED": "image", "BUDGET": "b.toml", "TARGET": "",
           "BASELINE": "", "GITHUB_STEP_SUMMARY": str(summary)}  # fmt: skip
    hooks = (ROOT / ".pre-commit-hooks.yaml").read_text("utf-8")
    entry = re.search(r"^  entry: (.*)$", hooks, re.M)
    assert entry is not None
    commands = [
        ["bash", "-eo", "pipefail", "-c", block("action.yml", "name: Check")],
        [*shlex.split(entry[1]), "image", "--budget", "b.toml"],
    ]
    for cores, code in ((9, 0), (1, 4)):
        (tmp_path / "b.toml").write_text(BUDGET.format(cores))
        for command in commands:
            run = subprocess.run(command, cwd=tmp_path, env=env, check=False, capture_output=True)
            assert run.returncode == code, run.stderr
    assert "| cores |" in summary.read_text()
