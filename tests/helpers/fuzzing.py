"""Damaged files of every kind through the readers of the tool, in this process, with limits.

An input is fine if it is read, or refused with one of the documented exit codes. A traceback, more
than :data:`SECONDS` of computing, or more memory than the readers may take, is a failure.
"""

from __future__ import annotations

import contextlib
import io
import os
import resource
import shutil
import signal
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np

import fuzz_mutations as damage
from fuzz_corpus import TARGET, Corpus
from osbc_deploy.chip.target import load_target
from osbc_deploy.cli.main import main
from osbc_deploy.compress.state import SolverState
from osbc_deploy.data.datasets import DatasetRequest, load_dataset
from osbc_deploy.data.events import bin_events, read_aedat2, read_aedat3, read_nmnist
from osbc_deploy.data.samples import load_npz
from osbc_deploy.errors import OsbcError
from osbc_deploy.formats.folder import read_network
from osbc_deploy.formats.image.read import read_image
from osbc_deploy.formats.netx.read import read_netx, read_netx_fixed
from osbc_deploy.formats.nir.read import read_nir
from osbc_deploy.limits import VARIABLE
from osbc_deploy.references import load_weights

__all__ = ["KINDS", "LIMIT", "SECONDS", "Outcome", "Seen", "fuzz"]

SECONDS = 20.0
"""Of computing, not of waiting; a traceback every time it is reached."""

LIMIT = 256 * 2**20
"""Bytes that a reader may take here."""

_SLACK = 96 * 2**20
"""What else happens in the meantime."""

_CODES = {0, 2, 3, 4, 5, 6}
"""Documented exit codes; 1 is a bug."""

Rng = np.random.Generator


class Hang(BaseException):
    """An input that takes too long; no reader catches it."""


@dataclass
class Seen:
    """What became of the inputs of one kind."""

    inputs: int = 0
    codes: Counter[int] = field(default_factory=Counter)
    tracebacks: int = 0
    hangs: int = 0
    over_memory: int = 0
    seconds: float = 0.0

    @property
    def failures(self) -> int:
        return self.tracebacks + self.hangs + self.over_memory


@dataclass
class Outcome:
    """What became of all inputs: by kind, and the failures in words."""

    kinds: dict[str, Seen]
    failures: list[str]


@dataclass(frozen=True)
class Job:
    """One damaged input: makes it in a folder, and reads it."""

    corpus: Corpus
    folder: Path
    rng: Rng

    def pick(self, *patterns: str) -> Path:
        found = self.corpus.files(*patterns)
        return found[int(self.rng.integers(0, len(found)))]

    def bytes_of(self, source: Path) -> bytes:
        """Return the bytes of a file, some of them damaged; now and then mixed with another."""
        other = self.pick("*", "*/*") if self.rng.random() < 0.3 else source
        return damage.damage_bytes(source.read_bytes(), other.read_bytes(), self.rng)

    def write(self, name: str, data: bytes | str) -> Path:
        path = self.folder / name
        path.parent.mkdir(exist_ok=True)
        if isinstance(data, str):
            data = data.encode("utf-8", "surrogatepass")
        path.write_bytes(data)
        return path

    def copied(self, folder: str) -> Path:
        return Path(shutil.copytree(self.corpus.folder / folder, self.folder / folder))

    def document(self, source: Path, kind: str) -> bytes | str:
        """Return a damaged document: its bytes, or what it says."""
        if self.rng.random() < 0.3:
            return self.bytes_of(source)
        ways = {"json": damage.damage_json, "toml": damage.damage_toml}
        if kind == "json" and source.name in ("report.json", "baseline.json"):
            ways["json"] = damage.damage_report if self.rng.random() < 0.7 else damage.damage_json
        return ways[kind](source.read_text(), self.rng)

    def chance(self, *choices: Callable[[], Any]) -> Any:
        return choices[int(self.rng.integers(0, len(choices)))]()


def command(*args: str | Path) -> int:
    """Run a command; its exit code."""
    out, err = io.StringIO(), io.StringIO()
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            main([str(a) for a in args])
    except SystemExit as done:
        return int(done.code or 0)
    raise AssertionError("a command ends with an exit code")


