"""The state of a compression on disk, so that one that was killed goes on where it was.

Every finished population is one file, written under another name, synced and renamed: whatever
the moment of death, a file is there whole or not at all. The folder belongs to one network, one
set of samples, one set of options and one version of this program; for anything else it is refused.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from osbc_deploy._version import __version__
from osbc_deploy.belonging import BelongsTo, broken, changed
from osbc_deploy.compress.options import CompressionOptions
from osbc_deploy.compress.result import CompressedProjection
from osbc_deploy.deviations import Deviation
from osbc_deploy.errors import UsageError, unwritable
from osbc_deploy.limits import PARSED, check_tensors, read_text
from osbc_deploy.model.graph import Projection
from osbc_deploy.parsing import parse_json
from osbc_deploy.writing import check_growing, write_whole

__all__ = ["FinishedLayer", "SolverState", "check_state_folder", "state_belongs_to"]

FORMAT = "osbc-deploy/state/4"
_MANIFEST = "state.json"

FinishedLayer: TypeAlias = tuple[tuple[CompressedProjection, ...], tuple[Deviation, ...]]
"""The compressed weights into a population, and what was done otherwise than asked."""


class SolverState:
    """A folder of finished layers.

    Parameters
    ----------
    folder : Path
        Made if it is not there.
    belongs_to : dict
        What the state depends on.

    Raises
    ------
    UsageError
        When the folder holds the state of something else, or other files.
    ArtefactError
        When the state is broken.
    """

    def __init__(self, folder: Path, belongs_to: BelongsTo) -> None:
        self._folder = folder
        path = folder / _MANIFEST
        if path.is_file():
            _check_manifest(path, belongs_to)
            return
        check_state_folder(folder)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            manifest = {"format": FORMAT, "belongs_to": dict(belongs_to)}
            write_whole(path, json.dumps(manifest, indent=1))
        except OSError as error:
            raise UsageError(f"{folder}: {unwritable(error)}") from error

    def load_plan(self) -> dict[str, Any] | None:
        """Return what was planned for all layers, if it was."""
        path = self._folder / "plan.json"
        if not path.is_file():
            return None
        try:
            found = parse_json(read_text(path, each=PARSED))
            plan: dict[str, Any] = found["plan"]
            _check_digest(found["sha256"], plan)
            _check_plan(plan)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise broken(path, _MANIFEST, error) from error
        return plan

    def save_plan(self, plan: Mapping[str, Any]) -> None:
        """Keep what is planned for all layers."""
        content = {"plan": plan, "sha256": _digest(plan)}
        write_whole(self._folder / "plan.json", json.dumps(content))

    def load(self, population: str, afferents: Sequence[Projection]) -> FinishedLayer | None:
        """Return a finished population, or None.

        Raises
        ------
        ArtefactError
            When its file is broken.
        """
        path = self._path(population)
        if not path.is_file():
            return None
        try:
            check_tensors(path)
            with safe_open(path, framework="numpy") as file:
                about = parse_json(file.metadata()["layer"])
                arrays = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
                _check_digest(about.pop("sha256"), about, arrays)
                layers = tuple(
                    _read(arrays, number, entry, projection)
                    for number, (entry, projection) in enumerate(
                        zip(about["projections"], afferents, strict=True)
                    )
                )
                return layers, tuple(Deviation(**d) for d in about["deviations"])
        except (
            SafetensorError,
            ValueError,
            KeyError,
            TypeError,
            AttributeError,
            OSError,
        ) as error:
            raise broken(path, _MANIFEST, error) from error

    def save(
        self,
        population: str,
        layers: Sequence[CompressedProjection],
        deviations: Sequence[Deviation],
    ) -> None:
        """Keep a finished population."""
        arrays: dict[str, NDArray[Any]] = {}
        for number, layer in enumerate(layers):
            arrays[f"{number}.codes"] = layer.codes
            arrays[f"{number}.scale"] = layer.scale
            if layer.bias is not None:
                arrays[f"{number}.bias"] = layer.bias
            if layer.pruned is not None:
                arrays[f"{number}.pruned"] = layer.pruned
        about = {
            "projections": [_plain(layer) for layer in layers],
            "deviations": [asdict(d) for d in deviations],
        }
        # One entry: safetensors writes several in no order, and the bytes shall be the same.
        content = json.dumps({**about, "sha256": _digest(about, arrays)})
        write_whole(self._path(population), save(arrays, {"layer": content}))

    def _path(self, population: str) -> Path:
        # Names come from a user's model; only their bytes are safe in a file name.
        return self._folder / f"layer-{population.encode().hex()}.safetensors"


def check_state_folder(folder: Path) -> None:
    """Make sure that a folder holds a state, or nothing, and can be written into.

    Raises
    ------
    UsageError
    """
    check_growing(folder, _MANIFEST, "state")


def state_belongs_to(
    model: str, samples: NDArray[Any], options: CompressionOptions, **more: object
) -> BelongsTo:
    """Return what decides the result of a compression, by name.

    Parameters
    ----------
    model : str
        Digest of the weights.
    samples : ndarray (n, T, ...)
    options : CompressionOptions
    **more
        Further options that were asked for, by name.
    """
    digest = hashlib.sha256(repr(samples.shape).encode() + samples.tobytes())
    # How many threads solve it does not matter to the result; memory may decide the method.
    asked = [field.name for field in fields(options) if field.repr and field.name != "threads"]
    given = {name: getattr(options, name) for name in asked} | more
    return {
        "model": model,
        "calibration": digest.hexdigest(),
        "options": {name: repr(value) for name, value in given.items()},
        "version of osbc-deploy": __version__,
    }


def _check_manifest(path: Path, wanted: BelongsTo) -> None:
    try:
        found = parse_json(read_text(path, each=PARSED))
        known = dict(found["belongs_to"])
        version = found["format"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise broken(path, _MANIFEST, error) from error
    if version != FORMAT:
        raise UsageError(
            f"{path.parent}: state of format {version!r}, this program writes {FORMAT!r}. "
            "Choose another folder."
        )
    if other := changed(known, wanted):
        raise UsageError(
            f"{path.parent}: holds the state of another run; changed since: {', '.join(other)}. "
            "Resume with the same settings, or choose another folder."
        )


def _plain(layer: CompressedProjection) -> dict[str, Any]:
    return {
        "name": layer.name,
        "bits": layer.bits,
        "kept": layer.kept,
        "relative_loss": dict(layer.relative_loss),
        "selection": layer.selection,
        "dead_inputs": layer.dead_inputs,
        "damping": layer.damping,
        "curve": [list(point) for point in layer.curve],
        "threshold": layer.threshold,
        "tried": dict(layer.tried),
        "chosen": layer.chosen,
    }


def _read(
    arrays: Mapping[str, NDArray[Any]],
    number: int,
    about: Mapping[str, Any],
    projection: Projection,
) -> CompressedProjection:
    codes, scale = arrays[f"{number}.codes"], arrays[f"{number}.scale"]
    bias = arrays.get(f"{number}.bias")
    shape = projection.connection.weight.shape
    outputs = (shape[0],)
    if about["name"] != projection.name or codes.shape != shape or codes.dtype != np.int8:
        raise ValueError(f"codes {codes.dtype} {codes.shape} are not those of {projection.name}")
    if scale.shape != outputs or (bias is not None and bias.shape != outputs):
        raise ValueError(f"scales or biases of {projection.name} have another shape")
    pruned = arrays.get(f"{number}.pruned")
    if pruned is not None and pruned.shape != shape:
        raise ValueError(f"pruned weights of {projection.name} have another shape")
    _check_kinds(about)
    fields = {**about, "curve": tuple((float(a), float(b)) for a, b in about["curve"])}
    return CompressedProjection(codes=codes, scale=scale, bias=bias, pruned=pruned, **fields)


_KINDS: dict[str, type | tuple[type, ...]] = {
    "bits": int,
    "kept": int,
    "dead_inputs": int,
    "damping": (int, float),
    "threshold": (int, float),
    "selection": str,
    "chosen": str,
    "relative_loss": dict,
    "tried": dict,
}


def _check_kinds(about: Mapping[str, Any]) -> None:
    """Raise ValueError unless everything said of a projection is of the kind it is used as."""
    plain = dict(about)
    plain |= {f"{key} of {name}": v for key in ("relative_loss", "tried")
              if isinstance(about[key], dict) for name, v in about[key].items()}  # fmt: skip
    wrong = [
        key
        for key, value in plain.items()
        if key not in ("name", "curve")
        and (isinstance(value, bool) or not isinstance(value, _KINDS.get(key, (int, float))))
    ]
    if (
        wrong
        or not 1 <= about["bits"] <= 8
        or (about["relative_loss"] and set(about["relative_loss"]) != {"pruned", "total"})
    ):
        raise ValueError(f"{', '.join(wrong) or 'bits or losses'} cannot be")


def _check_plan(plan: Mapping[str, Any]) -> None:
    """Raise unless weights and bits are planned by layer, in whole numbers."""
    counts = [number for name in ("keep", "bits") for number in plan[name].values()]
    if any(isinstance(number, bool) or not isinstance(number, int) for number in counts):
        raise ValueError("weights or bits of a layer are no whole number")
    for said in plan.get("deviations", []):
        Deviation(**said)


def _digest(about: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]] | None = None) -> str:
    """Return a SHA-256 by which damage on the disk is noticed."""
    digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode())
    for key, array in sorted((arrays or {}).items()):
        digest.update(f"{key} {array.dtype} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _check_digest(
    wanted: str, about: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]] | None = None
) -> None:
    if _digest(about, arrays) != wanted:
        raise ValueError("its content is not what was written")
