"""The classes of the calibration samples decide between a network and the one without variants."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import float_networks as nets
from osbc_deploy.compress import CompressedNetwork, CompressionOptions, compress, last_word
from osbc_deploy.compress.last_word import better, worse
from osbc_deploy.model.simulate import simulate

OPTIONS = CompressionOptions(sparsity=0.0, bits=8, tune=False)


@pytest.mark.parametrize(
    ("lost", "won", "clearly"),
    [
        (5, 0, True),  # 25 / 5 = 5, more than the 4 of two standard errors
        (4, 0, False),
        (9, 2, True),  # 49 / 11 = 4.5
        (8, 2, False),  # 36 / 10 = 3.6
        (0, 9, False),
        (0, 0, False),
    ],
)
def test_a_difference_is_more_than_two_standard_errors(lost: int, won: int, clearly: bool) -> None:
    wanted = np.arange(30) % 4
    wrong = wanted + 1
    tuned, plain = wanted.copy(), wanted.copy()
    tuned[:lost] = wrong[:lost]
    plain[lost : lost + won] = wrong[lost : lost + won]
    # What both get wrong says nothing.
    tuned[-3:] = plain[-3:] = wrong[-3:]
    assert worse(wanted, tuned, plain) == clearly


def crossed(done: CompressedNetwork, order: tuple[int, ...] = (4, 0, 1, 2, 3)) -> CompressedNetwork:
    """Return a network whose outputs have each other's weights."""
    name = list(done.projections)[-1]
    last = done.projections[name]
    codes = last.codes[list(order)]
    changed = replace(last, codes=codes, tried={"plain": 0.5}, chosen="free bias")
    return replace(done, projections={**done.projections, name: changed})


def test_a_network_that_mixes_up_classes_is_given_up() -> None:
    net, x = nets.mlp(), nets.spikes(1, 60, 12, 24)
    plain = compress(net, x, OPTIONS)
    tuned = replace(crossed(plain), options=replace(OPTIONS, tune=True))
    output = simulate(net, x, exact=True).output
    done = better(tuned, lambda: plain, x, output, {}, OPTIONS.space())
    assert done.options.tune
    for name, projection in plain.projections.items():
        np.testing.assert_array_equal(done.projections[name].codes, projection.codes)
    last = list(done.projections.values())[-1]
    assert (dict(last.tried), last.chosen) == ({"plain": 0.5}, "plain")
    said = [d.message for d in done.deviations if d.subject == "variants"]
    assert len(said) == 1
    assert said[0].endswith("no variant is used")


def test_one_that_does_not_is_never_compressed_again() -> None:
    net, x = nets.mlp(), nets.spikes(1, 60, 12, 24)
    tuned = compress(net, x, OPTIONS)
    output = simulate(net, x, exact=True).output

    def again() -> CompressedNetwork:
        raise AssertionError("for nothing")

    assert better(tuned, again, x, output, {}, OPTIONS.space()) is tuned


def test_outputs_of_one_class_may_change_places() -> None:
    net, x = nets.mlp(sizes=(24, 40, 20, 4)), nets.spikes(1, 60, 12, 24)
    voted = replace(OPTIONS, readout="vote:2")
    plain = compress(net, x, voted)
    tuned = crossed(plain, (1, 0, 3, 2))
    output = simulate(net, x, exact=True).output
    assert better(tuned, lambda: plain, x, output, {}, OPTIONS.space()) is tuned
    alone = replace(tuned, options=OPTIONS)
    assert better(alone, lambda: plain, x, output, {}, OPTIONS.space()) is not alone


def test_compress_resumes_what_it_falls_back_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    net, x = nets.mlp(), nets.spikes(1, 60, 12, 24)
    monkeypatch.setattr(last_word, "worse", lambda *classes: True)
    options = replace(OPTIONS, sparsity=0.3, bits=4)
    plain = compress(net, x, options)
    for _ in range(2):
        done = compress(net, x, replace(options, tune=True), state=tmp_path / "state")
        for name, projection in plain.projections.items():
            np.testing.assert_array_equal(done.projections[name].codes, projection.codes)
            assert done.projections[name].tried
    assert (tmp_path / "state" / "plain").is_dir()
