"""Lava's simulator and the engine give the same bits; a worker that hangs leaves nothing."""

from __future__ import annotations

import importlib.util
import itertools
import os
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import osbc_backend_lava.backend as lava
from osbc_backend_lava.layout import Schedule, pieces
from osbc_deploy.errors import BackendError
from osbc_deploy.fixedpoint.engine import run
from osbc_deploy.fixedpoint.formats import NumberFormats
from osbc_deploy.fixedpoint.network import (
    FixedConv,
    FixedDense,
    FixedPointNetwork,
    FixedPopulation,
    FixedProjection,
)
from osbc_deploy.formats.folder import write_network
from osbc_deploy.progress import SILENT

T = 14


def registers(
    name: str,
    shape: tuple[int, ...],
    rng: Any,
    *,
    vth: int,
    spiking: bool = True,
    bias: bool = True,
    start: bool = True,
) -> FixedPopulation:
    """Neurons with random registers, decays at their extremes among them."""
    size = int(np.prod(shape))
    top = 2**16 if start else 1
    return FixedPopulation(
        name,
        shape,
        du=rng.choice([0, 1, 900, 2500, 4095], size),
        dv=rng.choice([0, 3, 800, 4095], size),
        vth=rng.integers(0, vth, size) if spiking else np.full(size, 131071),
        bias_mant=rng.integers(-4095, 4096, size) * bias,
        bias_exp=rng.integers(0, 6, size),
        u_init=rng.integers(-top + 1, top, size),
        v_init=rng.integers(-top + 1, top, size),
        spiking=spiking,
        v_scale=np.ones(size),
        v_offset=np.zeros(size),
    )


def mantissas(shape: tuple[int, ...], bits: int, rng: Any) -> np.ndarray:
    top = 2 ** (bits - 1)
    return rng.integers(-top, top, shape) << (9 - bits)


def network(
    input_shape: tuple[int, ...], formats: NumberFormats, *layers: Any
) -> FixedPointNetwork:
    projections, pre = [], "input"
    for connection, bits, exponent, post in layers:
        projections.append(
            FixedProjection(f"to.{post.name}", pre, post.name, connection, bits, exponent)
        )
        pre = post.name
    return FixedPointNetwork(
        input_shape, tuple(layer[3] for layer in layers), tuple(projections), formats, "sum"
    )


def compare(net: FixedPointNetwork, spikes: np.ndarray) -> Any:
    names = [p.name for p in net.populations]
    ours = run(net, spikes, record=names)
    theirs = lava.BACKEND.run(net, spikes, time_limit=120, progress=SILENT)
    for name in ours.spikes:
        assert np.array_equal(ours.spikes[name], theirs.spikes[name]), name
    assert np.array_equal(ours.output, theirs.output)
    assert sum(s.sum() for s in ours.spikes.values()) > 0
    return ours


@pytest.mark.parametrize(("bias", "start"), [(False, False), (True, False), (True, True)])
def test_dense_networks_of_all_widths(bias: bool, start: bool, formats: NumberFormats) -> None:
    rng = np.random.default_rng(3)
    layers = [
        (
            FixedDense(mantissas((25, 12), 8, rng)),
            8,
            -1,
            registers("a", (25,), rng, vth=2000, bias=bias, start=start),
        ),
        (
            FixedDense(mantissas((20, 25), 4, rng)),
            4,
            1,
            registers("b.0", (20,), rng, vth=3000, bias=bias, start=start),
        ),
        (
            FixedDense(mantissas((9, 20), 2, rng)),
            2,
            -3,
            registers("c", (9,), rng, vth=0, spiking=False, bias=bias, start=start),
        ),
    ]
    spikes = (rng.random((3, T, 12)) < 0.4).astype(np.uint8)
    compare(network((12,), formats, *layers), spikes)


