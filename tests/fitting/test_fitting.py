"""Fit: the plans against all combinations, and the budget against what is built."""

from __future__ import annotations

import functools
import itertools
import math
import re
import textwrap
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import norse.torch as norse
import numpy as np
import pytest
import snntorch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import float_networks as nets
from osbc_deploy.bundled.digits import digits_events
from osbc_deploy.bundled.models import weights_path
from osbc_deploy.data.samples import check_samples
from osbc_deploy.errors import FitError, UsageError
from osbc_deploy.fitting import Candidate, FitBudget, FitResult, Plan, fit
from osbc_deploy.fitting import candidates as grid
from osbc_deploy.fitting.candidates import BITS, SPARSITIES, costed
from osbc_deploy.fitting.search import Cost, front_over, pareto_plans
from osbc_deploy.formats.folder import network_digest
from osbc_deploy.formats.nir.write import write_nir
from osbc_deploy.model.graph import Network
from osbc_deploy.report.fitting.plot import front_svg


@pytest.fixture(scope="module", autouse=True)
def _searched_once() -> Iterator[None]:
    """Compress and count a layer once, however many budgets it is then searched for."""
    known: dict[tuple[Any, ...], list[Candidate]] = {}

    def once(problem: Any, apart: Any, population: Any, target: Any, *rest: Any, **how: Any) -> Any:
        key = (
            apart.network.fingerprint(), population.name, problem.whole, repr(target),
            grid._RANKING_WORK, repr(how.get("sparsities")), repr(how.get("bits")),
        )  # fmt: skip
        if key not in known:
            known[key] = grid.layer_candidates(problem, apart, population, target, *rest, **how)
        return known[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("osbc_deploy.fitting.level.layer_candidates", once)
        yield


CODE = 15_024 + 44 + 36


def candidate(cores: int, words: int, loss: float, fault: str = "") -> Candidate:
    nothing: Any = None
    return Candidate(0.0, 8, cores, words, loss, nothing, "synapses", fault)


def dominates(other: tuple[float, ...], one: tuple[float, ...]) -> bool:
    return all(a <= b for a, b in zip(other, one, strict=True))


@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_the_plans_are_those_no_combination_beats(seed: int) -> None:
    rng = np.random.default_rng(seed)
    candidates = {
        f"l{k}": [
            candidate(*rng.integers(1, 6, 2).tolist(), float(rng.integers(0, 20)))
            for _ in range(rng.integers(1, 6))
        ]
        for k in range(rng.integers(1, 4))
    }
    every = {
        (sum(c.cores for c in chosen), sum(c.words for c in chosen), sum(c.loss for c in chosen))
        for chosen in itertools.product(*candidates.values())
    }
    unbeaten = {
        one
        for one in every
        if not any(
            other != one and all(a <= b for a, b in zip(other, one, strict=True)) for other in every
        )
    }
    plans = pareto_plans(candidates)
    assert {(p.cores, p.words, p.loss) for p in plans} == unbeaten
    for resource, place in (("cores", 0), ("words", 1)):
        front = front_over(plans, resource)
        lowest = {
            cost: min(one[2] for one in every if one[place] <= cost)
            for cost in {one[place] for one in every}
        }
        for plan in front:
            assert plan.loss == lowest[getattr(plan, resource)]
        assert len({p.loss for p in front}) == len(front) == len(set(lowest.values()))


def test_a_layer_no_candidate_fits_leaves_no_plan() -> None:
    candidates = {"a": [candidate(1, 1, 0.0)], "b": [candidate(1, 1, 0.0, "too large")]}
    assert pareto_plans(candidates) == []


def model() -> nn.Module:
    torch.manual_seed(1)
    layers = norse.SequentialState(
        nn.Linear(60, 40, bias=False),
        norse.LIFCell(),
        nn.Linear(40, 16, bias=False),
        norse.LIFBoxCell(),
        nn.Linear(16, 4, bias=False),
        norse.LICell(),
    )
    with torch.no_grad():
        for parameter in layers.parameters():
            nn.init.normal_(parameter, std=1.0)
    return layers


TARGET = """
    schema = 1
    name = "small"
    inherits = "loihi2"
    title = "cores of a fortieth"
    [memory]
    pool_words = { value = 600, unit = "words", grade = "assumed", source = "brief" }
    [memory.caps]
    synapses = { value = 260, unit = "words", grade = "assumed", source = "brief" }
    axon_in = { value = 400, unit = "words", grade = "assumed", source = "brief" }
    neuron_state = { value = 400, unit = "words", grade = "assumed", source = "brief" }
    axon_map = { value = 400, unit = "words", grade = "assumed", source = "brief" }
    axon_mem = { value = 400, unit = "words", grade = "assumed", source = "brief" }
"""

SHARED = 'layers_share = { value = true, unit = "", grade = "assumed", source = "brief" }'


@pytest.fixture(scope="module")
def call(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Return a function that fits a small network to a chip of small cores."""
    target = tmp_path_factory.mktemp("target") / "small.toml"
    target.write_text(textwrap.dedent(TARGET))
    shared = target.with_name("shared.toml")
    shared.write_text(textwrap.dedent(TARGET).replace("[memory]\n", f"[memory]\n{SHARED}\n", 1))
    spikes = (np.random.default_rng(0).random((40, 8, 60)) < 0.15).astype(np.uint8)

    @functools.cache
    def run(
        *, labels: bool = True, bits: tuple[int, ...] = BITS, share: bool = False, **options: Any
    ) -> FitResult:
        limits = ("cores", "memory", "accuracy_drop")
        budget = FitBudget(**{k: options.pop(k) for k in limits if k in options})
        return fit(
            model(),
            (spikes, np.arange(40) % 4) if labels else spikes,
            target=str(shared if share else target),
            backend="engine",
            backend_samples=1,
            budget=budget,
            bits=bits,
            **{"tune": False, "max_removed": 0.0, **options},
        )

    return run


def test_the_built_network_is_what_was_predicted(call: Any) -> None:
    free = call()
    assert free.as_predicted
    assert free.plan.cores > 3
    for cores in (3, free.plan.cores - 1):
        done = call(cores=cores)
        assert done.as_predicted
        assert done.deployment.mapping.cores_used <= cores
        assert done.deployment.fits
        assert done.plan.loss >= free.plan.loss
    for name, choice in done.plan.choices.items():
        built = done.deployment.compressed.projections[name]
        assert built.bits == choice.bits
        assert built.relative_loss["total"] == choice.loss
        share = 1.0 - built.kept / built.codes.size
        assert share == pytest.approx(choice.sparsity, abs=1.0 / built.codes.size)


def test_layers_that_share_cores_fit_fewer_than_there_are(call: Any) -> None:
    """Three layers on one core: refused where each needs its own (see below)."""
    done = call(share=True, cores=1)
    assert done.as_predicted
    assert done.plan.cores == done.deployment.mapping.cores_used == 1
    assert done.deployment.fits
    assert done.plan.loss > call(share=True).plan.loss


def test_the_winner_is_tuned_within_the_budget(call: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = call(memory=7_500)
    tuned = call(memory=7_500, tune=True)
    assert tuned.deployment.mapping.bytes <= 7_500
    assert tuned.as_predicted
    for name, choice in tuned.plan.choices.items():
        built = tuned.deployment.compressed.projections[name]
        assert len(built.tried) > 1
        assert (built.bits, choice.loss) == (choice.bits, plain.plan.choices[name].loss)
        assert built.kept == plain.deployment.compressed.projections[name].kept
    # As if every variant took more than there is: the plan stays, and it is said of each layer.

    def dear(*arguments: Any) -> Candidate:
        return replace(costed(*arguments), words=10**9)

    monkeypatch.setattr("osbc_deploy.fitting.tuned.costed", dear)
    kept = call.__wrapped__(memory=7_500, tune=True)
    assert (kept.plan.words, kept.plan.loss) == (plain.plan.words, plain.plan.loss)
    assert network_digest(kept.deployment.lowered.network) == network_digest(
        plain.deployment.lowered.network
    )
    said = [d.subject for d in kept.deployment.deviations if "not keep the budget" in d.message]
    assert said == list(kept.plan.choices)


def test_sparsities_are_looked_at_finely_around_the_winner(
    call: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    fine = call(memory=7_000)
    monkeypatch.setattr("osbc_deploy.fitting.level._ROUNDS", 0)
    coarse = call.__wrapped__(memory=7_000)
    assert {c.sparsity for c in coarse.plan.choices.values()} <= set(SPARSITIES)
    assert not {c.sparsity for c in fine.plan.choices.values()} <= set(SPARSITIES)
    assert fine.plan.loss < coarse.plan.loss
    assert fine.deployment.mapping.bytes <= 7_000


@pytest.mark.parametrize(
    ("network", "cores"),
    # Three layers and a relay, a core each; three layers, three gates and two relays.
    [(nets.conv_residual(), 4), (nets.gated(), 8)],
    ids=["convolutions that skip", "gates"],
)
def test_gates_and_relays_are_counted(network: Network, cores: int, tmp_path: Path) -> None:
    model = tmp_path / "skips.nir"
    write_nir(network, model, dt=1.0)
    typical = nets.spikes(3, 12, 10, 2, 8, 8, rate=0.2)

    def fitted(**limits: int) -> FitResult:
        return fit(
            str(model),
            typical,
            dt=1.0,
            reset="zero",
            backend_samples=0,
            tune=False,
            budget=FitBudget(**limits),
        )

    done = fitted()
    assert [p.name for p in done.deployment.lowered.network.populations if "relay" in p.name]
    assert done.as_predicted
    assert done.plan.cores == cores
    assert fitted(cores=cores).as_predicted
    with pytest.raises(FitError, match=f"nothing fits {cores - 1} cores"):
        fitted(cores=cores - 1)


def test_neurons_go_where_that_loses_less(call: Any) -> None:
    """Without some of the neurons, more weights can stay in the same memory."""
    without, done = call(memory=3000), call(memory=3000, max_removed=0.5)
    assert done.deployment.mapping.bytes <= 3000
    assert done.plan.removed > 0
    assert done.plan.loss < without.plan.loss
    assert done.report()["chosen"]["neurons_removed"] == done.plan.removed


def test_as_many_neurons_stay_as_ram_holds() -> None:
    """60-40-16-4: 9 bytes where currents last, 5 in the second layer; beside stack and a word."""
    spikes = (np.random.default_rng(0).random((40, 8, 60)) < 0.15).astype(np.uint8)
    most = FitBudget(ram=1024 + 4 + 9 * 30)

    def fitted(**options: Any) -> FitResult:
        options = {"budget": most} | options
        return fit(model(), spikes, target="cortex-m4", bits=(4,), tune=False, **options)

    done = fitted(max_removed=0.6)
    # The outputs and a neuron of either layer cannot go, and what is left fills the RAM.
    assert done.plan.removed == pytest.approx(1 - (30 - 4) / 56, abs=2 / 56)
    assert done.plan.used["ram"] == sum(c.usage.used["ram"] for c in done.deployment.mapping.cores)
    assert most.ram - 2 * 9 - 8 < done.plan.used["ram"] <= most.ram
    with pytest.raises(FitError, match=r"1,298 B of RAM on cortex-m4: .*\(--max-removed\)"):
        fitted(max_removed=0.1, max_sparsity=0.1)
    strict = replace(most, accuracy_drop=0.0)
    with pytest.raises(FitError, match=r"51\.8% of the hidden .* 0\.00% are allowed .* more RAM"):
        fitted(max_removed=0.6, budget=strict)


def test_the_most_that_may_be_removed_is_tried_beyond_the_usual_shares() -> None:
    spikes = (np.random.default_rng(0).random((40, 8, 60)) < 0.15).astype(np.uint8)
    taken = {}
    for most in (0.94, 0.97):
        done = fit(
            model(), spikes, target="loihi2", bits=(4,), tune=False, backend_samples=0,
            max_sparsity=0.5, max_removed=most, budget=FitBudget(accuracy_drop=1.0),
        )  # fmt: skip
        taken[most] = done.plan.removed
    assert taken == {0.94: 0.94, 0.97: 0.97}


def test_the_code_and_stack_of_a_microcontroller_are_no_layers() -> None:
    """Code 15,024 B, heads of blob and network 44 and 36, stack 1,024 and a word: cortex-m4."""
    spikes = (np.random.default_rng(0).random((20, 4, 60)) < 0.15).astype(np.uint8)

    def refused(**most: int) -> str:
        with pytest.raises(FitError) as error:
            fit(
                model(), spikes, target="cortex-m4", bits=(4,), tune=False, max_removed=0.0,
                budget=FitBudget(**most),
            )  # fmt: skip
        return str(error.value)

    for flash, last in ((CODE - 1, "allow at least"), (CODE, "% loss")):
        _, over, code, *_, way = refused(flash=flash).splitlines()
        needed = int(re.search(r"- ([\d,]+) B in", over)[1].replace(",", ""))  # type: ignore[index]
        assert f"({needed - flash:,} over)" in over
        assert code == f"  - {CODE:,} B are the runtime's code, whatever the network"
        assert last in way
    _, _, _, most, *_ = refused(flash=CODE).splitlines()
    assert "most of the rest are layer 0's: " in most
    assert re.search(r"1,028 B are the runtime's stack.* at least 1,\d{3} B", refused(ram=1027))
    assert "most of it by layer 0 (" in refused(ram=1028)


def test_of_several_failures_the_one_that_came_closest_is_said(
    call: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither the last that was tried, nor one that no number measures."""
    excesses = iter([0.4, 0.1, 0.7, *(8 * [math.inf])])

    def searched(self: Any) -> Any:
        raise FitError(f"without {self.removed:.2f}", next(excesses))

    monkeypatch.setattr("osbc_deploy.fitting.run.Level.search", searched)
    with pytest.raises(FitError, match=r"^without 0\.25$"):
        call(memory=100, max_removed=0.75)


def test_memory_and_accuracy_budgets_are_kept(call: Any) -> None:
    smaller = call(memory=4_000)
    assert smaller.deployment.mapping.bytes <= 4_000
    assert smaller.as_predicted
    strict = call(labels=False, accuracy_drop=0.1)
    loose = call(labels=False, accuracy_drop=0.7)
    assert strict.deployment.accuracy.agreement >= 0.9
    assert loose.deployment.accuracy.agreement >= 0.3
    assert loose.plan.words < strict.plan.words


def test_a_budget_that_is_kept_without_idle_neurons_is_not_refused(call: Any) -> None:
    """They show when all layers are there, so no layer alone says what is taken."""
    smallest = call(accuracy_drop=1.0)
    taken = smallest.deployment.mapping.bytes
    predicted = smallest.plan.words * smallest.deployment.mapping.word_bits // 8
    assert taken < predicted
    for tune in (False, True):
        for limit in (taken, predicted - 1):
            found = call(memory=limit, tune=tune)
            assert found.deployment.mapping.bytes <= limit
            assert (found.as_predicted, found.prediction) == (True, "as predicted")
            assert found.plan.loss <= smallest.plan.loss
    with pytest.raises(FitError, match=rf"{taken} B in the smallest plan, .* \(1 over\)"):
        call(memory=taken - 1)


def test_what_stands_against_a_plan_within_the_budget_is_said(
    call: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The plan of fewest words may have no such fault itself, but more cores than allowed."""

    def none_is_kept(fronts: Any, _: Any, count: Any) -> Any:
        first = next(iter(fronts))[0]
        mapping = count(first)
        within = replace(first, built=Cost(1, 1))
        return [], [(first, mapping), (within, replace(mapping, faults=("no room for delays",)))]

    monkeypatch.setattr("osbc_deploy.fitting.level.kept_when_built", none_is_kept)
    with pytest.raises(FitError, match=r"nothing fits \S+: no room for delays\."):
        call(memory=100)


ROOM = """
    schema = 1
    name = "narrow"
    inherits = "xylo-audio2"
    [sources]
    brief = "a test"
    [memory.caps]
    inputs = { value = 24, unit = "channels", grade = "assumed", source = "brief" }
    hidden = { value = 10, unit = "neurons", grade = "assumed", source = "brief" }
"""


def test_a_layer_that_has_room_without_its_idle_neurons_is_not_refused(tmp_path: Path) -> None:
    """Of 20 neurons, 10 have room; zeros are stored as well, so words say nothing."""
    (tmp_path / "narrow.toml").write_text(textwrap.dedent(ROOM))
    torch.manual_seed(1)
    cells = (snntorch.Leaky(beta=0.9, init_hidden=True, output=last) for last in (False, True))
    net = nn.Sequential(nn.Linear(24, 20), next(cells), nn.Linear(20, 4), next(cells))
    spikes = (np.random.default_rng(1).random((40, 6, 24)) < 0.4).astype(np.uint8)

    def fitted(most: float) -> FitResult:
        return fit(
            net, spikes, target=str(tmp_path / "narrow.toml"), backend_samples=0, bits=(8,),
            tune=False, max_removed=0.0, max_sparsity=most,
        )  # fmt: skip

    found = fitted(0.99)
    assert found.deployment.fits
    assert found.as_predicted
    assert all(plan.built for plan in found.front)
    with pytest.raises(FitError, match="hidden 20 exceeds 10 .*\n.*more sparsity, or make these"):
        fitted(0.1)


def test_the_front_falls_and_holds_the_choice(call: Any) -> None:
    done = call(cores=4)
    report = done.report()
    losses = [plan["loss"] for plan in report["front"]]
    cores = [plan["cores"] for plan in report["front"]]
    assert losses == sorted(losses, reverse=True)
    assert cores == sorted(set(cores))
    assert report["chosen"] in report["front"]
    # Neurons that nothing hears are left out after the search.
    spared = report["chosen"]["memory_bytes"] - report["report"]["memory"]["deployed_bytes"]
    assert (spared > 0) == bool(done.deployment.lowered.kept)
    assert spared >= 0
    picture = ElementTree.fromstring(front_svg(done))  # noqa: S314 - our own text
    groups = [g for g in picture.iter() if g.get("class") in ("dot", "chosen")]
    # A marker for every plan and for the choice, and those of the legend.
    uses = [len([u for u in g.iter() if u.tag.endswith("use")]) for g in groups]
    assert uses == [len(losses), 1]
    words = "".join(picture.itertext())
    assert "budget: 4 cores" in words
    assert f"{report['report']['accuracy']['fixed_point']:.2%} (float" in words


def test_what_cannot_be_kept_names_layer_excess_and_remedies(call: Any) -> None:
    with pytest.raises(FitError) as error:
        call(cores=3, bits=(8,), max_sparsity=0.3)
    first, over, most, enough, less = str(error.value).splitlines()
    assert first == "nothing fits 3 cores of small:"
    assert over == "  - 5 cores in the smallest plan, 3 allowed (2 over)"
    assert most == "  - most are layer 0's: 3 cores, limited by synapses"
    change = re.fullmatch(
        r"  - layer 0: (?:8 -> (\d) bit)?(?:, )?(?:30% -> (\d+)% sparsity)?: -2 cores, "
        r"\+\d.\d+% loss",
        enough,
    )
    assert change
    assert "-1 core, " in less
    # The remedy is real: what it allows lets the network fit.
    bits, sparsity = int(change[1] or 8), int(change[2] or 30) / 100
    assert call(cores=3, bits=(8, bits), max_sparsity=sparsity).deployment.fits
    with pytest.raises(FitError, match=r"100 B .*\n.*B in the smallest plan, 100 B allowed"):
        call(memory=100)
    # Not the one whole word that 10 bytes hold.
    with pytest.raises(FitError, match=r"fits 10 B .*\n.* 10 B allowed"):
        call(memory=10)
    with pytest.raises(FitError, match="one layer per core set: 3 layers need at least 3 cores"):
        call(cores=2)
    # Layers that take several cores each have the same reason, and no other remedy is offered.
    with pytest.raises(FitError, match="allow 3 to 5 cores") as refused:
        call(cores=1, bits=(8,), max_sparsity=0.3)
    assert "make layers smaller" not in str(refused.value)
    with pytest.raises(FitError, match="loses .* of the samples, 0.00% are allowed"):
        call(accuracy_drop=0.0, bits=(2,), labels=False)


def test_both_memory_and_accuracy_are_said_where_both_stand_against_it(call: Any) -> None:
    with pytest.raises(FitError) as refused:
        call(memory=100, accuracy_drop=0.0, labels=False, max_removed=0.5)
    head, needed, *_, fewer = str(refused.value).splitlines()
    assert head == "nothing fits 100 B of small:"
    assert re.search(r"B in the smallest plan, with 25\.0% of .* removed, 100 B allowed", needed)
    assert re.fullmatch(
        r"  - without \d\d\.\d% of the hidden neurons, where less is taken, \d+\.\d\d% of the "
        r"samples are lost, 0\.00% are allowed \(.* over\); allow a larger .*, or a larger budget",
        fewer,
    )


def test_what_takes_too_long_to_rank_is_left_out_and_said(
    call: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As if both budgets of work were those of a much smaller machine.
    monkeypatch.setattr("osbc_deploy.compress.ranking._EXACT_WORK", 1e5)
    monkeypatch.setattr("osbc_deploy.fitting.candidates._RANKING_WORK", 2.5e6)
    done = call.__wrapped__(cores=4)
    assert done.as_predicted
    notes = [d.message for d in done.deployment.deviations if d.subject == "0"]
    said = [re.search("so fit did not try 10% to (\\d+)% sparsity", note) for note in notes]
    (most,) = (int(found[1]) / 100 for found in said if found)
    tried = {plan.choices["0"].sparsity for plan in done.front}
    assert most >= 0.3
    assert not [s for s in tried if 0.0 < s <= most]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"cores": 0}, "cores: 0 is less than 1"),
        ({"memory": -5}, "memory: -5"),
        ({"accuracy_drop": 1.5}, "outside 0 to 1"),
        ({"bits": (9,)}, "bits: 9 is outside 1 to 8"),
        ({"bits": (1, 7, 8)}, "bits: fit tries 2, 3, 4, 5, 6, 8, not 1, 7"),
        ({"bits": ()}, "bits: fit tries 2, 3, 4, 5, 6, 8, not none"),
        ({"max_sparsity": 1.0}, "sparsity: 1 is outside"),
    ],
)
def test_budgets_that_make_no_sense(options: dict[str, Any], words: str, call: Any) -> None:
    with pytest.raises(UsageError, match=words):
        call(**options)


def test_half_the_cores_of_the_bundled_network_are_enough() -> None:
    data = [
        check_samples(split, part.spikes, part.labels)
        for split in ("calibration", "test")
        for part in [digits_events(split, seed=0)]
    ]
    options: dict[str, Any] = {
        "test": data[1],
        "weights": weights_path("digits_conv"),
        "target": "loihi2",
        "backend": "engine",
        "backend_samples": 1,
        "tune": False,
        "max_removed": 0.0,
    }
    name = "osbc_deploy.bundled.models:digits_conv"
    done = fit(name, data[0], budget=FitBudget(cores=5), bits=(4, 8), **options)
    whole = max(done.front, key=lambda plan: plan.cores)
    assert all(c.sparsity == 0.0 and c.bits == 8 for c in whole.choices.values())
    assert 2 * done.plan.cores <= whole.cores
    assert done.deployment.mapping.cores_used == done.plan.cores
    assert done.deployment.mapping.words == done.plan.words
    accuracy = done.deployment.accuracy
    assert accuracy.float_ is not None
    assert accuracy.fixed_point is not None
    assert accuracy.float_ - accuracy.fixed_point <= 0.02
    assert isinstance(done.plan, Plan)