def npz(job: Job) -> int:
    source = job.pick("*.npz")
    bytewise = job.rng.random() < 0.5
    data = job.bytes_of(source) if bytewise else damage.damage_npz(source.read_bytes(), job.rng)
    load_npz(job.write("data.npz", data))
    return 0


def weights(job: Job) -> int:
    from torch import nn

    model = nn.ModuleDict()
    for p in job.corpus.network.projections:
        out, inputs = p.connection.weight.shape
        model[p.name] = nn.Linear(inputs, out, bias=False)
    source = job.pick("weights.safetensors").read_bytes()
    bytewise = job.rng.random() < 0.5
    data = job.bytes_of(job.pick("weights.safetensors")) if bytewise else (
        damage.damage_tensors(source, job.rng))  # fmt: skip
    load_weights(model, job.write("w.safetensors", data))
    return 0


def checkpoint(job: Job) -> int:
    import torch
    from torch import nn

    model = nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4))
    state: Any = model.state_dict()
    if job.rng.random() < 0.5:
        state = {"state_dict": state, "epoch": 3}
    buffer = io.BytesIO()
    torch.save(state, buffer, _use_new_zipfile_serialization=job.rng.random() < 0.5)
    source = job.write("whole.pth", buffer.getvalue())
    load_weights(model, job.write("net.pth", job.bytes_of(source)))
    return 0


def _hdf5(job: Job, pattern: str) -> Path:
    source = job.pick(pattern)
    if job.rng.random() < 0.5:
        return job.write(source.name, job.bytes_of(source))
    path = Path(shutil.copy(source, job.folder))
    # What h5py itself will not write is no input.
    with contextlib.suppress(Exception):
        damage.damage_hdf5(path, job.rng)
    return path


def nir_file(job: Job) -> int:
    path = _hdf5(job, "*.nir")
    reset = str(job.rng.choice(["zero", "subtract"]))
    if job.rng.random() < 0.2:
        return command("inspect", path, "--dt", "1e-3", "--reset", reset)
    read_nir(path, dt=1e-3, reset=reset)
    return 0


def netx_file(job: Job) -> int:
    path = _hdf5(job, "*.net")
    job.chance(
        lambda: read_netx(path),
        lambda: read_netx_fixed(path, load_target(TARGET).number_formats),
    )
    return 0


def artefact(job: Job) -> int:
    folder = job.copied(str(job.rng.choice(["image", "image", "conv"])))
    names = sorted(p.name for p in folder.iterdir())
    name = names[int(job.rng.integers(0, len(names)))]
    source = folder / name
    if job.rng.random() < 0.05:
        source.unlink()
    elif name.endswith(".json"):
        source.write_bytes(_encoded(job.document(source, "json")))
    elif job.rng.random() < 0.5:
        source.write_bytes(job.bytes_of(source))
    else:
        source.write_bytes(damage.damage_tensors(source.read_bytes(), job.rng))
    budget, baseline = (job.corpus.folder / name for name in ("budget.toml", "baseline.json"))
    code: int = job.chance(
        lambda: read_network(folder) and 0,
        lambda: command("map", folder, "--target", job.chance(*map(_given, _COUNTED))),
        lambda: command("check", folder, "--budget", budget, "--baseline", baseline),
        lambda: command("report", folder, "--format", job.chance(*map(_given, _FORMATS))),
        lambda: command("export", folder, "--format", "image", "-o", job.folder / "x.img"),
        lambda: command("export", folder, "--format", "netx", "-o", job.folder / "x.net"),
    )
    return code


_COUNTED = ("loihi2", "loihi1", "speck", "xylo-audio2")
_FORMATS = ("table", "json", "csv", "html")


def _given(value: str) -> Callable[[], str]:
    return lambda: value


def _encoded(data: bytes | str) -> bytes:
    return data if isinstance(data, bytes) else data.encode("utf-8", "surrogatepass")


def image(job: Job) -> int:
    source = job.corpus.folder / "conv.img"
    bytewise = job.rng.random() < 0.3
    data = job.bytes_of(source) if bytewise else damage.damage_image(source.read_bytes(), job.rng)
    path = job.write("x.img", data)
    code: int = job.chance(
        lambda: read_image(path) and 0,
        lambda: read_image(path) and 0,
        lambda: command("map", path, "--target", "loihi2"),
    )
    return code