def test_a_network_of_many_populations_is_run_in_pieces(formats: NumberFormats) -> None:
    # Two chains from the input meet in a sum, one of them two populations shorter and delayed.
    rng = np.random.default_rng(8)
    names = [f"l{i}" for i in range(6)]
    posts = [registers(name, (7,), rng, vth=90, bias=True, start=False) for name in names]
    short = registers("short", (7,), rng, vth=90, bias=True, start=False)
    out = registers("out", (4,), rng, vth=60, start=False)

    def project(pre: str, post: str, inputs: int, delay: int | None = None) -> FixedProjection:
        weight = mantissas((4 if post == "out" else 7, inputs), 8, rng)
        delays = None if delay is None else np.full(weight.shape, delay)
        return FixedProjection(f"{pre}.{post}", pre, post, FixedDense(weight, delays), 8, 0)

    net = FixedPointNetwork(
        (5,),
        (posts[0], short, *posts[1:], out),
        (
            project("input", "l0", 5),
            project("input", "short", 5),
            *(project(a, b, 7) for a, b in itertools.pairwise(names)),
            project(names[-1], "out", 7),
            project("short", "out", 7, 5),
        ),
        formats,
        "sum",
    )
    schedule = Schedule.of(net, 6)
    assert schedule.streaming
    cut = pieces(net, schedule)
    assert len(cut) == 2
    assert sorted(itertools.chain(*cut)) == sorted(p.name for p in net.populations)
    ours = compare(net, (rng.random((3, 6, 5)) < 0.5).astype(np.uint8))
    assert all(ours.spikes[name].any() for name in (*names, "short", "out"))


def test_a_piece_is_connected(formats: NumberFormats) -> None:
    # Lava runs what it reaches from one process; of two chains that never meet it would run one.
    rng = np.random.default_rng(9)
    chains = [[f"{side}{i}" for i in range(9)] for side in "ab"]
    order = [name for pair in zip(*chains, strict=True) for name in pair]
    net = FixedPointNetwork(
        (3,),
        tuple(registers(name, (3,), rng, vth=90, start=False) for name in order),
        tuple(
            FixedProjection(f"{a}.{b}", a, b, FixedDense(mantissas((3, 3), 8, rng)), 8, 0)
            for chain in chains
            for a, b in itertools.pairwise(["input", *chain])
        ),
        formats,
        "sum",
    )
    cut = pieces(net, Schedule.of(net, 4))
    assert cut[0] == ("a0", "b0", "a1", "b1", "a2", "b2")
    assert cut[1:3] == (("a3", "a4", "a5"), ("b3", "b4", "b5"))
    compare(net, (rng.random((2, 4, 3)) < 0.5).astype(np.uint8))


def test_convolutions_of_another_piece_are_shown_the_input_late(formats: NumberFormats) -> None:
    rng = np.random.default_rng(10)
    names = [f"l{i}" for i in range(7)]

    def project(pre: str, post: str) -> FixedProjection:
        weight = mantissas((2, 2, 1, 1), 8, rng)
        return FixedProjection(
            f"{pre}.{post}", pre, post, FixedConv(weight, (1, 1), (0, 0), (1, 1), 1), 8, 0
        )

    net = FixedPointNetwork(
        (2, 3, 3),
        tuple(registers(name, (2, 3, 3), rng, vth=60, start=False) for name in names),
        (
            *(project(a, b) for a, b in itertools.pairwise(["input", *names])),
            *(project("input", name) for name in ("l3", "l4", "l6")),
        ),
        formats,
        "sum",
    )
    assert [net.shown_late(p) for p in net.projections[-3:]] == [3, 4, 6]
    assert len(pieces(net, Schedule.of(net, 6))) == 2
    ours = compare(net, (rng.random((3, 6, 2, 3, 3)) < 0.5).astype(np.uint8))
    assert all(ours.spikes[name].any() for name in names)


