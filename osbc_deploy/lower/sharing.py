r"""What a real-valued input and the weights behind it give up where registers are too narrow.

Thresholds, biases and sums are held in the unit of a product, a step of the input times that of a
weight. Where those of output j exceed their registers and no exponent shifts them, that unit must
be larger, by a factor :math:`n_j`, which each output has of its own. Either steps of the input
become longer, by f for all outputs, or codes of weights coarser, each output's by the least power
of two that is at least :math:`n_j / f`. Taken is the f that moves the membrane potentials behind
the input least on calibration samples,

.. math:: \frac{\sum (M (W x - \hat W \hat x))^2}{\sum (M W x)^2}

as the scale of the input is chosen by (:mod:`.coding`), in shares of the thresholds as there.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cached_property

import numpy as np

from osbc_deploy.arrays import FloatArray, InputArray, IntArray, peak_of
from osbc_deploy.compress.result import CompressedProjection
from osbc_deploy.deviations import Deviation
from osbc_deploy.fixedpoint.coding import InputFormat, bits_for
from osbc_deploy.fixedpoint.formats import NumberFormats
from osbc_deploy.lower.coding import Measure, measure, shares_potential, some
from osbc_deploy.lower.recoding import Recoding
from osbc_deploy.lower.registers import doublings
from osbc_deploy.lower.scaling import wanting
from osbc_deploy.model.graph import INPUT, Network
from osbc_deploy.plain_text import many

__all__ = ["Sharing"]

_FEWEST = 3
"""The largest payload that is left to real values, whatever the registers hold."""
_OCTAVE = (1.0, 27 / 32, 23 / 32, 19 / 32)
"""Shares of a payload's bits that are tried, about evenly within a factor of two."""
_WORK = 1e8
"""Multiplications that a trial may take."""
_MARGIN = 1.0 + 1e-9
"""Beyond what is needed, as numbers here are rounded."""
_ALIKE = 1e-6
"""Relative; errors that differ by less are the same."""
_MOST = 62
"""Powers of two by which weights are held coarser; long before that they are 0."""


