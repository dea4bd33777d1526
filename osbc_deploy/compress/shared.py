"""What compressions of one network on the same samples have in common, found once."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, fields, is_dataclass
from threading import Lock
from typing import Any, TypeVar

import numpy as np

from osbc_deploy.compress.moments import Moments
from osbc_deploy.compress.scene import Scene
from osbc_deploy.model.neurons import LinearDynamics

__all__ = ["Shared", "SharedScene"]

T = TypeVar("T")


class Shared:
    """Keeps what was found, as long as there is room; what is found is the same without it.

    Belongs to one network, one set of samples and one solver memory: nothing else may decide what
    is kept, but what its key says.

    Parameters
    ----------
    room : int
        Bytes that arrays may take; with none, nothing is kept.
    """

    def __init__(self, room: int = 0) -> None:
        self._room = room
        self._kept: dict[Hashable, Any] = {}
        self._lock = Lock()

    def take(self, key: Hashable, find: Callable[[], T]) -> T:
        """Return what is kept under a key, or find it, and keep it where there is room."""
        if not self._room:
            return find()
        with self._lock:
            if key in self._kept:
                kept: T = self._kept[key]
                return kept
        found = find()
        size = _held(found)
        with self._lock:
            if key not in self._kept and size <= self._room:
                self._room -= size
                self._kept[key] = found
        return found


@dataclass(frozen=True, eq=False)
class SharedScene(Scene):
    """A scene whose moments of the float network are those of every compression of it.

    Attributes
    ----------
    shared : Shared
    """

    shared: Shared

    def moments(self, *, cross: bool, part: slice) -> Moments:
        """Return the moments of some samples; with a cross term, of the spikes that arrive now."""
        found = super().moments
        if cross:
            return found(cross=True, part=part)
        kernel = None if self.dynamics is None else _bytes_of(self.dynamics)
        which = (part.indices(len(self.calibration)), self.rows_per_input, kernel)
        return self.shared.take(
            (self.population.name, *which), lambda: found(cross=False, part=part)
        )


def _bytes_of(dynamics: LinearDynamics) -> tuple[bytes, ...]:
    parts = (dynamics.decay_u, dynamics.decay_v, dynamics.gain)
    return tuple(b"" if part is None else part.tobytes() for part in parts)


def _held(value: Any) -> int:
    """Return the bytes of the arrays within a value, which nobody may change any more."""
    if isinstance(value, np.ndarray):
        value.setflags(write=False)
        return int(value.nbytes)
    if isinstance(value, dict):
        return sum(map(_held, value.values()))
    if is_dataclass(value) and not isinstance(value, type):
        return sum(_held(getattr(value, field.name)) for field in fields(value))
    return _held(vars(value)) if hasattr(value, "__dict__") else 0