def target(job: Job) -> int:
    path = job.write("own.toml", job.document(job.pick("target-*.toml"), "toml"))
    code: int = job.chance(
        lambda: command("targets", "validate", path),
        lambda: command("targets", "show", path),
        lambda: command("map", job.corpus.folder / "conv", "--target", path),
        lambda: command("map", job.corpus.folder / "image", "--target", path, "--json"),
    )
    return code


def budget(job: Job) -> int:
    path = job.write("budget.toml", job.document(job.corpus.folder / "budget.toml", "toml"))
    form = job.chance(*map(_given, ("table", "json", "junit", "markdown")))
    folder = job.corpus.folder
    return command("check", folder / "image", "--budget", path, "--format", form,
                   "--baseline", folder / "baseline.json")  # fmt: skip


def config(job: Job) -> int:
    path = job.write("config.toml", job.document(job.corpus.folder / "config.toml", "toml"))
    folder = job.corpus.folder
    code: int = job.chance(
        lambda: command("report", folder / "image", "--config", path),
        lambda: command("check", folder / "image", "--config", path),
        # No model is given, so nothing runs.
        lambda: command("deploy", folder / "none.nir", "--config", path, "--calibration", "no.npz"),
        lambda: command("verify", folder / "none.nir", "--config", path, "--target", "loihi2",
                        "--calibration", folder / "no.npz"),
    )  # fmt: skip
    return code


def report(job: Job) -> int:
    path = job.write("report.json", job.document(job.corpus.folder / "baseline.json", "json"))
    folder = job.corpus.folder
    code: int = job.chance(
        lambda: command("report", path, "--format", job.chance(*map(_given, _FORMATS))),
        lambda: command("diff", path, folder / "image"),
        lambda: command("diff", folder / "baseline.json", path, "--json"),
        lambda: command("check", folder / "image", "--budget", folder / "budget.toml",
                        "--baseline", path),
    )  # fmt: skip
    return code


def events(job: Job) -> int:
    source = job.pick("nmnist.bin", "cifar.aedat", "gesture/*.aedat")
    bytewise = job.rng.random() < 0.5
    data = job.bytes_of(source) if bytewise else (
        damage.damage_packets(source.read_bytes(), job.rng))  # fmt: skip
    path = job.write(source.name, data)
    if source.name == "nmnist.bin":
        bin_events(read_nmnist(path), 8, 34)
    elif source.name == "cifar.aedat":
        bin_events(read_aedat2(path), 8, 128, 32)
    else:
        bin_events(read_aedat3(path), 8, 128)
    return 0


def gesture(job: Job) -> int:
    folder = job.copied("gesture")
    names = ["user01_led_labels.csv", "trials_to_train.txt"]
    source = folder / names[int(job.rng.integers(0, 2))]
    if job.rng.random() < 0.3:
        source.write_bytes(job.bytes_of(source))
    else:
        text = damage.damage_text(source.read_text(), job.rng)
        source.write_bytes(_encoded(text))
    load_dataset(
        DatasetRequest("dvs128gesture", folder, steps=4, size=16, samples_per_class=1), "train"
    )
    return 0


def state(job: Job) -> int:
    folder = job.copied("state")
    names = sorted(p.name for p in folder.iterdir())
    source = folder / names[int(job.rng.integers(0, len(names)))]
    if source.suffix == ".json":
        source.write_bytes(_encoded(job.document(source, "json")))
    elif job.rng.random() < 0.4:
        source.write_bytes(job.bytes_of(source))
    else:
        data: bytes = job.chance(
            lambda: damage.damage_tensors(source.read_bytes(), job.rng),
            lambda: damage.damage_state(source, job.rng),
        )
        source.write_bytes(data)
    network = job.corpus.network
    kept = SolverState(folder, job.corpus.statistics)
    kept.load_plan()
    for population in network.populations:
        kept.load(population.name, network.afferents(population.name))
    return 0