class Sharing:
    """How an input and the weights that hear it are rounded, for registers to hold what they make.

    Attributes
    ----------
    coding : InputFormat
    weights : Mapping of CompressedProjection
    """

    def __init__(
        self,
        network: Network,
        weights: Mapping[str, CompressedProjection],
        calibration: InputArray,
        coding: InputFormat,
        formats: NumberFormats,
    ) -> None:
        self.network = network
        self._populations = {p.name: p for p in network.populations}
        self._given, self._finest = weights, coding
        self.weights, self.coding = weights, coding
        self._factor, self._error = 1.0, 0.0
        self._bits: dict[str, IntArray] = {}
        self._lacking: dict[str, FloatArray] = {}
        self._recodings: dict[str, Recoding] = {}
        if coding.kind != "values":
            return
        self._few = some(network, calibration, _WORK)
        self._power = bool(shares_potential(network))
        most = float(peak_of(coding.codes(calibration)))
        self._longest = max(1.0, most / _FEWEST)
        for population in network.populations:
            afferents = network.afferents(population.name)
            if any(a.pre == INPUT for a in afferents):
                self._bits[population.name] = np.zeros(population.shape[0], np.int64)
                self._lacking[population.name] = np.ones(population.shape[0])
            # Behind dense layers an exponent makes the unit larger.
            convolves = any(a.connection.convolutional for a in afferents)
            if convolves and all(a.pre == INPUT for a in afferents):
                lacks = _MARGIN * wanting(network, population, weights, formats, coding)
                self._lacking[population.name] = lacks.clip(1.0, 2.0**_MOST)
        if any((lacks > 1.0).any() for lacks in self._lacking.values()):
            self._choose()

    @cached_property
    def _moved(self) -> Measure:
        """What tells how far rounding moves potentials."""
        return measure(self.network, self._few)

    def room(self, name: str) -> bool:
        """Tell whether anything is left to give up for the registers of a population."""
        if name not in self._lacking:
            return False
        if not self._alone(name):
            return self._factor < self._longest
        return any(self.weights[a.name].codes.any() for a in self.network.afferents(name))

    def more(self, name: str, factors: FloatArray) -> None:
        """Make products of a population's outputs (n_post or c_out,) larger, by factors above 1."""
        unit = self._factor * 2.0 ** self._bits[name]
        lacks = np.where(factors > 1.0, unit * factors, 1.0)
        if not self._populations[name].neuron.spiking:
            # Potentials that do not fire are compared with each other.
            lacks = np.full_like(lacks, lacks.max())
        self._lacking[name] = np.maximum(self._lacking[name], lacks)
        self._choose()

    def notes(self) -> Iterator[Deviation]:
        """Say what was given up."""
        if not self._bits or (
            self._factor == 1.0 and not any(b.any() for b in self._bits.values())
        ):
            return
        given, found = self._finest, self.coding
        names = ", ".join(name for name, lacks in self._lacking.items() if (lacks > 1.0).any())
        what = [
            f"weights of {many(int(np.count_nonzero(bits)), 'output')} into {name} are held up to "
            f"{many(int(bits.max()), 'bit')} coarser"
            for name, bits in self._bits.items()
            if bits.any()
        ]
        if self._factor > 1.0:
            steps = f"steps of {found.scale:.6g} in {found.bits} bits are taken, not"
            what.insert(0, f"{steps} {given.scale:.6g}")
        yield Deviation(
            "lower",
            INPUT,
            f"{' and '.join(what)}, as registers of {names} do not hold thresholds, biases or "
            "potentials in finer ones; input and weights share it so that the potentials behind "
            f"them move least, by {math.sqrt(self._error):.2%} of their size",
        )

    def _alone(self, name: str) -> bool:
        """Tell whether a population hears nothing but the input."""
        return all(a.pre == INPUT for a in self.network.afferents(name))

    def _choose(self) -> None:
        """Search how much of it the input's steps take."""
        least = math.inf
        for factor in self._factors():
            coding = self._coarser(factor)
            bits = {name: self._left(name, factor) for name in self._lacking}
            weights = dict(self._given)
            for name, coarser in bits.items():
                if coarser.any():
                    weights |= self._recoding(name).coarser(coarser)
            error = self._moved(coding, self._rounded(weights))
            # Weights that are all 0 lose all there is, whatever else is done.
            if error < least * (1.0 - _ALIKE):
                least = error
                self._factor, self.coding, self.weights = factor, coding, weights
                self._bits, self._error = bits, error

    def _recoding(self, name: str) -> Recoding:
        """Return what makes weights into a population coarser, made once."""
        if name not in self._recodings:
            population = self._populations[name]
            self._recodings[name] = Recoding(self.network, population, self._given, self._few)
        return self._recodings[name]

    def _factors(self) -> list[float]:
        """Return what steps of the input may be multiplied with, rising."""
        shared = [
            float(lacks.max()) for name, lacks in self._lacking.items() if not self._alone(name)
        ]
        low = min(max([1.0, *shared]), self._longest)
        high = min(max(float(lacks.max()) for lacks in self._lacking.values()), self._longest)
        if self._power:
            ends = [math.ceil(math.log2(f)) for f in (low, high)]
            return [2.0**k for k in range(ends[0], ends[1] + 1)]
        tops = [round(share * self._finest.high) >> k for k in range(24) for share in _OCTAVE]
        between = [self._finest.high / top for top in tops if top]
        return sorted({low, high, *(f for f in between if low < f < high)})

    def _left(self, name: str, factor: float) -> IntArray:
        """Return by how many bits weights must be coarser where the input's steps are longer."""
        lacks = self._lacking[name]
        if not self._alone(name):
            return np.zeros(len(lacks), np.int64)
        return doublings((lacks / factor).clip(1.0, 2.0**_MOST))

    def _coarser(self, factor: float) -> InputFormat:
        """Return the input in longer steps, over the same range."""
        given = self._finest
        if factor == 1.0:
            return given
        bits = bits_for(round(given.low / factor), round(given.high / factor))
        return replace(given, bits=bits, scale=given.scale * factor)

    def _rounded(self, weights: Mapping[str, CompressedProjection]) -> dict[str, FloatArray]:
        """Return the weights that hear the input."""
        heard = [a.name for a in self.network.projections if a.pre == INPUT]
        return {name: weights[name].weight for name in heard}
