"""The kit for authors of backends notices what it is for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from osbc_deploy.backends import Availability, BackendRun
from osbc_deploy.errors import BackendError
from osbc_deploy.fixedpoint.engine import run
from osbc_deploy.fixedpoint.network import FixedPointNetwork
from osbc_deploy.testing import assert_backend_conforms, assert_same_bits, backends, random_networks

Change = Callable[[FixedPointNetwork, BackendRun], BackendRun]


class Toy:
    """The engine, whose answer may be changed."""

    name, summary = "toy", "a toy"
    ok = True

    def __init__(self, change: Change = lambda network, right: right) -> None:
        self.change = change
        self.seen: list[FixedPointNetwork] = []

    def availability(self) -> Availability:
        return Availability(self.ok, "" if self.ok else "no license", "Buy one.")

    def run(
        self, network: Any, spikes: Any, *, time_limit: Any, progress: Any, states: Any = ()
    ) -> BackendRun:
        self.seen.append(network)
        names = [p.name for p in network.populations]
        done = run(network, spikes, record=names, states=states)
        return self.change(network, BackendRun(done.spikes, done.output, done.u, done.v))


def flipped(network: FixedPointNetwork, right: BackendRun) -> BackendRun:
    """One current of the last population, one too high in sample 0, step 2, neuron 0."""
    if not right.u:
        return right
    name = network.output.name
    wrong = right.u[name].copy()
    wrong[0, 2, 0] += 1
    return replace(right, u={**right.u, name: wrong})


def test_a_backend_that_is_the_engine_conforms() -> None:
    toy = Toy()
    counted = assert_backend_conforms(toy, 6)
    networks = random_networks(6)
    assert counted["dense"] == sum("dense" in case.features for case in networks)
    assert counted["u"] == sum(
        len(case.spikes) * case.spikes.shape[1] * p.size
        for case in networks
        for p in case.network.populations
    )
    assert len(toy.seen) == 12


def test_the_first_wrong_bit_is_shown_with_its_place() -> None:
    with pytest.raises(AssertionError) as error:
        assert_backend_conforms(Toy(flipped), 3, start=4)
    said = str(error.value)
    case = random_networks(1, start=4)[0]
    right = run(case.network, case.spikes, states=[case.network.output.name])
    value = int(right.u[case.network.output.name][0, 2, 0])
    assert said.startswith(f"backend 'toy', network 0 ({', '.join(case.features)}; ")
    assert "random_networks(1, start=4)[0]" in said
    assert f"{case.network.output.name!r} is not what the engine computes (1 of u differ)" in said
    assert said.endswith(
        f"first in sample 0, step 2, neuron 0, where u is {value + 1}, {value} is right"
    )


def test_samples_that_hear_each_other_are_noticed() -> None:
    def leaking(network: FixedPointNetwork, right: BackendRun) -> BackendRun:
        # Alone, the sample would answer otherwise.
        if len(right.output) > 1 or right.u:
            return right
        output = right.output.copy()
        if network.output.spiking:
            output[:] = 1 - output
            return replace(right, output=output, spikes={
                **right.spikes, network.output.name: output.astype(np.uint8)})  # fmt: skip
        return replace(right, output=output + 1)

    with pytest.raises(AssertionError, match="the last sample alone gives another output"):
        assert_backend_conforms(Toy(leaking), 2)


def test_what_the_contract_forbids_is_no_difference_but_a_fault() -> None:
    def short(network: FixedPointNetwork, right: BackendRun) -> BackendRun:
        return replace(right, output=right.output[:, 1:])

    with pytest.raises(AssertionError, match="network 0 .*output has shape"):
        assert_backend_conforms(Toy(short), 2)
    with pytest.raises(AssertionError, match="its name is None"):
        assert_backend_conforms(object(), 2)  # type: ignore[arg-type]
    toy = Toy()
    toy.ok = False
    with pytest.raises(AssertionError, match=r"cannot run here \(no license\). Buy one."):
        assert_backend_conforms(toy, 2)


def test_networks_that_are_not_supported_are_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backends, "_DRAWN", 8)

    def choosy(network: FixedPointNetwork, right: BackendRun) -> BackendRun:
        if len(network.populations) > 1:
            raise BackendError("one layer is all there is")
        return right

    assert_backend_conforms(Toy(choosy), 3, supports=lambda c: len(c.network.populations) == 1)
    with pytest.raises(AssertionError, match="one layer is all there is"):
        assert_backend_conforms(Toy(choosy), 3)
    with pytest.raises(AssertionError, match="is true of 0 of 8 random networks, 1 were asked"):
        assert_backend_conforms(Toy(), 1, supports=lambda c: False)


def test_a_run_without_states_is_compared_by_its_spikes() -> None:
    case = next(c for c in random_networks(20) if "readout" not in c.features)
    names = [p.name for p in case.network.populations]
    done = run(case.network, case.spikes, record=names)
    counted = assert_same_bits(case, done)
    assert set(counted) == {"spikes"}
    wrong = {name: 1 - spikes for name, spikes in done.spikes.items()}
    with pytest.raises(AssertionError, match="first in sample 0, step 0, neuron 0"):
        assert_same_bits(case, replace(done, spikes=wrong))
