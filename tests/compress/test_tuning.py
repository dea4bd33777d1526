"""A variant has to be better than chance explains."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

import float_networks as nets
from osbc_deploy.compress import CompressionOptions, compress, matching, tuning
from osbc_deploy.compress.quantize import quantize_rows
from osbc_deploy.compress.tuning import _serves, _Variant, preferred, tune
from osbc_deploy.model.graph import Network

PLAIN, CROSS, FREE = _Variant(), _Variant(cross=True), _Variant(free_bias=True)


@pytest.mark.parametrize(
    ("gains", "better"),
    [
        # Means of 0.5; the standard error of the mean of n numbers is that of one by sqrt(n).
        ([0.5, 0.5, 0.5, 0.5], True),
        ([0.0, 1.0, 0.0, 1.0], True),  # sqrt(1/3) / 2 = 0.289
        ([-0.4, 1.4, -0.4, 1.4], False),  # 1.039 / 2 = 0.520
        ([-0.36, 1.36, -0.36, 1.36], True),  # 0.993 / 2 = 0.497
        ([-0.5, -0.5, -0.5, -0.5], False),
    ],
)
def test_a_gain_beyond_its_standard_error_wins(gains: list[float], better: bool) -> None:
    errors = np.full(4, 2.0)
    assert preferred({PLAIN: errors, CROSS: errors - gains}) == (CROSS if better else PLAIN)


def test_each_is_held_against_the_best_so_far() -> None:
    errors = {PLAIN: 3.0, CROSS: 1.0, FREE: 2.0}
    assert preferred({variant: np.full(4, error) for variant, error in errors.items()}) == CROSS


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_codes_are_tried_in_more_ways_where_they_are_few(bits: int) -> None:
    net = nets.mlp(sizes=(20, 16, 6, 4))
    x = nets.spikes(6, 60, 10, 20)
    options = CompressionOptions(sparsity=0.0, bits=bits)
    for projection in compress(net, x, options).projections.values():
        chosen = "full range" in projection.chosen
        assert {"full range", "firm"} <= {n for name in projection.tried for n in name.split(" + ")}
        assert projection.codes.max() <= 2 ** (bits - 1) - 1
        assert chosen or projection.codes.min() > -(2 ** (bits - 1))
    wide = compress(net, x, replace(options, bits=5))
    assert not any("full range" in n for p in wide.projections.values() for n in p.tried)


@pytest.mark.parametrize("build", [nets.mlp, nets.convolutions])
def test_thresholds_are_those_of_runs_of_the_network(
    build: Callable[[], Network], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Currents that are computed once, and networks that are simulated for each threshold."""
    net = build()
    x = nets.spikes(6, 60, 10, *net.input_shape)
    options = CompressionOptions(sparsity=0.8, bits=8)
    once = compress(net, x, options).projections
    counted: list[int] = []
    monkeypatch.setattr(matching, "count_spikes", lambda *_: counted.append(1))
    monkeypatch.setattr(matching, "_FOR_CURRENTS", 0.0)
    again = compress(net, x, options).projections
    assert not counted
    assert any("threshold" in way for p in once.values() for way in p.tried)
    for name, projection in once.items():
        assert again[name].tried == projection.tried
        assert np.array_equal(again[name].codes, projection.codes)


@pytest.mark.parametrize(
    ("gain", "harms", "better"),
    [
        (0.1, [0.0, 0.0, 0.0, 0.0], True),
        (0.0, [0.0, 0.0, 0.0, 0.0], False),
        (0.1, [0.0, 1.0, 0.0, 1.0], False),  # as above: 0.5 against 0.289
        (0.1, [-0.4, 1.4, -0.4, 1.4], True),  # 0.5 against 0.520
        (-0.1, [-1.0, -1.0, -1.0, -1.0], False),
    ],
)
def test_the_held_out_loss_decides_between_codes_unless_the_error_objects(
    gain: float, harms: list[float], better: bool
) -> None:
    assert _serves(2.0 - gain, 2.0, np.array(harms)) == better


