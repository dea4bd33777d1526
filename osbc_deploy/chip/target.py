"""Targets: chip descriptions in TOML, every number with its source and evidence grade."""

from __future__ import annotations

import hashlib
import sys
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from osbc_deploy.errors import TargetError
from osbc_deploy.fixedpoint.formats import NumberFormats

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = ["CoreCaps", "Fact", "MemoryRules", "Target", "load_target", "target_names"]

SCHEMA = 1

Grade = Literal["published", "derived", "assumed"]
T = TypeVar("T")
Count = Annotated[int, Field(ge=0)]
Positive = Annotated[int, Field(gt=0)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Fact(_Strict, Generic[T]):
    """A number of a chip with its unit, evidence grade and source.

    Attributes
    ----------
    value : number or list of numbers
    unit : str
    grade : {"published", "derived", "assumed"}
    source : str
        A key of the target's table of sources.
    """

    value: T
    unit: str
    grade: Grade
    source: str


class Chip(_Strict):
    """What a chip consists of."""

    cores: Fact[Positive]


class CoreCaps(_Strict):
    """What one core holds of each resource, in the resource's own unit."""

    axon_in: Fact[Positive]
    neuron_groups: Fact[Positive]
    neuron_state: Fact[Positive]
    synapses: Fact[Positive]
    axon_map: Fact[Positive]
    axon_mem: Fact[Positive]


class CoreMemory(_Strict):
    """A core: its word, the pool all resources share, and the cap of each."""

    word_bits: Fact[Positive]
    pool_words: Fact[Positive]
    caps: CoreCaps


class MemoryRules(_Strict):
    """What synapses, axons and neurons cost."""

    index_bits: Fact[Count]
    header_bits: Fact[Count]
    conv_odd_row_words: Fact[Count]
    conv_axon_entries: Fact[Count]
    neuron_words: Fact[Positive]
    axon_mem_entries: Fact[Count]
    sparse_record_bits: Fact[Count]


class Formats(_Strict):
    """The widths of the chip's registers; see :class:`NumberFormats`."""

    weight_bits: Fact[list[Positive]]
    weight_mantissa_bits: Fact[Positive]
    weight_exp_min: Fact[int]
    weight_exp_max: Fact[int]
    vth_bits: Fact[Positive]
    decay_bits: Fact[Positive]
    state_bits: Fact[Positive]
    bias_mant_bits: Fact[Positive]
    bias_exp_max: Fact[Count]
    state_shift: Fact[Count]
    decay_u_offset: Fact[Count]


class Target(_Strict):
    """A complete chip description.

    Attributes
    ----------
    name, title : str
    backend : str
        Name of the backend that runs networks for this target.
    sources : dict of str
        What each source key stands for.
    chip, core, memory, formats
        The facts.
    digest : str
        SHA-256 of the files the description was read from.
    """

    name: str
    title: str
    backend: str
    sources: dict[str, str]
    chip: Chip
    core: CoreMemory
    memory: MemoryRules
    formats: Formats
    digest: str = ""

    @property
    def number_formats(self) -> NumberFormats:
        """The register widths as plain numbers."""
        facts = {name: getattr(self.formats, name).value for name in Formats.model_fields}
        facts["weight_bits"] = tuple(sorted(facts["weight_bits"]))
        return NumberFormats(**facts)

    def caps(self) -> dict[str, int]:
        """Return the capacity of a core by resource; ``total`` is the shared pool."""
        caps = {name: getattr(self.core.caps, name).value for name in CoreCaps.model_fields}
        return {**caps, "total": self.core.pool_words.value}

    def facts(self) -> dict[str, Fact[Any]]:
        """Every fact by its dotted name."""
        return dict(_facts(self, ""))


def _facts(model: BaseModel, path: str) -> list[tuple[str, Fact[Any]]]:
    found = []
    for name in type(model).model_fields:
        value, place = getattr(model, name), f"{path}.{name}" if path else name
        if isinstance(value, Fact):
            found.append((place, value))
        elif isinstance(value, BaseModel):
            found.extend(_facts(value, place))
    return found


def target_names() -> list[str]:
    """Return the names of the targets that come with the package, sorted."""
    return sorted(
        entry.name.removesuffix(".toml")
        for entry in files("osbc_deploy._targets").iterdir()
        if entry.name.endswith(".toml")
    )


def load_target(name: str) -> Target:
    """Load a target by name, or from the path of a TOML file.

    Raises
    ------
    TargetError
        For an unknown name, a file that is no TOML, unknown or missing keys, a source that is
        not listed, or a chain of inheritance that does not end.
    """
    data, digest = _merged(name, ())
    try:
        target = Target.model_validate({**data, "digest": digest})
    except ValidationError as error:
        faults = "\n".join(
            f"  - {'.'.join(str(part) for part in fault['loc'])}: {fault['msg']}"
            for fault in error.errors()
        )
        raise TargetError(
            f"target {name!r}: {error.error_count()} fault(s)\n{faults}\nCompare "
            "with a target that works: osbc-deploy targets show loihi2."
        ) from error
    unknown = sorted(
        {
            f"{place} ({fact.source})"
            for place, fact in target.facts().items()
            if fact.source not in target.sources
        }
    )
    if unknown:
        raise TargetError(
            f"target {name!r}: sources that [sources] does not list: "
            f"{', '.join(unknown)}. Add them there."
        )
    if target.core.caps.synapses.value > target.core.pool_words.value:
        raise TargetError(
            f"target {name!r}: core.caps.synapses ({target.core.caps.synapses.value})"
            f" exceeds core.pool_words ({target.core.pool_words.value})."
        )
    return target


def _merged(name: str, chain: tuple[str, ...]) -> tuple[dict[str, Any], str]:
    if name in chain:
        raise TargetError(
            f"target {chain[0]!r}: inherits in a circle ({' -> '.join(chain)} -> {name})."
        )
    text = _read(name, chain)
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise TargetError(
            f"target {name!r}: is not valid TOML ({error}). Correct the file."
        ) from error
    schema = data.pop("schema", None)
    if schema != SCHEMA:
        raise TargetError(
            f"target {name!r}: schema {schema!r} is not {SCHEMA}. Start the file "
            f"with 'schema = {SCHEMA}'."
        )
    digest = hashlib.sha256(text.encode())
    parent = data.pop("inherits", None)
    if parent is not None:
        base, base_digest = _merged(str(parent), (*chain, name))
        data = _overlay(base, data)
        digest.update(base_digest.encode())
    return data, digest.hexdigest()


def _read(name: str, chain: tuple[str, ...]) -> str:
    path = Path(name)
    try:
        if path.suffix == ".toml":
            return path.read_text(encoding="utf-8")
        if name in target_names():
            return files("osbc_deploy._targets").joinpath(f"{name}.toml").read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise TargetError(f"target {name!r}: cannot be read ({error}).") from error
    asked = f" (inherited by {chain[-1]})" if chain else ""
    raise TargetError(
        f"target {name!r}{asked}: is not known (known: {', '.join(target_names())})."
        " Give one of them, or the path of a .toml file."
    )


def _overlay(base: dict[str, Any], top: dict[str, Any]) -> dict[str, Any]:
    """Return `base` with `top` over it; tables merge, a fact is replaced whole."""
    merged = dict(base)
    for key, value in top.items():
        under = merged.get(key)
        both = isinstance(value, dict) and isinstance(under, dict) and "value" not in value
        merged[key] = _overlay(under, value) if both and under is not None else value
    return merged
