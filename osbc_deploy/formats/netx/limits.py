"""What a NetX file can hold and lava-dl's loader gives back: one place that all others ask.

``deploy`` asks before any work for the float network, and again for the integers; ``export`` asks
for the integers before it writes; the reader asks whether the loader keeps a file's weights.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from osbc_deploy.arrays import IntArray
from osbc_deploy.errors import ChipLimitError
from osbc_deploy.fixedpoint.formats import NumberFormats
from osbc_deploy.fixedpoint.loihi import effective_bias
from osbc_deploy.fixedpoint.network import (
    INPUT,
    FixedPointNetwork,
    FixedPopulation,
    FixedProjection,
)
from osbc_deploy.fixedpoint.ranges import faults
from osbc_deploy.model.graph import Network, Population

__all__ = ["BIAS_EXP", "check_network", "check_writable", "loader_keeps", "plain_weights"]

BIAS_EXP = 6
"""Exponent that lava-dl's loader gives every bias."""
_BIAS_BITS = 13
_WEIGHT_BITS = 8

_RANGES = "Deploy with --target loihi2-netx, whose numbers the format holds."
_ANOTHER = "Use another format: --format c or image."
_ELSEWHERE = "Deploy with --target loihi2 and export with --format c or image."
_ZERO = "Train with resets to zero."
_UNBIASED = "Train the layers before neurons with synaptic current with bias=False."
_KEPT = "Keep more weights: lower --sparsity, or give samples at which the layer before fires."


class _Offender(NamedTuple):
    """What cannot be written, and what to do about it."""

    line: str
    remedy: str


def check_network(network: Network) -> None:
    """Refuse a float network that no lowering makes one that NetX holds, before any work.

    Raises
    ------
    UnsupportedModelError
        With everything in the way.
    """
    _refuse(_of_network(network))


def check_writable(network: FixedPointNetwork) -> None:
    """Refuse integers that a file cannot hold, or that lava-dl's loader would change.

    Raises
    ------
    UnsupportedModelError
        With everything in the way.
    """
    _refuse(_of_integers(network))


def _refuse(offenders: Iterator[_Offender]) -> None:
    found = list(offenders)
    if found:
        remedies = list(dict.fromkeys(remedy for _, remedy in found))
        # What only another format holds makes all else that could be done for this one vain.
        remedies = [r for r in remedies if r in (_ANOTHER, _ELSEWHERE)] or remedies
        raise ChipLimitError(
            "network: cannot be written as NetX",
            [line for line, _ in found],
            " ".join(remedies),
        )


_NO_ZERO_RESET = "{}: NetX only resets to zero, after a spike"
_CHAIN = "{}: is fed by {}; NetX chains layers, each of which may feed back to itself alone"
_CURRENT_STARTS = "{}: does not start at 0, as a bias before a neuron with synaptic current causes"
_STARTS = "{}: does not start at 0"


def _of_network(network: Network) -> Iterator[_Offender]:
    before = INPUT
    for population in network.populations:
        name = population.name
        afferents = network.afferents(name)
        yield from _chain(name, before, [p.pre for p in afferents], _ELSEWHERE)
        recurrent = [p for p in afferents if p.pre == name]
        if any(p.connection.convolutional for p in recurrent):
            yield _Offender(f"{name}: feeds back to itself by a convolution", _ELSEWHERE)
        delayed = any(p.delay is not None and np.any(p.delay) for p in afferents)
        if delayed and recurrent:
            yield _Offender(_delayed_feedback(name), _ELSEWHERE)
        yield from _of_neurons(network, population)
        before = name


def _chain(name: str, before: str, sources: Sequence[str], remedy: str) -> Iterator[_Offender]:
    if [pre for pre in sources if pre != name] != [before] or sources.count(name) > 1:
        yield _Offender(_CHAIN.format(name, ", ".join(sources)), remedy)


def _of_neurons(network: Network, population: Population) -> Iterator[_Offender]:
    neuron, name = population.neuron, population.name
    if neuron.spiking and neuron.reset_rule().kind != "zero":
        yield _Offender(_NO_ZERO_RESET.format(name), _ZERO)
    biases = [p.connection.bias for p in network.afferents(name)]
    decay_u = neuron.dynamics().decay_u
    if decay_u is not None and decay_u.any() and any(b is not None and b.any() for b in biases):
        # Lowering starts the current where a bias that comes in through it takes it.
        yield _Offender(_CURRENT_STARTS.format(name), _UNBIASED)
    rest = neuron.parameters.get("v_reset", np.zeros(())) if neuron.spiking else np.zeros(())
    if (neuron.v_init != rest).any():
        yield _Offender(_STARTS.format(name), _ELSEWHERE)


def _delayed_feedback(name: str) -> str:
    return (
        f"{name}: delays beside feedback, where lava-dl's loader leaves out the weights' exponent"
    )


def _of_integers(network: FixedPointNetwork) -> Iterator[_Offender]:
    remedy = _KEPT if _limited(network.formats) else _RANGES
    for line in faults(network):
        yield _Offender(line, _RANGES)
    before = INPUT
    for population in network.populations:
        name = population.name
        afferents = network.afferents(name)
        yield from _chain(name, before, [p.pre for p in afferents], _ANOTHER)
        yield from _of_population(population, network.formats)
        for projection in afferents:
            yield from _of_projection(projection, remedy)
        yield from _of_weights(name, afferents, remedy)
        before = name


def _limited(formats: NumberFormats) -> bool:
    """Tell whether these registers are already those of a target for NetX."""
    return (
        formats.weight_exp_max <= 0
        and formats.bias_exp_min == formats.bias_exp_max == BIAS_EXP
        and formats.bias_mant_bits <= _BIAS_BITS
    )


