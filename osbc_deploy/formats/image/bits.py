"""Fields of a few bits, one after the other, lowest bit first."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from osbc_deploy.arrays import IntArray

__all__ = ["pack", "packed_size", "unpack"]


def packed_size(records: int, widths: Sequence[int]) -> int:
    """Return the bytes of `records` records, filled up to a multiple of four."""
    return -(-records * sum(widths) // 32) * 4


def pack(fields: Sequence[IntArray], widths: Sequence[int]) -> bytes:
    """Pack records, each with one value of every field.

    Parameters
    ----------
    fields : sequence of ndarray (n,)
        Of negative values, the low bits are taken (two's complement).
    widths : sequence of int
        Bits of each field.

    Returns
    -------
    bytes
        Filled up with zero bits to a multiple of four bytes.
    """
    columns = [
        (np.asarray(values, np.int64)[:, None] >> np.arange(width)) & 1
        for values, width in zip(fields, widths, strict=True)
    ]
    bits = np.concatenate(columns, axis=1).astype(np.uint8).ravel()
    data = np.packbits(bits, bitorder="little").tobytes()
    return data + bytes(-len(data) % 4)


def unpack(data: bytes, records: int, widths: Sequence[int]) -> list[IntArray]:
    """Undo :func:`pack`; all values come back unsigned.

    Raises
    ------
    ValueError
        When the bits that fill up are not zero.
    """
    raw = np.unpackbits(np.frombuffer(data, np.uint8), bitorder="little")
    used = records * sum(widths)
    if raw[used:].any():
        raise ValueError("padding is not zero")
    bits = raw[:used].reshape(records, sum(widths))
    fields, start = [], 0
    for width in widths:
        weights = np.int64(1) << np.arange(width)
        fields.append(bits[:, start : start + width] @ weights)
        start += width
    return fields