def test_one_more_code_loses_no_more() -> None:
    rng = np.random.default_rng(3)
    W, A = rng.normal(size=(24, 12)), rng.normal(size=(60, 12))
    H = A.T @ A
    for bits in (2, 3):
        scale = np.abs(W).max(axis=1) / 2 ** (bits - 1)
        lost = {}
        for full in (False, True):
            (codes,), (found,) = quantize_rows(
                W, H, np.ones(W.shape, bool), [scale], [bits], full=full
            )
            change = W - codes * scale[:, None]
            assert np.allclose(found, np.einsum("ri,ij,rj->r", change, H, change))
            low = -(2 ** (bits - 1)) if full else 1 - 2 ** (bits - 1)
            assert codes.min() == low
            lost[full] = found.sum()
        assert lost[True] < lost[False]


@dataclass(frozen=True)
class Stated:
    """A problem, as what it was made of; a moment is the set of samples that it is of."""

    samples: frozenset[int]
    cross: bool
    free_bias: bool
    pull: float
    full: bool = False
    hold: float = 1.0


class Seen(frozenset[int]):
    cross = False

    def __add__(self, other: Seen) -> Seen:
        both = Seen(self | other)
        both.cross = self.cross
        return both


@dataclass(frozen=True)
class Made:
    """A layer, as the problem that it solves and whether its threshold was moved."""

    problem: Stated
    moved: bool = False
    tried: Any = None
    chosen: str = ""


class Scene:
    """Twenty samples; `errors` are those of the output by what a layer is."""

    method, changed, has_bias, can_shift = "osbc", True, True, True

    def __init__(self, errors: Callable[[Made], float]) -> None:
        self.errors = errors

    def moments(self, *, cross: bool, part: slice) -> Seen:
        found = Seen(range(20)[part])
        found.cross = cross
        return found

    def problem(self, moments: Seen, *, free_bias: bool, pull: float = 1.0) -> Stated:
        return Stated(frozenset(moments), moments.cross, free_bias, pull)

    def judge(self) -> Callable[[tuple[Made, ...]], Any]:
        return lambda layer: np.full(4, self.errors(layer[0]))

    def matched(self, layer: tuple[Made, ...]) -> tuple[Made, ...]:
        return tuple(replace(part, moved=True) for part in layer)


class Solve:
    def __init__(self, bits: int) -> None:
        self.bits = bits

    def __call__(self, problem: Stated) -> tuple[Made, ...]:
        return self.coded(problem, self.pruned(problem))

    def pruned(self, problem: Stated) -> str:
        return "pruned"

    def coded(self, problem: Stated, pruned: str) -> tuple[Made, ...]:
        assert pruned == "pruned"
        return (Made(problem),)


def held_out(problem: Stated, held: Seen, layer: tuple[Made, ...]) -> float:
    """The loss on held-out samples of a plain code, a full range and firm ones: 3, 1 and 2."""
    assert not problem.samples & held
    assert len(problem.samples | held) == 20
    made = layer[0].problem
    return 1.0 if made.full else 2.0 if made.hold > 1 else 3.0


@pytest.mark.parametrize("bits", [1, 4, 5])
@pytest.mark.parametrize("moved", [False, True])
def test_the_best_way_is_solved_again_on_all_samples(
    bits: int, moved: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Of four multiples of the damping, 10 leaves least; a cross term and a free bias serve best.
    losses = {1.0: 4.0, 3.0: 3.0, 10.0: 1.0, 30.0: 2.0}
    monkeypatch.setattr(tuning, "target_loss", lambda problem, held: losses[problem.pull])
    monkeypatch.setattr(tuning, "layer_loss", held_out)

    def errors(made: Made) -> float:
        p = made.problem
        assert len(p.samples) == 16
        return 5.0 - p.cross - 2.0 * p.free_bias - (made.moved if moved else 0.0)

    (layer,), problem = tune(Scene(errors), Solve(bits))  # type: ignore[arg-type]
    few = bits == 4
    expected = Stated(frozenset(range(20)), True, True, 10.0, full=few)
    assert problem == layer.problem == expected
    assert layer.moved == moved
    names = "cross term (pull 10) + free bias" + " + threshold" * moved
    assert layer.chosen == names + " + full range" * few
    assert layer.tried["plain"] == 5.0
    assert len(layer.tried) == 8 + 2 * few
