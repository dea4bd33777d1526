"""Plugins of others: whatever they raise, say or answer ends in one message with their name."""

from __future__ import annotations

import contextlib
import json
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from click.testing import CliRunner

from osbc_deploy import backends
from osbc_deploy.backends import Availability, BackendRun, load_backend, run_backend
from osbc_deploy.chip.target import load_target
from osbc_deploy.cli.main import cli
from osbc_deploy.errors import BackendError, FitError
from osbc_deploy.fixedpoint.engine import run
from osbc_deploy.fixedpoint.network import (
    FixedDense,
    FixedPointNetwork,
    FixedPopulation,
    FixedProjection,
)
from osbc_deploy.progress import SILENT
from osbc_deploy.testing import random_networks
from plugged import install

ODD = "\x1b[31m[red] ok"
BROKEN = '''
class Broken:
    """A plugin that fails at everything."""
    name = summary = "\\x1b[31m[red] ok"
    def availability(self): raise ValueError(self.name)
    def run(self, network, spikes, *, time_limit, progress, states=()): raise KeyError("inside")
BROKEN = Broken()
'''


@pytest.fixture
def plugins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entries = {ODD: "broken_backend:BROKEN", "gone": "no_such_package:X", "engine": "evil:X"}
    folder = install(
        tmp_path, "strange", {"broken_backend.py": BROKEN}, {"osbc_deploy.backends": entries}
    )
    monkeypatch.syspath_prepend(folder)


@pytest.mark.usefixtures("plugins")
def test_a_plugin_that_fails_is_a_backend_error() -> None:
    backend = load_backend(ODD)
    state = backend.availability()
    assert not state.ok
    assert state.detail == f"asking it failed: ValueError: {ODD}"
    with pytest.raises(BackendError, match=r"failed \(KeyError: inside\)"):
        backend.run(random_networks(1)[0].network, np.zeros(1), time_limit=1.0, progress=SILENT)
    with pytest.raises(BackendError, match="'gone': its plugin cannot be loaded .*no_such_package"):
        load_backend("gone")
    assert load_backend("engine").availability().ok
    assert "evil" not in sys.modules


@pytest.mark.usefixtures("plugins")
@pytest.mark.parametrize("command", ["backends", "doctor"])
def test_what_plugins_say_is_shown_as_text(command: str) -> None:
    done = CliRunner().invoke(cli, [command], standalone_mode=False)
    assert done.exception is None
    assert r"\x1b[31m[red] ok" in done.output
    assert "backend 'engine' of strange 1.0: is not used" in done.output
    assert all(c.isprintable() or c == "\n" for c in done.output)
    told = CliRunner().invoke(cli, [command, "--json"], standalone_mode=False)
    entries = json.loads(told.output)
    found = entries if command == "backends" else entries["backends"]
    states = [(e["name"], e["package"].partition(" ")[0], e["ok"]) for e in found]
    ours = [name for name, package, _ in states if package == "osbc-deploy"]
    assert set(ours) > {"engine", "lava", "xylo", "host-c"}
    assert states[0] == ("engine", "osbc-deploy", True)
    assert states[len(ours) :] == [(ODD, "strange", False), ("gone", "strange", False),
                          ("engine", "strange", False)]  # fmt: skip


def chain() -> FixedPointNetwork:
    """Three neurons that pass spikes on to two, which answer with spikes."""

    def population(name: str, size: int) -> FixedPopulation:
        zero = np.zeros(size, int)
        return FixedPopulation(
            name, (size,), zero, zero, zero + 9, zero, zero, zero, zero, spiking=True,
            v_scale=np.ones(size), v_offset=np.zeros(size),
        )  # fmt: skip

    def projection(pre: str, post: str, shape: tuple[int, int]) -> FixedProjection:
        return FixedProjection(pre, pre, post, FixedDense(np.full(shape, 16)), 8, 0)

    return FixedPointNetwork(
        (4,),
        (population("a", 3), population("b", 2)),
        (projection("input", "a", (3, 4)), projection("a", "b", (2, 3))),
        load_target("loihi2").number_formats,
        "sum",
    )


SPIKES = (np.random.default_rng(0).random((2, 5, 4)) < 0.4).astype(np.uint8)
NETWORK = chain()


class Right:
    """The engine under another name."""

    name = "toy"
    summary = "a toy"
    changed: ClassVar[dict[str, Any]] = {}

    def availability(self) -> Availability:
        return Availability(True, "")

    def run(
        self, network: Any, spikes: Any, *, time_limit: Any, progress: Any, states: Any = ()
    ) -> BackendRun:
        print("chatter that would spoil a JSON report")
        names = [p.name for p in network.populations]
        done = run(network, spikes, record=names, states=states)
        return BackendRun(done.spikes, done.output, done.u, done.v)