KINDS: dict[str, tuple[Callable[[Job], int], int]] = {
    "npz": (npz, 10),
    "safetensors weights": (weights, 8),
    "torch checkpoint": (checkpoint, 4),
    "NIR (.nir)": (nir_file, 5),
    "NetX (.net)": (netx_file, 5),
    "artefact folder": (artefact, 14),
    "chip image (.img)": (image, 10),
    "target TOML": (target, 10),
    "budget TOML": (budget, 6),
    "config TOML": (config, 6),
    "report and baseline JSON": (report, 8),
    "event recordings": (events, 8),
    "gesture labels and lists": (gesture, 4),
    "resume state": (state, 6),
}
"""Readers by kind, and of a hundred inputs how many are theirs."""


def fuzz(
    corpus: Corpus, folder: Path, count: int, seed: int, *, only: str = "", keep: Path | None = None
) -> Outcome:
    """Read damaged inputs of all kinds.

    Parameters
    ----------
    corpus : Corpus
    folder : Path
        Where they are written, one after the other.
    count : int
    seed : int
    only : str
        Part of the names of kinds to stay with.
    keep : Path, optional
        Folder for the inputs that fail.
    """
    chosen = {name: value for name, value in KINDS.items() if only in name}
    names = list(chosen)
    shares = np.array([share for _, share in chosen.values()], float)
    rng = np.random.default_rng(seed)
    outcome = Outcome({name: Seen() for name in names}, [])
    with _limits():
        for number in range(count):
            name = names[int(rng.choice(len(names), p=shares / shares.sum()))]
            work = folder / "input"
            shutil.rmtree(work, ignore_errors=True)
            work.mkdir(parents=True)
            job = Job(corpus, work, np.random.default_rng([seed, number]))
            fault = _one(chosen[name][0], job, outcome.kinds[name])
            if fault:
                outcome.failures.append(f"{name}, input {number} of seed {seed}: {fault}")
                if keep is not None:
                    shutil.copytree(work, keep / f"{seed}-{number}", dirs_exist_ok=True)
    return outcome


def _one(read: Callable[[Job], int], job: Job, seen: Seen) -> str:
    """Read one input; what is wrong, if anything is."""
    _forget_peak()
    (own, others), start, here = _peaks(), time.perf_counter(), os.getcwd()
    fault = ""
    signal.setitimer(signal.ITIMER_VIRTUAL, SECONDS)
    try:
        seen.codes[_code(read, job)] += 1
    except Hang:
        seen.hangs += 1
        fault = f"more than {SECONDS:g} s\n{traceback.format_exc(limit=-6)}"
    except Exception:  # noqa: BLE001 - that is what is looked for
        seen.tracebacks += 1
        fault = traceback.format_exc(limit=-6)
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        os.chdir(here)
    after, children = _peaks()
    taken = max(after, children if children > others else 0) - own
    if taken > LIMIT + _SLACK:
        seen.over_memory += 1
        fault = fault or f"{taken / 2**20:.0f} MiB of memory"
    seen.inputs += 1
    seen.seconds += time.perf_counter() - start
    return fault


def _code(read: Callable[[Job], int], job: Job) -> int:
    try:
        code = int(read(job))
    except OsbcError as error:
        code = error.exit_code
    if code not in _CODES:
        raise AssertionError(f"exit code {code}")
    return code


def _peaks() -> tuple[int, int]:
    """Return the most memory in bytes that this process, and one it waited for, has had."""
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with contextlib.suppress(OSError):
        status = Path("/proc/self/status").read_text()
        own = int(status.partition("VmHWM:")[2].split()[0])
    return 1024 * own, 1024 * resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss


def _forget_peak() -> None:
    """Start the peak of this process anew (Linux): what ran before may have taken more."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


@contextlib.contextmanager
def _limits() -> Iterator[None]:
    """Limit the readers' memory and computing time; nothing here may take more by accident."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise Hang

    before = os.environ.get(VARIABLE)
    os.environ[VARIABLE] = str(LIMIT)
    handler = signal.signal(signal.SIGVTALRM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGVTALRM, handler)
        if before is None:
            del os.environ[VARIABLE]
        else:
            os.environ[VARIABLE] = before
