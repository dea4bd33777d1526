"""Whole networks: predicted losses are measured losses, whatever the structure."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

import float_networks as nets
from osbc_deploy.compress import CompressionOptions, compress
from osbc_deploy.compress.damping import damp
from osbc_deploy.compress.hessian import membrane_moments
from osbc_deploy.compress.layer import prune_layer, quantize_layer
from osbc_deploy.compress.problem import pose
from osbc_deploy.compress.quantize import quantize_rows
from osbc_deploy.compress.rows import Workspace
from osbc_deploy.compress.traces import membrane_trace
from osbc_deploy.errors import UnsupportedModelError, UsageError
from osbc_deploy.model.graph import Conv, Dense, Network, Population, Projection
from osbc_deploy.model.simulate import simulate

PLAIN = CompressionOptions(sparsity=0.6, bits=4, tune=False)


def chain(neuron: str) -> Network:
    return nets.network((14,), (nets.dense(1, 10, 14), nets.NEURONS[neuron]))


STRUCTURES = {
    "LIF": chain("LIF"),
    "CUBA": chain("CUBA"),
    "IF": chain("IF"),
    "LI": chain("LI"),
    "deep": nets.mlp(),
    "convolutions": nets.convolutions(),
    "recurrent": nets.recurrent(),
    "loop": nets.loop(),
    "residual": nets.residual(),
}


@pytest.mark.parametrize("name", STRUCTURES)
def test_predicted_loss_is_the_measured_change_of_the_potential(name: str) -> None:
    net = STRUCTURES[name]
    x = nets.spikes(3, 20, 12, *net.input_shape)
    done = compress(net, x, PLAIN)
    for population in net.populations:
        afferents = net.afferents(population.name)
        float_ = {p.name: p.connection.weight for p in afferents}
        ours = {p.name: done.projections[p.name].weight for p in afferents}
        none = {p.name: 0 * p.connection.weight for p in afferents}
        v, v2, v0 = (nets.potentials(net, population.name, x, w) for w in (float_, ours, none))
        measured = ((v - v2) ** 2).sum() / ((v - v0) ** 2).sum()
        for projection in afferents:
            predicted = done.projections[projection.name].relative_loss["total"]
            assert predicted == pytest.approx(measured, rel=1e-6)


@pytest.mark.parametrize("name", STRUCTURES)
@pytest.mark.parametrize("tune", [False, True])
def test_codes_lie_on_the_grid_and_the_budget_is_kept(name: str, tune: bool) -> None:
    net = STRUCTURES[name]
    x = nets.spikes(4, 50, 10, *net.input_shape)
    done = compress(net, x, replace(PLAIN, tune=tune))
    assert sum(p.kept for p in done.projections.values()) == net.weights - round(0.6 * net.weights)
    for projection in done.projections.values():
        assert -8 <= projection.codes.min() <= projection.codes.max() <= 7
        assert projection.nonzero <= projection.kept
        assert len(np.unique(projection.scale)) <= 8
    for population in net.populations:
        # One population has one scale per output, whoever feeds it.
        scales = [done.projections[p.name].scale for p in net.afferents(population.name)]
        assert all(np.array_equal(scales[0], scale) for scale in scales)


@pytest.mark.parametrize("groups", [1, 2])
def test_shared_scales_are_about_as_good_as_any(groups: int) -> None:
    for seed in range(3):
        connection = nets.dense(seed, 12, 30)
        # Rows of sizes 1 to 8 that have to share scales, so that most get none of their own best.
        larger = connection.weight * 2.0 ** np.linspace(0, 3, 12)[:, None]
        connection = replace(connection, weight=larger.astype(np.float32))
        afferents = [Projection("w", "input", "p", connection)]
        neuron = nets.NEURONS["LIF"]
        moments = membrane_moments(afferents, neuron.dynamics(), [nets.spikes(seed, 30, 12, 30)])
        problem = pose(afferents, Population("p", (12,), neuron), moments)
        pruned = prune_layer(problem, 200)
        ((layer,),) = quantize_layer(problem, pruned, [4], groups)
        assert len(np.unique(layer.scale)) <= groups
        # Every scale for every row, and of those the best one or the best two.
        (damped,), (weights,), (mask,) = problem.damped, pruned.weights, pruned.masks
        live = damped.live
        fine = np.abs(weights).max() / 7 * 2.0 ** -np.linspace(0, 6, 60)
        _, lost = quantize_rows(
            weights[:, live], damped.H, mask[:, live], [np.full(12, s) for s in fine], [4] * 60
        )
        sums = np.minimum(lost[:, None], lost[None]).sum(axis=2)
        best = sums.min() if groups == 2 else np.diagonal(sums).min()
        _, (ours,) = quantize_rows(weights[:, live], damped.H, mask[:, live], [layer.scale], [4])
        assert ours.sum() < 1.1 * best


@pytest.mark.parametrize("neuron", ["LIF", "LI"])
@pytest.mark.parametrize("factor", [3.0, 30.0, 1000.0])
def test_rows_of_other_sizes_are_quantized_as_well(neuron: str, factor: float) -> None:
    # As when the scales of a BatchNorm are folded into a layer.
    alike = chain(neuron)
    first, *rest = alike.projections
    weight = first.connection.weight
    larger = np.where(np.arange(len(weight)) % 5 < 2, factor, 1.0)[:, None]
    scaled = replace(first, connection=replace(first.connection, weight=weight * larger))
    spread = replace(alike, projections=(scaled, *rest))
    x = nets.spikes(3, 20, 12, *alike.input_shape)
    for bits in (4, 8):
        options = replace(PLAIN, sparsity=0.0, bits=bits)
        before, after = (
            compress(net, x, options).projections[first.name].relative_loss["total"]
            for net in (alike, spread)
        )
        # A readout has one scale for all.
        assert after < (2.0 if neuron == "LIF" else 4.0) * before


def test_weights_on_silent_inputs_do_not_coarsen_the_others() -> None:
    net = chain("LIF")
    first, *rest = net.projections
    x = nets.spikes(3, 20, 12, *net.input_shape)
    x[:, :, :3] = 0
    losses = []
    for factor in (1.0, 1e4):
        weight = first.connection.weight.copy()
        weight[:, :3] *= factor
        changed = replace(first, connection=replace(first.connection, weight=weight))
        done = compress(replace(net, projections=(changed, *rest)), x, replace(PLAIN, sparsity=0.0))
        losses.append(done.projections[first.name].relative_loss["total"])
    assert losses[1] < 1.5 * losses[0]


@pytest.mark.parametrize("net", [nets.recurrent(), nets.residual(), nets.loop()])
def test_recurrence_addition_and_delays_are_what_they_say(net: Network) -> None:
    x = nets.spikes(5, 3, 9, 12)
    run = simulate(net, x, record={p.name for p in net.populations})
    for n in range(3):
        state = {
            p.name: {"u": 0.0, "v": p.neuron.v_init + np.zeros(p.shape)} for p in net.populations
        }
        fired = {p.name: np.zeros((9, *p.shape)) for p in net.populations}
        fired["input"] = x[n].astype(float)
        for t in range(9):
            for p in net.populations:
                current = np.zeros(p.shape)
                for q in net.afferents(p.name):
                    late = np.full(q.connection.fan_in, int(net.is_feedback(q)))
                    late += 0 if q.delay is None else q.delay
                    arrived = [fired[q.pre][t - d, i] if t >= d else 0 for i, d in enumerate(late)]
                    current += q.connection.weight @ np.array(arrived, float)
                answer, state[p.name] = p.neuron.step(
                    p.neuron.parameters, state[p.name], current, np.where
                )
                fired[p.name][t] = np.asarray(answer, float)
        assert all(np.array_equal(fired[name], run.spikes[name][n]) for name in run.spikes)
        assert np.allclose(fired[net.output.name], run.output[n])


def test_known_populations_are_taken_as_given() -> None:
    net = nets.mlp()
    x = nets.spikes(6, 5, 8, 24)
    whole = simulate(net, x, record={"p0", "p1"})
    rest = simulate(net, x, given={"p1": whole.spikes["p1"]})
    assert np.array_equal(rest.output, whole.output)
    part = simulate(net, x, given={"p0": whole.spikes["p0"]}, until="p1", record={"p1"})
    assert np.array_equal(part.spikes["p1"], whole.spikes["p1"])
    assert part.output.shape == (5, 8, 20)
    silent = simulate(net, x, given={"p1": 0 * whole.spikes["p1"]})
    assert not silent.output.any()


def test_projections_that_share_weights_differently_are_refused() -> None:
    conv = Conv(np.ones((2, 2, 1, 1)))
    net = Network(
        (2, 3, 3),
        (Population("a", (2, 3, 3), nets.NEURONS["LIF"]),),
        (
            Projection("c", "input", "a", conv),
            Projection("d", "input", "a", Dense(np.ones((18, 18)))),
        ),
        dtype="float64",
    )
    with pytest.raises(UnsupportedModelError, match="end in one population"):
        membrane_moments(net.projections, None, [nets.spikes(0, 2, 3, 2, 3, 3)] * 2)


def test_cross_term_and_free_bias_are_least_squares() -> None:
    neuron = nets.NEURONS["LIF"]
    connection = nets.dense(7, 6, 10, bias=True)
    projection = Projection("w", "input", "p", connection)
    seen, meant = nets.spikes(8, 30, 12, 10), nets.spikes(9, 30, 12, 10)
    meant[:, :, :5] = seen[:, :, :5]
    dynamics = neuron.dynamics()
    x, y = (membrane_trace(dynamics, s).reshape(-1, 10) for s in (seen, meant))
    m = np.tile(membrane_trace(dynamics, np.ones((1, 12)))[0], 30)
    moments = membrane_moments([projection], dynamics, [seen], [meant])
    population = Population("p", (6,), neuron)
    W = connection.weight.astype(np.float64)
    wanted = y @ W.T
    problem = pose([projection], population, moments, damping=0.0)
    assert np.allclose(problem.blocks[0].T, np.linalg.lstsq(x, wanted, rcond=None)[0], rtol=1e-4)
    free = pose([projection], population, moments, damping=0.0, free_bias=True)
    solution = np.linalg.lstsq(np.column_stack([x, m]), wanted, rcond=None)[0]
    assert np.allclose(free.blocks[0].T, solution[:-1], rtol=1e-4)
    # After compression the bias is still the best one for the weights there are.
    (layer,) = quantize_layer(free, prune_layer(free, 30), [3], 8)[0]
    assert layer.bias is not None
    assert connection.bias is not None
    left = wanted - x @ layer.weight.T
    best = np.linalg.lstsq(m[:, None], left, rcond=None)[0][0]
    assert np.allclose(layer.bias, connection.bias + best, rtol=1e-4)


@pytest.mark.parametrize("pull", [1.0, 10.0])
def test_the_target_of_the_cross_term_is_held_to_the_weights(pull: float) -> None:
    neuron = nets.NEURONS["LIF"]
    connection = nets.dense(7, 6, 10)
    projection = Projection("w", "input", "p", connection)
    seen, meant = nets.spikes(8, 30, 12, 10), nets.spikes(9, 30, 12, 10)
    x, y = (membrane_trace(neuron.dynamics(), s).reshape(-1, 10) for s in (seen, meant))
    moments = membrane_moments([projection], neuron.dynamics(), [seen], [meant])
    population = Population("p", (6,), neuron)
    W = connection.weight.astype(np.float64)
    problem = pose([projection], population, moments, damping=0.05, pull=pull)
    # Ridge regression is least squares with the weights themselves as further samples.
    ridge = np.sqrt(0.05 * pull * (x**2).sum() / 10) * np.eye(10)
    rows, wanted = np.concatenate([x, ridge]), np.concatenate([y @ W.T, ridge @ W.T])
    best = np.linalg.lstsq(rows, wanted, rcond=None)[0]
    assert np.allclose(problem.blocks[0].T, best, rtol=1e-4)


def test_moments_add_up_whatever_the_batches() -> None:
    net = nets.convolutions()
    x = nets.spikes(10, 9, 7, 2, 9, 9)
    first = net.projections[:1]
    dynamics = nets.NEURONS["CUBA"].dynamics()
    whole = membrane_moments(first, dynamics, [x], [x[::-1]])
    space = Workspace(memory=1)
    tiny = membrane_moments(first, dynamics, [x], [x[::-1]], batch_size=2, space=space)
    parts = membrane_moments(first, dynamics, [x[:4]], [x[::-1][:4]]) + membrane_moments(
        first, dynamics, [x[4:]], [x[::-1][4:]]
    )
    for other in (tiny, parts):
        for name in ("hessian", "cross", "drift", "float_drift", "constant"):
            assert np.allclose(getattr(other, name), getattr(whole, name), rtol=1e-12)
        assert other.rows == whole.rows


def test_delays_beyond_the_samples_deliver_nothing() -> None:
    net = nets.residual()
    late = np.where(np.arange(12) < 6, 30, 0)
    delayed = [replace(p, delay=late) if p.name == "skip" else p for p in net.projections]
    x = nets.spikes(3, 20, 10, *net.input_shape)
    done = compress(replace(net, projections=tuple(delayed)), x, PLAIN)
    assert done.projections["skip"].dead_inputs == 6


DEGENERATE = {
    "one sample": nets.spikes(1, 1, 10, 24),
    "one spike": np.eye(1, 10 * 24, 17, dtype=np.uint8).reshape(1, 10, 24),
    "constant input": np.ones((50, 10, 24), np.uint8),
    "duplicate inputs": np.repeat(nets.spikes(2, 50, 10, 12), 2, axis=2),
    "rank one": np.repeat(nets.spikes(2, 50, 10, 1), 24, axis=2),
    "half dead": np.concatenate(
        [nets.spikes(2, 50, 10, 12), np.zeros((50, 10, 12), np.uint8)], axis=2
    ),
}


@pytest.mark.parametrize("name", DEGENERATE)
@pytest.mark.parametrize("damping", [0.01, 0.0])
def test_degenerate_calibration_gives_a_result_and_says_so(name: str, damping: float) -> None:
    done = compress(
        nets.mlp(bias=True), DEGENERATE[name], CompressionOptions(damping=damping, sparsity=0.7)
    )
    for projection in done.projections.values():
        assert np.isfinite(projection.weight).all()
        assert np.isfinite(list(projection.relative_loss.values())).all()
    said = " ".join(d.message for d in done.deviations)
    if len(DEGENERATE[name]) < 40:
        assert "too few to hold some out" in said
    raised = [p.name for p in done.projections.values() if p.damping > damping]
    assert raised == [d.subject for d in done.deviations if "damping raised to" in d.message]
    # A single live input needs no damping, however little it says.
    assert bool(raised) == (damping == 0.0 and name != "one spike")
    if name == "half dead":
        assert done.projections["w0"].dead_inputs == 12
        # Half of the inputs say nothing; the weights on them go before any other.
        assert not done.projections["w0"].codes[:, 12:].any()


def test_a_dead_layer_is_kept_and_said() -> None:
    net = nets.mlp()
    dead = net.with_weights({"w0": -np.abs(net.projections[0].connection.weight)})
    done = compress(dead, nets.spikes(1, 50, 10, 24), CompressionOptions(sparsity=0.5))
    assert any("p0" in d.subject and "fired" in d.message for d in done.deviations)
    assert done.projections["w1"].dead_inputs == 40
    assert done.projections["w1"].relative_loss["total"] == 0.0


@pytest.mark.parametrize("pattern", ["2:4", "1:3", "inputs", "outputs"])
@pytest.mark.parametrize("build", [nets.mlp, nets.convolutions])
def test_patterns_hold_in_the_codes(pattern: str, build: object) -> None:
    net = build()  # type: ignore[operator]
    x = nets.spikes(4, 50, 10, *net.input_shape)
    sparsity: dict[str, Any] = {} if ":" in pattern else {"sparsity": 0.5}
    options = CompressionOptions(bits=8, pattern=pattern, allocation="uniform", **sparsity)
    done = compress(net, x, options)
    for projection in net.projections:
        found = done.projections[projection.name]
        rows = found.codes.reshape(len(found.codes), -1) != 0
        conv = isinstance(projection.connection, Conv)
        groups = projection.connection.groups if conv else 1
        if ":" in pattern:
            n, m = map(int, pattern.split(":"))
            for start in range(0, rows.shape[1], m):
                assert (rows[:, start : start + m].sum(axis=1) <= n).all()
        elif pattern == "inputs":
            grouped = rows.reshape(groups, rows.shape[0] // groups, -1)
            unit = int(np.prod(found.codes.shape[2:])) if conv else 1
            used = grouped.reshape(*grouped.shape[:2], -1, unit).any(axis=(1, 3))
            kept = found.kept / (rows.shape[0] // groups * unit)
            assert used.sum() <= kept == round(kept)
        elif projection.post != net.output.name:
            assert found.kept % rows.shape[1] == 0
            assert rows.any(axis=1).sum() <= found.kept // rows.shape[1] < len(rows)
        else:
            assert rows.any(axis=1).all()


def test_result_does_not_depend_on_threads_and_memory() -> None:
    net = nets.mlp(sizes=(40, 60, 10))
    x = nets.spikes(4, 60, 10, 40)
    base = compress(net, x, CompressionOptions())
    # As little memory as the Hessians need.
    for change in ({"threads": 1}, {"threads": 3}, {"solver_memory": 900_000}):
        other = compress(net, x, CompressionOptions(**change))  # type: ignore[arg-type]
        for name, projection in base.projections.items():
            assert np.array_equal(projection.codes, other.projections[name].codes)
            assert np.array_equal(projection.scale, other.projections[name].scale)


def test_mixed_precision_keeps_the_average_and_loses_less() -> None:
    net = nets.mlp()
    x = nets.spikes(4, 60, 10, 24)
    for allocation in ("lamps", "uniform", "global"):
        asked = CompressionOptions(sparsity=0.5, bits=3, tune=False, allocation=allocation)
        same, mixed = (compress(net, x, replace(asked, mixed=m)) for m in (False, True))
        stored = [sum(p.kept * p.bits for p in c.projections.values()) for c in (same, mixed)]
        assert stored[1] <= stored[0]
        losses = [
            sum(p.relative_loss["total"] for p in c.projections.values()) for c in (same, mixed)
        ]
        assert losses[1] <= losses[0] * (1 + 1e-9)
        assert sum(p.kept for p in mixed.projections.values()) == net.weights - round(
            net.weights * 0.5
        )


def test_tuning_keeps_what_held_out_samples_favour() -> None:
    net = nets.mlp(bias=True, sizes=(200, 80, 60, 8))
    x = nets.spikes(4, 200, 15, 200, rate=0.1)
    plain = compress(net, x, CompressionOptions(sparsity=0.95, bits=3, tune=False))
    tuned = compress(net, x, CompressionOptions(sparsity=0.95, bits=3))
    for name, projection in tuned.projections.items():
        assert next(iter(projection.tried)) == "plain"
        assert projection.tried[projection.chosen] <= projection.tried["plain"]
        assert ("threshold" in projection.chosen) == (projection.threshold != 1.0)
        assert ("free bias" in projection.chosen) == (projection.bias is not None)
        # What arrives at the first layer is what it was trained for.
        assert any("cross" in variant for variant in projection.tried) == (name != "w0")
    fresh = nets.spikes(5, 200, 15, 200, rate=0.1)
    wanted = simulate(net, fresh).output.sum(axis=1)
    errors = [
        ((simulate(c.network, fresh).output.sum(axis=1) - wanted) ** 2).mean()
        for c in (plain, tuned)
    ]
    assert errors[1] < 0.8 * errors[0]
    assert not [d for d in plain.deviations if "hold" in d.message]


@pytest.mark.parametrize("samples", [60, 400])
def test_the_cross_term_pulls_as_much_as_held_out_samples_ask(samples: int) -> None:
    net = nets.mlp(sizes=(100, 60, 8))
    x = nets.spikes(6, samples, 12, 100, rate=0.1)
    done = compress(net, x, CompressionOptions(sparsity=0.9, bits=8))
    x, y = (
        membrane_trace(
            net.populations[1].neuron.dynamics(), simulate(n, x, record={"p0"}).spikes["p0"]
        )
        for n in (done.network, net)
    )
    held = np.arange(samples) % 5 == 4
    (x, x2), (y, y2) = ([z[part].reshape(-1, 60) for part in (~held, held)] for z in (x, y))
    W = net.projections[1].connection.weight.astype(np.float64)
    errors = {}
    for pull in (1.0, 3.0, 10.0, 30.0):
        ridge = np.sqrt(0.03 * pull * (x**2).sum() / (x.any(axis=0)).sum()) * np.eye(60)
        rows, wanted = np.concatenate([x, ridge]), np.concatenate([y @ W.T, ridge @ W.T])
        found = np.linalg.lstsq(rows, wanted, rcond=None)[0]
        errors[pull] = ((x2 @ found - y2 @ W.T) ** 2).sum()
    best = min(errors, key=lambda pull: errors[pull])
    assert {f"cross term (pull {best:g})"} == {
        variant for variant in done.projections["w1"].tried if variant.endswith(")")
    }


def test_matched_thresholds_meet_the_float_rate() -> None:
    net = nets.mlp(sizes=(200, 80, 60, 8))
    x = nets.spikes(4, 200, 15, 200, rate=0.1)
    done = compress(net, x, CompressionOptions(sparsity=0.95, bits=8))
    layer = done.projections["w0"]
    assert "threshold" in layer.chosen
    after = simulate(done.network, x).rates["p0"]
    before = simulate(net, x).rates["p0"]
    untouched = simulate(net.with_weights({"w0": layer.weight}), x).rates["p0"]
    assert abs(after - before) < 0.2 * abs(untouched - before)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"allocation": "fair"}, "allocation: 'fair' is not one of"),
        ({"pattern": "4:4"}, "pattern: '4:4' is not one of"),
        ({"damping": -1.0}, "damping: -1"),
        ({"solver_memory": 0}, "solver memory: 0 is less than 1"),
        ({"pattern": "2:4", "allocation": "global"}, "allocation: global ranks single weights"),
        ({"pattern": "2:4", "method": "magnitude"}, "needs a Hessian"),
    ],
)
def test_options_that_make_no_sense_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        CompressionOptions(**options)  # type: ignore[arg-type]


def test_compress_tries_no_allocation() -> None:
    net = nets.mlp()
    with pytest.raises(UsageError, match="Give lamps, uniform or global here"):
        compress(net, nets.spikes(0, 4, 6, 24), CompressionOptions(allocation="auto"))


def test_quantization_of_a_rank_one_layer_is_on_the_grid() -> None:
    H = damp(np.ones((6, 6)), 0.0)
    assert H.attempts > 1
    assert torch.linalg.eigvalsh(torch.tensor(H.H)).min() > 0
