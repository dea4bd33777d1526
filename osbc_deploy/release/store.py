"""A store on a gateway: a folder with the two slots in a file, and what they take beside it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from osbc_deploy.errors import ArtefactError, UsageError
from osbc_deploy.folders import FolderKind
from osbc_deploy.limits import HAND_WRITTEN, read_text
from osbc_deploy.parsing import parse_json
from osbc_deploy.release.checks import Device
from osbc_deploy.release.journal import BLANK, NOBODY, State
from osbc_deploy.release.manifest import Manifest, check_name
from osbc_deploy.release.slots import Slots
from osbc_deploy.release.storage import ANEW, Geometry, open_storage
from osbc_deploy.writing import new_folder

__all__ = ["OnDrift", "StoreFacts", "make_store", "open_store", "read_facts", "status"]

OnDrift = Literal["report", "rollback"]

_SCHEMA = "osbc-deploy/store/1"
_FACTS, _SLOTS = "store.json", "store.bin"
_KIND = FolderKind(_FACTS, lambda _: (_FACTS, _SLOTS))


@dataclass(frozen=True)
class StoreFacts:
    """What a store takes, and what its gateway does about drift.

    Attributes
    ----------
    device : Device
    on_drift : OnDrift
        Whether ``monitor watch`` only reports drift, or goes back to the image before.
    """

    device: Device
    on_drift: OnDrift = "report"


def make_store(path: Path, facts: StoreFacts) -> None:
    """Make an empty store.

    Raises
    ------
    UsageError
        When something is there already.
    """
    check_name(facts.device.target)
    if path.is_dir() and any(path.iterdir()):
        raise UsageError(
            f"{path}: exists, and what is in it would be lost. Name another folder, or move this "
            "one away first."
        )
    geometry = facts.device.geometry
    content = {
        "schema": _SCHEMA,
        "target": facts.device.target,
        "sector": geometry.sector,
        "slot": geometry.slot,
        "keys": [key.hex() for key in facts.device.keys],
        "on_drift": facts.on_drift,
    }
    with new_folder(path, _KIND) as work:
        (work / _FACTS).write_text(json.dumps(content, indent=1) + "\n", "utf-8")
        with (work / _SLOTS).open("xb") as file:
            for _ in range(geometry.bytes // geometry.sector):
                file.write(bytes([BLANK]) * geometry.sector)


def read_facts(path: Path) -> StoreFacts:
    """Read what a store takes.

    Raises
    ------
    UsageError
        When there is no store.
    ArtefactError
        When its file of facts is damaged.
    """
    place = path / _FACTS
    try:
        found = parse_json(read_text(place, most=HAND_WRITTEN))
        if found["schema"] != _SCHEMA:
            raise ValueError(f"its schema is not {_SCHEMA}")
        keys = tuple(bytes.fromhex(key) for key in found["keys"])
        if not keys or any(len(key) != 32 for key in keys):
            raise ValueError("a key has not 32 bytes")
        if found["on_drift"] not in get_args(OnDrift):
            raise ValueError("on_drift is unknown")
        geometry = Geometry(int(found["sector"]), int(found["slot"]))
        check_name(str(found["target"]))
        return StoreFacts(Device(str(found["target"]), keys, geometry), found["on_drift"])
    except OSError as error:
        raise UsageError(
            f"{path}: is not a store ({error.strerror}). 'osbc-deploy release create' makes one."
        ) from error
    except (ValueError, KeyError, TypeError, AttributeError, UsageError) as error:
        raise ArtefactError(
            f"{place}: is damaged ({error}). Restore it from a copy. {ANEW}"
        ) from error


@contextmanager
def open_store(path: Path, *, change: bool) -> Iterator[Slots]:
    """Yield the state machine of a store.

    Raises
    ------
    OsbcError
        When there is none, it is damaged, or another process changes it.
    """
    device = read_facts(path).device
    with open_storage(path / _SLOTS, device.geometry, change=change) as storage:
        yield Slots(storage, device)


def status(slots: Slots) -> dict[str, Any]:
    """Return what a store holds, as plain data."""
    record = slots.journal().record
    trying = record.state in (State.STAGED, State.TRIAL)
    held: Sequence[tuple[str, int | None]] = (
        ("good", None if record.good == NOBODY else record.good),
        ("fallback", record.other if record.fallback else None),
        ("candidate", record.other if trying else None),
    )
    return {
        "schema": "osbc-deploy/store-status/1",
        "target": slots.device.target,
        "slot_bytes": slots.device.geometry.slot,
        "state": record.state.name.lower(),
        "boots": record.boots,
        "reason": record.reason.name.lower().replace("_", "-"),
        "floor": record.floor,
        **{
            name: None if slot is None else _described(slot, slots.manifest(slot))
            for name, slot in held
        },
    }


def _described(slot: int, manifest: Manifest | None) -> dict[str, Any]:
    if manifest is None:
        return {"slot": slot, "intact": False}
    return {
        "slot": slot,
        "intact": True,
        "version": manifest.version,
        "image_id": manifest.image_id.hex(),
        "image_bytes": manifest.image_bytes,
        "image_sha256": manifest.image_digest.hex(),
        "selftest_bytes": manifest.selftest_bytes,
    }