def asked(backend: Any) -> BackendRun:
    return run_backend(backend, NETWORK, SPIKES, time_limit=5.0, states=["a"])


def test_a_backend_that_is_right_passes_and_prints_nothing(
    capsys: pytest.CaptureFixture[str],
) -> None:
    found = asked(Right())
    assert found.output.any()
    assert sorted(found.v) == ["a"]
    shown = capsys.readouterr()
    assert (shown.out, shown.err) == ("", "chatter that would spoil a JSON report\n")


def answering(**changes: Any) -> Any:
    """A backend whose right answer is changed; by functions of the right part."""

    class Changed(Right):
        def run(self, *args: Any, **options: Any) -> BackendRun:
            right = super().run(*args, **options)
            return replace(right, **{k: change(getattr(right, k)) for k, change in changes.items()})

    return Changed()


def raising(error: BaseException) -> Any:
    class Raising(Right):
        def run(self, *args: Any, **options: Any) -> BackendRun:
            raise error

    return Raising()


class Writing(Right):
    def run(self, network: Any, spikes: Any, **options: Any) -> BackendRun:
        spikes[:] = 0
        return super().run(network, spikes, **options)


class Silent(Right):
    def run(self, *args: Any, **options: Any) -> Any:
        return None


def without(key: str) -> Any:
    return lambda found: {k: v for k, v in found.items() if k != key}


def put(key: str, value: Any) -> Any:
    return lambda found: {**found, key: value(found.get(key, found["a"]))}


@pytest.mark.parametrize(
    ("backend", "words"),
    [
        # Before its run.
        (Right, "is the class Right, not an object"),
        (object(), r"its name is None.*its summary is None.*no method availability.*no method run"),
        (type("T", (Right,), {"run": lambda self, network, spikes: None})(),
         "run cannot be called as Backend.run is.*time_limit"),
        (type("T", (Right,), {"run": lambda self, a, b, c, **_: None})(), "run cannot be called"),
        (type("T", (Right,), {"availability": True})(), "no method availability"),
        (type("T", (Right,), {"summary": 7})(), "its summary is 7"),
        (type("T", (Right,), {"registers": {"u": 1}})(), "its registers are {.u.: 1}, no mapping"),
        # In its run.
        (raising(ZeroDivisionError("by zero")), r"failed \(ZeroDivisionError: by zero\)"),
        (raising(SystemExit(0)), r"failed \(SystemExit: 0\)"),
        (raising(FitError("too large")), r"failed \(FitError: too large\)"),
        (raising(BackendError("no layers of this kind")), "'toy': no layers of this kind"),
        (raising(BackendError("backend 'toy': no")), "^backend 'toy': no$"),
        (Writing(), "read-only"),
        # Right after it.
        (Silent(), "a NoneType, a BackendRun is needed"),
        (answering(spikes=without("a")), "spikes of 'a' is missing"),
        (answering(spikes=put("c", lambda a: a)), "spikes of 'c' was not asked for"),
        (answering(spikes=list), "spikes is a list, a dict is needed"),
        (answering(spikes=put("a", lambda a: a[:, 1:])),
         r"spikes of 'a' has shape \(2, 4, 3\), needed \(2, 5, 3\)"),
        (answering(spikes=put("a", lambda a: a.tolist())), "spikes of 'a' is a list"),
        (answering(spikes=put("a", lambda a: a.astype(bool))), "spikes of 'a' is of bool"),
        (answering(spikes=put("a", lambda a: 2 * a)), "ranges from . to 2, 0 and 1 are allowed"),
        (answering(spikes=put("a", lambda a: a / 0.0)), "float64 and holds NaN or infinity"),
        (answering(output=lambda found: found.astype(np.float32)), "output is of float32, needed"),
        (answering(output=lambda found: None), "output is a NoneType"),
        (answering(output=lambda found: 1 - found), "output and spikes of 'b' differ"),
        (answering(v=put("b", lambda a: a)), "v of 'b' was not asked for"),
        (answering(u=put("a", lambda a: a.astype(np.int64))), "u of 'a' is of int64, needed int32"),
        (answering(restarts=lambda _: -1), "restarts is -1"),
    ],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_a_backend_that_misbehaves_is_named(backend: Any, words: str) -> None:
    with pytest.raises(BackendError, match=words) as error:
        asked(backend)
    said = str(error.value)
    assert said.startswith(f"backend '{backend.name if hasattr(backend, 'name') else 'object'}'")
    assert error.value.exit_code == 2
    assert "\n" not in said


def test_a_long_list_of_faults_is_cut() -> None:
    many = answering(spikes=lambda found: {f"x{i}": found["a"] for i in range(20)})
    with pytest.raises(BackendError, match=r"and 17 more\)"):
        asked(many)


@pytest.mark.parametrize(
    "answer", ["None", "Availability('no', '')", "Availability(True, 7)", "Availability(1, '')"]
)
def test_what_a_backend_says_of_itself_is_checked(answer: str) -> None:
    said = eval(answer)  # noqa: S307 - of this file
    toy = type("T", (Right,), {"availability": lambda self: said})()
    state = backends.checked_backend(toy).availability()
    assert not state.ok
    assert state.detail.startswith("asking it failed: ")


def test_a_backend_that_hangs_is_interrupted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backends, "_GRACE", 0.1)
    ended = []

    class Hanging(Right):
        def run(self, *args: Any, **options: Any) -> BackendRun:
            try:
                while True:
                    # What it catches itself does not keep it going.
                    with contextlib.suppress(Exception):
                        time.sleep(60)
            finally:
                ended.append(True)

    with pytest.raises(BackendError, match=r"'toy': not done 0.1 s after 0.05 s, the time limit"):
        run_backend(Hanging(), NETWORK, SPIKES, time_limit=0.05)
    assert ended == [True]
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
    assert asked(Right()).output.any()


