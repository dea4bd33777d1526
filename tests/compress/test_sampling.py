"""Rows drawn from those of a convolution: what they are, and what solutions from them lose."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
import torch

import float_networks as nets
from osbc_deploy.compress import CompressionOptions, calibration, compress, sampling
from osbc_deploy.compress.hessian import membrane_moments
from osbc_deploy.compress.layer import prune_layer, quantize_layer
from osbc_deploy.compress.moments import Moments
from osbc_deploy.compress.problem import pose
from osbc_deploy.compress.rows import Workspace
from osbc_deploy.compress.traces import membrane_kernel
from osbc_deploy.model.graph import AvgPool, Conv, Population, Projection

CONV = Conv(np.zeros((6, 2, 3, 2)), None, (2, 1), (1, 1), (1, 2), groups=2)
POOLED = Projection("p", "input", "a", CONV, AvgPool((2, 2), (2, 2), (1, 0)))


def rows_by_torch(projection: Projection, kernel: np.ndarray, spikes: np.ndarray) -> np.ndarray:
    """All rows (n, T, places, c * kh * kw), by the definition."""
    pool, conv = projection.pool, projection.connection
    assert pool is not None
    trace = torch.tensor(np.einsum("ts,nschw->ntchw", kernel, spikes.astype(float)))
    pooled = torch.nn.functional.avg_pool2d(
        trace.flatten(0, 1), pool.kernel, pool.stride, pool.padding
    )
    g = conv.geometry
    found = torch.nn.functional.unfold(
        pooled, conv.weight.shape[2:], g["dilation"], g["padding"], g["stride"]
    )
    return found.numpy().transpose(0, 2, 1).reshape(*spikes.shape[:2], found.shape[2], -1)


@pytest.mark.parametrize("name", ["LIF", "CUBA", "IF", "current"])
def test_all_rows_drawn_are_all_rows(name: str, rng: np.random.Generator) -> None:
    spikes, other = ((rng.random((5, 6, 4, 13, 10)) < p).astype(np.uint8) for p in (0.4, 0.2))
    dynamics = None if name == "current" else nets.NEURONS[name].dynamics()
    kernel = np.eye(6) if dynamics is None else membrane_kernel(dynamics, 6)
    x, y = (rows_by_torch(POOLED, kernel, s) for s in (spikes, other))
    found = membrane_moments([POOLED], dynamics, [spikes], [other], wanted=10**9)
    assert found.rows == found.of == np.prod(x.shape[:3])
    assert found.held is None
    constant = kernel.sum(axis=1)
    assert np.isclose(found.constant, 2 * (constant**2).mean(), rtol=1e-5)
    for group in range(2):
        part = slice(group * 12, group * 12 + 12)
        a, b = (v[..., part].reshape(-1, 12) for v in (x, y))
        m = np.broadcast_to(constant[None, :, None], x.shape[:3]).reshape(-1)
        # Nine bits: half a thousandth of the largest number there can be.
        close: Any = {"rtol": 1e-3, "atol": 1e-3 * constant.max() ** 2}
        assert found.cross is not None
        assert np.allclose(found.hessian[group], 2 * a.T @ a / len(a), **close)
        assert np.allclose(found.cross[group], 2 * a.T @ b / len(a), **close)
        assert np.allclose(found.drift[group], 2 * m @ a / len(a), **close)
        assert np.allclose(found.float_drift[group], 2 * m @ b / len(a), **close)


def test_rows_drawn_are_those_the_draw_says_and_a_fifth_is_held_out(
    rng: np.random.Generator,
) -> None:
    spikes = (rng.random((5, 6, 4, 13, 10)) < 0.3).astype(np.uint8)
    dynamics = nets.NEURONS["LIF"].dynamics()
    x = rows_by_torch(POOLED, membrane_kernel(dynamics, 6), spikes).reshape(-1, 24)
    drawn = sampling.drawn_rows(len(x), 200)
    # One of each of 200 runs of equal length.
    edges = np.linspace(0, len(x), 201)
    assert ((edges[:-1] - 1 < drawn) & (drawn < edges[1:])).all()
    found = membrane_moments([POOLED], dynamics, [spikes], wanted=200)
    held = np.arange(200) % 5 == 4
    for moments, rows in ((found, drawn[~held]), (found.held, drawn[held])):
        assert moments is not None
        assert (moments.rows, moments.of) == (len(rows), len(x))
        for group in range(2):
            a = x[rows, group * 12 : group * 12 + 12]
            assert np.allclose(moments.hessian[group], 2 * a.T @ a / len(a), atol=1e-3)


def test_every_row_is_as_likely_as_any_other() -> None:
    # Three of four: runs of one, one and two rows would see half of them twice as often.
    drawn = sampling.drawn_rows(80_000, 60_000)
    assert (np.diff(drawn) >= 0).all()
    assert drawn[0] >= 0
    assert drawn[-1] < 80_000
    assert np.allclose(np.bincount(drawn % 4), 15_000, rtol=0.02)


def test_threads_do_not_change_a_bit(rng: np.random.Generator) -> None:
    spikes = (rng.random((7, 12, 4, 13, 10)) < 0.9).astype(np.uint8)
    dynamics = nets.NEURONS["CUBA"].dynamics()

    def moments(threads: int) -> Moments:
        space = Workspace(threads=threads)
        return membrane_moments([POOLED], dynamics, [spikes], wanted=900, space=space)

    one = moments(1)
    for other in (moments(3), moments(2)):
        assert np.array_equal(one.hessian, other.hessian)
        assert np.array_equal(one.drift, other.drift)


def test_products_in_single_precision_are_exact() -> None:
    # As large as they come, so that no chunk may be multiplied at once.
    spikes = np.ones((2, 30, 4, 20, 20), np.uint8)
    spikes[:, 3:, np.arange(4), np.arange(4)] = 0
    conv = Conv(np.zeros((6, 4, 3, 3)), None)
    projection = Projection("p", "input", "a", conv)
    found = membrane_moments([projection], nets.NEURONS["IF"].dynamics(), [spikes], wanted=10**9)
    # An integrator of spikes holds whole numbers up to 30, of which nine bits lose nothing.
    trace = torch.tensor(spikes.cumsum(axis=1, dtype=float)).flatten(0, 1)
    x = torch.nn.functional.unfold(trace, (3, 3)).numpy().transpose(0, 2, 1).reshape(-1, 36)
    assert np.array_equal(np.rint(found.hessian[0] * len(x) / 2), x.T @ x)
    assert np.allclose(found.hessian[0] * len(x) / 2, x.T @ x, rtol=1e-14)


def test_a_solution_from_drawn_rows_loses_half_a_percent_more_at_most() -> None:
    rng = np.random.default_rng(5)
    # Rows of the map differ, neighbors in a row do not.
    rates = rng.random((40, 1, 6, 16, 1)) ** 4
    spikes = (rng.random((40, 10, 6, 16, 16)) < rates).astype(np.uint8)
    conv = Conv(rng.normal(size=(12, 6, 3, 3)).astype(np.float32), None, (1, 1), (1, 1))
    neuron = nets.NEURONS["LIF"]
    population, projection = Population("a", (12, 16, 16), neuron), Projection("p", "i", "a", conv)
    kernel = membrane_kernel(neuron.dynamics(), 10)
    trace = torch.tensor(np.einsum("ts,nschw->ntchw", kernel, spikes.astype(float)))
    x = torch.nn.functional.unfold(trace.flatten(0, 1), 3, padding=1).transpose(1, 2).numpy()
    H = np.tensordot(x, x, ((0, 1), (0, 1)))
    losses = []
    for wanted in (None, sampling.ROWS_PER_INPUT * 54 * 5 // 4):
        moments = membrane_moments([projection], neuron.dynamics(), [spikes], wanted=wanted)
        assert moments.of == x.shape[0] * x.shape[1]
        problem = pose([projection], population, moments)
        ((layer,),) = quantize_layer(problem, prune_layer(problem, 130), [4], 8)
        change = (layer.weight - conv.weight).reshape(12, -1)
        losses.append(float(np.einsum("ri,ij,rj->", change, H, change)))
    assert losses[1] < 1.005 * losses[0]


def test_small_layers_keep_all_rows() -> None:
    assert sampling.rows_wanted(1, 144, 300_000, 250) is None
    assert sampling.rows_wanted(1, 144, 576_000, 250) == 576_000
    assert sampling.rows_wanted(1, 144, 2_304_000, 250) == int(1e11 / (144 * 544))
    assert sampling.rows_wanted(1, 1152, 6_553_600, 250) == 250 * 1152 * 5 // 4
    assert sampling.rows_wanted(1, 1152, 300_000, 250) == 300_000


def test_too_few_rows_are_noticed_and_what_was_drawn_is_said(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    net = nets.convolutions()
    x = nets.spikes(3, 12, 6, *net.input_shape)
    for bound in ("_FEW", "_EASY"):
        monkeypatch.setattr(sampling, bound, 0.0)
    options = CompressionOptions(sparsity=0.5, bits=8, tune=False)
    layer = net.projections[2]
    drawn = {}
    for per_input in (1, 10**6):
        monkeypatch.setattr(calibration, "ROWS_PER_INPUT", per_input)
        found = compress(net, x, options).deviations
        notes = str([d.message for d in found if d.subject == layer.name])
        drawn[per_input] = re.findall(r"Hessian from ([\d,]+) of 1,728 rows", notes)
        held = re.findall(r"loss ([\d.]+) on ([\d,]+) rows held out, ([\d.]+) on", notes)
        assert len(held) == len(drawn[per_input])
        assert all(float(a) <= 1.015 * float(b) for a, _, b in held)
    # A row for each input explains itself and nothing else.
    assert drawn[10**6] == []
    (rows,) = drawn[1]
    assert int(rows.replace(",", "")) > 4 * layer.connection.fan_in
