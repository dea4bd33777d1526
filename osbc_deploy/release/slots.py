"""The state machine of a store of two slots; docs/releases.md is its specification.

The order of every erase and write is part of that specification: the C library does the same ones,
so that both leave the same bytes wherever the power is cut.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace

from osbc_deploy.release.checks import Device, Refusal, RefusedError, fault, untimely
from osbc_deploy.release.journal import (
    NOBODY,
    RECORD_BYTES,
    Journal,
    Reason,
    Record,
    State,
    load,
)
from osbc_deploy.release.manifest import HEAD_BYTES, Manifest
from osbc_deploy.release.storage import ANEW, Storage

__all__ = ["TRIAL_BOOTS", "Boot", "Slots"]

TRIAL_BOOTS = 3
"""Boots of an image that nobody confirms."""

_CHUNK = 4096
_DIGESTED = 2**16


@dataclass(frozen=True)
class Boot:
    """What is to run.

    Attributes
    ----------
    slot : int
        Or ``NOBODY``.
    trial : bool
        Whether the image is on trial, so that its self-test must run.
    manifest : Manifest or None
    """

    slot: int
    trial: bool
    manifest: Manifest | None


@dataclass(frozen=True)
class Slots:
    """A store: where it lies, and what it takes.

    Attributes
    ----------
    storage : Storage
    device : Device
    """

    storage: Storage
    device: Device

    def journal(self) -> Journal:
        """Read the journal.

        Raises
        ------
        RefusedError
            When both of its records are damaged.
        """
        geometry = self.device.geometry
        found = load(
            *(self.storage.read(geometry.record_at(place), RECORD_BYTES) for place in (0, 1))
        )
        if found.damaged:
            raise RefusedError(
                Refusal.JOURNAL,
                "journal: both of its records are damaged, which no power cut does. Nothing says "
                f"any more which image is good. {ANEW}",
            )
        return found

    def manifest(self, slot: int) -> Manifest | None:
        """Return the manifest in a slot if the image in it may run: signed, for this target, whole.

        The store takes nothing else, so None is damage, or a slot that is being written.
        """
        at = self.device.geometry.slot_at(slot)
        found = Manifest.unpack(head := self.storage.read(at, HEAD_BYTES))
        if found is None or fault(found, head, self.device) is not None:
            return None
        parts = (
            (at + HEAD_BYTES, found.image_bytes, found.image_digest),
            (at + found.selftest_at, found.selftest_bytes, found.selftest_digest),
        )
        whole = all(self._digest(start, size) == digest for start, size, digest in parts)
        return found if whole else None

    def largest(self) -> tuple[int, int]:
        """Return the most bytes of an image and of a self-test that lie in the slots."""
        geometry = self.device.geometry
        heads = (self.storage.read(geometry.slot_at(slot), HEAD_BYTES) for slot in (0, 1))
        held = [found for head in heads if (found := Manifest.unpack(head)) is not None]
        # A head that nobody has checked may say anything.
        image, tested = (
            max((size for size in sizes if size <= geometry.slot), default=0)
            for sizes in ([m.image_bytes for m in held], [m.selftest_bytes for m in held])
        )
        return image, tested

    def image(self, slot: int, manifest: Manifest) -> tuple[bytes, bytes]:
        """Return image and self-test of a slot."""
        at = self.device.geometry.slot_at(slot)
        return (
            self.storage.read(at + HEAD_BYTES, manifest.image_bytes),
            self.storage.read(at + manifest.selftest_at, manifest.selftest_bytes),
        )

    def install(self, release: bytes) -> Record:
        """Check a release and put it into the slot that is free.

        Raises
        ------
        RefusedError
            When the store does not take it; nothing was written then.
        """
        journal = self.journal()
        record, geometry = journal.record, self.device.geometry
        manifest = Manifest.unpack(head := release[:HEAD_BYTES])
        if manifest is None:
            raise RefusedError(
                Refusal.NOT_A_RELEASE,
                "is not a release of osbc-deploy. Give a file that 'osbc-deploy release sign' "
                "wrote.",
            )
        refused = fault(manifest, head, self.device) or untimely(manifest, record)
        if refused is not None:
            raise refused
        size = manifest.total_bytes
        image = release[HEAD_BYTES : HEAD_BYTES + manifest.image_bytes]
        tested = release[manifest.selftest_at : manifest.selftest_at + manifest.selftest_bytes]
        if len(release) != size or not manifest.holds(image, tested):
            wrong = (
                f"has {len(release):,} B, {size:,} were signed"
                if len(release) != size
                else "its image or self-test has other bytes than were signed"
            )
            raise RefusedError(Refusal.DAMAGED, f"is damaged ({wrong}). Copy or sign it again.")
        if (
            record.state is State.STAGED
            and self.storage.read(geometry.slot_at(record.other), HEAD_BYTES) == head
            and self.manifest(record.other) is not None
        ):
            return record
        if record.state is State.STAGED or record.fallback:
            # What is in the slot stops counting before it stops being whole.
            state = record.settled if record.state is State.STAGED else record.state
            freed = replace(record, state=state, fallback=False, candidate=0)
            journal = self._write(journal, freed)
        at = geometry.slot_at(record.other)
        for offset in range(at, at + geometry.slot, geometry.sector):
            self.storage.erase(offset, geometry.sector)
        for start in range(0, size, _CHUNK):
            self.storage.write(at + start, release[start : min(start + _CHUNK, size)])
        self.storage.sync()
        if self.storage.read(at, HEAD_BYTES) != head or self.manifest(record.other) is None:
            raise RefusedError(
                Refusal.DAMAGED,
                "reads back otherwise than it was written. Replace the storage.",
            )
        staged = replace(
            journal.record, state=State.STAGED, boots=0, reason=Reason.NONE,
            candidate=manifest.version,
        )  # fmt: skip
        return self._write(journal, staged).record

    def boot(self) -> Boot:
        """Say which image is to run now, and count the boot if that image is on trial."""
        journal = self.journal()
        record = journal.record
        if record.state in (State.STAGED, State.TRIAL):
            boots = record.boots if record.state is State.TRIAL else 0
            found = self.manifest(record.other)
            if boots >= TRIAL_BOOTS:
                reason = Reason.BOOTS
            elif found is None or found.version != record.candidate:
                reason = Reason.DAMAGED
            else:
                self._write(journal, replace(record, state=State.TRIAL, boots=boots + 1))
                return Boot(record.other, True, found)
            journal = self._write(journal, record.reverted(reason))
            record = journal.record
        if record.good != NOBODY:
            if (found := self.manifest(record.good)) is not None:
                return Boot(record.good, False, found)
            if record.fallback and (found := self.manifest(record.other)) is not None:
                self._write(journal, _back(record, Reason.DAMAGED))
                return Boot(record.other, False, found)
        return Boot(NOBODY, False, None)

    def confirm(self) -> Record:
        """Make the image on trial the good one; one that is confirmed already stays it.

        Raises
        ------
        RefusedError
            When no image is on trial.
        """
        journal = self.journal()
        record = journal.record
        if record.state is State.CONFIRMED:
            return record
        if record.state is not State.TRIAL:
            raise RefusedError(
                Refusal.STATE,
                f"no image is on trial (the store is {record.state.name.lower()}). "
                + (
                    "Boot the staged image first."
                    if record.state is State.STAGED
                    else "Install one, and boot it."
                ),
            )
        confirmed = Record(
            State.CONFIRMED, record.other, record.good != NOBODY,
            floor=max(record.floor, record.candidate),
        )  # fmt: skip
        return self._write(journal, confirmed).record

    def rollback(self, reason: Reason = Reason.HOST, version: int = 0) -> Record:
        """Give up the image that is staged or on trial, or go back from the confirmed one.

        Parameters
        ----------
        reason : Reason
        version : int
            Only if this is the version to leave; 0 for whichever it is.

        Raises
        ------
        RefusedError
            When there is nothing to go back to, or another version is there.
        """
        journal = self.journal()
        record = journal.record
        trying = record.state in (State.STAGED, State.TRIAL)
        if not trying and not (record.state is State.CONFIRMED and record.fallback):
            raise RefusedError(
                Refusal.STATE,
                f"there is nothing to go back to (the store is {record.state.name.lower()}, and "
                "its other slot holds no confirmed image). Install a release.",
            )
        if version:
            good = None if trying else self.manifest(record.good)
            running = record.candidate if trying else 0 if good is None else good.version
            if running != version:
                raise RefusedError(
                    Refusal.OTHER,
                    f"version {version} is not the one to leave, {running} is. Nothing was done.",
                )
        if trying:
            return self._write(journal, record.reverted(reason)).record
        if self.manifest(record.other) is None:
            raise RefusedError(
                Refusal.DAMAGED,
                "the image that was confirmed before is damaged. The store stays at the present "
                "one; install a release.",
            )
        return self._write(journal, _back(record, reason)).record

    def judge(self, samples: int, silent: int, clipped: int) -> Record:
        """Hold what an image on trial did since its boot against the limits in its manifest.

        Parameters
        ----------
        samples, silent, clipped : int
            Samples, those of them without an answer, and clipped values.

        Returns
        -------
        Record
            Confirmed, reverted, or still on trial.
        """
        record = self.journal().record
        if record.state is not State.TRIAL:
            return record
        found = self.manifest(record.other)
        if found is None:
            return self.rollback(Reason.DAMAGED)
        if silent > found.silent_most:
            return self.rollback(Reason.SILENT)
        if clipped > found.clipped_most:
            return self.rollback(Reason.CLIPPED)
        return self.confirm() if samples >= found.trial_samples else record

    def _write(self, journal: Journal, record: Record) -> Journal:
        """Write a record over the older one."""
        sequence = (journal.record.sequence + 1) % 2**32
        record, place = replace(record, sequence=sequence), 1 - journal.place
        at = self.device.geometry.record_at(place)
        self.storage.erase(at, self.device.geometry.sector)
        self.storage.write(at, record.pack())
        self.storage.sync()
        return Journal(record, place, False)

    def _digest(self, offset: int, count: int) -> bytes:
        found = hashlib.sha256()
        for start in range(offset, offset + count, _DIGESTED):
            found.update(self.storage.read(start, min(_DIGESTED, offset + count - start)))
        return found.digest()


def _back(record: Record, reason: Reason) -> Record:
    """Return the record after the confirmed image was left for the one before it."""
    return Record(State.REVERTED, record.other, reason=reason, floor=record.floor)
