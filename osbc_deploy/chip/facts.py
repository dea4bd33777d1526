"""Facts: the numbers of a chip, each with its unit, source and evidence grade."""

from __future__ import annotations

from typing import Annotated, Any, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field

__all__ = ["Bits", "Count", "Fact", "Grade", "Positive", "Strict", "Width", "facts_of"]

Grade = Literal["published", "derived", "assumed"]
T = TypeVar("T")

MOST = 2**31 - 1
"""Entries, words or neurons: products of two of them are computed in 64 bits."""
WIDEST = 1024
"""Bits of a word or a field: times as many synapses as there may be, they fit 64 bits."""

Count = Annotated[int, Field(ge=0, le=MOST)]
Positive = Annotated[int, Field(gt=0, le=MOST)]
Bits = Annotated[int, Field(ge=0, le=WIDEST)]
Width = Annotated[int, Field(gt=0, le=WIDEST)]


class Strict(BaseModel):
    """A table of a target file: unknown keys, values of another type and NaN are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Fact(Strict, Generic[T]):
    """A number of a chip.

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


def facts_of(model: BaseModel, path: str = "") -> list[tuple[str, Fact[Any]]]:
    """Return every fact below a table with its dotted name."""
    found = []
    for name in type(model).model_fields:
        value, place = getattr(model, name), f"{path}.{name}" if path else name
        if isinstance(value, Fact):
            found.append((place, value))
        elif isinstance(value, BaseModel):
            found.extend(facts_of(value, place))
    return found
