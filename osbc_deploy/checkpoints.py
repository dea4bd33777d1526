"""Read the weights of a module from a file, without running anything that is in it.

safetensors hold tensors alone. What ``torch.save`` writes is a pickle: its instructions are looked
at first, and only those that make tensors and plain values are given to ``torch.load``, which is
asked for weights only as well.
"""

from __future__ import annotations

import io
import pickletools
import re
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from osbc_deploy.errors import NotFoundError, WeightsError, described, unreadable
from osbc_deploy.limits import Allowance, check_tensors, is_there, read_bytes

if TYPE_CHECKING:
    import torch

__all__ = ["check_weights_file", "fitted", "read_state"]

_ZIP, _PICKLE = b"PK\x03\x04", b"\x80"
_SAVE = "torch.save(model.state_dict(), path), or safetensors.torch.save_file"
_NESTED = ("state_dict", "model_state_dict", "model", "net", "network", "module", "weights")
"""Under what name training code keeps the weights beside other things, most telling first."""

_TENSORS = re.compile(
    r"torch (\w+Storage|Size|device|u?int\d+|b?float\d+|bool|complex\d+)"
    r"|torch\.storage (UntypedStorage|TypedStorage)"
    r"|torch\._utils (_rebuild_tensor|_rebuild_tensor_v2|_rebuild_parameter)"
    r"|torch\.nn\.parameter Parameter|collections OrderedDict"
)
"""What a pickle may name: what tensors are made with."""

_OBJECTS = 100
"""Bytes of Python objects that a byte of a pickle can become."""

_PICKLES = 5
"""Pickles in a file of torch before 1.6: three of its format, the object, names of storages."""


def read_state(path: Path) -> Mapping[str, torch.Tensor]:
    """Return the tensors of a file by name.

    Parameters
    ----------
    path : Path
        safetensors, or what ``torch.save`` wrote: a state dict, or a dict with one in it, such as
        ``{"state_dict": ...}``. Tensors of other devices come to the CPU.

    Raises
    ------
    UsageError
        When the file does not exist.
    ArtefactError
        When it is neither, holds Python objects, or needs more memory than allowed.
    """
    check_weights_file(path)
    try:
        with path.open("rb") as file:
            start = file.read(9)
    except OSError as error:
        raise WeightsError(f"{path}: {unreadable(error)}") from error
    zipped = start.startswith(_ZIP)
    # The length of safetensors' header, which comes first, may begin as a pickle does.
    pickled = start.startswith(_PICKLE) and start[8:] != b"{"
    return _checkpoint(path, zipped=zipped) if zipped or pickled else _safetensors(path)


def check_weights_file(path: Path) -> None:
    """Refuse a file of weights that is not there."""
    if not is_there(path):
        raise NotFoundError(f"{path}: no such file. Give the weights as .safetensors or .pth.")


