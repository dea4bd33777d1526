"""Functions of spikes that are logic gates: masks, the largest of several, counts compared."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from osbc_deploy.frameworks.gating import OF_CURRENTS, OF_NUMBERS, SPIKES
from osbc_deploy.frameworks.joining import joined, put_sum, sample_axes
from osbc_deploy.frameworks.operations import Scale, Shift
from osbc_deploy.frameworks.reasons import unsupported_part

if TYPE_CHECKING:
    from osbc_deploy.frameworks.builder import Builder
    from osbc_deploy.frameworks.signals import Called

__all__ = ["LOGIC", "put_gate"]


def put_gate(builder: Builder, called: Called, name: str, least: int) -> None:
    """Take what is computed of two signals, which is a gate if both are spikes."""
    if None in (builder.literal(s) for s in called.sources):
        builder.refuse(called, f"{name} {OF_NUMBERS}")
        return
    try:
        (one, two), layout = joined(builder, called, name)
    except ValueError as why:
        builder.refuse(called, str(why))
        return
    builder.lies(called, layout)
    if one == two:
        # Of a signal with itself.
        builder.now[called] = one
    else:
        builder.now[called] = [*one, *two]
        builder.gates(called, least, name, layout.shape)


def _least(builder: Builder, called: Called) -> None:
    """Take the larger or smaller of two signals, or the largest or smallest along axes."""
    name = called.event.name
    if len(called.sources) == 2 and not called.event.kwargs:
        put_gate(builder, called, name, 1 if "max" in name else 2)
    elif len(called.sources) == 1 and (len(called.event.args) > 1 or called.event.kwargs):
        _along(builder, called)
    else:
        builder.refuse_part(called, unsupported_part(name))


def _along(builder: Builder, called: Called) -> None:
    name, (axes, keep) = called.event.name, sample_axes(called)
    if builder.literal(called.sources[0]) != SPIKES or not axes:
        builder.refuse_part(called, f"{name} {OF_CURRENTS}")
        return
    try:
        put_sum(builder, called, axes, keep=keep, mean=False, name=f"to {called.name}")
    except ValueError as why:
        builder.refuse(called, f"{name} {why}")
        return
    shape = called.sources[0].shape
    least = 1 if "max" in name else math.prod(shape[a] for a in axes)
    after = builder.layouts.get(called.name)
    made = called.shape
    builder.gates(called, least, name, made if after is None else after.shape)


def _either(builder: Builder, called: Called) -> None:
    put_gate(builder, called, called.event.name, 1)


def _both(builder: Builder, called: Called) -> None:
    put_gate(builder, called, called.event.name, 2)


def _not(builder: Builder, called: Called) -> None:
    if builder.literal(called.sources[0]) is None:
        builder.refuse(called, f"{called.event.name} {OF_NUMBERS}")
        return
    builder.put(called, called.name, Scale(np.asarray(-1.0)))
    builder.put(called, f"{called.name}.shift", Shift(np.asarray(1.0)))


def _compare(builder: Builder, called: Called) -> None:
    """Take a comparison of counts with a number."""
    name, args = called.event.name, called.event.args
    number = args[1] if len(args) == 2 else None
    if not isinstance(number, int | float) or not builder.counts(called)[0]:
        builder.refuse_part(called, unsupported_part(name))
        return
    least = {
        "gt": math.floor(number) + 1,
        "ge": math.ceil(number),
        "lt": 1 - math.ceil(number),
        "le": -math.floor(number),
    }[name]
    if name in ("lt", "le"):
        builder.put(called, f"{called.name}.scale", Scale(np.asarray(-1.0)))
    _counted(builder, called, least)


def _clamp(builder: Builder, called: Called) -> None:
    """Take sums that are cut off above 1, which fire from 1."""
    given: dict[str, Any] = {
        **dict(zip(("input", "min", "max"), called.event.args, strict=False)),
        **called.event.kwargs,
    }
    whole, positive = builder.counts(called)
    lowest = given.get("min")
    if not whole:
        builder.refuse_part(called, unsupported_part(called.event.name))
        return
    if given.get("max") != 1 or lowest not in ((None, 0) if positive else (0,)):
        builder.refuse(called, f"{called.event.name} of spikes to anything but 0 and 1")
        return
    _counted(builder, called, 1)


def _cast(builder: Builder, called: Called) -> None:
    """Take spikes or counts as whole numbers, or as whether there are any."""
    name = called.event.name
    whole, positive = builder.counts(called)
    if builder.literal(called.sources[0]) is not None or (whole and name != "bool"):
        builder.passed(called)
    elif whole and positive:
        _counted(builder, called, 1)
    else:
        builder.refuse_part(called, unsupported_part(name))


def _counted(builder: Builder, called: Called, least: int) -> None:
    if least == 1 and builder.literal(called.sources[0]) == SPIKES:
        builder.passed(called)
        return
    layout = builder.placed(called.sources[0])
    builder.gates(called, least, called.event.name, layout.shape)


LOGIC: Mapping[str, Callable[[Builder, Called], None]] = {
    **dict.fromkeys(("max", "maximum", "min", "minimum", "amax", "amin"), _least),
    **dict.fromkeys(("or", "ior", "logical_or", "bitwise_or"), _either),
    **dict.fromkeys(("and", "iand", "logical_and", "bitwise_and"), _both),
    **dict.fromkeys(("invert", "logical_not", "bitwise_not"), _not),
    **dict.fromkeys(("gt", "ge", "lt", "le"), _compare),
    **dict.fromkeys(("bool", "int", "long"), _cast),
    **dict.fromkeys(("clamp", "clip"), _clamp),
}
"""How functions that are gates are read, by name."""
