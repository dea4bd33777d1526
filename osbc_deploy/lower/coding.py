r"""The payloads that stand for the data: how many bits, and of real values which scale.

A real value x goes in as :math:`\mathrm{round}(x / s)`, cut off at the ends of its bits. The scale
s is what weights behind the input are multiplied with, so it costs nothing on the chip. A large one
rounds coarsely, a small one cuts off what is large: the one is taken that moves the membrane
potentials behind the input least on calibration samples,

.. math:: \frac{\sum (M W (x - \hat x))^2}{\sum (M W x)^2}

(W the weights, M the membrane's filter), summed over the populations fed by the input. Where the
thresholds of a population differ, each potential counts as a share of its own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TypeAlias

import numpy as np

from osbc_deploy.arrays import FloatArray, InputArray, peak_of
from osbc_deploy.compress.traces import membrane_trace
from osbc_deploy.errors import ChipLimitError, UsageError
from osbc_deploy.fixedpoint.coding import MOST_BITS, SPIKES, InputFormat, bits_for
from osbc_deploy.model.currents import exact_current
from osbc_deploy.model.delivery import delivered
from osbc_deploy.model.graph import INPUT, Network, Population, Projection
from osbc_deploy.options.notation import InputKind

__all__ = [
    "DEFAULT_BITS",
    "Measure",
    "check_graded",
    "input_format",
    "measure",
    "payload",
    "shares_potential",
    "some",
]

Measure: TypeAlias = Callable[..., float]
"""Of an input, and of weights that hear it."""

DEFAULT_BITS = 8
"""Of a real value."""

_SHARES = (1.0, 27 / 32, 23 / 32, 19 / 32)
"""Of the scale that cuts nothing off: what is tried, about evenly within a factor of two."""
_HALVED = 4
"""How often these are halved, and tried again."""
_WORK = 1e9
"""Multiplications that a scale's trial may take, about a second."""


def payload(kind: InputKind, low: float, high: float, bits: int | None = None) -> InputFormat:
    """Return the input that holds samples of a kind and a range, its scale still open.

    Parameters
    ----------
    kind : {"spikes", "integers", "values"}
    low, high : float
        The least and the largest value.
    bits : int, optional
        As asked for; by default 8 for real values, and one more than whole numbers need, so that
        the chip takes twice what was seen.

    Raises
    ------
    UsageError
        When whole numbers need more bits than asked for, a sign has no bit, or spikes are given
        bits.
    """
    if kind == "spikes":
        if bits is not None:
            raise UsageError(
                "--input-bits: the calibration samples hold 0 and 1, which take one bit. Leave it "
                "out."
            )
        return SPIKES
    signed = bool(low < 0)
    if signed and bits == 1:
        raise UsageError("--input-bits: 1 bit holds no sign, and the input goes below 0. Give 2.")
    if kind == "values":
        return InputFormat(kind, bits or DEFAULT_BITS, signed)
    needed = bits_for(int(low), int(high))
    if bits is not None and needed > bits:
        raise UsageError(
            f"--input-bits: whole numbers from {int(low):,} to {int(high):,} need {needed}, {bits} "
            "were asked for. Leave the option out, or clip the samples and train on the same."
        )
    return InputFormat(kind, bits or min(needed + 1, MOST_BITS), signed)


def check_graded(network: Network) -> None:
    """Refuse networks in which a graded input would have to be compared.

    Raises
    ------
    UnsupportedModelError
        With every place.
    """
    offenders = [
        f"{p.name}: gates (max pooling, masks, poolings that are kept apart) take 0 or 1, and the "
        "input is graded"
        for p in network.populations
        if p.neuron.exact and any(a.pre == INPUT for a in network.afferents(p.name))
    ]
    if offenders:
        raise ChipLimitError(
            "network: graded input reaches parts that take only spikes",
            offenders,
            "Put a layer of neurons between the input and these, or give an input of 0 and 1.",
        )


def shares_potential(network: Network) -> list[str]:
    """Return the populations that receive other spikes beside the input.

    Their weights have one scale, and what the input's is can only be a power of two.
    """
    heard = {p.name: {a.pre for a in network.afferents(p.name)} for p in network.populations}
    return [name for name, sources in heard.items() if INPUT in sources and len(sources) > 1]


