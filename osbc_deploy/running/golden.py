"""Golden vectors: inputs as a device reads them, and what must come out."""

from __future__ import annotations

import json
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from osbc_deploy._version import __version__
from osbc_deploy.errors import UsageError
from osbc_deploy.firmware.machine import rasters
from osbc_deploy.firmware.read import read_blob
from osbc_deploy.folders import GOLDEN
from osbc_deploy.release.selftest import SelfTest
from osbc_deploy.running.run import Ran
from osbc_deploy.writing import new_folder

__all__ = ["write_golden"]

SCHEMA = "osbc-deploy/golden/1"
_MOST = 2**16 - 1


def write_golden(ran: Ran, folder: Path, numbers: Sequence[int]) -> None:
    """Write golden vectors, whole or not at all.

    ``rasters.bin`` and ``outputs.bin`` are files of the runtime's programs, ``selftest.bin`` is
    what `osbc_slots_selftest` takes, and ``golden.json`` says what they are.

    Parameters
    ----------
    ran : Ran
    folder : Path
        Replaced if it holds golden vectors.
    numbers : sequence of int
        Of the samples in their data.

    Raises
    ------
    UsageError
        For more samples than a self-test can count, or a folder of someone else's.
    UnsupportedModelError
        For a network that no device loads.
    """
    if len(ran.samples) > _MOST:
        raise UsageError(
            f"golden: {len(ran.samples):,} samples, at most {_MOST:,} are possible. Pick some."
        )
    ran.image.loaded()
    given, output = ran.image.network.input, np.ascontiguousarray(ran.output, "<i4")
    crcs = tuple(zlib.crc32(sample.tobytes()) for sample in output)
    n, steps = output.shape[:2]
    flat = ran.payloads.reshape(n, steps, -1)
    about = {
        "schema": SCHEMA,
        "generator": f"osbc-deploy {__version__}",
        "identity": ran.image.identity,
        "on": ran.on,
        "data": ran.samples.name,
        "samples": list(map(int, numbers)),
        "steps": steps,
        "inputs": flat.shape[2],
        "outputs": output.shape[2],
        "input": {"kind": given.kind, "bits": given.bits, "signed": given.signed,
                  "scale": given.scale},
        "labels": None if ran.samples.labels is None else list(map(int, ran.samples.labels)),
        "classes": list(map(int, ran.classes)),
        "output_crc32": [f"{crc:08x}" for crc in crcs],
    }  # fmt: skip
    with new_folder(folder, GOLDEN) as work:
        (work / "rasters.bin").write_bytes(rasters(read_blob(ran.image.loaded()), ran.payloads))
        (work / "outputs.bin").write_bytes(output.tobytes())
        tested = SelfTest(flat, crcs, output.shape[2], given.signed)
        (work / "selftest.bin").write_bytes(tested.pack())
        (work / GOLDEN.marker).write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
