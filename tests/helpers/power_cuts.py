"""Power cuts for the two-slot store: simulated flash, both state machines, and what must hold.

What must hold is written down here once more, in terms of versions alone (:class:`Model`); the two
implementations are held against it and, byte by byte, against each other.
"""

from __future__ import annotations

import functools
import hashlib
import struct
import subprocess
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Any, ClassVar, NamedTuple
from unittest import mock

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from hypothesis import strategies as st
from typing_extensions import Self

from osbc_deploy.firmware.machine import FLAGS
from osbc_deploy.release import checks
from osbc_deploy.release.checks import Device, RefusedError
from osbc_deploy.release.journal import NOBODY, Reason, State
from osbc_deploy.release.manifest import HEAD_BYTES, KEY_ID_BYTES, SIGNED_BYTES, Manifest, padded
from osbc_deploy.release.slots import Slots
from osbc_deploy.release.storage import Geometry

NEVER = 2**32 - 1
SANITIZE = ("-O0", "-g", "-fsanitize=undefined,address", "-fno-sanitize-recover=all")
SOURCES = Path(checks.__file__).parent / "c"
OWNER = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
STRANGER = Ed25519PrivateKey.from_private_bytes(bytes(range(1, 33)))
TARGET = "board-a"


class PowerCut(BaseException):
    """The power is gone."""


def public(key: Ed25519PrivateKey) -> bytes:
    return key.public_key().public_bytes_raw()


@functools.cache
def signed_by(key: bytes, message: bytes, signature: bytes) -> bool:
    """Whether cryptography finds a signature right; remembered, since thousands are the same."""
    try:
        Ed25519PublicKey.from_public_bytes(key).verify(signature, message)
    except InvalidSignature:
        return False
    return True


def release(
    version: int,
    size: int = 40,
    *,
    key: Ed25519PrivateKey = OWNER,
    claimed: Ed25519PrivateKey | None = None,
    target: str = TARGET,
    selftest: int = 20,
) -> bytes:
    """A release as the format is written down, of recognizable bytes."""
    image, tested = bytes((version * 7 + i) % 251 for i in range(size)), bytes([version]) * selftest
    manifest = Manifest.of(
        image, tested, version=version, target=target, trial_samples=100, silent_most=10,
        clipped_most=5, key_id=public(claimed or key)[:KEY_ID_BYTES],
    ).pack()  # fmt: skip
    head = (manifest + key.sign(manifest)).ljust(HEAD_BYTES, b"\0")
    return (
        head + image.ljust(padded(len(image)), b"\xff") + tested.ljust(padded(len(tested)), b"\xff")
    )


@dataclass
class Flash:
    """Storage that is programmed byte by byte and erased in two halves; each of these is a tick."""

    content: bytearray
    ticks: int = NEVER
    used: int = 0

    def _tick(self) -> None:
        if self.ticks == 0:
            raise PowerCut
        self.ticks -= 1
        self.used += 1

    def read(self, offset: int, count: int) -> bytes:
        assert 0 <= offset <= offset + count <= len(self.content)
        return bytes(self.content[offset : offset + count])

    def write(self, offset: int, data: bytes) -> None:
        assert offset % 32 == 0
        assert len(data) % 32 == 0
        blank = b"\xff" * len(data)
        assert self.content[offset : offset + len(data)] == blank, "programmed twice"
        done = min(len(data), self.ticks)
        self.content[offset : offset + done] = data[:done]
        self.ticks -= done
        self.used += done
        if done < len(data):
            raise PowerCut

    def erase(self, offset: int, count: int) -> None:
        half = count // 2
        self._tick()
        self.content[offset : offset + half] = b"\xff" * half
        # Neither erased nor what it was.
        self.content[offset + half] ^= 0x5A
        self._tick()
        self.content[offset : offset + count] = b"\xff" * count

    def sync(self) -> None:
        pass


class Done(NamedTuple):
    """What an operation said: a code as in C, or None after a power cut, and what was booted."""

    code: int | None
    slot: int = NOBODY
    trial: bool = False
    version: int = 0
    used: int = 0


class Op(NamedTuple):
    """An operation: install(release), boot(), confirm(), rollback(reason, version), judge(...)."""

    name: str
    arguments: tuple[Any, ...] = ()


