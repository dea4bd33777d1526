"""Copies of few calibration samples, moved by pixels: which, when, and what they are good for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import scipy.ndimage
from spikingjelly.activation_based.neuron import LIFNode
from torch import nn

from float_networks import NEURONS, dense, network, spikes
from osbc_deploy import deploy, fit
from osbc_deploy.bundled import digits
from osbc_deploy.bundled.models import digits_mlp, weights_path
from osbc_deploy.compress import CompressionOptions, compress
from osbc_deploy.compress import network as of_network
from osbc_deploy.compress.augmentation import Copies, copies, missed
from osbc_deploy.compress.scene import HELD_OUT, MIN_HELD_OUT
from osbc_deploy.errors import UsageError
from osbc_deploy.frameworks.norse.reading import read_norse
from osbc_deploy.model.graph import AvgPool, Conv, Network
from osbc_deploy.model.simulate import simulate
from osbc_deploy.options import DeployOptions, SweepOptions
from osbc_deploy.references import load_weights

SHAPE = (2, 9, 11)
OPTIONS = CompressionOptions(sparsity=0.8, bits=6, tune=False)
LIF = NEURONS["LIF"]


def seeing(shape: tuple[int, ...] = SHAPE) -> Network:
    """Return two dense layers that hear pictures."""
    pixels = int(np.prod(shape))
    return network(shape, (dense(1, 30, pixels), LIF), (dense(2, 5, 30), LIF), input_shape=shape)


def trained() -> Network:
    model = digits_mlp()
    load_weights(model, weights_path("digits_mlp"))
    return read_norse(model, digits.test().spikes.shape[2:])


@pytest.mark.parametrize(("reach", "dtype"), [(1, np.uint8), (2, np.int8)])
def test_copies_are_what_scipy_makes_of_the_samples(reach: int, dtype: Any) -> None:
    """Every move of up to so many pixels, nothing coming in from the side, once each."""
    x = np.random.default_rng(0).integers(0, 4, (5, 3, *SHAPE)).astype(dtype)
    found = Copies(reach).add(x)
    assert found.dtype == dtype
    np.testing.assert_array_equal(found[:5], x)
    made = [c.tobytes() for c in found[5:].reshape(-1, *x.shape)]
    wanted = [
        scipy.ndimage.shift(x[[0, 1, 2, 3, 4]], (0, 0, 0, down, right), order=0).tobytes()
        for down in range(-reach, reach + 1)
        for right in range(-reach, reach + 1)
        if (down, right) != (0, 0)
    ]
    assert sorted(made) == sorted(wanted)


@pytest.mark.parametrize("count", [3, 5, 9, 39, 40, 43])
def test_no_part_of_the_samples_holds_copies_of_another(count: int) -> None:
    """What judges must not have been fitted to. Each sample fires at a step of its own."""
    x = np.zeros((count, count, *SHAPE), np.uint8)
    x[np.arange(count), np.arange(count), :, 4, 5] = 1
    found = Copies(2).add(x)
    assert len(found) == Copies(2).count(count)
    sample = found.any(axis=(2, 3, 4)).argmax(axis=1)
    np.testing.assert_array_equal(sample[:count], np.arange(count))
    # Fewer are too few for any to judge.
    judged = count >= HELD_OUT * MIN_HELD_OUT
    if judged:
        np.testing.assert_array_equal(np.arange(len(found)) % HELD_OUT, sample % HELD_OUT)
    copied = np.bincount(sample[count:], minlength=count)
    whole = count - count % HELD_OUT if judged else count
    assert (copied == np.where(np.arange(count) < whole, 24, 0)).all()


CASES: dict[str, tuple[Network, Sequence[int], dict[str, Any], int]] = {
    # 198 inputs: 49 samples of 4 steps are few.
    "few": (seeing(), (49, 4, *SHAPE), {}, 2),
    "enough": (seeing(), (50, 4, *SHAPE), {}, 0),
    "asked for": (seeing(), (50, 4, *SHAPE), {"augment": "shifts"}, 2),
    "not wanted": (seeing(), (6, 4, *SHAPE), {"augment": "none"}, 0),
    "nothing is removed": (seeing(), (6, 4, *SHAPE), {"sparsity": 0.0}, 0),
    "current Hessian": (seeing(), (6, 4, *SHAPE), {"method": "obc"}, 2),
    "magnitude": (seeing(), (6, 4, *SHAPE), {"method": "magnitude"}, 0),
    "as published": (seeing(), (6, 4, *SHAPE), {"method": "paper"}, 0),
    "no picture": (seeing((200,)), (6, 4, 200), {}, 0),
    "taxels": (seeing((2, 4, 25)), (6, 4, 2, 4, 25), {}, 0),
    "a convolution sees it": (
        network(SHAPE, (Conv(np.ones((3, 2, 3, 3))), LIF), input_shape=SHAPE),
        (6, 4, *SHAPE), {}, 0,
    ),
    # The Hessian's matrices take 6 MB; the pictures alone 0.3 MB, 0.1 MB if moved by a pixel.
    "less memory": (
        seeing(), (19, 4, *SHAPE), {"solver_memory": 1_000_000, "augment": "shifts"}, 1,
    ),
    "no memory": (seeing(), (19, 4, *SHAPE), {"solver_memory": 1_000_000}, 0),
    "just enough memory": (seeing(), (19, 4, *SHAPE), {"solver_memory": 16_000_000}, 2),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_when_there_are_copies(case: str) -> None:
    net, shape, changes, reach = CASES[case]
    found = copies(net, spikes(1, *shape), replace(OPTIONS, **changes))
    assert found.reach == reach
    told = [d.message for d in found.deviations]
    assert len(told) == (bool(reach) or case == "no memory")
    if case == "few":
        # Of 49 samples, 45 are whole rounds of five, each moved in 24 ways.
        assert told == [
            "1,080 copies of 49 samples, moved by up to 2 pixels, were calibrated on as well: 196 "
            "steps in all are few for 198 inputs of a neuron"
        ]
    if case == "no memory":
        assert "is no room for copies" in told[0]


def test_real_values_have_no_copies_by_themselves() -> None:
    x = spikes(1, 6, 4, *SHAPE).astype(np.float32) * 0.5
    assert copies(seeing(), x, OPTIONS).reach == 0


@pytest.mark.parametrize(
    ("net", "samples", "memory", "words"),
    [
        (seeing((200,)), spikes(1, 6, 4, 200), 2**32, "samples of 200 are no pictures"),
        (seeing(), spikes(1, 6, 4, *SHAPE).astype(np.float32), 2**32, "real values"),
        (seeing(), spikes(1, 19, 4, *SHAPE), 400_000, "Give --solver-memory that much"),
    ],
)
def test_what_was_asked_for_and_cannot_be_is_refused(
    net: Network, samples: np.ndarray, memory: int, words: str
) -> None:
    options = replace(OPTIONS, augment="shifts", solver_memory=memory)
    with pytest.raises(UsageError, match=words):
        copies(net, samples, options)


def test_steps_like_the_one_before_are_counted_once() -> None:
    """What an image says is said by its first step: 50 images of 40 steps are 50 steps."""
    images = spikes(1, 50, 1, *SHAPE)
    (told,) = copies(seeing(), images.repeat(40, axis=1), OPTIONS).deviations
    assert told.message.endswith(": 50 different steps in all are few for 198 inputs of a neuron")
    # The same with another pixel in each step.
    moving = images.repeat(4, axis=1)
    for step in range(4):
        moving[:, step, 0, 0, :4] = np.arange(4) == step
    assert not copies(seeing(), moving, OPTIONS).reach


def test_a_pooling_may_stand_before_the_dense_layer() -> None:
    """Pooled by 2 x 2, 2 x 9 x 11 pixels are 40 inputs."""
    whole = seeing((2, 4, 5))
    first = replace(whole.projections[0], pool=AvgPool((2, 2), (2, 2)))
    net = replace(whole, input_shape=SHAPE, projections=(first, *whole.projections[1:]))
    assert copies(net, spikes(1, 9, 4, *SHAPE), OPTIONS).reach == 2
    assert not copies(net, spikes(1, 10, 4, *SHAPE), OPTIONS).reach


@pytest.mark.parametrize(
    ("shape", "count", "changes", "said"),
    [
        ((198,), 49, {}, True),
        ((18, 11), 49, {}, True),
        ((198,), 50, {}, False),
        ((198,), 49, {"augment": "none"}, False),
        ((198,), 49, {"method": "paper"}, False),
        ((198,), 49, {"sparsity": 0.0}, False),
        # Pictures have copies, and 63 inputs are too few for one.
        (SHAPE, 49, {}, False),
        ((63,), 2, {}, False),
    ],
)
def test_flat_samples_that_may_be_pictures_are_warned_of(
    shape: tuple[int, ...], count: int, changes: dict[str, Any], said: bool
) -> None:
    net, x, options = seeing(shape), spikes(1, count, 4, *shape), replace(OPTIONS, **changes)
    assert bool(missed(net, x, options)) == said
    # Of real values there would be no copies either.
    assert not missed(net, x.astype(np.float32), options)


def test_what_the_warning_asks_for_is_taken() -> None:
    """The same weights behind a Flatten hear pictures, which have copies."""
    flat = nn.Sequential(nn.Linear(198, 12), LIFNode(), nn.Linear(12, 3), LIFNode())
    x = spikes(1, 20, 4, *SHAPE)
    given: dict[str, Any] = {"backend_samples": 0, "sparsity": 0.5}
    done = deploy(flat, x.reshape(20, 4, 198), **given)
    (warning,) = [w for w in done.report()["warnings"] if "copies" in w]
    assert warning.startswith("calibration: 80 steps in all are few for 198 inputs of a neuron. If")
    assert "(n, T, channels, height, width), with a Flatten in front of the network" in warning
    seen = deploy(nn.Sequential(nn.Flatten(), *flat), x, **given).report()
    assert not any("copies" in w for w in seen["warnings"])
    assert any("480 copies of 20 samples" in d["message"] for d in seen["deviations"])


def test_methods_that_are_baselines_take_none() -> None:
    with pytest.raises(UsageError, match="augment: method paper is calibrated on the samples as"):
        DeployOptions(augment="shifts", method="paper")
    with pytest.raises(UsageError, match="augment: method magnitude"):
        SweepOptions(augment="shifts", methods=("osbc", "magnitude"))
    assert DeployOptions(augment="auto", method="paper").augment == "auto"


def test_few_samples_of_digits_lose_less_with_copies() -> None:
    """By the output of a trained network on samples of others, whatever the copies are."""
    net, test = trained(), digits.test().spikes[:200]
    wanted = simulate(net, test).output.sum(axis=1)
    errors = {}
    for way in ("none", "auto"):
        lost = []
        for start in (0, 80):
            few = digits.calibration().spikes[start : start + 40]
            done = compress(net, few, CompressionOptions(sparsity=0.9, bits=8, augment=way))
            found = simulate(done.network, test).output.sum(axis=1)
            lost.append(float(((found - wanted) ** 2).mean() / (wanted**2).mean()))
        errors[way] = np.mean(lost)
    # 0.028 and 0.038 on all 400.
    assert errors["auto"] < 0.85 * errors["none"]


def test_only_samples_have_the_last_word(monkeypatch: pytest.MonkeyPatch) -> None:
    """Copies are no further evidence: one sample that changes its class would count 25 times."""
    seen = []

    def better(tuned, without, samples, output, arriving, space):  # type: ignore[no-untyped-def]
        seen.append((samples, output, {n: len(r) for n, r in arriving.items()}))
        return tuned

    monkeypatch.setattr(of_network, "better", better)
    net, x = trained(), digits.calibration().spikes[:45]
    compress(net, x, CompressionOptions(sparsity=0.9, bits=8))
    ((samples, output, arriving),) = seen
    np.testing.assert_array_equal(samples, x)
    np.testing.assert_array_equal(output, simulate(net, x, exact=True).output)
    assert set(arriving.values()) == {45}


def test_reports_say_what_was_calibrated_on() -> None:
    module, x = "osbc_deploy.bundled.models:digits_mlp", digits.calibration().spikes[:20]
    given: dict[str, Any] = {"weights": weights_path("digits_mlp"), "backend_samples": 0}
    done = deploy(module, x, **given)
    text = "480 copies of 20 samples, moved by up to 2 pixels, were calibrated on as well"
    report = done.report()
    assert any(text in d["message"] for d in report["deviations"])
    assert report["provenance"]["options"]["augment"] == "auto"
    without = deploy(module, x, augment="none", **given)
    assert not any("copies of" in d["message"] for d in without.report()["deviations"])
    found = fit(module, x, bits=(8, 4), tune=False, **given)
    assert any(text in d.message for d in found.deployment.compressed.deviations)
