"""Budgets: limits in a TOML file that a report must keep, for continuous integration."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from osbc_deploy.errors import UsageError
from osbc_deploy.limits import NO_SIZE, parsed_size
from osbc_deploy.parsing import read_toml

__all__ = ["Budget", "Growth", "LayerLimits", "Limits", "read_budget", "with_limits"]


def _sized(value: object) -> object:
    """Return the bytes that a text means."""
    if not isinstance(value, str):
        return value
    if (size := parsed_size(value)) is None:
        raise ValueError(f"{value[:40]!r} {NO_SIZE}")
    return size


Count = Annotated[int, Field(ge=0)]
Bytes = Annotated[int, BeforeValidator(_sized), Field(ge=0)]
"""Also a text with a unit, such as "64K", as the options of the same name take it."""
Share = Annotated[float, Field(ge=0.0, le=1.0)]


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Limits(_Table):
    """Limits of the whole network.

    Attributes
    ----------
    cores, memory_bytes : int
        The most the network may use.
    flash, ram : int
        The most bytes on a microcontroller.
    instructions : int
        The most that any step of the calibration samples may take there, as modelled.
    accuracy_floor : float
        The least accuracy in fixed point, 0 to 1.
    accuracy_drop : float
        The most accuracy lost from float to fixed point.
    samples : int
        The least samples that accuracy is judged on.
    mismatched_spikes : int
        The most spikes, and potentials of a readout, in which backend and engine may differ. None
        may where the budget does not say.
    """

    cores: Count | None = None
    memory_bytes: Bytes | None = None
    flash: Bytes | None = None
    ram: Bytes | None = None
    instructions: Count | None = None
    accuracy_floor: Share | None = None
    accuracy_drop: Share | None = None
    samples: Count | None = None
    mismatched_spikes: Count | None = None


class LayerLimits(_Table):
    """Limits of one layer."""

    cores: Count | None = None
    memory_bytes: Bytes | None = None


class Growth(_Table):
    """How much more than the baseline is allowed, as a share (0.05 is 5 %) or a difference.

    Attributes
    ----------
    cores : int
        Cores more than the baseline.
    memory : float
        Share of the baseline's bytes.
    accuracy_drop : float
        Fixed-point accuracy lost since the baseline.
    retrained : bool
        The baseline may be of another model, such as the same one with other weights; target and
        test data must be the same.
    """

    cores: Count | None = None
    memory: Annotated[float, Field(ge=0.0, le=100.0)] | None = None
    accuracy_drop: Share | None = None
    retrained: bool = False

    @property
    def limited(self) -> bool:
        """Whether anything is limited."""
        return any(v is not None for v in (self.cores, self.memory, self.accuracy_drop))


class Budget(_Table):
    """A budget file.

    Attributes
    ----------
    budget : Limits
    resources : dict of float
        By resource, the largest share of its capacity that any core may use, such as
        ``synapses = 0.8``.
    layers : dict of LayerLimits
    growth : Growth
    """

    # Literal[1] would take true and 1.0.
    schema_: int = Field(alias="schema", ge=1, le=1)
    budget: Limits = Limits()
    resources: dict[str, Share] = {}
    layers: dict[str, LayerLimits] = {}
    growth: Growth = Growth()

    @model_validator(mode="after")
    def _limits_something(self) -> Budget:
        layers = (limit for limits in self.layers.values() for limit in limits)
        limits = (value for _, value in (*self.budget, *layers))
        if self.resources or self.growth.limited or any(value is not None for value in limits):
            return self
        raise ValueError("there is no limit in it; give one, such as cores")


def with_limits(budget: Budget | None, limits: Mapping[str, int | None]) -> Budget:
    """Return a budget with limits of the whole network beside its own.

    Raises
    ------
    UsageError
        When there is neither, or one says otherwise than the budget.
    """
    asked = {name: value for name, value in limits.items() if value is not None}
    if budget is None and not asked:
        raise UsageError(
            "check: there is no limit to keep. Give --budget FILE.toml, --flash, --ram or "
            "--instructions."
        )
    if budget is None:
        return Budget(schema=1, budget=Limits(**asked))
    for name, value in asked.items():
        own = getattr(budget.budget, name)
        if own not in (None, value):
            # Whichever counted, somebody would believe in a limit that nobody holds.
            raise UsageError(
                f"--{name}: {value:,} is asked for, [budget] {name} of --budget says {own:,}. "
                "Leave one of the two out."
            )
    return budget.model_copy(update={"budget": budget.budget.model_copy(update=asked)})


def read_budget(path: Path) -> Budget:
    """Read a budget file.

    Raises
    ------
    UsageError
        When it is missing, no TOML, or holds unknown keys or values out of range.
    """
    tables = read_toml(path)
    try:
        return Budget.model_validate(tables)
    except ValidationError as error:
        faults = "\n".join(
            f"  - {place or 'budget'}: {said}"
            for place, said in (
                (".".join(map(str, f["loc"])), f["msg"].removeprefix("Value error, "))
                for f in error.errors()
            )
        )
        raise UsageError(
            f"{path}: is not a budget:\n{faults}\nTables are [budget], [resources], "
            "[layers.NAME] and [growth]; start with 'schema = 1'."
        ) from error
