"""Fixed-point networks on disk: arrays as safetensors, the rest as JSON, nothing executable.

Reading trusts nothing: names, dtypes, shapes and ranges are checked before use.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from osbc_deploy.errors import ArtefactError, NotFoundError
from osbc_deploy.fixedpoint.arithmetics import LOIHI, arithmetic_of
from osbc_deploy.fixedpoint.coding import InputFormat, undeclared
from osbc_deploy.fixedpoint.connections import KINDS
from osbc_deploy.fixedpoint.formats import NumberFormats
from osbc_deploy.fixedpoint.network import (
    FixedPointNetwork,
    FixedPopulation,
    FixedProjection,
    Pooling,
)
from osbc_deploy.folders import DEPLOYMENT
from osbc_deploy.limits import PARSED, check_tensors, read_text
from osbc_deploy.lower.merge import separate
from osbc_deploy.model.readout import readout_fault
from osbc_deploy.parsing import parse_json
from osbc_deploy.writing import recover

__all__ = [
    "ARRAYS",
    "FORMAT",
    "MANIFEST",
    "manifest_of",
    "network_digest",
    "network_of",
    "read_network",
    "write_network",
]

FORMAT = "osbc-deploy/network/2"
MANIFEST = DEPLOYMENT.marker
ARRAYS = "network.safetensors"

_STATE = (
    "du", "dv", "vth", "reset_amount", "bias_mant", "bias_exp", "u_init", "v_init",
    "v_scale", "v_offset",
)  # fmt: skip
_POPULATION = ("spiking", "reset", "reset_interval", "reset_offset")


def write_network(network: FixedPointNetwork, folder: Path) -> None:
    """Write a network's manifest and arrays into an existing folder."""
    from safetensors.numpy import save

    arrays = {name: np.array(array) for name, array in _arrays_of(network).items()}
    (folder / ARRAYS).write_bytes(save(arrays))
    text = json.dumps(manifest_of(network), indent=1) + "\n"
    (folder / MANIFEST).write_text(text, encoding="utf-8")


def network_digest(network: FixedPointNetwork) -> str:
    """Return a SHA-256 of what :func:`write_network` writes, whatever the layout of the files."""
    digest = hashlib.sha256(_canonical(manifest_of(network)).encode())
    for name, array in sorted(_arrays_of(network).items()):
        digest.update(_canonical([name, array.dtype.name, array.shape]).encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def _canonical(plain: Any) -> str:
    return json.dumps(plain, sort_keys=True, separators=(",", ":"))


def _arrays_of(network: FixedPointNetwork) -> dict[str, NDArray[Any]]:
    arrays: dict[str, NDArray[Any]] = {}
    for population in network.populations:
        for name in _STATE:
            arrays[f"population.{population.name}.{name}"] = getattr(population, name)
    for projection in network.projections:
        for name, array in projection.connection.arrays.items():
            arrays[f"projection.{projection.name}.{name}"] = array
    return arrays


def manifest_of(network: FixedPointNetwork) -> dict[str, Any]:
    """Return everything but the arrays, as plain data."""
    usual = undeclared(graded=network.input.graded)
    return {
        "format": FORMAT,
        "input_shape": network.input_shape,
        # Left out where networks did not say it before.
        **({} if network.input == usual else {"input": asdict(network.input)}),
        "readout": network.readout,
        "formats": {k: v for k, v in asdict(network.formats).items() if v != LOIHI},
        "populations": [
            {"name": p.name, "shape": p.shape} | {key: getattr(p, key) for key in _POPULATION}
            for p in network.populations
        ],
        "projections": [_describe(p) for p in network.projections],
    }


def _describe(projection: FixedProjection) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "name": projection.name,
        "pre": projection.pre,
        "post": projection.post,
        "weight_bits": projection.weight_bits,
        "weight_exp": projection.weight_exp,
        "sign": projection.sign,
        "graded": projection.graded,
        "kind": projection.connection.kind,
        **projection.connection.geometry,
    }
    if projection.pooling is not None:
        entry["pooling"] = asdict(projection.pooling)
    return entry


def read_network(folder: Path) -> FixedPointNetwork:
    """Read and check a network.

    Raises
    ------
    UsageError
        When there is no such folder.
    ArtefactError
        When anything in it is missing, of the wrong kind, or inconsistent.
    """
    from safetensors import SafetensorError, safe_open

    recover(folder)
    if not folder.exists():
        raise NotFoundError(f"{folder}: no such folder. Give one written with osbc-deploy ... -o.")
    try:
        manifest = parse_json(read_text(folder / MANIFEST, each=PARSED))
        check_tensors(folder / ARRAYS)
        with safe_open(folder / ARRAYS, framework="numpy") as file:
            if file.metadata():
                raise ValueError(f"{ARRAYS} holds more than arrays")
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, ValueError, TypeError, AttributeError, SafetensorError) as error:
        # NumPy lacks some of the types that such files can hold.
        raise ArtefactError(
            f"{folder}: is not a network of osbc-deploy ({error}). Deploy again to write it."
        ) from error
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise ArtefactError(
            f"{folder}: format {_shown(manifest)} is not {FORMAT}. Deploy again with this version."
        )
    try:
        network = network_of(manifest, arrays)
        _check_exact(network, manifest, arrays)
        return network
    except (KeyError, TypeError, ValueError, IndexError, ArithmeticError, MemoryError) as error:
        raise ArtefactError(
            f"{folder}: inconsistent network ({type(error).__name__}: {error}). "
            "Deploy again to write it."
        ) from error


