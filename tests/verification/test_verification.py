"""The whole verification: what was damaged is found, and the counts are those of a plain count."""

from __future__ import annotations

from dataclasses import replace

import jsonschema
import numpy as np
import pytest

from float_networks import mlp
from osbc_deploy.backends import Availability, BackendRun
from osbc_deploy.errors import UsageError
from osbc_deploy.fixedpoint.engine import run
from osbc_deploy.model.readout import decode
from osbc_deploy.model.simulate import simulate
from osbc_deploy.pipeline import finish
from osbc_deploy.report.verification.build import verify_json_schema
from osbc_deploy.verification.bits import compare_backend
from osbc_deploy.verification.choice import parse_neurons
from osbc_deploy.verification.difference import Difference
from osbc_deploy.verification.result import Verification
from osbc_deploy.verification.run import compare_stages
from verified import SIZES, compressed, job, verification


@pytest.fixture(scope="module")
def found() -> Verification:
    return verification(bits=3, damage="w2")


@pytest.mark.parametrize("layer", ["w0", "w1", "w2"])
def test_a_damaged_layer_is_the_one_that_is_named(layer: str) -> None:
    seen = verification(damage=layer, sparsity=0.3)
    assert seen.costliest.projections == (layer,)
    post = f"p{layer[1]}"
    quantize = seen.step("quantize")
    own = {name: d.mismatch for name, d in quantize.isolated.items()}
    assert max(own, key=own.get) == post
    # What arrives behind it is wrong, what the populations behind it do is not.
    others = [name for name in own if name != post]
    assert all(own[name] < own[post] / 5 for name in others)
    behind = [name for name in others if name > post]
    assert all(quantize.propagated[name].mismatch > 2 * own[name] for name in behind)
    # Eight bits leave next to nothing before the damage.
    assert all(quantize.propagated[name].mismatch < 0.02 for name in others if name < post)


def test_steps_are_counted_as_by_hand(found: Verification) -> None:
    net = mlp(sizes=SIZES)
    work = job(net)
    x, names = work.evaluated.spikes, [p.name for p in net.populations]
    a = simulate(net, x, record=names, batch_size=len(x))
    lowered = found.deployment.lowered
    # Neurons that nothing hears are compared as well, though no chip holds them.
    b = run(lowered.whole, x, record=names, states=names)
    step = found.step("total")
    assert (step.before, step.after) == ("float", "fixed point")
    for name in names:
        wrong = a.spikes[name] != b.spikes[name]
        seen = step.propagated[name]
        assert (seen.mismatches, seen.neuron_steps) == (wrong.sum(), wrong.size)
        first = [next((t for t in range(x.shape[1]) if sample[t].any()), -1) for sample in wrong]
        assert list(seen.first) == first
        assert seen.earliest == min(t for t in first if t >= 0)
        counts = found.firing["fixed point"][name].counts
        assert np.array_equal(counts, b.spikes[name].sum(axis=(0, 1)))
        assert found.silenced[name] == sum(
            bool(a.spikes[name][:, :, k].any()) and not b.spikes[name][:, :, k].any()
            for k in range(len(counts))
        )
        assert found.activity[name].v_peak == b.activity[name].v_peak
    labels = work.evaluated.labels
    before, after = (decode(r.output, "sum", spiking=True) for r in (a, b))
    assert found.score("fixed point").right == (after == labels).sum()
    paired = found.paired["total"]
    assert paired.lost == ((before == labels) & (after != labels)).sum()
    assert paired.won == ((before != labels) & (after == labels)).sum()
    assert paired.lost + paired.won > 0


def test_parts_of_the_samples_add_up(found: Verification, monkeypatch: pytest.MonkeyPatch) -> None:
    """48 samples were compared in parts of 32; in parts of 7 nothing but rounding changes."""
    monkeypatch.setattr("osbc_deploy.verification.run._SIDE_BY_SIDE", 7)
    again = compare_stages(job(mlp(sizes=SIZES)), found.deployment)
    for step, other in zip(found.steps, again.steps, strict=True):
        for kind in ("propagated", "isolated"):
            for name, seen in getattr(step, kind).items():
                same = getattr(other, kind)[name]
                assert (seen.mismatches, seen.first) == (same.mismatches, same.first)
                assert same.membrane == pytest.approx(seen.membrane)
                assert same.van_rossum == pytest.approx(seen.van_rossum)
    assert again.shown.sample == found.shown.sample
    for a, b in zip(found.layers, again.layers, strict=True):
        assert (a.compressed.same, a.compressed.right) == (b.compressed.same, b.compressed.right)


def test_nothing_removed_and_fine_weights_differ_in_nothing() -> None:
    """The pruned stage is the float network where nothing is pruned."""
    seen = verification(sparsity=0.0, bits=8)
    for difference in seen.step("prune").propagated.values():
        assert (difference.mismatches, difference.membrane, difference.van_rossum) == (0, 0.0, 0.0)
        assert (difference.earliest, difference.median) == (None, None)
    assert seen.paired["prune"].p == 1.0


def test_without_labels_and_without_pruned_weights() -> None:
    seen = verification(labels=False)
    assert seen.paired == {}
    assert seen.score("float").accuracy is None
    assert seen.layers[0].compressed.right is None
    net = mlp(sizes=SIZES)
    work = job(net)
    done = compressed(net, work)
    bare = {name: replace(p, pruned=None) for name, p in done.projections.items()}
    done = replace(done, projections=bare)
    seen = compare_stages(work, finish(work, done))
    assert [step.name for step in seen.steps] == ["compress", "lower", "total"]
    assert seen.layers[0].pruned is None


