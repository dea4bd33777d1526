"""Devices that run as processes, and the gateway that they report to."""

from __future__ import annotations

import hashlib
import os
import struct
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from osbc_deploy.errors import BackendError
from osbc_deploy.firmware.machine import FLAGS, call, rasters
from osbc_deploy.firmware.read import read_blob
from osbc_deploy.firmware.runtime import runtime_sources
from osbc_deploy.monitor.baseline import Baseline
from osbc_deploy.monitor.judgement import NoRecordsError
from osbc_deploy.monitor.watch import watch_once
from osbc_deploy.release.checks import Device as Takes
from osbc_deploy.release.journal import Reason
from osbc_deploy.release.keys import check_signature
from osbc_deploy.release.store import OnDrift, StoreFacts, make_store, open_store

HERE = Path(__file__).parent
_RESTART = 3
_USUAL = ("update", "boot", "confirmed")
"""What happens to all devices."""


@dataclass(frozen=True)
class Version:
    """A release of a network.

    Attributes
    ----------
    number : int
    what : str
    blob : bytes
        Its image.
    release : bytes
        The signed file.
    baseline : Baseline or None
        None for one that no device is meant to confirm.
    """

    number: int
    what: str
    blob: bytes
    release: bytes
    baseline: Baseline | None


@dataclass(frozen=True)
class Trouble:
    """What happens to a device's sensor."""

    what: str
    record: int
    change: Callable[[NDArray[Any], np.random.Generator], NDArray[Any]]


@dataclass(frozen=True)
class Plan:
    """A device's life: which versions it is sent before which record, and its trouble."""

    updates: Mapping[int, int]
    trouble: Trouble | None = None
    policy: OnDrift = "report"


@dataclass
class Device:
    """A device: its process, its flash, and what is known of it.

    Attributes
    ----------
    number : int
    folder : Path
        Holds its store; records arrive in ``records`` beneath it.
    events : list of dict
        What happened: ``record``, ``kind``, ``text``, and ``how`` it was seen.
    versions : list of (int, int)
        Records at which another version began to run.
    """

    number: int
    folder: Path
    plan: Plan
    program: Path
    takes: Takes
    process: Any = None
    boots: int = 0
    sent: int = 0
    version: int = 0
    told: int = 0
    events: list[dict[str, Any]] = field(default_factory=list)
    versions: list[tuple[int, int]] = field(default_factory=list)
    judgement: dict[str, Any] | None = None

    @property
    def store(self) -> Path:
        """The folder of its two slots."""
        return self.folder / "store"

    @property
    def records(self) -> Path:
        """Where what it reports arrives."""
        return self.folder / "records"

    def note(self, kind: str, text: str, how: str = "") -> None:
        """Keep what happened, and how that was seen."""
        self.events.append({"record": self.sent, "kind": kind, "text": text, "how": how})

    def boot(self) -> None:
        """Start the process, again and again until it is ready for its sensor."""
        self.stop()
        ready = False
        while not ready:
            geometry = self.takes.geometry
            command = [
                str(self.program), str(self.store / "store.bin"), str(geometry.sector),
                str(geometry.slot), self.takes.target, self.takes.keys[0].hex(), str(self.boots),
            ]  # fmt: skip
            self.process = subprocess.Popen(  # noqa: S603 - our own
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE
            )
            self.boots += 1
            ready = self.listen()

    def stop(self) -> None:
        """Cut the link, which ends the process."""
        if self.process is not None:
            self.process.communicate()
            self.process = None

    def see(self, samples: NDArray[Any], blob: bytes) -> None:
        """Show the sensor the samples of a window."""
        data = rasters(read_blob(blob), samples)
        self.ask(b"S" + data)
        self.sent += 1
        if not self.listen():
            self.boot()

    def install(self, version: Version) -> None:
        """Send a release over the link, and restart."""
        self.note("update", f"version {version.number} arrives: {version.what}")
        self.ask(b"I" + struct.pack("=I", len(version.release)) + version.release)
        if not self.listen():
            self.boot()

    def ask(self, message: bytes) -> None:
        """Send something over the link."""
        self.process.stdin.write(message)
        self.process.stdin.flush()

    def listen(self) -> bool:
        """Take what the device says until it is done; False where it restarts."""
        while True:
            said = self.process.stdout.read(1)
            if said == b".":
                return True
            if not said:
                if (code := self.process.wait()) != _RESTART:
                    raise BackendError(f"device {self.number}: ended with code {code}.")
                self.stop()
                return False
            self._heard(said)

    def _take(self, count: int) -> bytes:
        return self.process.stdout.read(count)

    def _number(self) -> int:
        return int(struct.unpack("=I", self._take(4))[0])

    def _heard(self, said: bytes) -> None:
        if said == b"v":
            key, signature = self._take(32), self._take(64)
            self.ask(bytes([check_signature(key, self._take(self._number()), signature)]))
        elif said == b"h":
            self.ask(hashlib.sha256(self._take(self._number())).digest())
        elif said == b"b":
            self.version, trial = self._number(), self._take(1) != b"\0"
            if not self.versions or self.versions[-1][1] != self.version:
                self.versions.append((self.sent, self.version))
            if self.version:
                self.note("boot", f"runs version {self.version}{' on trial' if trial else ''}")
        elif said == b"r":
            record = self._take(self._number())
            hidden = self.records / f".{self.sent:06}"
            hidden.write_bytes(record)
            hidden.rename(self.records / f"{self.sent:06}.bin")
        elif said == b"c":
            self.note("confirmed", f"version {self.version} is confirmed")
        elif said == b"x":
            reason = Reason(self._take(1)[0]).name.lower().replace("_", "-")
            how = {"self-test": "its self-test fails", "silent": "too many samples without answer"}
            self.note("reverted", f"the device gives version {self.version} up",
                      how.get(reason, reason))  # fmt: skip
        else:
            (result,) = struct.unpack("=i", self._take(4))
            if result:
                self.note("refused", f"the update is refused ({result})")