def _check_exact(
    network: FixedPointNetwork, manifest: Any, arrays: Mapping[str, NDArray[Any]]
) -> None:
    """Refuse a folder that says more than was read, or says it in another way."""
    if _canonical(manifest) != _canonical(manifest_of(network)):
        raise ValueError(f"{MANIFEST} holds values or keys that are not of this format")
    needed = _arrays_of(network)
    odd = sorted(set(arrays) ^ set(needed)) or sorted(
        name for name, array in needed.items() if arrays[name].dtype != array.dtype
    )
    if odd:
        raise ValueError(f"{ARRAYS}: {odd[0]} is not of this format")


def _shown(manifest: Any) -> str:
    return repr(manifest.get("format")) if isinstance(manifest, dict) else "of the manifest"


def network_of(
    manifest: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]
) -> FixedPointNetwork:
    """Return the network of a manifest and its arrays, all checked.

    Raises
    ------
    KeyError, TypeError, ValueError, IndexError, ZeroDivisionError
        When something is missing or inconsistent.
    """
    given = dict(manifest["formats"])
    given["weight_bits"] = tuple(given["weight_bits"])
    if not isinstance(given.setdefault("arithmetic", LOIHI), str):
        raise ValueError("arithmetic is no name")
    if set(given) != {f.name for f in fields(NumberFormats)}:
        raise ValueError("number formats are incomplete")
    formats = NumberFormats(**given)
    populations = []
    for entry in manifest["populations"]:
        shape = _ints(entry["shape"])
        size = math.prod(shape)
        state = {}
        for name in _STATE:
            array = arrays[f"population.{entry['name']}.{name}"]
            if array.shape != (size,) or array.dtype.kind not in "if":
                raise ValueError(f"{entry['name']}.{name} has shape {array.shape}, needed {size}")
            state[name] = array
        populations.append(
            FixedPopulation(
                name=str(entry["name"]),
                shape=shape,
                spiking=bool(entry["spiking"]),
                reset=entry["reset"],
                reset_interval=int(entry["reset_interval"]),
                reset_offset=int(entry["reset_offset"]),
                drop=state.pop("reset_amount"),
                **state,
            )
        )
    projections = [_read_projection(entry, arrays) for entry in manifest["projections"]]
    if fault := readout_fault(manifest["readout"], populations[-1].size if populations else 1):
        raise ValueError(fault)
    network = FixedPointNetwork(
        _ints(manifest["input_shape"]),
        tuple(populations),
        tuple(projections),
        formats,
        manifest["readout"],
        InputFormat(**manifest["input"]) if "input" in manifest else None,  # type: ignore[arg-type]
    )
    if wrong := arithmetic_of(formats).faults(network):
        raise ValueError("; ".join(wrong[:3]))
    for projection in network.projections:
        if projection.pooling is not None:
            separate(projection.connection, projection.pooling, network.shape_of(projection.pre))
    return network


def _read_projection(
    entry: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]
) -> FixedProjection:
    weight = arrays[f"projection.{entry['name']}.weight"]
    kind = KINDS[entry["kind"]]
    if weight.ndim != kind.dimensions or weight.dtype != np.int16:
        raise ValueError(f"{entry['name']}.weight is {weight.dtype} {weight.shape}")
    held: dict[str, Any] = {
        key: arrays.get(f"projection.{entry['name']}.{key}") for key in kind.held
    }
    geometry = {f.name: _whole(entry[f.name]) for f in fields(kind) if f.name not in kind.held}
    return FixedProjection(
        str(entry["name"]),
        str(entry["pre"]),
        str(entry["post"]),
        kind(**held, **geometry),
        int(entry["weight_bits"]),
        int(entry["weight_exp"]),
        entry["sign"],
        bool(entry["graded"]),
        None
        if entry.get("pooling") is None
        else Pooling(*(_pair(entry["pooling"][key]) for key in ("window", "dilation"))),
    )


def _whole(value: Any) -> Any:
    return value if type(value) is int else _ints(value)


def _pair(values: Any) -> tuple[int, int]:
    rows, columns = _ints(values)
    return rows, columns


def _ints(values: Any) -> tuple[int, ...]:
    numbers = tuple(int(v) for v in values)
    if any(n < 0 for n in numbers):
        raise ValueError(f"negative size in {numbers}")
    return numbers
