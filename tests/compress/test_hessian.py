"""The Hessian against the definition written out: M as a matrix, patches by torch.

Traces are rounded, to half a millionth of the largest there can be."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from osbc_deploy.compress.hessian import membrane_moments
from osbc_deploy.compress.traces import membrane_kernel, membrane_trace
from osbc_deploy.frameworks.norse.neurons import IF, LIF, CubaLIF
from osbc_deploy.model.graph import AvgPool, Conv, Dense, Projection
from osbc_deploy.model.neurons import Neuron

ONE = np.ones(())


def neurons() -> dict[str, Neuron]:
    return {
        "LIF": LIF(0.3 * ONE, 0 * ONE, ONE, 0 * ONE),
        "CUBA": CubaLIF(0.4 * ONE, 0.25 * ONE, 0 * ONE, ONE, 0 * ONE),
        "IF": IF(ONE, 0 * ONE),
    }


def response(neuron: Neuron, steps: int, at: int) -> np.ndarray:
    """Potential after a unit input at one step, by running the neuron itself below threshold."""
    state = {"u": np.zeros(()), "v": np.zeros(())}
    p = {**neuron.parameters, "v_threshold": np.inf}
    potential = []
    for t in range(steps):
        _, state = neuron.step(p, {"u": 0.0, **state}, float(t == at), np.where)
        potential.append(float(state["v"]))
    return np.array(potential)


@pytest.mark.parametrize("name", ["LIF", "CUBA", "IF"])
def test_kernel_is_the_neurons_own_response(name: str) -> None:
    neuron = neurons()[name]
    kernel = membrane_kernel(neuron.dynamics(), 9)
    for s in range(9):
        assert np.allclose(kernel[:, s], response(neuron, 9, s))


def test_lif_kernel_is_the_papers_power_of_the_leak() -> None:
    kernel = membrane_kernel(neurons()["LIF"].dynamics(), 6)
    t, s = np.mgrid[:6, :6]
    assert np.allclose(kernel, np.where(t >= s, 0.3 * 0.7 ** (t - s).clip(0), 0.0))


@pytest.mark.parametrize("name", ["LIF", "CUBA", "IF"])
def test_dense_hessian_is_2_mx_mx(name: str, rng: np.random.Generator) -> None:
    spikes = (rng.random((5, 9, 2, 4, 4)) < 0.4).astype(np.uint8)
    dynamics = neurons()[name].dynamics()
    pool = AvgPool((2, 2), (2, 2))
    projection = Projection("p", "input", "a", Dense(np.zeros((3, 8))), pool)
    M = membrane_kernel(dynamics, 9)
    pooled = torch.nn.functional.avg_pool2d(torch.tensor(spikes).double().flatten(0, 1), 2)
    X = pooled.numpy().reshape(5, 9, 8)
    expected = sum(2 * (M @ x).T @ (M @ x) for x in X) / (5 * 9)
    for batch in (1, 2, 16):
        H = membrane_moments([projection], dynamics, [spikes], batch_size=batch).hessian
        assert np.allclose(H[0], expected, rtol=1e-5)
    current = membrane_moments([projection], None, [spikes]).hessian
    assert np.allclose(current[0], sum(2 * x.T @ x for x in X) / 45, rtol=1e-12)


def test_convolution_hessian_is_over_patches(rng: np.random.Generator) -> None:
    spikes = (rng.random((3, 6, 4, 7, 5)) < 0.4).astype(np.uint8)
    conv = Conv(np.zeros((6, 2, 3, 2)), None, (2, 1), (1, 1), (1, 2), groups=2)
    dynamics = neurons()["CUBA"].dynamics()
    M = membrane_kernel(dynamics, 6)
    trace = np.einsum("ts,nschw->ntchw", M, spikes).reshape(18, 4, 7, 5)
    unfolded = torch.nn.functional.unfold(torch.tensor(trace), (3, 2), (1, 2), (1, 1), (2, 1))
    H = membrane_moments([Projection("p", "input", "a", conv)], dynamics, [spikes]).hessian
    for group in range(2):
        x = unfolded.numpy()[:, group * 12 : (group + 1) * 12].transpose(0, 2, 1).reshape(-1, 12)
        assert np.allclose(H[group], 2 * x.T @ x / len(x), rtol=1e-5)


def test_moments_are_exact_sums_whatever_the_order(rng: np.random.Generator) -> None:
    # Python's whole numbers have no last bit to lose.
    conv = Conv(np.zeros((2, 2, 2, 2)))
    pool = AvgPool((2, 2), (1, 1), (1, 1), 3)
    projection = Projection("p", "input", "a", conv, pool)
    dynamics = neurons()["CUBA"].dynamics()
    seen, meant = (rng.random((2, 6, 7, 2, 4, 4)) < 0.4).astype(np.uint8)
    M = membrane_kernel(dynamics, 7)
    unit = 2.0 ** (np.frexp((M @ np.ones(7)).max())[1] - 20)

    def rows(spikes: np.ndarray) -> np.ndarray:
        trace = np.rint(membrane_trace(dynamics, spikes) / unit).reshape(42, 2, 4, 4)
        padded = np.pad(trace, ((0, 0), (0, 0), (1, 1), (1, 1)))
        sums = padded[..., :-1, :-1] + padded[..., 1:, :-1] + padded[..., :-1, 1:]
        windows = torch.nn.functional.unfold(torch.tensor(sums + padded[..., 1:, 1:]), (2, 2))
        return windows.numpy().transpose(0, 2, 1).reshape(-1, 8).astype(np.int64).astype(object)

    x, y = rows(seen), rows(meant)
    for order in (slice(None), slice(None, None, -1)):
        moments = membrane_moments([projection], dynamics, [seen[order]], [meant[order]])
        scale = 2.0 / len(x) * (unit / 3) * (unit / 3)
        for found, exact in ((moments.hessian, x.T @ x), (moments.cross, y.T @ x)):
            whole = np.rint(found[0] / scale).astype(np.int64)
            assert np.array_equal(whole, exact.T.astype(np.int64))
    again = membrane_moments([projection], dynamics, [seen[::-1]], [meant[::-1]], batch_size=1)
    assert np.array_equal(again.hessian, moments.hessian)
    assert np.array_equal(again.cross, moments.cross)
    assert np.array_equal(again.drift, moments.drift)


def test_loss_predicted_is_loss_measured_on_the_membrane(rng: np.random.Generator) -> None:
    spikes = (rng.random((4, 8, 10)) < 0.3).astype(np.uint8)
    W, W2 = rng.normal(size=(2, 5, 10))
    dynamics = neurons()["LIF"].dynamics()
    M = membrane_kernel(dynamics, 8)
    H = membrane_moments([Projection("p", "input", "a", Dense(W))], dynamics, [spikes]).hessian[0]
    predicted = np.einsum("ri,ij,rj->", W - W2, H, W - W2)
    measured = sum(np.sum((M @ x @ (W - W2).T) ** 2) for x in spikes.astype(float))
    assert np.isclose(predicted * (4 * 8) / 2, measured, rtol=1e-5)