@pytest.mark.parametrize("after", ["quiet", "readout"])
def test_silent_populations_after_a_moving_one(after: str, formats: NumberFormats) -> None:
    # The first one fires on its own before its start, which must not reach the others' states.
    rng = np.random.default_rng(11)
    quiet = {"bias": False, "start": False}
    moving = replace(
        registers("a", (16,), rng, vth=20, bias=False), v_init=rng.integers(10**4, 10**6, 16)
    )
    silent = registers("b", (12,), rng, vth=4000, spiking=after == "quiet", **quiet)
    still = {name: np.zeros(silent.size) for name in ("u_init", "v_init")}
    layers = [
        (FixedDense(mantissas((16, 8), 8, rng)), 8, -1, moving),
        (FixedDense(mantissas((12, 16), 8, rng)), 8, -1, replace(silent, **still)),
    ]
    assert not moving.starts_silent
    assert layers[1][3].starts_silent
    compare(network((8,), formats, *layers), (rng.random((3, T, 8)) < 0.4).astype(np.uint8))


def test_convolutions_with_every_asymmetry(formats: NumberFormats) -> None:
    rng = np.random.default_rng(5)
    first = FixedConv(mantissas((6, 2, 3, 2), 4, rng), (2, 1), (1, 0), (1, 2), 1)
    second = FixedConv(mantissas((4, 3, 2, 3), 8, rng), (1, 2), (0, 1), (2, 1), 2)
    spikes = (rng.random((2, T, 2, 9, 7)) < 0.4).astype(np.uint8)
    # (9 + 2 - 2 - 1) / 2 + 1 = 5 rows, 7 - 2 = 5 columns; then 5 - 2 = 3 and (5 + 2 - 3) / 2 + 1.
    layers = [
        (first, 4, 2, registers("a", (6, 5, 5), rng, vth=4000)),
        (second, 8, -1, registers("b", (4, 3, 3), rng, vth=2500)),
        (FixedDense(mantissas((5, 36), 3, rng)), 3, 0, registers("c", (5,), rng, vth=900)),
    ]
    compare(network((2, 9, 7), formats, *layers), spikes)


def test_wrap_and_saturation(formats: NumberFormats) -> None:
    rng = np.random.default_rng(8)
    layers = [
        (FixedDense(mantissas((40, 6), 8, rng)), 8, 6, registers("a", (40,), rng, vth=131071)),
        (
            FixedDense(mantissas((10, 40), 8, rng)),
            8,
            2,
            registers("b", (10,), rng, vth=0, spiking=False),
        ),
    ]
    spikes = (rng.random((2, 30, 6)) < 0.7).astype(np.uint8)
    seen = compare(network((6,), formats, *layers), spikes).activity
    assert seen["a"].wraps > 0
    assert seen["a"].saturations > 0


@pytest.fixture
def tiny(formats: NumberFormats) -> tuple[FixedPointNetwork, np.ndarray]:
    rng = np.random.default_rng(1)
    net = network(
        (3,),
        formats,
        (FixedDense(mantissas((4, 3), 8, rng)), 8, 0, registers("a", (4,), rng, vth=90)),
    )
    return net, np.ones((1, 4, 3), np.uint8)


def stub(tmp_path: Path, body: str) -> lava.LavaBackend:
    """A backend whose worker is a script of ours."""
    script = tmp_path / "stub.py"
    script.write_text(textwrap.dedent(body))
    backend = lava.LavaBackend()
    backend.command = (sys.executable, str(script))
    return backend


def running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    stat = Path(f"/proc/{pid}/stat")
    return not stat.exists() or stat.read_text().rsplit(")", 1)[1].split()[0] != "Z"


HANGS = """
    import pathlib, signal, subprocess, sys, time
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"])
    pathlib.Path({pids!r}).write_text(f"{{child.pid}}")
    time.sleep(300)
"""


def test_a_worker_that_hangs_is_ended_with_all_its_processes(
    tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lava, "_GRACE", 0.3)
    pids = tmp_path / "pids"
    backend = stub(tmp_path, HANGS.format(pids=str(pids)))
    with pytest.raises(BackendError, match=r"not done after 1\.5 s, the time limit"):
        backend.run(*tiny, time_limit=1.5, progress=SILENT)
    assert not running(int(pids.read_text()))


