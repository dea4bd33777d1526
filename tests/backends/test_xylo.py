"""Xylo's arithmetic against SynSense's own simulator, and what the chip does not have."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from osbc_backend_lava import BACKEND as LAVA
from osbc_backend_xylo import BACKEND
from osbc_deploy.backends import run_backend
from osbc_deploy.chip.mapping import map_network
from osbc_deploy.chip.target import load_target
from osbc_deploy.errors import BackendError, UnsupportedModelError
from osbc_deploy.exporting import export
from osbc_deploy.firmware.tables import lay_out
from osbc_deploy.fixedpoint.engine import run
from osbc_deploy.fixedpoint.xylo import faults
from osbc_deploy.testing import random_networks
from osbc_deploy.testing.xylo import xylo_cases

simulated = pytest.mark.skipif(
    importlib.util.find_spec("xylosim") is None, reason="xylosim is not installed"
)


@simulated
def test_the_engine_and_its_specification_compute_what_xylosim_does() -> None:
    # The worker's own function: a process for each network would take most of the time.
    from osbc_backend_xylo.worker import run as of_xylosim

    seen: set[str] = set()
    saturations = several = 0
    for case in xylo_cases(12):
        theirs = of_xylosim(case.network, case.spikes)
        names = [p.name for p in case.network.populations]
        for kernels in ("compiled", "plain"):
            ours = run(case.network, case.spikes, record=names, states=names, kernels=kernels)
            for number, name in enumerate(names):
                assert np.array_equal(ours.spikes[name], theirs[f"s{number}"]), case
                assert np.array_equal(ours.u[name], theirs[f"u{number}"]), case
                assert np.array_equal(ours.v[name], theirs[f"v{number}"]), case
            saturations += sum(a.saturations for a in ours.activity.values())
            several += sum(np.count_nonzero(raster > 1) for raster in ours.spikes.values())
        seen.update(case.features)
    assert saturations > 1000
    assert several > 1000
    assert {"biases", "recurrent", "input counts", "two hidden", "strong", "calm"} <= seen


def test_what_it_is_not_computed_by() -> None:
    network = next(xylo_cases(1, start=1)).network
    with pytest.raises(UnsupportedModelError, match="computes the integers of 'loihi', not those"):
        lay_out(network)
    for name in ("loihi2", "cortex-m4"):
        mapping = map_network(network, load_target(name))
        assert not mapping.fits
        assert "its integers are those of 'xylo'" in mapping.faults[0]
    first = network.projections[0]
    twice = replace(network, projections=(*network.projections, replace(first, name="twin")))
    assert any("2 projections from" in line for line in faults(twice))


@simulated
def test_the_backend_runs_it_in_a_process_of_its_own() -> None:
    case = next(xylo_cases(1, start=3))
    names = [p.name for p in case.network.populations]
    theirs = run_backend(BACKEND, case.network, case.spikes, time_limit=60, states=names[:1])
    ours = run(case.network, case.spikes, record=names)
    assert np.array_equal(theirs.output, ours.output)
    assert theirs.u.keys() == theirs.v.keys() == {names[0]}
    broken = replace(BACKEND, command=("/bin/sh", "-c", "echo why; exit 3"))
    with pytest.raises(BackendError, match=r"failed with code 3 \(why\)"):
        run_backend(broken, case.network, case.spikes, time_limit=60)
    slow = replace(BACKEND, command=("/bin/sh", "-c", "sleep 60"))
    with pytest.raises(BackendError, match=r"not done after 0\.1 s"):
        run_backend(slow, case.network, case.spikes, time_limit=0.1)


def test_a_hand_calculation_of_three_steps() -> None:
    # One input, one hidden neuron, one output; k = 2 for the current, 1 for the membrane.
    case = next(c for c in xylo_cases(20) if len(c.network.populations) == 2)
    one = np.ones(1, np.int64)

    def neuron(p: Any, vth: int) -> Any:
        return replace(
            p, shape=(1,), du=2 * one, dv=one, vth=vth * one, bias_mant=0 * one, bias_exp=0 * one,
            u_init=0 * one, v_init=0 * one, v_scale=np.ones(1), v_offset=np.zeros(1),
        )  # fmt: skip

    hidden, output = case.network.populations
    ways = [q for q in case.network.projections if q.pre != q.post]
    weights = [
        replace(q, connection=replace(q.connection, weight=2 * w * one[None]), weight_exp=-1)
        for q, w in zip(ways, (100, 10), strict=True)
    ]
    graded = replace(case.network.input) if weights[0].graded else None
    network = replace(
        case.network,
        input_shape=(1,),
        populations=(neuron(hidden, 20), neuron(output, 30)),
        projections=tuple(weights),
        input=graded,
    )
    signal = np.array([1, 0, 0]).reshape(1, 3, 1).astype(np.uint8)
    ours = run(network, signal, record=[hidden.name], states=[hidden.name, output.name])
    # I: 100 - 25; 75 - 18; 57 - 14. V: 75 is 3 thresholds and 15; 15 - 7 + 57 = 65 is 3 and 5;
    # 5 - 2 + 43 = 46 is 2 and 6.
    assert ours.u[hidden.name].ravel().tolist() == [75, 57, 43]
    assert ours.spikes[hidden.name].ravel().tolist() == [3, 3, 2]
    assert ours.v[hidden.name].ravel().tolist() == [15, 5, 6]
    # The output hears 3, 3 and 2 spikes of 10, and fires once a step at most.
    assert ours.u[output.name].ravel().tolist() == [23, 40, 45]
    assert ours.output.ravel().tolist() == [0, 1, 1]
    assert ours.v[output.name].ravel().tolist() == [23, 22, 26]


def test_a_backend_of_another_arithmetic_is_not_given_the_network() -> None:
    case = next(xylo_cases(1))
    with pytest.raises(BackendError, match="'lava': computes the arithmetic of loihi.*xylo"):
        run_backend(LAVA, case.network, case.spikes, time_limit=60)
    other = random_networks(1)[0]
    with pytest.raises(BackendError, match="'xylo': computes the arithmetic of xylo.*loihi"):
        run_backend(BACKEND, other.network, other.spikes, time_limit=60)
    wide = replace(other.network, formats=load_target("cortex-m4").number_formats)
    with pytest.raises(BackendError, match="'lava': computes with state_bits 24, .* has 29"):
        run_backend(LAVA, wide, other.spikes, time_limit=60)


def test_an_export_holds_the_arguments_of_rockpools_from_specification(tmp_path: Path) -> None:
    case = next(c for c in xylo_cases(20) if "two hidden" in c.features)
    told = export(case.network, tmp_path / "xylo.json", format="xylo")
    whole = json.loads((tmp_path / "xylo.json").read_text())
    given = {k: np.array(v) for k, v in whole["specification"].items() if k != "aliases"}
    first, second, output = case.network.populations
    inputs, hidden = case.network.input_shape[0], first.size + second.size
    assert (told.facts["inputs"], told.facts["hidden"]) == (inputs, hidden)
    # Names and shapes as its documentation gives them, sources first.
    assert given["weights_in"].shape == (inputs, hidden)
    assert given["weights_rec"].shape == (hidden, hidden)
    assert given["weights_out"].shape == (hidden, output.size)
    assert np.abs(given["weights_rec"]).max() <= 128
    for name, register in (("dash_syn", "du"), ("dash_mem", "dv"), ("threshold", "vth")):
        both = np.concatenate([getattr(first, register), getattr(second, register)])
        assert given[name].tolist() == both.tolist()
        assert given[f"{name}_out"].tolist() == getattr(output, register).tolist()
    way = next(q for q in case.network.projections if (q.pre, q.post) == ("hidden 0", "hidden 1"))
    real = way.connection.weight.T.astype(np.int64) * 2.0**way.weight_exp
    stored = given["weights_rec"][: first.size, first.size :] << given["weight_shift_rec"]
    assert np.array_equal(stored, real)
    assert whole["specification"]["aliases"] == [[]] * hidden
    with pytest.raises(UnsupportedModelError, match="'image' holds integers of loihi"):
        export(case.network, tmp_path / "x.img", format="image")
