"""Targets: chip descriptions in TOML, every number with its source and evidence grade."""

from __future__ import annotations

import hashlib
import os
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError, model_validator

from osbc_deploy.chip.events import Energy, Time
from osbc_deploy.chip.facts import Fact, Positive, Strict, facts_of
from osbc_deploy.chip.instructions import Instructions
from osbc_deploy.chip.memory import MemoryModel
from osbc_deploy.errors import ChipLimitError, TargetError, unreadable
from osbc_deploy.fixedpoint.coding import InputFormat
from osbc_deploy.fixedpoint.formats import LOIHI, NumberFormats
from osbc_deploy.limits import HAND_WRITTEN, read_text
from osbc_deploy.options import StrPath
from osbc_deploy.parsing import parse_toml
from osbc_deploy.plain_text import many
from osbc_deploy.plugins import registered

__all__ = ["Target", "larger_targets", "load_target", "target_names"]

SCHEMA = 1
MOST_CORES = 2**16
"""Cores of a chip, and chips: pages draw every core of a chip that is in use."""
_SIDE = Annotated[int, Field(gt=0, le=2**10)]
_DEEPEST = 8
"""Files that inherit from each other."""


class Chip(Strict):
    """A system of equal chips.

    Attributes
    ----------
    cores, chips : Fact
        Cores of one chip, and chips.
    """

    cores: Fact[Annotated[int, Field(gt=0, le=MOST_CORES)]]
    chips: Fact[Annotated[int, Field(gt=0, le=MOST_CORES)]]


class Mesh(Strict):
    """The network between cores; a chip's cores fill its mesh row by row.

    Attributes
    ----------
    size : Fact
        Columns and rows of cores of one chip.
    tile : Fact
        Columns and rows of cores that share a router: between them, spikes take no hop.
    chips : Fact
        Columns and rows of chips.
    chip_hops : Fact
        What crossing from one chip to the next counts, in hops inside a chip.
    """

    size: Fact[Annotated[list[_SIDE], Field(min_length=2, max_length=2)]]
    chips: Fact[Annotated[list[_SIDE], Field(min_length=2, max_length=2)]]
    chip_hops: Fact[Positive]
    tile: Fact[Annotated[list[_SIDE], Field(min_length=2, max_length=2)]] | None = None

    @property
    def cores_of_router(self) -> tuple[int, int]:
        """Columns and rows of cores that share a router."""
        columns, rows = (1, 1) if self.tile is None else self.tile.value
        return columns, rows


class Input(Strict):
    """What a chip takes as input.

    Attributes
    ----------
    payload_bits : Fact
        Of a graded spike, without the sign; 1 where a spike carries nothing.
    signed : Fact
        Whether payloads may be negative.
    """

    payload_bits: Fact[Annotated[int, Field(gt=0, le=32)]]
    signed: Fact[bool]


class Formats(Strict):
    """The widths of the chip's registers; :class:`NumberFormats` knows their ranges.

    `arithmetic` names the model that says what neurons do with them
    (:mod:`osbc_deploy.fixedpoint.arithmetics`).
    """

    weight_bits: Fact[list[int]]
    weight_mantissa_bits: Fact[int]
    weight_exp_min: Fact[int]
    weight_exp_max: Fact[int]
    vth_bits: Fact[int]
    decay_bits: Fact[int]
    state_bits: Fact[int]
    bias_mant_bits: Fact[int]
    bias_exp_min: Fact[int]
    bias_exp_max: Fact[int]
    state_shift: Fact[int]
    decay_u_offset: Fact[int]
    arithmetic: str = LOIHI


