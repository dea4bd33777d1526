r"""One time step of a Xylo core in integers, and its specification in NumPy.

The arithmetic is that of SynSense's simulator (xylosim 0.1.3, version 2 of its cores), stated in
our own terms and compared with it bit for bit. All states have 16 bits and saturate:

.. math::

    dec(x, k) &= \mathrm{floor}(x / 2^k), \text{ but } \mathrm{sign}(x) \text{ where that is } 0 \\
    I &\leftarrow I + n_{pre}\, w \quad\text{synapse by synapse, inputs first} \\
    I &\leftarrow I - dec(I, dash_{syn}) \\
    V &\leftarrow V + ((-dec(V, dash_{mem}) + I) + bias) \\
    n &= \mathrm{clip}(\mathrm{floor}(V / vth), 0, 31), \qquad V \leftarrow V - n\, vth

An output fires once a step at most. The core knows no populations: hidden neurons hear inputs in
the step they arrive and each other a step later, outputs hear hidden neurons a step later, and all
step from the first step on. So time here is the core's, and a population's own begins as many steps
later as populations lie before it. With a bias, a population has moved by then.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from osbc_deploy.arrays import IntArray, peak_of
from osbc_deploy.fixedpoint.arithmetics import Arithmetic, Plan
from osbc_deploy.fixedpoint.formats import NumberFormats
from osbc_deploy.fixedpoint.network import (
    INPUT,
    FixedPointNetwork,
    FixedPopulation,
    FixedProjection,
)
from osbc_deploy.fixedpoint.ranges import faults as register_faults
from osbc_deploy.fixedpoint.record import Activity, Traces

__all__ = [
    "ARITHMETIC",
    "MEMORIES",
    "MOST_SPIKES",
    "XYLO",
    "Role",
    "Way",
    "decay",
    "faults",
    "role",
    "run_plain",
    "saturated",
    "ways_into",
]

XYLO = "xylo"
MOST_SPIKES = {"input": 15, "hidden": 31, "output": 1}
"""Spikes in one step (``MAX_NUM_INP_SPIKES``, ``MAX_NUM_SPIKES``, ``MAX_NUM_OUT_SPIKES``)."""


MEMORIES = {("input", "hidden"): "in", ("hidden", "hidden"): "rec", ("hidden", "output"): "out"}
"""The core's weight memories by source and destination."""


class Role(NamedTuple):
    """Which of the core's three weight memories a projection lies in."""

    pre: str
    post: str


def decay(state: IntArray, dash: IntArray) -> IntArray:
    """Return what goes of a state (16 bits) in a step; where there is a state, at least 1."""
    part = state >> dash
    return np.where(part == 0, np.sign(state), part)


def saturated(value: IntArray, formats: NumberFormats) -> IntArray:
    """Clip to the state's two's complement range."""
    return np.clip(value, -formats.state_limit, formats.state_limit - 1)


def role(network: FixedPointNetwork, projection: FixedProjection) -> Role:
    """Return which memory holds a projection's weights."""

    def of(name: str) -> str:
        if name == INPUT:
            return "input"
        return "output" if name == network.output.name else "hidden"

    return Role(of(projection.pre), of(projection.post))


class Way(NamedTuple):
    """A projection with its weights as the core adds them, int64 (n_post, n_pre)."""

    projection: FixedProjection
    weight: IntArray


def ways_into(network: FixedPointNetwork, name: str) -> list[Way]:
    """Return a population's input, in the order in which the core delivers it."""
    order = [INPUT, *(p.name for p in network.populations)]
    found = sorted(network.afferents(name), key=lambda p: order.index(p.pre))
    return [Way(p, _shifted(p)) for p in found]


def _shifted(p: FixedProjection) -> IntArray:
    weight = p.connection.weight.astype(np.int64)
    return weight << p.weight_exp if p.weight_exp >= 0 else weight >> -p.weight_exp