def _safetensors(path: Path) -> Mapping[str, torch.Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        check_tensors(path)
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise WeightsError(
            f"{path}: not a safetensors file ({described(error)}), nor a checkpoint of torch. Save "
            f"the weights with {_SAVE}."
        ) from error


def _checkpoint(path: Path, *, zipped: bool) -> Mapping[str, torch.Tensor]:
    import torch

    allowance = Allowance(str(path), remedy="Give a smaller file")
    try:
        data = read_bytes(path)
        pickles = _pickles(data, zipped=zipped, allowance=allowance)
    except (zipfile.BadZipFile, OSError, ValueError, EOFError, NotImplementedError) as error:
        raise WeightsError(
            f"{path}: a broken checkpoint ({described(error)}). Save the weights again with "
            f"{_SAVE}."
        ) from error
    if named := sorted(set(pickles)):
        raise WeightsError(
            f"{path}: holds Python objects ({', '.join(named[:8])}"
            f"{', ...' if len(named) > 8 else ''}), which run code when they are loaded; only "
            f"tensors are read. Save the weights alone where it was made: {_SAVE}."
        )
    try:
        found = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:  # a broken file makes torch raise anything
        raise WeightsError(
            f"{path}: torch cannot load it ({described(error)}). Save the weights again with "
            f"{_SAVE}."
        ) from error
    return _state(path, found)


def _pickles(data: bytes, *, zipped: bool, allowance: Allowance) -> Iterable[str]:
    """Return what the pickles of a checkpoint name that is no part of tensors."""
    if not zipped:
        allowance.take(2 * len(data))
        stream = io.BytesIO(data)
        return [name for _ in range(_PICKLES) for name in _named(stream, len(data), allowance)]
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        parts = archive.infolist()
        allowance.take(2 * sum(part.file_size for part in parts))
        inside = [part for part in parts if part.filename.rpartition("/")[2] == "data.pkl"]
        if not inside:
            raise ValueError("no data.pkl in it")
        return [
            name
            for part in inside
            for name in _named(io.BytesIO(archive.read(part)), part.file_size, allowance)
        ]


def _named(stream: io.BytesIO, size: int, allowance: Allowance) -> Iterable[str]:
    """Return what the next pickle names that is no part of tensors."""
    start = stream.tell()
    found = []
    for code, argument, _ in pickletools.genops(stream):
        if code.name in ("GLOBAL", "INST") and not _TENSORS.fullmatch(str(argument)):
            found.append(str(argument).replace(" ", "."))
        elif code.name in ("STACK_GLOBAL", "EXT1", "EXT2", "EXT4", "NEWOBJ_EX"):
            found.append(f"of pickle's {code.name}")
    allowance.take(_OBJECTS * min(stream.tell() - start, size))
    return found


def _state(path: Path, found: Any) -> Mapping[str, torch.Tensor]:
    """Return the state dict that was loaded, or the one in it."""
    if _is_state(found):
        return dict(found)
    if isinstance(found, Mapping):
        inside = {str(key): value for key, value in found.items() if _is_state(value)}
        for name in _NESTED:
            if name in inside:
                return dict(inside[name])
        if len(inside) == 1:
            return dict(next(iter(inside.values())))
        what = f"a dict of {', '.join(str(key) for key in list(found)[:8]) or 'nothing'}"
    else:
        what = f"a {type(found).__name__}"
    raise WeightsError(
        f"{path}: holds {what}, no state dict, nor one under {', '.join(_NESTED)}. Save the "
        f"weights with {_SAVE}."
    )


def _is_state(found: Any) -> bool:
    import torch

    return (
        isinstance(found, Mapping)
        and bool(found)
        and all(isinstance(k, str) and isinstance(v, torch.Tensor) for k, v in found.items())
    )


def fitted(
    state: Mapping[str, torch.Tensor], own: Mapping[str, torch.Tensor]
) -> tuple[dict[str, torch.Tensor], list[str]]:
    """Return a state dict in a module's names, and what of it does not match.

    Names lose the ``module.`` of DataParallel, the ``_orig_mod.`` of torch.compile, or what all of
    them begin with, where the module has the name without it. A tensor that the module has under
    several names (tied weights) may be in the file once.

    Parameters
    ----------
    state, own : mapping of str to torch.Tensor
        The file's, and the module's.
    """
    faults: list[str] = []
    named: dict[str, torch.Tensor] = {}
    begins = {name.partition(".")[0] for name in state}
    shared = f"{begins.pop()}." if len(begins) == 1 else ""
    for name, tensor in state.items():
        plain = _unwrapped(name)
        ways = (name, plain, plain.removeprefix(shared), _unwrapped(plain.removeprefix(shared)))
        target = next((way for way in ways if way in own), name)
        if target in named:
            faults.append(f"{name} is there twice, with a prefix and without")
        named[target] = tensor
    for name, tensor in own.items():
        same = [other for other in own if other != name and _is_same(own[other], tensor)]
        given = next((named[other] for other in same if other in named), None)
        if name not in named and given is not None:
            named[name] = given
        elif name not in named:
            faults.append(f"missing {name}")
        elif named[name].shape != tensor.shape:
            faults.append(
                f"{name} has shape {tuple(named[name].shape)}, needed {tuple(tensor.shape)}"
            )
        elif given is not None and not given.equal(named[name]):
            faults.append(f"{name} differs from {', '.join(same)}, which are one in the model")
    faults += [f"unknown {name}" for name in named if name not in own]
    return named, faults


def _unwrapped(name: str) -> str:
    name = name.replace("_orig_mod.", "")
    while name.startswith("module."):
        name = name.removeprefix("module.")
    return name


def _is_same(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Tell whether two tensors of a module are one."""
    if one.shape != other.shape or not one.numel() or one.is_meta or other.is_meta:
        return False
    return bool(one.data_ptr() == other.data_ptr() and one.stride() == other.stride())