def test_the_median_counts_samples_that_never_differ() -> None:
    assert Difference(first=(3, 5, -1)).median == 5.0
    assert Difference(first=(3, 5, -1, -1)).median is None
    assert Difference(first=(2, 3)).median == 2.5
    assert Difference().median is None


class Faulty:
    """The engine with one neuron's threshold wrong, as a backend that has a fault."""

    name = "faulty"
    summary = "engine with a fault"

    def __init__(self, population: str, neuron: int) -> None:
        self._place = population, neuron

    def availability(self) -> Availability:
        return Availability(True, "")

    def run(self, network, spikes, *, time_limit, progress, states=()):  # type: ignore[no-untyped-def]
        name, neuron = self._place
        populations = []
        for p in network.populations:
            vth = np.array(p.vth)
            if p.name == name:
                vth[neuron] //= 4
            populations.append(replace(p, vth=vth))
        wrong = replace(network, populations=tuple(populations))
        done = run(wrong, spikes, record=[p.name for p in populations], states=states)
        return BackendRun(done.spikes, done.output, done.u, done.v)


def test_a_backends_fault_is_counted_and_placed(found: Verification) -> None:
    network = found.deployment.lowered.network
    samples = job(mlp(sizes=SIZES)).evaluated
    x = samples.spikes[:6]
    # A neuron that is quiet enough to be changed by its threshold.
    neuron = int(np.argmax(found.firing["fixed point"]["p1"].counts))
    seen = compare_backend(Faulty("p1", neuron), network, samples, 6, time_limit=1.0)
    names = [p.name for p in network.populations]
    ours = run(network, x, record=names, states=names)
    theirs = Faulty("p1", neuron).run(network, x, time_limit=1, progress=None, states=names)
    for name in names:
        for quantity in ("spikes", "u", "v"):
            wrong = getattr(ours, quantity)[name] != getattr(theirs, quantity)[name]
            bits = seen.populations[name][quantity]
            assert (bits.different, bits.compared) == (wrong.sum(), wrong.size)
    assert seen.mismatches("spikes", "u", "v") == seen.different > 0
    assert seen.populations["p0"]["spikes"].different == 0
    assert (seen.first.population, seen.first.neuron) == ("p1", neuron)
    wrong = ours.v["p1"] != theirs.v["p1"]
    assert seen.first.step == min(int(t) for t in np.flatnonzero(wrong.any(axis=(0, 2))))
    same = compare_backend(Faulty("none", 0), network, samples, 6, time_limit=1.0)
    assert (same.different, same.first) == (0, None)


def test_neurons_keep_their_numbers_where_others_are_left_out() -> None:
    """Nothing hears the odd half of p0: its fourth neuron on the chip is neuron 6."""
    net = mlp(sizes=SIZES)
    weight = net.projections[1].connection.weight.copy()
    weight[:, 1::2] = 0
    net = net.with_weights({"w1": weight})
    work = replace(job(net, labels=False), runner=Faulty("p0", 3), backend_samples=4)
    deployment = finish(
        replace(work, runner=None), compressed(net, work, sparsity=0.0, method="magnitude")
    )
    seen = compare_stages(work, deployment, named={"p0": (39, 6)})
    assert (seen.backend.first.population, seen.backend.first.neuron) == ("p0", 6)
    report = seen.report()
    jsonschema.validate(report, verify_json_schema())
    assert report["backend"]["first_difference"]["neuron"] == 6
    assert [p["neurons_left_out"] for p in report["backend"]["populations"]] == [20, 0, 0]
    shown = report["shown"]["populations"][0]
    assert [trace["neuron"] for trace in shown["traces"]] == [39, 6]
    for trace in shown["traces"]:
        values = trace["thresholds"]
        assert values["fixed point"] == pytest.approx(values["float"], rel=0.01)
    whole = deployment.report()["pruning"]["left_out"]
    stayed = [[n, n + 1] for n in range(0, 40, 2)]
    assert whole == {"p0": {"neurons": 40, "left_out": 20, "stayed": stayed}}


def test_neurons_are_chosen_or_refused_all_at_once() -> None:
    net = mlp(sizes=SIZES)
    assert parse_neurons(["p0:3,7", "p2:1", "p0:7,8"], net) == {"p0": (3, 7, 8), "p2": (1,)}
    with pytest.raises(UsageError) as error:
        parse_neurons(["p0", "p9:1", "p2:4,5", "p1:x"], net)
    for part in ("'p0' is not", "'p9' is no", "p2 has neurons 0 to 4, not 5", "'p1:x' is not"):
        assert part in str(error.value)


def test_drawn_are_the_named_or_the_most_different(found: Verification) -> None:
    shown = found.shown
    a, b = shown.records["float"], shown.records["fixed point"]
    wrong = (a.spikes["p0"] != b.spikes["p0"]).sum(axis=(0, 1))
    assert len(shown.neurons["p0"]) == 16
    assert wrong[list(shown.neurons["p0"])].max() == wrong.max() == wrong[shown.traced["p0"][0]]
    assert shown.neurons["p2"] == (0, 1, 2, 3, 4)
    named = compare_stages(job(mlp(sizes=SIZES)), found.deployment, named={"p0": (39, 2)}).shown
    assert (named.neurons["p0"], named.traced["p0"]) == ((39, 2), (39, 2))
    assert named.neurons["p1"] == shown.neurons["p1"]
    # Samples that change their class come before all others.
    assert (found.score("float").classes != found.score("fixed point").classes).any()
    assert shown.classes["float"] != shown.classes["fixed point"]
