"""Speck's arithmetic against SynSense's own simulation, and by hand."""

from __future__ import annotations

import importlib.util
from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from osbc_backend_sinabs import BACKEND
from osbc_deploy.backends import run_backend
from osbc_deploy.errors import BackendError, FidelityError
from osbc_deploy.fixedpoint.engine import run
from osbc_deploy.fixedpoint.network import FixedConv, FixedDense, Pooling
from osbc_deploy.fixedpoint.speck import faults
from osbc_deploy.testing.speck import speck_cases

simulated = pytest.mark.skipif(
    not BACKEND.availability().ok, reason="sinabs is not installed (without what it declares)"
)


@simulated
def test_the_engine_and_its_specification_compute_what_sinabs_does() -> None:
    # The worker's own function: a process for each network would take most of the time.
    from osbc_backend_sinabs.worker import run as of_sinabs

    seen = Counter[str]()
    for case in speck_cases(20):
        theirs = of_sinabs(case.network, case.spikes)
        names = [p.name for p in case.network.populations]
        for kernels in ("compiled", "plain"):
            ours = run(case.network, case.spikes, record=names, states=names, kernels=kernels)
            for number, name in enumerate(names):
                assert np.array_equal(ours.spikes[name], theirs[f"s{number}"]), case
                assert np.array_equal(ours.v[name], theirs[f"v{number}"]), case
        seen.update(case.features)
    assert set(seen) == {"counts", "bias", "floor", "conv", "dense", "pooling", "return to zero"}


@simulated
def test_the_backend_runs_it_in_a_process_of_its_own() -> None:
    case = next(speck_cases(1))
    names = [p.name for p in case.network.populations]
    theirs = run_backend(BACKEND, case.network, case.spikes, time_limit=60, states=names)
    assert np.array_equal(theirs.output, run(case.network, case.spikes).output)
    assert theirs.v.keys() == set(names)


def test_without_sinabs_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    case = next(speck_cases(1))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(BackendError, match=r"not installed: sinabs.*--no-deps sinabs==3\.1\.3"):
        run_backend(BACKEND, case.network, case.spikes, time_limit=60)


def test_the_engine_computes_what_its_specification_does() -> None:
    several = floors = 0
    for case in speck_cases(15):
        assert faults(case.network) == []
        names = [p.name for p in case.network.populations]
        plain, fast = (
            run(case.network, case.spikes, record=names, states=names, kernels=kernels)
            for kernels in ("plain", "compiled")
        )
        for name in names:
            for what in ("spikes", "u", "v"):
                one, other = getattr(plain, what)[name], getattr(fast, what)[name]
                assert np.array_equal(one, other), case
            a, b = plain.activity[name], fast.activity[name]
            assert (a.u_peak, a.v_peak, a.saturations) == (b.u_peak, b.v_peak, b.saturations)
            several += int(np.count_nonzero(plain.spikes[name] > 1))
            floors += a.saturations
    assert several > 500
    assert floors > 100


def layers(weight: Any, vth: int, bias: int = 0) -> Any:
    """One neuron behind one input, and one that counts its spikes."""
    case = next(
        c for c in speck_cases(40) if len(c.network.populations) == 1 and not c.network.input.graded
    )
    (p,), (q,) = case.network.populations, case.network.projections
    one = np.ones(1, np.int64)
    neuron = replace(
        p, shape=(1,), du=one, dv=0 * one, vth=vth * one, bias_mant=bias * one, bias_exp=0 * one,
        u_init=0 * one, v_init=0 * one, v_scale=np.ones(1), v_offset=np.zeros(1),
        reset="subtract",
    )  # fmt: skip
    way = replace(q, connection=FixedDense(2 * np.array([[weight]])), pooling=None)
    behind = replace(way, name="b", pre=p.name, post="b", connection=FixedDense([[2 * 10]]))
    return replace(
        case.network,
        input_shape=(1,),
        populations=(neuron, replace(neuron, name="b", vth=25 * one, bias_mant=0 * one)),
        projections=(way, behind),
    )


