"""Lowering of everything that is not a chain: the float network's spikes, and Lava's."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

import float_networks as nets
from osbc_deploy.arrays import FloatArray
from osbc_deploy.backends import load_backend
from osbc_deploy.compress import CompressionOptions, compress
from osbc_deploy.errors import UnsupportedModelError
from osbc_deploy.fixedpoint.engine import run
from osbc_deploy.fixedpoint.formats import NumberFormats
from osbc_deploy.frameworks.norse.neurons import LIF
from osbc_deploy.lower.lowering import lower
from osbc_deploy.lower.timing import timing
from osbc_deploy.model.graph import AvgPool, Dense, Network, Population, Projection
from osbc_deploy.model.neurons import LinearDynamics, Neuron, Reset
from osbc_deploy.model.simulate import simulate
from osbc_deploy.progress import SILENT

ONE, ZERO = np.ones(()), np.zeros(())


@dataclass(frozen=True, eq=False)
class Late(Neuron):
    """A neuron whose threshold is subtracted one step after the spike."""

    decay: FloatArray
    v_threshold: FloatArray

    states = ("v", "s")

    @property
    def v_init(self) -> FloatArray:
        return ZERO

    def dynamics(self) -> LinearDynamics:
        return LinearDynamics(None, self.decay, ONE, ZERO)

    def reset_rule(self) -> Reset:
        return Reset("subtract", self.v_threshold / self.decay)

    def step(self, p: Any, state: Any, x: Any, where: Any) -> Any:
        v = p["decay"] * state["v"] + x - state["s"] * p["v_threshold"]
        s = v > p["v_threshold"]
        return s, {"v": v, "s": where(s, 0 * v + 1, 0 * v)}


def late() -> Network:
    return Network(
        (12,),
        (Population("a", (16,), Late(0.8 * ONE, 0.6 * ONE)),),
        (Projection("in", "input", "a", nets.dense(1, 16, 12)),),
        dtype="float64",
    )


def feedback() -> Network:
    """Return the loop with the delay that the chip has anyway."""
    net = nets.loop()
    on = {"in": np.zeros(12), "read": None}
    projections = tuple(
        replace(p, delay=on[p.name]) if p.name in on else p for p in net.projections
    )
    return replace(net, projections=projections)


NETWORKS = {
    "recurrent": nets.recurrent(),
    "residual": nets.residual(),
    "feedback": feedback(),
    "delays": replace(
        nets.residual(),
        projections=tuple(
            replace(p, delay=np.arange(12) % 4) if p.name == "skip" else p
            for p in nets.residual().projections
        ),
    ),
    "late subtraction": late(),
    "convolutions that skip": nets.conv_residual(),
    "gates": nets.gated(),
    "poolings of different sizes": nets.conv_residual(AvgPool((2, 2), (2, 2))),
}


def lowered(net: Network, formats: NumberFormats, **options: Any) -> Any:
    x = nets.spikes(3, 12, 20, *net.input_shape, rate=0.2)
    asked = CompressionOptions(sparsity=0.2, bits=6, tune=False, **options)
    compressed = compress(net, x, asked)
    return x, compressed, lower(compressed, x, formats)


@pytest.mark.parametrize("name", NETWORKS)
def test_integers_fire_as_the_compressed_network_and_as_lava(
    name: str, formats: NumberFormats
) -> None:
    net = NETWORKS[name]
    x, compressed, found = lowered(net, formats)
    names = [p.name for p in net.populations if p.neuron.spiking]
    before = simulate(compressed.network, x, record=names)
    states = [p.name for p in found.network.populations]
    after = run(found.network, x, record=states, states=states)
    for population in names:
        assert 0.02 < before.rates[population] < 0.9
        differ = before.spikes[population].reshape(after.spikes[population].shape)
        assert np.mean(differ != after.spikes[population]) < 0.03 * before.rates[population] + 2e-3
    theirs = load_backend("lava").run(
        found.network, x[:3], states=states, time_limit=120.0, progress=SILENT
    )
    for kind in ("spikes", "u", "v"):
        ours = getattr(after, kind)
        for population, values in getattr(theirs, kind).items():
            assert np.array_equal(values, ours[population][:3]), (kind, population)
    assert theirs.u.keys() == set(states)


def test_convolutions_that_skip_hear_relays_and_the_report_says_so(formats: NumberFormats) -> None:
    x, _, found = lowered(nets.conv_residual(), formats)
    names = [p.name for p in found.network.populations]
    assert names == ["a", "a relay 1", "b", "c"]
    done = run(found.network, x, record=names)
    assert np.array_equal(done.spikes["a relay 1"], done.spikes["a"])
    assert {d.subject for d in found.deviations if "relay" in d.message} == {"a"}
    (late,) = (p for p in found.network.projections if p.pre == "input" and p.post != "a")
    assert found.network.shown_late(late) == 1
    said = [d.message for d in found.deviations if d.subject == late.name]
    assert "the host shows it the input 1 step later, as it skips populations" in said


def test_dense_projections_that_skip_are_delayed(formats: NumberFormats) -> None:
    _, _, found = lowered(NETWORKS["delays"], formats)
    skip = next(p for p in found.network.projections if p.name == "skip")
    connection: Any = skip.connection
    assert connection.delay.tolist() == [(1 + np.arange(12) % 4).tolist()] * 16
    assert [p.name for p in found.network.populations] == ["a", "b", "out"]


def test_what_cannot_be_delivered_in_time_is_listed(formats: NumberFormats) -> None:
    net = nets.loop()
    rest = nets.conv_residual()
    quick = tuple(replace(p, delay=None) if p.name == "back" else p for p in net.projections)
    late_conv = tuple(
        replace(p, delay=np.ones(128)) if p.name == "to a" else p for p in rest.projections
    )
    for bad, words in (
        (replace(net, projections=quick), "back: arrives 1 step before the chip"),
        (replace(rest, projections=late_conv), "to a: a convolution has no delays"),
    ):
        with pytest.raises(UnsupportedModelError, match=words):
            lowered(bad, formats)


def test_a_pooling_sum_that_outgrows_the_synapse_is_refused(formats: NumberFormats) -> None:
    rng = np.random.default_rng(0)
    pooled = Projection(
        "w", "input", "a", Dense(rng.normal(size=(4, 9))), AvgPool((3, 3), (1, 1), divisor=1)
    )
    lif = LIF(0.4 * ONE, ZERO, 0.15 * ONE, ZERO)
    net = Network((1, 5, 5), (Population("a", (4,), lif),), (pooled,), dtype="float64")
    x = nets.spikes(3, 12, 20, 1, 5, 5, rate=0.2)
    for bits, fits in ((4, True), (8, False)):
        compressed = compress(net, x, CompressionOptions(sparsity=0.0, bits=bits, tune=False))
        if fits:
            found = lower(compressed, x, formats)
            assert any("are stored in" in d.message for d in found.deviations)
            continue
        with pytest.raises(UnsupportedModelError, match="w: poolings make weights of 8 bits need"):
            lower(compressed, x, formats)


def test_delays_reach_62_steps_and_no_further(formats: NumberFormats) -> None:
    def delayed(steps: int) -> Network:
        neuron = LIF(0.5 * ONE, ZERO, 0.2 * ONE, ZERO)
        weight = nets.dense(1, 4, 3)
        return Network(
            (3,),
            (Population("a", (4,), neuron),),
            (Projection("in", "input", "a", weight, delay=np.full(3, steps)),),
            dtype="float64",
        )

    longest = timing(delayed(62)).delays["in"]
    assert longest.tolist() == [62, 62, 62]
    with pytest.raises(UnsupportedModelError, match="in: needs delays to 63, the chip has 62"):
        timing(delayed(63))