class Nameless(Right):
    @property
    def name(self) -> str:  # type: ignore[override]
        raise RuntimeError("not yet")


def test_a_backend_that_cannot_say_its_name_is_none() -> None:
    with pytest.raises(BackendError, match=r"'Nameless': cannot be used \(RuntimeError: not yet"):
        asked(Nameless())


TOY = """
import numpy as np
from osbc_deploy.backends import Availability, BackendRun
class Toy:
    summary = "misbehaves"
    def __init__(self, name): self.name = name
    def availability(self): return Availability(True, "")
    def run(self, network, spikes, *, time_limit, progress, states=()):
        size = spikes.shape[:2]
        spikes = {p.name: np.zeros((*size, p.size), np.uint8)
                  for p in network.populations if p.spiking}
        output = np.zeros((*size, network.output.size), np.int32)
        if self.name == "raises": raise RuntimeError("no license")
        if self.name == "leaves out": spikes.popitem()
        if self.name == "floats": output = output + np.nan
        if self.name == "cut short": output = output[:, 1:]
        return BackendRun(spikes, output)
RAISES, LEAVES, FLOATS, CUT = map(Toy, ("raises", "leaves out", "floats", "cut short"))
class Lacking:
    name = summary = "lacking"
LACKING = Lacking()
"""
FAULTS = {
    "lacking": ("LACKING", "it has no method availability"),
    "raises": ("RAISES", "failed (RuntimeError: no license)"),
    "leaves out": ("LEAVES", "is missing"),
    "floats": ("FLOATS", "float64 and holds NaN or infinity, needed int32"),
    "cut short": ("CUT", "has shape"),
}


def test_five_ways_to_misbehave_end_with_code_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    entries = {name: f"five_toys:{value}" for name, (value, _) in FAULTS.items()}
    install(tmp_path, "toys", {"five_toys.py": TOY}, {"osbc_deploy.backends": entries})
    (tmp_path / "tiny.py").write_text(
        "import torch, norse.torch as norse\n"
        "def net():\n"
        "    return norse.SequentialState(torch.nn.Linear(4, 3), norse.LIFBoxCell())\n"
    )
    np.savez(tmp_path / "data.npz", spikes=np.ones((4, 6, 4), np.uint8))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    for name, (_, words) in FAULTS.items():
        command = ["tiny:net", "--target", "loihi2", "--calibration", "data.npz", "--no-tune",
                   "--sparsity", "0", "--bits", "8", "--backend", name, "-o", "out"]  # fmt: skip
        with pytest.raises(SystemExit) as end:
            cli_main(command)
        shown = capsys.readouterr()
        assert end.value.code == 2, shown.err
        said = [line for line in shown.err.splitlines() if line.startswith("error[E231]: ")]
        assert len(said) == 1
        assert said[0].startswith(f"error[E231]: backend '{name}': ")
        assert words in said[0]
        assert "Traceback" not in shown.err
        assert not (tmp_path / "out").exists()


def cli_main(arguments: list[str]) -> None:
    from osbc_deploy.cli.main import main

    main(arguments)