def test_a_hand_calculation_of_four_steps() -> None:
    network = layers(100, 30, -7)
    signal = np.array([1, 0, 0, 1], np.uint8).reshape(1, 4, 1)
    first, second = (p.name for p in network.populations)
    ours = run(network, signal, record=[first], states=[first, second])
    # 93 is 3 thresholds and 3; 3 - 7 = -4; -11; -11 + 93 = 82 is 2 and 22.
    assert ours.spikes[first].ravel().tolist() == [3, 0, 0, 2]
    assert ours.v[first].ravel().tolist() == [3, -4, -11, 22]
    # 3 spikes of 10 in the same step: 30 is 1 and 5; 5 + 20 is 1 and 0.
    assert ours.output.ravel().tolist() == [1, 0, 0, 1]
    assert ours.v[second].ravel().tolist() == [5, 5, 5, 0]
    # What returns to zero loses the rest: 0; -7; -14; -14 + 93 = 79 is 2.
    neuron, behind = network.populations
    returning = replace(network, populations=(replace(neuron, reset="zero"), behind))
    for kernels in ("plain", "compiled"):
        ours = run(returning, signal, record=[first], states=[first], kernels=kernels)
        assert ours.spikes[first].ravel().tolist() == [3, 0, 0, 2]
        assert ours.v[first].ravel().tolist() == [0, -7, -14, 0]


def test_a_potential_ends_at_the_registers_lower_bound() -> None:
    network = layers(-128, 30)
    signal = np.ones((1, 300, 1), np.uint8)
    name = network.populations[0].name
    v = run(network, signal, states=[name]).v[name].ravel()
    assert v[:255].tolist() == [-128 * (t + 1) for t in range(255)]
    assert set(v[255:].tolist()) == {-(2**15)}


def test_more_spikes_than_are_kept_are_refused() -> None:
    network = layers(127, 1)
    wide = replace(network, input=replace(network.input, kind="integers", bits=3), projections=(
        replace(network.projections[0], graded=True), network.projections[1]))  # fmt: skip
    signal = np.full((1, 1, 1), 3, np.int32)
    for kernels in ("plain", "compiled"):
        with pytest.raises(FidelityError, match="fires 381 times in one step, 255 are kept"):
            run(wide, signal, kernels=kernels)


def test_what_a_core_cannot_hold_is_a_fault() -> None:
    network = layers(100, 30)
    a, b = network.populations
    way, behind = network.projections
    loop = replace(way, name="loop", pre="b", post=a.name)
    wrong = replace(
        network,
        populations=(replace(a, vth=0 * a.vth, dv=a.dv + 1), b),
        projections=(way, behind, replace(loop, connection=FixedDense([[2]], [[3]]))),
    )
    said = "\n".join(faults(wrong))
    for words in ("threshold of 0", "leaks", "2 projections", "loop: feedback", "synaptic delays"):
        assert words in said
    assert faults(network) == []


def test_a_pooling_is_repeated_weights() -> None:
    # Two events of different pixels of a window, and a hand's sum.
    network = layers(100, 30)
    kernel = np.kron([[[[4, -6], [8, 2]]]], np.ones((1, 1, 2, 2), int))
    conv = FixedConv(kernel, (4, 4), (0, 0), (1, 1), 1)
    way = replace(network.projections[0], connection=conv, pooling=Pooling((2, 2)))
    pooled = replace(
        network,
        input_shape=(1, 4, 4),
        populations=(replace(network.populations[0], shape=(1, 1, 1)), network.populations[1]),
        projections=(way, network.projections[1]),
    )
    signal = np.zeros((1, 1, 1, 4, 4), np.uint8)
    signal[0, 0, 0, 0, 0] = signal[0, 0, 0, 1, 1] = signal[0, 0, 0, 3, 0] = 1
    name = pooled.populations[0].name
    assert run(pooled, signal, states=[name]).v[name].ravel().tolist() == [2 + 2 + 4]