def run_plain(
    network: FixedPointNetwork, signal: IntArray, traces: Traces, *, strict: bool
) -> dict[str, Activity]:
    """Run samples (n, T, input size) side by side; see :func:`.plain.run_plain`.

    States saturate, so no current is out of range and `strict` changes nothing.
    """
    del strict
    n, steps = signal.shape[:2]
    run = [p for p in network.populations if p.name not in traces.given]
    depth = network.depth
    cells = {p.name: _Cells(network, p, n) for p in run}
    fired: dict[str, IntArray] = {}
    for moment in range(steps + max(depth[p.name] for p in run) - 1):
        before = {INPUT: _at(signal, moment), **fired}
        for name in traces.given:
            before[name] = _at(traces.spikes[name], moment - depth[name])
        now = {}
        for p in run:
            own = moment - depth[p.name] + 1
            now[p.name], u, v = cells[p.name].step(before, counts=0 <= own < steps)
            if 0 <= own < steps:
                traces.note(p.name, own, u, v)
                if p.name in traces.spikes:
                    traces.spikes[p.name][:, own] = now[p.name]
        fired = now
    return {name: cell.activity(steps) for name, cell in cells.items()}


def _at(raster: IntArray, step: int) -> IntArray:
    """Return a step of a raster (n, T, size), nothing before and behind it."""
    inside = 0 <= step < raster.shape[1]
    return raster[:, step].astype(np.int64) if inside else np.zeros_like(raster[:, 0], np.int64)


