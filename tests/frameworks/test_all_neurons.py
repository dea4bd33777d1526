"""A family's linear system and reset say what its step does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from osbc_deploy.frameworks.snntorch.neurons import (
    Lapicque,
    Leaky,
    LeakyIntegrator,
    RLeaky,
    RSynaptic,
    Synaptic,
    SynapticIntegrator,
)
from osbc_deploy.frameworks.spikingjelly.neurons import (
    CUBALIFNode,
    IFIntegrator,
    IFNode,
    LIFIntegrator,
    LIFNode,
    ParametricLIFIntegrator,
    ParametricLIFNode,
)
from osbc_deploy.model.neurons import Neuron

STEPS, SIZE = 40, 6
Array = np.ndarray[Any, Any]
Draw = Callable[[float, float], Array]


def lapicque(draw: Draw, threshold: Array, options: dict[str, str]) -> Neuron:
    resistance, rc, step = draw(0.5, 3), draw(1.5, 9), np.ones(())
    reset = options["reset"]
    return Lapicque(resistance, 1 / rc, step, 1 - step / rc, threshold, threshold, reset)


SNNTORCH: dict[str, Callable[[Draw, Array, dict[str, str]], Neuron]] = {
    "Leaky": lambda draw, th, options: Leaky(draw(0.1, 1), th, th, **options),
    "RLeaky": lambda draw, th, options: RLeaky(draw(0.1, 1), th, th, **options),
    "Synaptic": lambda draw, th, options: Synaptic(draw(0, 1), draw(0.1, 1), th, th, **options),
    "RSynaptic": lambda draw, th, options: RSynaptic(draw(0, 1), draw(0.1, 1), th, th, **options),
    "Lapicque": lapicque,
}


def spikingjelly(kind: str, draw: Draw, threshold: Array, reset: str, taken: str) -> Neuron:
    v_reset = np.zeros(()) if reset == "subtract" else draw(-0.5, 0.1)
    if kind == "IFNode":
        return IFNode(threshold, v_reset, reset)
    if kind == "CUBALIFNode":
        return CUBALIFNode(threshold, v_reset, reset, draw(0, 1), draw(0.1, 1))
    if kind == "LIFNode":
        return LIFNode(threshold, v_reset, reset, draw(1.1, 20), taken)
    return ParametricLIFNode(threshold, v_reset, reset, draw(0.05, 0.9), taken)


def stepped(neuron: Neuron, x: Array) -> Array:
    """Return what a neuron answers to input (STEPS, SIZE)."""
    p = {name: value.astype(np.float64) for name, value in neuron.parameters.items()}
    state: dict[str, Any] = dict.fromkeys(neuron.states, np.zeros(SIZE))
    state["v"] = np.broadcast_to(neuron.v_init, SIZE).astype(np.float64)
    answers = []
    for current in x:
        given = (0.25 * current, 0.75 * current) if neuron.feedback_apart else current
        answer, state = neuron.step(p, state, given, np.where)
        answers.append(answer)
    return np.stack(answers)


def on_chip(neuron: Neuron, x: Array) -> tuple[Array, Array]:
    """Return spikes and potentials of the linear system with the reset right after a spike."""
    system, rule = neuron.dynamics(), neuron.reset_rule()
    p = neuron.parameters
    u, v = np.zeros(SIZE), np.broadcast_to(neuron.v_init, SIZE).astype(np.float64)
    spikes, potentials = [], []
    for current in x:
        u = current if system.decay_u is None else system.decay_u * u + current
        v = system.decay_v * v + system.gain * u + system.drive
        potentials.append(v)
        if not neuron.spiking:
            continue
        spikes.append(v > p["v_threshold"])
        after = v - rule.amount if rule.kind == "subtract" else p["v_reset"]
        v = v if rule.kind == "none" else np.where(spikes[-1], after, v)
    return np.array(spikes), np.array(potentials)


def drawing(seed: int) -> tuple[Draw, Array, Array]:
    rng = np.random.default_rng(seed)
    one = bool(rng.integers(2))
    return (
        lambda low, high: rng.uniform(low, high, None if one else SIZE) * np.ones(()),
        rng.uniform(0.2, 1.5, SIZE),
        rng.normal(0.25, 0.6, (STEPS, SIZE)),
    )


@settings(max_examples=80, deadline=None)
@given(
    st.sampled_from(list(SNNTORCH)),
    st.sampled_from(["subtract", "zero", "none"]),
    st.sampled_from(["late", "at once"]),
    st.integers(0, 2**20),
)
def test_what_snntorch_does_is_what_its_rule_says(
    kind: str, reset: str, when: str, seed: int
) -> None:
    draw, threshold, x = drawing(seed)
    neuron = SNNTORCH[kind](draw, threshold, {"reset": reset, "when": when})
    rule = neuron.reset_rule()
    assert rule.kind == reset
    if not rule.differs:
        assert np.array_equal(stepped(neuron, x), on_chip(neuron, x)[0])


@settings(max_examples=80, deadline=None)
@given(
    st.sampled_from(["IFNode", "LIFNode", "ParametricLIFNode", "CUBALIFNode"]),
    st.sampled_from(["subtract", "zero"]),
    st.sampled_from(["decayed", "added"]),
    st.integers(0, 2**20),
)
def test_what_spikingjelly_does_is_what_its_rule_says(
    kind: str, reset: str, taken: str, seed: int
) -> None:
    draw, threshold, x = drawing(seed)
    neuron = spikingjelly(kind, draw, threshold, reset, taken)
    assert neuron.reset_rule().kind == reset
    assert not neuron.reset_rule().differs
    assert np.array_equal(stepped(neuron, x), on_chip(neuron, x)[0])


def test_a_late_reset_to_zero_that_loses_input_is_told_apart_for_a_reason() -> None:
    draw, threshold, x = drawing(3)
    neuron = SNNTORCH["Synaptic"](draw, threshold, {"reset": "zero", "when": "late"})
    assert neuron.reset_rule().differs
    assert not np.array_equal(stepped(neuron, x), on_chip(neuron, x)[0])


@pytest.mark.parametrize("seed", range(4))
def test_integrators_answer_with_the_potential_of_their_system(seed: int) -> None:
    draw, _, x = drawing(seed)
    start = draw(-0.5, 0.1)
    for neuron in (
        LeakyIntegrator(draw(0, 1)),
        SynapticIntegrator(draw(0, 1), draw(0, 1)),
        IFIntegrator(start),
        LIFIntegrator(start, draw(1.1, 20), "decayed"),
        LIFIntegrator(start, draw(1.1, 20), "added"),
        ParametricLIFIntegrator(start, draw(0.05, 0.9), "decayed"),
        ParametricLIFIntegrator(start, draw(0.05, 0.9), "added"),
    ):
        assert not neuron.spiking
        np.testing.assert_allclose(stepped(neuron, x), on_chip(neuron, x)[1], rtol=1e-12)


def test_a_scaled_threshold_scales_what_a_spike_takes_away() -> None:
    draw, threshold, _ = drawing(1)
    neuron = SNNTORCH["Leaky"](draw, threshold, {"reset": "subtract", "when": "late"})
    scaled = neuron.with_threshold(1.5)
    before, after = neuron.reset_rule().amount, scaled.reset_rule().amount
    assert before is not None
    assert after is not None
    np.testing.assert_allclose(after, 1.5 * before)
    np.testing.assert_allclose(scaled.parameters["v_threshold"], 1.5 * threshold)
    soft = spikingjelly("LIFNode", draw, threshold, "subtract", "added").with_threshold(2.0)
    assert np.array_equal(soft.reset_rule().amount, 2.0 * threshold)  # type: ignore[arg-type]
    hard = spikingjelly("IFNode", draw, threshold, "zero", "added")
    distance = threshold - hard.parameters["v_reset"]
    twice = hard.with_threshold(2.0).parameters
    np.testing.assert_allclose(twice["v_threshold"] - twice["v_reset"], 2 * distance)


class Namesake:
    """Holds a neuron of another arithmetic under a name that is taken."""

    class IFNode(IFNode):
        def step(self, p: Any, state: Any, x: Any, where: Any) -> Any:
            return super().step(p, state, -x, where)


def test_options_and_family_are_part_of_a_network_s_fingerprint() -> None:
    from osbc_deploy.model.graph import Dense, Network, Population, Projection

    prints = set()
    one, zero = np.ones(()), np.zeros(())
    for neuron in (
        IFNode(one, zero, "subtract"),
        IFNode(one, zero, "zero"),
        Namesake.IFNode(one, zero, "zero"),
    ):
        weights = Projection("w", "input", "p", Dense(np.ones((2, 3))))
        network = Network((3,), (Population("p", (2,), neuron),), (weights,))
        prints.add(network.fingerprint())
        prints.add(replace(network, source="elsewhere").fingerprint())
    assert len(prints) == 3
