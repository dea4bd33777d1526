"""A compression that is killed goes on and ends with the same bytes; a changed input is refused."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import float_networks as nets
from osbc_deploy.compress import CompressedNetwork, CompressionOptions, compress
from osbc_deploy.errors import ArtefactError, UsageError

OPTIONS = CompressionOptions(sparsity=0.7, bits=3)

JOB = """
import os, sys
import float_networks as nets
import torch
from osbc_deploy.compress import CompressionOptions, compress

torch.set_num_threads(1)
net, x = nets.mlp(bias=True), nets.spikes(4, 60, 10, 24)
options = CompressionOptions(sparsity=0.7, bits=3, mixed=True, allocation="global")
for line in sys.stdin:
    process = os.fork()
    if not process:
        compress(net, x, options, state=line.rstrip())
        os._exit(0)
    print(process, flush=True)
    print("killed" if os.waitpid(process, 0)[1] else "done", flush=True)
"""
"""Does the same in a process of its own for every folder that it is told; it imports once."""


@pytest.fixture
def jobs() -> Iterator[subprocess.Popen[str]]:
    env = {**os.environ, "PYTHONPATH": str(Path(nets.__file__).parent)}
    pipe = subprocess.PIPE
    with subprocess.Popen(
        [sys.executable, "-c", JOB], stdin=pipe, stdout=pipe, text=True, env=env
    ) as process:
        yield process


def run(jobs: subprocess.Popen[str], state: Path, kill_after: float | None = None) -> bool:
    """Run the job, kill it some seconds after its start, and say whether it came to its end."""
    assert jobs.stdin is not None
    assert jobs.stdout is not None
    print(state, file=jobs.stdin, flush=True)
    process = int(jobs.stdout.readline())
    if kill_after is not None:
        time.sleep(kill_after)
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)
    return jobs.stdout.readline() == "done\n"


def layers(state: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in state.iterdir() if not p.name.startswith(".")}


def test_killed_and_resumed_it_ends_with_the_same_bytes(
    tmp_path: Path, jobs: subprocess.Popen[str]
) -> None:
    start = time.monotonic()
    assert run(jobs, tmp_path / "whole")
    took = time.monotonic() - start
    wanted = layers(tmp_path / "whole")
    assert len(wanted) == 5
    chance = random.Random(1)  # noqa: S311
    for _ in range(3):
        run(jobs, tmp_path / "killed", chance.uniform(0.0, took))
    assert run(jobs, tmp_path / "killed")
    assert layers(tmp_path / "killed") == wanted


def same(a: CompressedNetwork, b: CompressedNetwork) -> bool:
    return a.deviations == b.deviations and all(
        np.array_equal(p.codes, b.projections[name].codes)
        and np.array_equal(p.scale, b.projections[name].scale)
        and (p.bias is None) == (b.projections[name].bias is None)
        and (p.bias is None or np.array_equal(p.bias, b.projections[name].bias))
        and (p.threshold, p.tried, p.chosen, p.curve, p.relative_loss)
        == tuple(
            getattr(b.projections[name], f)
            for f in ("threshold", "tried", "chosen", "curve", "relative_loss")
        )
        for name, p in a.projections.items()
    )


def test_finished_layers_are_taken_from_the_state(tmp_path: Path) -> None:
    net, x = nets.mlp(bias=True), nets.spikes(4, 60, 10, 24)
    folder = tmp_path / "state"
    first = compress(net, x, OPTIONS, state=folder)
    before = layers(folder)
    assert same(first, compress(net, x, OPTIONS))
    for name in list(before)[:2]:
        if name.startswith("layer-"):
            (folder / name).unlink()
    again = compress(net, x, OPTIONS, state=folder)
    assert same(first, again)
    assert layers(folder) == before


def test_a_changed_input_is_refused_by_name(tmp_path: Path) -> None:
    net, x = nets.mlp(), nets.spikes(4, 60, 10, 24)
    folder = tmp_path / "state"
    compress(net, x, OPTIONS, state=folder)
    before = layers(folder)
    other = x.copy()
    other[0, 0, 0] ^= 1
    for changed, name in (
        ((nets.mlp(1), x, OPTIONS), "model"),
        ((net, other, OPTIONS), "calibration"),
        (
            (net, x, CompressionOptions(sparsity=0.6, bits=3)),
            r"options \(sparsity was 0\.7 and is 0\.6\)\.",
        ),
    ):
        with pytest.raises(UsageError, match=f"another run; changed since: {name}"):
            compress(*changed, state=folder)
    assert layers(folder) == before
    # How it is computed is not a part of what is computed.
    compress(net, x, CompressionOptions(sparsity=0.7, bits=3, threads=1), state=folder)


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(UsageError, match="is not a state of osbc-deploy"):
        compress(nets.mlp(), nets.spikes(4, 5, 10, 24), OPTIONS, state=tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize("damage", ["truncate", "garbage", "shape", "bit"])
def test_a_broken_state_is_refused(tmp_path: Path, damage: str) -> None:
    net, x = nets.mlp(), nets.spikes(4, 5, 10, 24)
    compress(net, x, OPTIONS, state=tmp_path / "s")
    files = sorted((tmp_path / "s").glob("layer-*"))
    content = files[0].read_bytes()
    if damage == "truncate":
        files[0].write_bytes(content[: len(content) // 2])
    elif damage == "garbage":
        files[0].write_bytes(b"\x80\x04garbage" * 9)
    elif damage == "bit":
        files[0].write_bytes(content[:-9] + bytes([content[-9] ^ 1]) + content[-8:])
    else:
        files[0].write_bytes(files[1].read_bytes())
    with pytest.raises(ArtefactError, match="cannot be read"):
        compress(net, x, OPTIONS, state=tmp_path / "s")


def _sealed(plan: object) -> str:
    digest = hashlib.sha256(json.dumps(plan, sort_keys=True).encode()).hexdigest()
    return json.dumps({"plan": plan, "sha256": digest})


@pytest.mark.parametrize(
    "content",
    [
        "[]",
        "{}",
        '{"plan": {"keep": {}, "bits": {}}, "sha256": ""}',
        _sealed({}),
        _sealed({"keep": [], "bits": {}}),
        _sealed({"keep": {"a": "1"}, "bits": {}}),
    ],
)
def test_a_broken_plan_is_refused(tmp_path: Path, content: str) -> None:
    net, x = nets.mlp(), nets.spikes(4, 5, 10, 24)
    compress(net, x, OPTIONS, state=tmp_path / "s")
    (tmp_path / "s" / "plan.json").write_text(content)
    with pytest.raises(ArtefactError, match="plan.json: cannot be read"):
        compress(net, x, OPTIONS, state=tmp_path / "s")


def test_the_remedy_for_a_broken_manifest_works(tmp_path: Path) -> None:
    net, x = nets.mlp(), nets.spikes(4, 5, 10, 24)
    compress(net, x, OPTIONS, state=tmp_path / "s")
    (tmp_path / "s" / "state.json").write_text("{")
    with pytest.raises(ArtefactError, match=r"state.json: .* Remove the folder, or choose another"):
        compress(net, x, OPTIONS, state=tmp_path / "s")
    shutil.rmtree(tmp_path / "s")
    compress(net, x, OPTIONS, state=tmp_path / "s")