def input_format(
    network: Network, calibration: InputArray, open_: InputFormat
) -> tuple[InputFormat, list[str]]:
    """Search the scale of a real-valued input.

    Parameters
    ----------
    network : Network
        With the weights it will have on the chip.
    calibration : ndarray of float32 (n, T, *input_shape)
    open_ : InputFormat
        Of :func:`payload`.

    Returns
    -------
    found : InputFormat
    notes : list of str
        What is to be known of it.
    """
    if open_.kind != "values":
        return open_, []
    widest = max(
        float(calibration.max(initial=0)) / open_.high,
        float(calibration.min(initial=0)) / open_.low if open_.signed else 0.0,
    )
    if widest <= 0:
        return open_, []
    coarse = shares_potential(network)
    if coarse:
        # The least power of two that cuts nothing off, and smaller ones.
        mantissa, exponent = math.frexp(widest)
        top = exponent - (mantissa == 0.5)
        scales = [math.ldexp(1.0, top - k) for k in range(_HALVED)]
    else:
        scales = [math.ldexp(widest * s, -k) for k in range(_HALVED) for s in _SHARES]
    # Cutting off more costs more and more: after two that were worse none is better.
    moved = measure(network, some(network, calibration, _WORK))
    best, least, worse = scales[0], math.inf, 0
    for scale in scales:
        error = moved(InputFormat("values", open_.bits, open_.signed, scale))
        worse = 0 if error < least else worse + 1
        if error < least:
            best, least = scale, error
        if worse == 2:
            break
    found = InputFormat("values", open_.bits, open_.signed, best)
    sign = "signed " if found.signed else ""
    notes = [
        f"real values are rounded to {found.bits} {sign}bits of {best:.6g} each, which moves the "
        f"potentials behind it by {math.sqrt(least):.2%} of their size; "
        f"{found.clipped(calibration):.2%} of the calibration's values are cut off"
    ]
    if coarse:
        notes.append(
            "its scale is a power of two, as spikes of others end where it does: "
            f"{', '.join(coarse[:5])}{' ...' if len(coarse) > 5 else ''}"
        )
    return found, notes


def measure(network: Network, samples: InputArray) -> Measure:
    """Return what tells how far rounding moves the potentials behind the input, as a share of them.

    It is called with an input, and with weights where other than the network's hear it.
    """
    heard = [
        (population, [a for a in network.afferents(population.name) if a.pre == INPUT])
        for population in network.populations
    ]
    heard = [(population, afferents) for population, afferents in heard if afferents]
    whole = [_energy(p, _current(network, p, afferents, samples)) for p, afferents in heard]

    def error(found: InputFormat, weights: Mapping[str, FloatArray] | None = None) -> float:
        rounded = found.decoded(found.codes(samples))
        parts = []
        for population, afferents in heard:
            moved = _current(network, population, afferents, samples - rounded)
            if weights:
                lost = [_less(a, weights[a.name]) for a in afferents]
                moved += _current(network, population, lost, rounded)
            parts.append(_energy(population, moved))
        return sum(a / b for a, b in zip(parts, whole, strict=True) if b)

    return error


def some(network: Network, calibration: InputArray, work: float) -> InputArray:
    """Return as many samples as so many multiplications allow a trial, evenly out of all."""
    n, steps = calibration.shape[:2]
    cost = steps * sum(network.multiplications(a) for a in network.projections if a.pre == INPUT)
    count = min(n, max(1, int(work / cost)))
    return calibration[[number * n // count for number in range(count)]]


def _less(projection: Projection, weight: FloatArray) -> Projection:
    """Return a projection with what is left of its weights when others are taken away."""
    connection = projection.connection
    return replace(projection, connection=replace(connection, weight=connection.weight - weight))


def _current(
    network: Network, population: Population, afferents: Sequence[Projection], given: FloatArray
) -> FloatArray:
    """Return the current (n, T, *shape) that an input causes."""
    import torch

    peak = float(peak_of(given)) or 1.0
    found = np.zeros((*given.shape[:2], *population.shape))
    for projection in afferents:
        bare = replace(projection, connection=replace(projection.connection, bias=None))
        heard = np.ascontiguousarray(delivered(network, projection, given))
        flat = torch.from_numpy(heard.reshape(-1, *heard.shape[2:]))
        found += exact_current(bare, torch.float64, peak)(flat).numpy().reshape(found.shape)
    return found


def _worth(population: Population) -> FloatArray:
    """Return how much the potential of each neuron (*shape) counts: 1 where thresholds are lowest.

    A spike is decided by the share of a threshold that a potential moves by, so that of a neuron
    which never fires is nothing that others should give up their spikes for.
    """
    neuron = population.neuron
    if not neuron.spiking:
        return np.ones(())
    height = neuron.parameters["v_threshold"].astype(np.float64)
    if neuron.reset_rule().kind != "subtract":
        height = height - neuron.parameters.get("v_reset", np.zeros(()))
    lowest = height.min()
    return np.asarray(lowest / height) if 0 < lowest < math.inf else np.ones(())


def _energy(population: Population, current: FloatArray) -> float:
    """Return the sum of squares of the potentials that a current causes."""
    potential = membrane_trace(population.neuron.dynamics(), current) * _worth(population)
    # Whole numbers add up to the same on every machine.
    top = float(peak_of(potential))
    if not top:
        return 0.0
    unit = math.ldexp(1.0, math.frexp(top)[1] - 18)
    return int((np.rint(potential / unit).astype(np.int64) ** 2).sum()) * unit**2