class Target(Strict):
    """A complete chip description.

    Attributes
    ----------
    name, title : str
    backend : str
        Name of the backend that runs networks for this target.
    sources : dict of str
        What each source key stands for.
    chip, memory
        The facts; `memory` is one of the models of :mod:`osbc_deploy.chip.memory`.
    formats : Formats or None
        None for a chip whose arithmetic is not described: networks are mapped, not run.
    input : Input or None
        None for a chip that is not known to take anything but spikes.
    mesh : Mesh or None
    energy : Energy or None
    time : Time or None
        What events take; None where no figure is public.
    instructions : Instructions or None
        What steps take, on a processor.
    exchange : str or None
        Name of the file format that must be able to hold the networks deployed here.
    remarks : list of str
        What a reader of the counts must know; part of every report.
    digest : str
        SHA-256 of the files the description was read from.
    """

    name: str
    title: str
    backend: str = "engine"
    sources: dict[str, str]
    chip: Chip
    memory: MemoryModel
    formats: Formats | None = None
    input: Input | None = None
    mesh: Mesh | None = None
    energy: Energy | None = None
    time: Time | None = None
    instructions: Instructions | None = None
    exchange: str | None = None
    remarks: list[str] = Field(default_factory=list)
    digest: str = ""

    def __reduce__(self) -> tuple[Any, ...]:
        # The generic classes within have no names by which they could be found elsewhere.
        return Target.model_validate, (self.model_dump(),)

    @property
    def number_formats(self) -> NumberFormats:
        """The register widths as plain numbers.

        Raises
        ------
        TargetError
            When the description has none.
        """
        if self.formats is None:
            raise TargetError(
                f"target {self.name!r}: describes cores and memory, not arithmetic, so networks "
                "cannot be lowered to it. Deploy on a target of the Loihi family, then price the "
                f"result with 'osbc-deploy map FOLDER --target {self.name}'."
            )
        facts = {path: fact.value for path, fact in facts_of(self.formats)}
        facts["weight_bits"] = tuple(sorted(facts["weight_bits"]))
        return NumberFormats(**facts, arithmetic=self.formats.arithmetic)

    @property
    def cores(self) -> int:
        """Cores of all chips."""
        return self.chip.cores.value * self.chip.chips.value

    @property
    def payload_bits(self) -> int:
        """Bits of a graded spike, without the sign; 1 for a chip that has none."""
        return 1 if self.input is None else self.input.payload_bits.value

    def check_input(self, given: InputFormat) -> None:
        """Refuse an input that the chip does not take.

        Raises
        ------
        UnsupportedModelError
            For graded input, of more bits, or with a sign.
        """
        bits = self.payload_bits
        signed = self.input is not None and self.input.signed.value
        if not given.graded:
            return
        what = {"integers": "whole numbers", "values": "real values"}.get(given.kind, "")
        if bits == 1:
            says = "takes 0 or 1" if self.input else "is not known to take more than 0 or 1"
            raise ChipLimitError(
                f"input: holds {what}, the target {self.name!r} {says} ([input] payload_bits). "
                "Train on spikes and give these, or take a target that has graded spikes, such as "
                "loihi2."
            )
        if given.signed and not signed:
            raise ChipLimitError(
                f"input: holds {what} below 0, the payloads of target {self.name!r} have no sign "
                "([input] signed). Train on input of 0 and more, such as one channel for each sign."
            )
        if given.bits - given.signed > bits:
            clip = "clip the samples and train on the same"
            fewer = f"Give fewer --input-bits, or {clip}."
            if given.kind == "integers":
                fewer = f"{clip.capitalize()}; fewer --input-bits help where they need fewer."
            raise ChipLimitError(
                f"input: {what} need payloads of {given.bits - given.signed} bits, the target "
                f"{self.name!r} has {bits} ([input] payload_bits). {fewer}"
            )

    def facts(self) -> dict[str, Fact[Any]]:
        """Every fact by its dotted name."""
        return dict(facts_of(self))

    @model_validator(mode="after")
    def _consistent(self) -> Target:
        faults = self.memory.faults(self.cores)
        if self.exchange is not None and self.exchange not in registered("osbc_deploy.formats"):
            known = ", ".join(registered("osbc_deploy.formats"))
            faults.append(f"exchange: format {self.exchange!r} is not one of {known}")
        if self.formats is not None:
            try:
                _ = self.number_formats
            except ValueError as error:
                faults.append(f"formats: {error}")
        if self.mesh is not None:
            for what, size, least in (
                ("size", self.mesh.size.value, self.chip.cores.value),
                ("chips", self.mesh.chips.value, self.chip.chips.value),
            ):
                if size[0] * size[1] < least:
                    faults.append(f"mesh.{what} {size} has fewer places than {least}")
            size, tile = self.mesh.size.value, self.mesh.cores_of_router
            if any(side % part for side, part in zip(size, tile, strict=True)):
                faults.append(f"mesh.size {size} is no whole number of tiles {list(tile)}")
        unknown = sorted(
            f"{place} ({fact.source})"
            for place, fact in self.facts().items()
            if fact.source not in self.sources
        )
        if unknown:
            faults.append(f"sources that [sources] does not list: {', '.join(unknown)}")
        if faults:
            raise ValueError("; ".join(faults))
        return self


def target_names() -> list[str]:
    """Return the names of the targets that come with the package, sorted."""
    return sorted(
        entry.name.removesuffix(".toml")
        for entry in files("osbc_deploy._targets").iterdir()
        if entry.name.endswith(".toml")
    )


