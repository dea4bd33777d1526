"""What a folder of finished work belongs to, and the errors where that is another or broken."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TypeAlias

from osbc_deploy.errors import ArtefactError

__all__ = ["BelongsTo", "broken", "changed"]

BelongsTo: TypeAlias = Mapping[str, str | Mapping[str, str]]
"""What a folder of finished work depends on, by the name a user knows it by: digests, and options
by their own names."""

_LONGEST = 40
"""Characters of a value that is shown."""


def broken(path: Path, manifest: str, why: object) -> ArtefactError:
    """Return the error for a file that cannot be read, in a folder that is known by a manifest."""
    # Without its manifest, nobody knows what the folder is.
    remove = "the folder, or choose another" if path.name == manifest else "it and start again"
    return ArtefactError(f"{path}: cannot be read ({why}). Remove {remove}.")


def changed(known: Mapping[str, object], wanted: BelongsTo) -> list[str]:
    """Return what a folder depends on and is another now, options with what they were and are."""
    found = []
    for name, value in wanted.items():
        before = known.get(name)
        if before == value:
            continue
        parts = []
        if isinstance(value, Mapping) and isinstance(before, Mapping):
            parts = [
                _change(key, str(before.get(key, "unknown")), value.get(key, "unknown"))
                for key in dict.fromkeys([*value, *before])
                if before.get(key) != value.get(key)
            ]
        found.append(name + f" ({', '.join(parts)})" * bool(parts))
    return found


def _change(name: str, before: str, now: str) -> str:
    shown = max(len(before), len(now)) <= _LONGEST
    return f"{name} was {before} and is {now}" if shown else name
