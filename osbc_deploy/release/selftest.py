"""The self-test of a release: inputs, and the CRC of what the engine answers to them."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from osbc_deploy.arrays import IntArray
from osbc_deploy.errors import ArtefactError, UsageError

if TYPE_CHECKING:
    from osbc_deploy.data.samples import Samples
    from osbc_deploy.fixedpoint.network import FixedPointNetwork

__all__ = ["SelfTest", "make_selftest"]

_MAGIC = b"OSBV"
_LAYOUT = 1
_FIELDS = struct.Struct("<4sHHIIIBBHII")
_WIDTHS = (1, 8, 16, 32)


@dataclass(frozen=True, eq=False)
class SelfTest:
    """Inputs with what must come out.

    Attributes
    ----------
    payloads : ndarray of int (n, T, inputs)
    crcs : tuple of int
        Of each sample: CRC-32 of its outputs, T times all outputs as int32, little-endian.
    outputs : int
    signed : bool
        Whether payloads are.
    """

    payloads: IntArray
    crcs: tuple[int, ...]
    outputs: int
    signed: bool

    def pack(self) -> bytes:
        """Return the section of a release, as docs/releases.md has it."""
        n, steps, inputs = self.payloads.shape
        reach = max(
            int(self.payloads.max(initial=0)), -int(self.payloads.min(initial=0)) - 1
        ).bit_length() + self.signed  # fmt: skip
        bits = next(width for width in _WIDTHS if reach <= width)
        parts = [
            _FIELDS.pack(
                _MAGIC, _LAYOUT, n, steps, inputs, self.outputs, bits, self.signed, 0, 0, 0
            )
        ]
        for sample, crc in zip(self.payloads, self.crcs, strict=True):
            if bits == 1:
                data = np.packbits(sample.astype(bool), axis=1, bitorder="little").tobytes()
            else:
                kind = f"<{'i' if self.signed else 'u'}{bits // 8}"
                data = sample.astype(kind).tobytes()
            parts.append(struct.pack("<I", crc) + data + b"\0" * (-len(data) % 4))
        return b"".join(parts)

    @classmethod
    def unpack(cls, data: bytes) -> SelfTest:
        """Read a section.

        Raises
        ------
        ArtefactError
        """
        fault = ArtefactError(
            "self-test: is damaged, or of a later version of osbc-deploy. Sign the image again."
        )
        if len(data) < _FIELDS.size:
            raise fault
        magic, layout, n, steps, inputs, outputs, bits, signed, *zeros = _FIELDS.unpack(
            data[: _FIELDS.size]
        )
        row = -(-inputs * bits // 8)
        size = 4 + steps * row + -(steps * row) % 4
        if (
            (magic, layout, zeros) != (_MAGIC, _LAYOUT, [0, 0, 0])
            or bits not in _WIDTHS
            or signed > 1
            or not min(n, steps, inputs, outputs)
            or len(data) != _FIELDS.size + n * size
        ):
            raise fault
        crcs, samples = [], []
        for start in range(_FIELDS.size, len(data), size):
            crcs.append(int.from_bytes(data[start : start + 4], "little"))
            body = data[start + 4 : start + 4 + steps * row]
            if bits == 1:
                rows = np.frombuffer(body, np.uint8).reshape(steps, row)
                samples.append(np.unpackbits(rows, axis=1, count=inputs, bitorder="little"))
            else:
                kind = f"<{'i' if signed else 'u'}{bits // 8}"
                samples.append(np.frombuffer(body, kind).reshape(steps, inputs))
        return cls(np.stack(samples).astype(np.int64), tuple(crcs), outputs, bool(signed))

    def failures(self, network: FixedPointNetwork) -> int:
        """Return how many samples a network answers otherwise."""
        found = _crcs(network, self.payloads)
        return sum(a != b for a, b in zip(found, self.crcs, strict=True))


def make_selftest(network: FixedPointNetwork, samples: Samples, count: int) -> SelfTest:
    """Return the first samples, with what the engine answers.

    Raises
    ------
    UsageError
        When the network does not take them.
    """
    if samples.input_shape and np.prod(samples.input_shape) != np.prod(network.input_shape):
        raise UsageError(
            f"samples: a step has shape {samples.input_shape}, the network takes "
            f"{network.input_shape}. Give samples of the data it was deployed for."
        )
    few = samples.take(count)
    codes = network.input.codes(few.spikes)
    payloads = codes.reshape(*codes.shape[:2], -1).astype(np.int64)
    outputs = int(np.prod(network.populations[-1].shape))
    return SelfTest(payloads, _crcs(network, payloads), outputs, network.input.signed)


def _crcs(network: FixedPointNetwork, payloads: IntArray) -> tuple[int, ...]:
    from osbc_deploy.fixedpoint.engine import run

    shaped = payloads.reshape(*payloads.shape[:2], *network.input_shape)
    kind = np.uint8 if network.input.kind == "spikes" else np.int32
    output = run(network, shaped.astype(kind)).output
    return tuple(zlib.crc32(np.ascontiguousarray(one, "<i4").tobytes()) for one in output)
