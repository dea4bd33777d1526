"""Numbers of a blob in the smallest types that hold them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from osbc_deploy.arrays import IntArray

__all__ = ["Table", "packed", "table_of"]


@dataclass(frozen=True, eq=False)
class Table:
    """Numbers of 1, 2 or 4 bytes, or one `value` for all where `data` is None.

    Each number holds for `repeat` places that follow each other.
    """

    data: IntArray | None
    value: int = 0
    repeat: int = 1

    @property
    def width(self) -> int:
        """Bytes of a number; 0 for one value for all."""
        return 0 if self.data is None else self.data.itemsize

    @property
    def size(self) -> int:
        """Bytes of flash."""
        return 0 if self.data is None else self.data.nbytes

    def serialized(self) -> bytes:
        """Return the numbers, little-endian."""
        if self.data is None:
            return b""
        return self.data.astype(self.data.dtype.newbyteorder("<")).tobytes()


def table_of(values: IntArray, *, signed: bool = True, always: bool = False) -> Table:
    """Return values in the smallest type, or one for all where they are the same."""
    if not always and (values == values[:1]).all():
        return Table(None, int(values[0]) if len(values) else 0)
    kinds: list[Any] = [np.int8, np.int16, np.int32] if signed else [np.uint8, np.uint16, np.uint32]
    low, high = int(values.min(initial=0)), int(values.max(initial=0))
    kind = next(k for k in kinds if np.iinfo(k).min <= low and high <= np.iinfo(k).max)
    # An array of C has one element at least.
    return Table(np.asarray(values if len(values) else [0], kind))


def packed(codes: IntArray) -> tuple[Table, int]:
    """Return codes packed into bytes, low bits first, and the bits of each."""
    low, high = int(codes.min(initial=0)), int(codes.max(initial=0))
    bits = next(b for b in (2, 4, 8, 16) if -(1 << (b - 1)) <= low and high < 1 << (b - 1))
    if bits == 16:
        return Table(codes.astype(np.int16)), bits
    per_byte = 8 // bits
    padded = np.zeros(max(1, -(-codes.size // per_byte)) * per_byte, np.int64)
    padded[: codes.size] = codes & ((1 << bits) - 1)
    weights = 1 << (bits * np.arange(per_byte))
    return Table((padded.reshape(-1, per_byte) @ weights).astype(np.uint8)), bits
