"""A population's registers as real numbers, and its integers at an exponent."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from osbc_deploy.arrays import FloatArray
from osbc_deploy.compress.result import CompressedProjection
from osbc_deploy.fixedpoint.connections import FixedDense
from osbc_deploy.fixedpoint.formats import NumberFormats
from osbc_deploy.fixedpoint.network import FixedPopulation, FixedProjection
from osbc_deploy.lower.scaling import LoweredLayer
from osbc_deploy.lower.shifts import Shifts, shifts_for
from osbc_deploy.lower.timing import Timing
from osbc_deploy.model.graph import INPUT, Network, Population
from osbc_deploy.model.neurons import LinearDynamics

__all__ = ["LOWEST", "Neurons", "dynamics", "neurons_of", "unmeasured"]

LOWEST = -4
"""Smallest exponent: half of the bits of a weight are left."""


def dynamics(population: Population, formats: NumberFormats) -> LinearDynamics:
    """Return the linear system that shift decays make of a population."""
    found = shifts_for(population, formats.decay_max).dynamics

    def shaped(value: FloatArray | None) -> FloatArray:
        return np.asarray(value).reshape(population.shape)

    return LinearDynamics(
        shaped(found.decay_u), shaped(found.decay_v), shaped(found.gain), shaped(found.drive)
    )


@dataclass(frozen=True, eq=False)
class Neurons:
    """A population's registers at m = 0, as real numbers (n,), and its weights as codes."""

    network: Network
    population: Population
    layer: tuple[CompressedProjection, ...]
    shifts: Shifts
    formats: NumberFormats
    vth: FloatArray
    bias: FloatArray
    scale: FloatArray

    @property
    def ceiling(self) -> int:
        """The largest m that thresholds, biases and the weights' shifts allow."""
        top = 1 << (self.formats.bias_mant_bits - 1)
        most = max(self.vth.max() / self.formats.vth_max, np.abs(self.bias).max() / (top - 1))
        bound = math.floor(-math.log2(most)) if most > 0 else self.highest
        return max(LOWEST, min(self.highest, bound))

    @property
    def highest(self) -> int:
        """The largest m that weights reach."""
        return self.formats.weight_exp_max + self.formats.weight_shift(self._stored) + self.room

    @property
    def room(self) -> int:
        """How far codes can be shifted within their own width."""
        widest = max(int(np.abs(p.codes.astype(np.int64)).max(initial=0)) for p in self.layer)
        bits = self._stored - 1
        return max(0, bits - widest.bit_length())

    @property
    def _stored(self) -> int:
        return self.formats.weight_bits[-1]

    def at(self, m: int, shift: Mapping[bool, int]) -> LoweredLayer:
        """Return the integers at an exponent.

        Parameters
        ----------
        m : int
        shift : dict of int
            What the weight memories shift by: that of the input's (True), and of all others.
        """
        projections = []
        own = self.formats.weight_shift(self._stored)
        for p, q in zip(self.network.afferents(self.population.name), self.layer, strict=True):
            places = m - shift[p.pre == INPUT]
            # Below 0, codes lose bits.
            codes = np.rint(q.codes * 2.0 ** min(places, 0)).astype(np.int64)
            codes <<= max(places, 0) + own
            projections.append(
                FixedProjection(
                    p.name,
                    p.pre,
                    p.post,
                    FixedDense(codes),
                    self._stored,
                    shift[p.pre == INPUT] - own,
                )
            )
        return tuple(projections), self._registers(m)

    def _registers(self, m: int) -> FixedPopulation:
        factor = 2.0**m
        wanted = self.vth * factor
        vth = np.rint(wanted)
        if not self.population.neuron.fires_at_threshold:
            # The chip fires at its threshold, the float neuron above it.
            vth += np.abs(wanted - vth) <= 1e-9 * wanted
        top = (1 << (self.formats.bias_mant_bits - 1)) - 1
        zero = np.zeros(self.population.size, np.int64)
        return FixedPopulation(
            name=self.population.name,
            shape=self.population.shape,
            du=self.shifts.current,
            dv=self.shifts.membrane,
            vth=np.clip(vth, 1, self.formats.vth_max).astype(np.int64),
            bias_mant=np.clip(np.rint(self.bias * factor), -top, top).astype(np.int64),
            bias_exp=zero + self.formats.bias_exp_min,
            u_init=zero,
            v_init=zero,
            spiking=True,
            v_scale=self.scale / factor,
            v_offset=np.zeros(self.population.size),
            reset="subtract",
        )


def neurons_of(
    network: Network,
    population: Population,
    weights: Mapping[str, CompressedProjection],
    formats: NumberFormats,
) -> Neurons:
    """Return what the registers of a population should hold."""
    neuron, size = population.neuron, population.size
    afferents = network.afferents(population.name)
    found = shifts_for(population, formats.decay_max)
    unit = weights[afferents[0].name].scale * found.gain
    own = neuron.dynamics()
    current = np.zeros(size)
    for p in afferents:
        if p.connection.bias is not None:
            current = current + p.connection.bias.astype(np.float64)
    if own.decay_u is not None:
        left = 1.0 - population.spread(own.decay_u)
        current = current / np.where(left > 0, left, 1.0)
    constant = population.spread(own.gain) * current + population.spread(own.drive)
    # The bias makes the potential end where it ends in the float neuron.
    leak = 1.0 - population.spread(own.decay_v)
    constant = constant * np.where(
        leak > 0, 2.0**-found.membrane / np.where(leak > 0, leak, 1), 1.0
    )
    layer = tuple(weights[p.name] for p in afferents)
    threshold = population.spread(neuron.parameters["v_threshold"])
    return Neurons(
        network, population, layer, found, formats, threshold / unit, constant / unit, unit
    )


def unmeasured(
    network: Network,
    population: Population,
    weights: Mapping[str, CompressedProjection],
    times: Timing,
    formats: NumberFormats,
) -> LoweredLayer:
    """Return a layer before calibration; see :func:`.lowering.unmeasured`."""
    del times
    return neurons_of(network, population, weights, formats).at(0, {True: 0, False: 0})