class InPython:
    """The state machine of the package."""

    def __init__(self, geometry: Geometry) -> None:
        self.geometry = geometry
        self.content = b"\xff" * geometry.bytes

    def run(self, op: Op, ticks: int = NEVER) -> Done:
        flash = Flash(bytearray(self.content), ticks)
        slots = Slots(flash, Device(TARGET, (public(OWNER),), self.geometry))
        with mock.patch.object(checks, "check_signature", signed_by):
            try:
                found = getattr(slots, op.name)(*op.arguments)
            except PowerCut:
                done = Done(None, used=flash.used)
            except RefusedError as error:
                done = Done(-int(error.why), used=flash.used)
            else:
                done = Done(0, used=flash.used)
                if op.name == "boot" and found.manifest is not None:
                    done = Done(0, found.slot, found.trial, found.manifest.version, flash.used)
        self.content = bytes(flash.content)
        return done


def build(folder: Path, *options: str, driver: str = "slots_driver") -> Path:
    """Compile a driver of the C library."""
    program = folder / driver
    sources = [str(SOURCES / "osbc_slots.c"), str(Path(__file__).parent / f"{driver}.c")]
    subprocess.run(
        ["gcc", *FLAGS, *options, "-I", str(SOURCES), *sources, "-o", str(program)], check=True
    )
    return program


