"""Facts: the numbers of a chip, each with its unit, source and evidence grade."""

from __future__ import annotations

from typing import Annotated, Any, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field

__all__ = ["Count", "Fact", "Grade", "Positive", "Strict", "facts_of"]

Grade = Literal["published", "derived", "assumed"]
T = TypeVar("T")
Count = Annotated[int, Field(ge=0)]
Positive = Annotated[int, Field(gt=0)]


class Strict(BaseModel):
    """A table of a target file: unknown keys and values of another type are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


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