def _of_population(p: FixedPopulation, formats: NumberFormats) -> Iterator[_Offender]:
    bias = effective_bias(p.bias_mant, p.bias_exp)
    top = 1 << (_BIAS_BITS - 1)
    unit = 1 << BIAS_EXP
    mantissa = bias >> BIAS_EXP
    if (mantissa << BIAS_EXP != bias).any() or mantissa.min() < -top or mantissa.max() >= top:
        odd = int(np.count_nonzero(bias % unit))
        yield _Offender(
            f"{p.name}: biases {bias.min()} to {bias.max()}, {odd} of {p.size} not multiples of "
            f"{unit}; NetX holds {_BIAS_BITS} bits times {unit}: multiples of {unit} from "
            f"{-top * unit} to {(top - 1) * unit}",
            _RANGES,
        )
    if p.reset != "zero":
        yield _Offender(_NO_ZERO_RESET.format(p.name), _ANOTHER)
    if p.reset_interval:
        yield _Offender(
            f"{p.name}: resets at set times, an argument of lava-dl's loader, not in the file",
            _ANOTHER,
        )
    # A current that outlives no step is none when the first one starts.
    kept = p.du + formats.decay_u_offset < formats.decay_unity
    if (p.u_init[kept] != 0).any():
        yield _Offender(_CURRENT_STARTS.format(p.name), _UNBIASED)
    elif p.v_init.any():
        yield _Offender(_STARTS.format(p.name), _ANOTHER)


def _of_projection(p: FixedProjection, remedy: str) -> Iterator[_Offender]:
    if p.graded:
        yield _Offender(
            f"{p.name}: takes a graded input, an argument of lava-dl's loader "
            "(input_message_bits), not in the file",
            _ANOTHER,
        )
    if p.weight_exp < 0 and (plain_weights(p) << -p.weight_exp != p.connection.weight).any():
        yield _Offender(f"{p.name}: weights times 2^{p.weight_exp} are not whole", remedy)


def _of_weights(
    name: str, afferents: Sequence[FixedProjection], remedy: str
) -> Iterator[_Offender]:
    dense = [p for p in afferents if not p.connection.convolutional]
    for p in afferents:
        if p.pre == name and p.connection.convolutional:
            yield _Offender(f"{name}: feeds back to itself by a convolution", _ANOTHER)
    if not dense:
        return
    delayed = any(p.connection.longest_delay for p in dense)
    if len(dense) > 1 and delayed and any(p.pre == name for p in dense):
        yield _Offender(_delayed_feedback(name), _ANOTHER)
    weights = [plain_weights(p) for p in dense]
    low = min(int(w.min(initial=0)) for w in weights)
    high = max(int(w.max(initial=0)) for w in weights)
    names = " and ".join(p.name for p in dense)
    if low == high == 0:
        yield _Offender(f"{names}: all weights are zero, at which lava-dl's loader fails", _KEPT)
    elif not loader_keeps(*weights):
        yield _Offender(
            f"{names}: weights {low} to {high} do not survive the {_WEIGHT_BITS} bits of lava-dl's "
            "loader",
            remedy,
        )


def plain_weights(projection: FixedProjection) -> IntArray:
    """Return the integers that mantissas and exponent stand for, rounded down."""
    weight, exponent = projection.connection.weight.astype(np.int64), projection.weight_exp
    return weight << exponent if exponent >= 0 else weight >> -exponent


def loader_keeps(*weights: IntArray) -> bool:
    """Tell whether lava-dl's loader, and then Lava, keep the weights of a dense layer.

    The loader shifts all weights of a layer, those of its feedback included, to the top of the
    synapse and counts the bits that are left (``optimize_weight_bits`` in lava-dl's
    ``netx/utils.py``). Lava then finds each matrix's own sign mode, clips and truncates
    (``weightutils.py``): a matrix without positive weights is stored without a sign, whose range
    ends one short of the power of two that the loader shifts to.

    Parameters
    ----------
    *weights : ndarray of int (n_post, n_pre)
        Of the synapses from before, and of those of a feedback if there are any.
    """
    low = min(int(w.min(initial=0)) for w in weights)
    high = max(int(w.max(initial=0)) for w in weights)
    if low == high == 0:
        return False
    # The loader takes weights of which some are negative and some are not as mixed.
    mixed = int(low < 0 and any((w >= 0).any() for w in weights))
    top = 1 << _WEIGHT_BITS
    room = [(top // 2 - 1 if mixed else top - 1) / high] if high > 0 else []
    room += [(top // 2 if mixed else top) / -low] if low < 0 else []
    shift = int(np.floor(np.log2(min(room)))) + mixed
    used = int(np.bitwise_or.reduce([np.bitwise_or.reduce(np.abs(w).ravel()) for w in weights]))
    even = min(_WEIGHT_BITS, (used & -used).bit_length() - 1)
    bits = _WEIGHT_BITS - shift - (even - mixed)
    if shift < 0 or not 1 <= bits <= _WEIGHT_BITS:
        return False
    return all(_stored(w << shift, bits) for w in weights)


def _stored(weight: IntArray, bits: int) -> bool:
    """Tell whether Lava stores mantissas unchanged in this many bits."""
    top = 1 << _WEIGHT_BITS
    if (weight >= 0).all():
        step, low, high = 1 << (_WEIGHT_BITS - bits), 0, top - 1
    elif (weight <= 0).all():
        step, low, high = 1 << (_WEIGHT_BITS - bits), 1 - top, 0
    else:
        step, low, high = 1 << (_WEIGHT_BITS - bits + 1), -top, top - 1
    return bool(low <= weight.min() and weight.max() <= high and not (weight % step).any())