class InC:
    """The state machine of the firmware, in a process of its own."""

    _NAMES: ClassVar = {
        "install": b"I",
        "boot": b"B",
        "confirm": b"K",
        "rollback": b"R",
        "judge": b"J",
    }

    def __init__(self, program: Path, geometry: Geometry) -> None:
        self.geometry = geometry
        self._process = subprocess.Popen(
            [str(program), str(geometry.sector), str(geometry.slot), TARGET, public(OWNER).hex()],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip
        self._known = b"\xff" * geometry.bytes

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        assert self._process.wait(60) == 0, "the sanitizers have something to say"
        self._out.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def _out(self) -> IO[bytes]:
        assert self._process.stdout is not None
        return self._process.stdout

    def _give(self, data: bytes) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(data)

    def _flush(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.flush()

    def _take(self, count: int) -> bytes:
        data = self._out.read(count)
        assert len(data) == count, f"the driver ended with {self._process.wait(60)}"
        return data

    @property
    def content(self) -> bytes:
        return self._known

    @content.setter
    def content(self, content: bytes) -> None:
        self._known = content
        self._give(b"S" + content)

    def run(self, op: Op, ticks: int = NEVER) -> Done:
        values = [len(op.arguments[0])] if op.name == "install" else [int(a) for a in op.arguments]
        self._give(
            self._NAMES[op.name] + struct.pack("<4I", ticks, *values, *[0] * (3 - len(values)))
        )
        if op.name == "install":
            self._give(op.arguments[0])
        self._flush()
        while (kind := self._take(1)) in b"vd":
            if kind == b"v":
                key, signature = self._take(32), self._take(64)
                message = self._take(struct.unpack("<I", self._take(4))[0])
                self._give(bytes([signed_by(key, message, signature)]))
            else:
                size = struct.unpack("<I", self._take(4))[0]
                self._give(hashlib.sha256(self._take(size)).digest())
            self._flush()
        code, slot, trial, version, used = struct.unpack("<4iI", self._take(20))
        self._give(b"G")
        self._flush()
        self._known = self._take(self.geometry.bytes)
        if kind == b"x":
            return Done(None, used=used)
        # That a release is staged already is no refusal.
        booted = (slot, bool(trial), version) if op.name == "boot" else (NOBODY, False, 0)
        return Done(min(code, 0), *booted, used)


@dataclass(frozen=True)
class Model:
    """A store in terms of versions: what field.md and docs/releases.md promise, and no slots."""

    state: State = State.EMPTY
    good: int = 0
    fallback: int = 0
    candidate: int = 0
    boots: int = 0
    floor: int = 0

    def freed(self) -> Model:
        """While the free slot is written."""
        state = self.state
        if state is State.STAGED:
            state = State.CONFIRMED if self.good else State.EMPTY
        return replace(self, state=state, candidate=0, fallback=0)

    def dropped(self) -> Model:
        floor = max(self.floor, self.candidate)
        return replace(self, state=State.REVERTED, candidate=0, fallback=0, boots=0, floor=floor)

    def after(self, op: Op) -> tuple[int, Model]:
        """The code of an operation that nothing interrupts, and what it leaves; no damage."""
        trying = self.state in (State.STAGED, State.TRIAL)
        if op.name == "install":
            found = Manifest.unpack(op.arguments[0])
            if self.state is State.TRIAL:
                return -7, self
            assert found is not None
            if found.version <= self.floor:
                return -5, self
            staged = replace(self.freed(), state=State.STAGED, candidate=found.version, boots=0)
            return 0, staged
        if op.name == "boot":
            if trying and self.boots >= 3:
                return 0, self.dropped()
            if trying:
                return 0, replace(self, state=State.TRIAL, boots=self.boots + 1)
            return 0, self
        if op.name == "confirm":
            if self.state is State.CONFIRMED:
                return 0, self
            if self.state is not State.TRIAL:
                return -9, self
            floor = max(self.floor, self.candidate)
            return 0, Model(State.CONFIRMED, self.candidate, self.good, floor=floor)
        if op.name == "rollback":
            version = op.arguments[1] if len(op.arguments) > 1 else 0
            if not trying and not (self.state is State.CONFIRMED and self.fallback):
                return -9, self
            if version and version != (self.candidate if trying else self.good):
                return -10, self
            if trying:
                return 0, self.dropped()
            return 0, Model(State.REVERTED, self.fallback, floor=self.floor)
        samples, silent, clipped = op.arguments
        if self.state is not State.TRIAL:
            return 0, self
        if silent > 10 or clipped > 5:
            return 0, self.dropped()
        return self.after(Op("confirm")) if samples >= 100 else (0, self)

    def runs(self) -> int:
        """The version that a boot in this state, counted already, runs."""
        return self.candidate if self.state is State.TRIAL else self.good

    def seen(self, content: bytes, geometry: Geometry) -> bool:
        """Whether a store is in this state."""
        flash = Flash(bytearray(content))
        slots = Slots(flash, Device(TARGET, (public(OWNER),), geometry))
        with mock.patch.object(checks, "check_signature", signed_by):
            record = slots.journal().record

            def version(slot: int) -> int:
                found = slots.manifest(slot)
                return 0 if found is None else found.version

            good = 0 if record.good == NOBODY else version(record.good)
            fallback = version(record.other) if record.fallback else 0
        found = Model(record.state, good, fallback, record.candidate, record.boots, record.floor)
        # Of a store that is not trying anything, the count of boots is of no account.
        return found == self


@dataclass
class Watch:
    """Both machines in step, and everything that must hold after every operation and cut."""

    machines: tuple[InPython, InC]
    model: Model = field(default_factory=Model)
    trials: Counter[int] = field(default_factory=Counter)

    @property
    def content(self) -> bytes:
        return self.machines[0].content

    def restore(self, content: bytes, model: Model, trials: Counter[int]) -> None:
        for machine in self.machines:
            machine.content = content
        self.model, self.trials = model, Counter(trials)

    def run(self, op: Op, ticks: int = NEVER, *, refused: int = 0) -> Done:
        """Run an operation on both; `refused` is the code of a release that is not taken at all."""
        done, other = (machine.run(op, ticks) for machine in self.machines)
        one, two = (machine.content for machine in self.machines)
        assert one == two, f"{op.name}: Python and C leave other bytes"
        assert done == other, f"{op.name}: {done} in Python, {other} in C"
        code, after = (refused, self.model) if refused else self.model.after(op)
        if done.code is None:
            # Whole, not begun, or on the way: nothing else.
            reached = [self.model, after]
            if op.name == "install" and code == 0:
                reached.append(self.model.freed())
            self.model = next(
                (m for m in reached if m.seen(one, self.machines[0].geometry)), self.model
            )
            assert self.model.seen(one, self.machines[0].geometry), f"{op.name} cut: {reached}"
            return done
        assert done.code == code, f"{op.name}: code {done.code}, {code} is right"
        self.model = after
        assert after.seen(one, self.machines[0].geometry), f"{op.name}: {after} is right"
        if op.name == "boot":
            assert done.version == after.runs()
            assert done.version or not after.good, "no bootable slot"
            assert done.trial == (after.state is State.TRIAL)
            if done.trial:
                self.trials[done.version] += 1
                assert self.trials[done.version] <= 3, "more than three trial boots"
        return done

    def recover(self, op: Op, *, refused: int = 0) -> None:
        """What happens after a cut: the device boots, and the host asks again."""
        self.run(Op("boot"))
        if op.name != "boot":
            self.run(op, refused=refused)


def everything(reason: Reason = Reason.SELF_TEST) -> list[Op]:
    """A life: first image, update, failed update, update by the device itself, drift."""
    return [
        Op("install", (release(1),)), Op("boot"), Op("confirm"),
        Op("install", (release(2, 50),)), Op("boot"), Op("boot"), Op("confirm"),
        Op("install", (release(4),)), Op("boot"), Op("rollback", (reason,)), Op("boot"),
        Op("install", (release(5),)), Op("install", (release(6, 60),)), Op("boot"),
        Op("judge", (50, 3, 1)), Op("judge", (100, 10, 5)),
        Op("rollback", (Reason.HOST, 6)), Op("boot"),
        Op("install", (release(7),)), Op("boot"), Op("boot"), Op("boot"), Op("boot"),
    ]  # fmt: skip


def settled(model: Model) -> Model:
    """What of a state does not depend on how often the power went."""
    return replace(model, boots=0)


SMALL = Geometry(64, 448)
LARGE = Geometry(4096, 2**16)


def cut_everywhere(watch: Watch, ops: Sequence[Op], step: int = 1, twice: int = 0) -> int:
    """Run operations; before each, run it with the power cut at every tick, and recover.

    Parameters
    ----------
    watch : Watch
    ops : sequence of Op
    step : int
        Distance of the cuts while a slot is written; records are cut after every byte.
    twice : int
        Distance of second cuts, in the boot and in the operation that come after the first one;
        0 for none.

    Returns
    -------
    int
        Cuts.
    """
    cuts = 0
    for op in ops:
        before = (watch.content, watch.model, Counter(watch.trials))
        used = watch.run(op).used
        after = (watch.content, watch.model, Counter(watch.trials))
        watch.run(Op("boot"))
        end = settled(watch.model)
        for tick in range(used):
            # The last 36 and first 40 ticks are records and their erasures.
            if 40 <= tick < used - 36 and tick % step:
                continue
            watch.restore(*before)
            watch.run(op, tick)
            there = (watch.content, watch.model, Counter(watch.trials))
            for first in range(0, 2 * (used + 40), twice) if twice else ():
                watch.restore(*there)
                if watch.run(Op("boot"), first).code is not None:
                    ahead = first - 34
                    if ahead < 0 or watch.run(op, ahead).code is not None:
                        break
                watch.recover(op)
                cuts += 1
            watch.restore(*there)
            watch.recover(op)
            watch.run(Op("boot"))
            # What was staged before an install goes on trial by the boot after the cut.
            staged = op.name == "install" and before[1].state is State.STAGED
            assert staged or settled(watch.model) == end, f"{op.name} cut at {tick}: another end"
            cuts += 1
        watch.restore(*after)
    return cuts


BAD = {
    "unsigned": (-4, lambda v: release(v)[:SIGNED_BYTES] + bytes(64) + release(v)[224:]),
    "changed": (-4, lambda v: release(v)[:32] + release(v + 1)[32:64] + release(v)[64:]),
    "forged": (-4, lambda v: release(v, key=STRANGER, claimed=OWNER)),
    "foreign": (-3, lambda v: release(v, key=STRANGER)),
    "for another target": (-2, lambda v: release(v, target="board-b")),
    "for a longer name": (-2, lambda v: release(v, target=f"{TARGET}2")),
    "too large": (-6, lambda v: release(v, 2**16 - 256)),
    "no release": (-1, lambda v: b"PK" + release(v)[2:]),
}
"""What a store must refuse untouched, whatever its version: its code, and how it is made."""


@st.composite
def lives(draw: st.DrawFn) -> list[tuple[Op, int, int]]:
    """Operations, each with the code of one that is refused (or 0) and the tick of a power cut."""
    version, found = 0, []
    for _ in range(draw(st.integers(4, 14))):
        kind = draw(
            st.sampled_from(
                ["install", "install", "boot", "boot", "confirm", "rollback", "judge", "older",
                 "bad"]
            )
        )  # fmt: skip
        refused, cut = 0, draw(st.one_of(st.just(NEVER), st.integers(0, 40), st.integers(0, 5000)))
        if kind == "install":
            version += draw(st.integers(0, 2))
            op = Op(kind, (release(max(version, 1), draw(st.integers(1, 4000))),))
        elif kind == "older":
            op = Op("install", (release(draw(st.integers(1, max(version, 1)))),))
        elif kind == "bad":
            refused, make = BAD[draw(st.sampled_from(sorted(BAD)))]
            op = Op("install", (make(version + 1),))
        elif kind == "rollback":
            reason = draw(st.sampled_from([r for r in Reason if r is not Reason.DAMAGED]))
            op = Op(kind, (reason, draw(st.sampled_from([0, 0, version]))))
        elif kind == "judge":
            op = Op(kind, tuple(draw(st.sampled_from([(99, 10, 5), (100, 10, 5), (1, 11, 0),
                                                      (100, 0, 6)]))))  # fmt: skip
        else:
            op = Op(kind)
        found.append((op, refused, cut))
    return found


def live(watch: Watch, life: Sequence[tuple[Op, int, int]]) -> int:
    """Run a life on blank stores; return how often the power was cut."""
    watch.restore(b"\xff" * watch.machines[0].geometry.bytes, Model(), Counter())
    cuts = 0
    for op, refused, cut in life:
        if watch.run(op, cut, refused=refused).code is None:
            cuts += 1
            watch.recover(op, refused=refused)
    return cuts
