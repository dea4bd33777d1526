"""Records as plain data, each counter linked to the layer of the user's model."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from osbc_deploy.errors import ArtefactError, UsageError
from osbc_deploy.firmware.about import About, AboutPopulation
from osbc_deploy.firmware.layout import LAYER, RECORD
from osbc_deploy.limits import read_bytes
from osbc_deploy.parsing import schema_of
from osbc_deploy.telemetry.record import IDENTITY_BYTES, LayerCounts, Window, read_windows

__all__ = ["SCHEMA", "decoded", "encoded", "read_files", "schema"]

SCHEMA = "osbc-deploy/telemetry/1"
_LARGEST = {"u16": 2**16 - 1, "u32": 2**32 - 1}
_BYTES_OF_OBJECTS = 60
"""Of memory that a byte of a record becomes."""


def schema() -> dict[str, Any]:
    """Return the JSON schema of what :func:`decoded` returns; CBOR holds the same."""
    return schema_of("osbc_deploy.telemetry")


def read_files(paths: Sequence[Path]) -> list[Window]:
    """Return the records of files, one file after another.

    Raises
    ------
    ArtefactError
        When anything in them is not a record; all files are read.
    """
    windows: list[Window] = []
    faults = []
    for path in paths:
        found, fault = _read(path)
        windows += found
        faults += [fault] * bool(fault)
    if faults:
        raise ArtefactError("\n".join(faults))
    return windows


def _read(path: Path) -> tuple[list[Window], str]:
    """Return the records of a file, or what is wrong with it."""
    try:
        return read_windows(read_bytes(path, each=_BYTES_OF_OBJECTS), str(path)), ""
    except OSError as error:
        return [], f"{path}: cannot be read ({error.strerror}). Name files of records."
    except ArtefactError as error:
        return [], str(error)


def decoded(windows: Sequence[Window], about: About) -> dict[str, Any]:
    """Return records of a network as plain data, as :func:`schema` describes it.

    Parameters
    ----------
    windows : sequence of Window
    about : About

    Raises
    ------
    UsageError
        When a record is of another network.
    """
    identity = bytes.fromhex(about.identity)[:IDENTITY_BYTES]
    expected = (identity, len(about.populations), about.classes)
    strangers = sorted(
        {w.identity.hex() for w in windows
         if (w.identity, len(w.layers), len(w.answers)) != expected}
    )  # fmt: skip
    if strangers:
        raise UsageError(
            f"records: are of {', '.join(strangers)}, the network is {identity.hex()}. Name the "
            "network.json of the network that the device ran."
        )
    return {
        "schema": SCHEMA,
        "network": {
            "identity": about.identity,
            "sha256": about.sha256,
            "margin_unit": about.margin_unit,
            "layers": [
                {
                    "population": p.name,
                    "layer": p.layer,
                    "neurons": p.neurons,
                    "count_unit": p.count_unit,
                }
                for p in about.populations
            ],
        },
        "windows": [_window(window, about.populations) for window in windows],
    }


def _window(w: Window, populations: Sequence[AboutPopulation]) -> dict[str, Any]:
    stopped = _stopped(
        {"samples": w.samples, "boots": w.boots, "silent": w.silent, "faults": w.faults}
        | {"margins": w.margins, "answers": w.answers}, {f.name: f.type for f in RECORD.fields},
    )  # fmt: skip
    return {
        "sequence": w.sequence, "boots": w.boots, "samples": w.samples, "silent": w.silent,
        "faults": w.faults, "margins": list(w.margins), "answers": list(w.answers),
        "layers": [_layer(layer, p) for layer, p in zip(w.layers, populations, strict=True)],
        "stopped": stopped,
    }  # fmt: skip


def _layer(layer: LayerCounts, population: AboutPopulation) -> dict[str, Any]:
    counted = {
        "spikes": layer.spikes, "fired": layer.fired,
        "clipped_currents": layer.clipped_currents,
        "clipped_potentials": layer.clipped_potentials, "counts": layer.counts,
    }  # fmt: skip
    return {
        "population": population.name,
        "layer": population.layer,
        **counted,
        "counts": list(layer.counts),
        "stopped": _stopped(counted, {f.name: f.type for f in LAYER.fields}),
    }


def _stopped(counted: dict[str, Any], types: dict[str, str]) -> list[str]:
    """Return the counters that stand at their largest value, and may have stopped there."""
    found = []
    for name, value in counted.items():
        largest = _LARGEST[types.get(name, "u16").split()[-1]]
        highest = max(value, default=0) if isinstance(value, tuple) else value
        if highest == largest:
            found.append(name)
    return found


def encoded(data: dict[str, Any], form: str) -> bytes:
    """Return plain data as ``json`` or ``cbor``."""
    if form == "json":
        return (json.dumps(data, indent=1) + "\n").encode()
    # Imported here: nothing else needs it.
    import cbor2

    return cbor2.dumps(data, canonical=True)