@dataclass
class _Cells:
    """The neurons of one population in n samples."""

    network: FixedPointNetwork
    population: FixedPopulation
    n: int

    def __post_init__(self) -> None:
        p, formats = self.population, self.network.formats
        self.formats = formats
        self.ways = ways_into(self.network, p.name)
        self.most = MOST_SPIKES["output" if p.name == self.network.output.name else "hidden"]
        self.dash_u, self.dash_v = p.du.astype(np.int64), p.dv.astype(np.int64)
        self.vth, self.bias = p.vth.astype(np.int64), p.bias_mant.astype(np.int64)
        self.u: IntArray = np.zeros((self.n, p.size), np.int64)
        self.v: IntArray = np.zeros((self.n, p.size), np.int64)
        self.counts = np.zeros(p.size, np.int64)
        self.u_peak = self.v_peak = self.saturations = 0

    def step(
        self, before: dict[str, IntArray], *, counts: bool
    ) -> tuple[IntArray, IntArray, IntArray]:
        """Return spikes, and current and potential after the step; `before` may lack a source."""
        formats = self.formats
        arrived, raw_u = self._delivered(before)
        u = arrived - decay(arrived, self.dash_u)
        # The register takes 2^15 for -2^15.
        change = -decay(self.v, self.dash_v)
        change = np.where(change == formats.state_limit, -formats.state_limit, change)
        change = saturated(saturated(change + u, formats) + self.bias, formats)
        raw_v = self.v + change
        v = saturated(raw_v, formats)
        fired = np.clip(v // self.vth, 0, self.most)
        if counts:
            self.u_peak = max(self.u_peak, peak_of(raw_u))
            self.v_peak = max(self.v_peak, peak_of(raw_v))
            self.saturations += int(np.count_nonzero((raw_u != arrived) | (raw_v != v)))
            self.counts += fired.sum(axis=0)
        self.u, self.v = u, v - fired * self.vth
        return fired, self.u, self.v

    def _delivered(self, before: dict[str, IntArray]) -> tuple[IntArray, IntArray]:
        """Return the currents with what arrives: saturated synapse by synapse, and not at all."""
        heard = [
            (before[w.projection.pre], w.weight) for w in self.ways if w.projection.pre in before
        ]
        # Sums of 16-bit numbers are exact in double precision.
        up = sum((_product(s, np.maximum(w, 0)) for s, w in heard), np.zeros_like(self.u))
        down = sum((_product(s, np.minimum(w, 0)) for s, w in heard), np.zeros_like(self.u))
        whole = self.u + up + down
        limit = self.formats.state_limit
        rows, columns = np.nonzero((self.u + up >= limit) | (self.u + down < -limit))
        if not len(rows):
            return whole, whole
        # Where the order may matter, each synapse saturates.
        arrived, some = whole.copy(), self.u[rows, columns]
        for s, w in heard:
            for pre in np.flatnonzero(s.any(axis=0)):
                some = saturated(some + s[rows, pre] * w[columns, pre], self.formats)
        arrived[rows, columns] = some
        return arrived, whole

    def activity(self, steps: int) -> Activity:
        """Return what the neurons went through."""
        return Activity(
            int(self.counts.sum()),
            self.u.size * steps,
            self.u_peak,
            self.v_peak,
            0,
            self.saturations,
            self.counts,
        )


def _product(spikes: IntArray, weight: IntArray) -> IntArray:
    return np.asarray(spikes.astype(np.float64) @ weight.T.astype(np.float64)).astype(np.int64)


def faults(network: FixedPointNetwork) -> list[str]:
    """Return one line for everything that a Xylo core cannot hold; see :func:`.ranges.faults`."""
    lines = register_faults(network)
    for p in network.populations:
        lines += _population(p)
    roles: dict[Role, list[FixedProjection]] = {}
    for projection in network.projections:
        roles.setdefault(role(network, projection), []).append(projection)
        lines += _projection(projection, network)
    pairs = Counter((p.pre, p.post) for p in network.projections)
    lines += [
        f"{post}: {count} projections from {pre}; two neurons have one synapse between them"
        for (pre, post), count in pairs.items()
        if count > 1
    ]
    for found, projections in roles.items():
        shifts = sorted({p.weight_exp for p in projections})
        if len(shifts) > 1:
            names = ", ".join(p.name for p in projections)
            lines.append(
                f"{names}: weight exponents {_listed(shifts)}; all weights from {found.pre} to "
                f"{found.post} neurons share 1"
            )
    return lines


def _population(p: FixedPopulation) -> list[str]:
    odd = {
        "does not spike; all neurons of this core do": not p.spiking,
        f"reset {p.reset!r}; a spike takes the threshold away": p.reset != "subtract",
        "reset amount; a spike takes the threshold away": p.drop is not None,
        "initial states; all start at 0": bool(p.u_init.any() or p.v_init.any()),
        "timed resets; there are none": p.reset_interval != 0,
        "threshold of 0; at least 1 is needed": bool((p.vth < 1).any()),
    }
    return [f"{p.name}: {text}" for text, wrong in odd.items() if wrong]


def _projection(p: FixedProjection, network: FixedPointNetwork) -> list[str]:
    found = role(network, p)
    odd = {
        "a convolution; neurons are connected one by one": p.connection.convolutional,
        "synaptic delays; there are none": p.connection.longest_delay > 0,
        "signs of one kind; weights are two's complement": p.sign != "mixed",
        "input to the outputs; only hidden neurons hear it": found == ("input", "output"),
        "spikes of the outputs; they leave the chip": found.pre == "output",
    }
    lines = [f"{p.name}: {text}" for text, wrong in odd.items() if wrong]
    if p.graded and network.input.high > MOST_SPIKES["input"]:
        lines.append(
            f"{p.name}: up to {network.input.high} spikes of an input in one step, allowed "
            f"{MOST_SPIKES['input']}"
        )
    return lines


def _listed(values: Sequence[int]) -> str:
    return ", ".join(map(str, values))


def _plan(network: FixedPointNetwork, peak: int, given: frozenset[str], *, strict: bool) -> Plan:
    # Imported here: numba takes half a second, which reading a network need not.
    from osbc_deploy.fixedpoint.xylo_compiled import XyloPlan

    del peak, strict
    return XyloPlan(network, given)


ARITHMETIC = Arithmetic(
    name=XYLO,
    most_spikes=max(MOST_SPIKES["hidden"], MOST_SPIKES["output"]),
    run_plain=run_plain,
    plan=_plan,
    faults=faults,
    lowering_in="osbc_deploy.lower.xylo",
)