@contextmanager
def built(folder: Path, options: Sequence[str] = ("-O2",)) -> Iterator[Path]:
    """Build the devices' program in a folder."""
    for name, text in runtime_sources("osbc").items():
        (folder / name).write_text(text)
    for name in ("osbc_slots.h", "osbc_slots.c"):
        (folder / name).write_bytes((files("osbc_deploy.release") / "c" / name).read_bytes())
    (folder / "device.c").write_bytes((HERE / "device.c").read_bytes())
    sources = sorted(path.name for path in folder.glob("*.c"))
    call(["gcc", *FLAGS, *options, "-DOSBC_TELEMETRY", *sources, "-o", "device"], cwd=folder)
    yield folder / "device"


def run_fleet(
    folder: Path,
    plans: Sequence[Plan],
    versions: Mapping[int, Version],
    scenes: Callable[[int, int], NDArray[Any]],
    takes: Takes,
    *,
    records: int,
    each: int,
    program: Path,
    say: Callable[[str], None] = lambda text: None,
) -> list[Device]:
    """Run a fleet, and the gateway that watches it.

    Parameters
    ----------
    folder : Path
        For stores and records.
    plans : sequence of Plan
        Of each device.
    versions : mapping of Version
        By number.
    scenes : callable
        What a device's healthy sensor sees in a window: samples (w, T, ...) of its number and that
        of the record.
    takes : Device
        What all stores take.
    records : int
        Of each device.
    each : int
        Records between two rounds of the gateway.
    program : Path
    say : callable
        Hears what goes wrong, and is done about it.
    """
    baselines = [v.baseline for v in versions.values() if v.baseline is not None]
    devices = []
    for number, plan in enumerate(plans):
        place = folder / f"{number:02}"
        (place / "records").mkdir(parents=True)
        make_store(place / "store", StoreFacts(takes, plan.policy))
        devices.append(Device(number, place, plan, program, takes))

    def work(device: Device) -> None:
        for _ in range(min(each, records - device.sent)):
            if device.process is None:
                device.boot()
            if (update := device.plan.updates.get(device.sent)) is not None:
                device.install(versions[update])
            device.see(_seen(device, scenes), versions[device.version].blob)

    with ExitStack() as stack, ThreadPoolExecutor(os.cpu_count()) as pool:
        for device in devices:
            stack.callback(device.stop)
        while devices[0].sent < records:
            list(pool.map(work, devices))
            for device in devices:
                watched(device, baselines)
                for event in device.events[device.told :]:
                    if event["kind"] not in _USUAL:
                        told = f"record {event['record']}, device {device.number}: {event['text']}"
                        say(f"{told}: {event['how']}" if event["how"] else told)
                device.told = len(device.events)
    return devices


def _seen(device: Device, scenes: Callable[[int, int], NDArray[Any]]) -> NDArray[Any]:
    samples, trouble = scenes(device.number, device.sent), device.plan.trouble
    if trouble is None or device.sent < trouble.record:
        return samples
    if device.sent == trouble.record:
        device.note("trouble", trouble.what)
    # The same pixels for as long as it lasts.
    return trouble.change(samples, np.random.default_rng(device.number))


def watched(device: Device, baselines: Sequence[Baseline]) -> None:
    """Do what ``osbc-deploy monitor watch --once`` does, and restart what was rolled back."""
    with open_store(device.store, change=False) as slots:
        if slots.journal().record.good not in (0, 1):
            return  # nothing is confirmed yet
    try:
        found = watch_once(device.records, baselines, device.store)
    except NoRecordsError:
        return  # the image that runs has sent none yet
    before = device.judgement
    device.judgement = found
    known = None if before is None else (before["identity"], before["verdict"])
    if known == (found["identity"], found["verdict"]):
        return
    if found["verdict"] != "ok":
        first = found["moved"][0] if found["moved"] else found["health"][0]["what"]
        device.note(found["verdict"], f"the gateway says {found['verdict']}",
                    f"{first} moved first")  # fmt: skip
    if found["action"] == "rollback":
        device.note("rollback", f"the gateway takes version {device.version} back")
        device.boot()