def load_target(name: StrPath) -> Target:
    """Load a target by name, or from the path of a TOML file.

    Raises
    ------
    TargetError
        For an unknown name, a file that is not TOML, unknown or missing keys, a source that is
        not listed, or a chain of inheritance that does not end.
    """
    name = os.fspath(name)
    data, digest = _merged(name, ())
    try:
        target = Target.model_validate({**data, "digest": digest})
    except ValidationError as error:
        faults = "\n".join(
            f"  - {'.'.join(str(part) for part in fault['loc']) or 'target'}: "
            f"{fault['msg'].removeprefix('Value error, ')}"
            for fault in error.errors()
        )
        raise TargetError(
            f"target {name!r}: {many(error.error_count(), 'fault')}\n{faults}\nCompare "
            "with a target that works: osbc-deploy targets show loihi2."
        ) from error
    return target


def larger_targets(target: Target, cores: int) -> list[Target]:
    """Return the shipped systems of the same cores that have enough of them, smallest first."""
    systems = [load_target(name) for name in target_names()]
    fitting = [t for t in systems if t.memory == target.memory and t.cores >= cores]
    return sorted(fitting, key=lambda t: t.cores)


def _merged(name: str, chain: tuple[str, ...]) -> tuple[dict[str, Any], str]:
    if name in chain:
        raise TargetError(
            f"target {chain[0]!r}: inherits from itself ({' -> '.join(chain)} -> {name})."
        )
    if len(chain) == _DEEPEST:
        raise TargetError(f"target {chain[0]!r}: inherits from more than {_DEEPEST - 1} others.")
    text = _read(name, chain)
    try:
        data = parse_toml(text)
    except ValueError as error:
        raise TargetError(
            f"target {name!r}: is not valid TOML ({error}). Correct the file."
        ) from error
    schema = data.pop("schema", None)
    if schema != SCHEMA:
        raise TargetError(
            f"target {name!r}: schema {schema!r:.40} is not {SCHEMA}. Start the file "
            f"with 'schema = {SCHEMA}'."
        )
    digest = hashlib.sha256(text.encode())
    parent = data.pop("inherits", None)
    if parent is not None:
        base, base_digest = _merged(_parent(parent, name), (*chain, name))
        data = _overlay(base, data)
        digest.update(base_digest.encode())
    return data, digest.hexdigest()


def _parent(named: Any, child: str) -> str:
    """Return what a target inherits from: a shipped one, or a file beside its own or below."""
    if not isinstance(named, str):
        raise TargetError(f"target {child!r}: inherits from {named!r:.40}, which is not a name.")
    path = Path(named)
    if path.suffix != ".toml":
        return named
    if path.is_absolute() or ".." in path.parts:
        raise TargetError(
            f"target {child!r}: inherits from {named}, which lies outside the folder of its file. "
            "Copy that file beside it and give its name."
        )
    return str(Path(child).parent / path)


def _read(name: str, chain: tuple[str, ...]) -> str:
    path = Path(name)
    asked = f"target {name!r}" + (f" (inherited by {chain[-1]})" if chain else "")
    try:
        if path.suffix == ".toml":
            return read_text(path, most=HAND_WRITTEN, error=TargetError)
        if name in target_names():
            return files("osbc_deploy._targets").joinpath(f"{name}.toml").read_text("utf-8")
    except FileNotFoundError as error:
        raise TargetError(
            f"{asked}: no such file. Give the path of one that is there, or a name that "
            "'osbc-deploy targets list' shows."
        ) from error
    except OSError as error:
        raise TargetError(f"{asked}: {unreadable(error)}") from error
    except ValueError as error:
        raise TargetError(f"{asked}: is not a text in UTF-8 ({error}). Save it as one.") from error
    raise TargetError(
        f"{asked}: is not known (known: {', '.join(target_names())})."
        " Give one of them, or the path of a .toml file."
    )


def _overlay(base: dict[str, Any], top: dict[str, Any]) -> dict[str, Any]:
    """Return `base` with `top` over it.

    Tables merge; a fact is replaced whole, and so is a table that names another model.
    """
    if top.get("model", base.get("model")) != base.get("model"):
        return top
    merged = dict(base)
    for key, value in top.items():
        under = merged.get(key)
        both = isinstance(value, dict) and isinstance(under, dict) and "value" not in value
        merged[key] = _overlay(under, value) if both and under is not None else value
    return merged