HANGS_ONCE = """
    import os, pathlib, sys, time
    from osbc_backend_lava import worker
    seen = pathlib.Path({seen!r})
    attempt = len(seen.read_text()) if seen.exists() else 0
    seen.write_text("x" * (attempt + 1))
    say = worker._say
    def say_and_hang(line):
        say(line)
        if attempt < {hangs} and line.split()[1] != "finished" and int(line.split()[1]) >= {step}:
            time.sleep(300)
    worker._SLICE = 2
    worker._say = say_and_hang
    os._exit(worker.main())
"""


@pytest.mark.parametrize("step", [2, 15])
def test_a_run_that_hangs_goes_on_where_it_stood(
    step: int, formats: NumberFormats, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lava, "_STALL", 5.0)
    rng = np.random.default_rng(4)
    weight = mantissas((6, 5), 8, rng)
    post = registers("a", (6,), rng, vth=400, start=False)
    net = network((5,), formats, (FixedDense(weight), 8, 0, post))
    spikes = (rng.random((4, 6, 5)) < 0.5).astype(np.uint8)
    # Steps 1 to 7 answer the first sample of six steps, 8 to 13 the second, and so on.
    backend = stub(tmp_path, HANGS_ONCE.format(seen=str(tmp_path / "seen"), hangs=1, step=step))
    theirs = backend.run(net, spikes, time_limit=60, progress=SILENT, states=["a"])
    ours = run(net, spikes, record=["a"], states=["a"])
    assert theirs.restarts == 1
    assert np.array_equal(ours.spikes["a"], theirs.spikes["a"])
    assert np.array_equal(ours.v["a"], theirs.v["a"])
    assert ours.output.any()


def test_a_run_that_never_moves_is_given_up(
    tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lava, "_STALL", 2.0)
    backend = stub(tmp_path, HANGS_ONCE.format(seen=str(tmp_path / "seen"), hangs=99, step=0))
    with pytest.raises(BackendError, match="stood still for 2 s, 3 times in a row"):
        backend.run(*tiny, time_limit=60, progress=SILENT)


def test_a_worker_that_fails_is_named_with_its_cause(tiny: Any, tmp_path: Path) -> None:
    backend = stub(tmp_path, "raise ValueError('out of cheese')")
    with pytest.raises(BackendError, match="code 1 .*out of cheese"):
        backend.run(*tiny, time_limit=30, progress=SILENT)


def test_what_a_dead_worker_leaves_running_does_not_hide_that_it_died(
    tiny: Any, tmp_path: Path
) -> None:
    # The child keeps the worker's stdout open.
    body = """
        import subprocess, sys
        subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"])
        raise ValueError("out of cheese")
    """
    with pytest.raises(BackendError, match="code 1 .*out of cheese"):
        stub(tmp_path, body).run(*tiny, time_limit=30, progress=SILENT)


def test_the_worker_ends_when_its_parent_dies(tiny: Any, tmp_path: Path) -> None:
    # The parent is killed outright while the worker sleeps inside Lava's place.
    script = tmp_path / "worker.py"
    script.write_text(
        textwrap.dedent("""
        import os, pathlib, sys, threading, time
        from osbc_backend_lava.worker import _end_with_parent
        folder = pathlib.Path(sys.argv[1]).parent
        pathlib.Path(sys.argv[1]).write_text(str(os.getpid()))
        threading.Thread(target=_end_with_parent, args=(folder,), daemon=True).start()
        time.sleep(300)
    """)
    )
    parent = tmp_path / "parent.py"
    parent.write_text(
        textwrap.dedent("""
        import subprocess, sys, time
        subprocess.Popen([sys.executable, *sys.argv[1:]], stdin=subprocess.PIPE,
                         start_new_session=True)
        time.sleep(300)
    """)
    )
    pid_file = tmp_path / "pid"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    process = subprocess.Popen(
        [sys.executable, str(parent), str(script), str(pid_file)], env=environment
    )
    wait_for(lambda: pid_file.exists() and pid_file.read_text() != "")
    worker = int(pid_file.read_text())
    assert running(worker)
    time.sleep(0.3)
    process.send_signal(signal.SIGKILL)
    process.wait()
    wait_for(lambda: not running(worker))
    assert pid_file.exists(), "a folder that is not a temporary one of ours was removed"


@pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="no /dev/shm to look at")
def test_lava_itself_leaves_nothing_when_its_parent_is_killed(
    formats: NumberFormats, tmp_path: Path
) -> None:
    rng = np.random.default_rng(1)
    quiet = registers("a", (4,), rng, vth=90, bias=False, start=False)
    folder = tmp_path / "osbc-lava-job"
    job = folder / "0"
    job.mkdir(parents=True)
    net = network((3,), formats, (FixedDense(mantissas((4, 3), 8, rng)), 8, 0, quiet))
    write_network(net, job)
    np.savez(job / "input.npz", spikes=np.ones((2000, 50, 3), np.uint8))
    (job / "options.json").write_text('{"states": [], "sparse_below": 0}')
    before = set(Path("/dev/shm").iterdir())
    # The parent hands on the worker's output, so that the first steps are seen here.
    parent = """
        import subprocess, sys, time
        command = [sys.executable, "-m", "osbc_backend_lava.worker", sys.argv[1], "0"]
        worker = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)
        print(worker.pid, flush=True)
        time.sleep(300)
    """
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(parent), str(folder)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=environment,
    ) as process:
        assert process.stdout is not None
        group = int(process.stdout.readline())
        assert process.stdout.readline().strip() == "0 64 64"
        ours = set(Path("/dev/shm").iterdir()) - before
        assert ours
        process.kill()
        process.wait()
        wait_for(lambda: not lava._any_runs(group) or not group_exists(group))
    wait_for(lambda: not ours & set(Path("/dev/shm").iterdir()))
    assert not folder.exists()


def group_exists(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def wait_for(condition: Any, limit: float = 30.0) -> None:
    end = time.monotonic() + limit
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_without_lava_the_remedy_is_named(tiny: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, *rest: None if name == "lava" else found(name, *rest),
    )
    state = lava.BACKEND.availability()
    assert not state.ok
    assert "lava-nc" in state.detail
    with pytest.raises(BackendError, match="ignore-requires-python lava-nc"):
        lava.BACKEND.run(*tiny, time_limit=5, progress=SILENT)


@pytest.mark.parametrize(
    ("shape", "groups"), [((1, 3, 130), 1), ((130, 3, 3), 1), ((130, 3, 3), 130)]
)
def test_more_than_127_pixels_or_channels(
    shape: tuple[int, int, int], groups: int, formats: NumberFormats
) -> None:
    # NumPy 2 keeps int8 parameters in int8, which Lava's convolution alone would overflow.
    rng = np.random.default_rng(2)
    out = shape[0]
    weight = mantissas((out, shape[0] // groups, 3, 3), 8, rng)
    conv = FixedConv(weight, (1, 1), (1, 1), (1, 1), groups)
    net = network(shape, formats, (conv, 8, -1, registers("a", shape, rng, vth=900)))
    compare(net, (rng.random((1, 4, *shape)) < 0.3).astype(np.uint8))


FAILS = """
    import os
    from osbc_backend_lava.compatibility import prepare
    prepare()
    from osbc_backend_lava import streams, worker
    def fail(self):
        raise OverflowError("too wide")
    streams.PlayerModel.run_spk = fail
    os._exit(worker.main())
"""


def test_a_model_that_raises_inside_lava_ends_the_run_with_its_cause(
    tiny: Any, tmp_path: Path
) -> None:
    # Lava's other processes would wait for it for ever.
    with pytest.raises(BackendError, match=r"failed with code 1 .*OverflowError"):
        stub(tmp_path, FAILS).run(*tiny, time_limit=60, progress=SILENT)
