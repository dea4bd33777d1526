"""Magnitude needs no Hessian: none is built, and what it would have said is not claimed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import norse.torch as norse
import numpy as np
import pytest
import torch
from rich.console import Console
from torch import nn

import float_networks as nets
import osbc_deploy
from osbc_deploy.compress import CompressionOptions, compress, magnitude, scene
from osbc_deploy.report.deployment.page import report_page
from osbc_deploy.report.deployment.terminal import print_report
from osbc_deploy.report.read import read_report


def never(*args: Any, **kwargs: Any) -> None:
    raise AssertionError("a Hessian was built")


@pytest.mark.parametrize("tune", [False, True])
def test_the_largest_weights_stay_and_no_hessian_is_built(
    tune: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scene, "membrane_moments", never)
    net = nets.mlp()
    x = nets.spikes(0, 40, 8, *net.input_shape)
    options = CompressionOptions(
        method="magnitude", allocation="uniform", sparsity=0.75, bits=8, tune=tune, solver_memory=1
    )
    done = compress(net, x, options)
    for projection in net.projections:
        weight, layer = projection.connection.weight, done.projections[projection.name]
        kept = np.sort(np.abs(weight).ravel())[-round(0.25 * weight.size) :]
        assert layer.relative_loss == {}
        assert layer.curve == ()
        assert layer.kept == len(kept)
        assert layer.pruned is not None
        assert np.array_equal(np.abs(weight) >= kept[0], layer.pruned != 0)
        # Eight bits are one part in 127 of the largest, and half of that when rounded.
        assert np.abs(layer.weight - layer.pruned).max() < np.abs(weight).max() / 127
        assert bool(layer.tried) == tune


def test_global_takes_the_largest_weights_of_all_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scene, "membrane_moments", never)
    net = nets.mlp()
    x = nets.spikes(0, 10, 8, *net.input_shape)
    options = CompressionOptions(
        method="magnitude", allocation="global", sparsity=0.9, tune=False, solver_memory=1
    )
    done = compress(net, x, options)
    sizes = np.concatenate([np.abs(p.connection.weight).ravel() for p in net.projections])
    least = np.sort(sizes)[-round(0.1 * len(sizes))]
    for projection in net.projections:
        stays = np.abs(projection.connection.weight) >= least
        assert 0 < stays.sum() < stays.size
        pruned = done.projections[projection.name].pruned
        assert pruned is not None
        assert np.array_equal(pruned != 0, stays)


def test_large_networks_run_on_some_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    net = nets.mlp()
    x = nets.spikes(0, 40, 8, *net.input_shape)
    options = CompressionOptions(method="magnitude", sparsity=0.75, tune=False)
    every = compress(net, x, options)
    neurons = sum(p.size for p in net.populations)
    monkeypatch.setattr(magnitude, "_ENOUGH", 9 * 8 * neurons)
    few = compress(net, x, options)
    (said,) = (d.message for d in few.deviations if d.subject == "calibration")
    # Every fifth of 40 is 8, every fourth 10 and more than 9.
    assert said.startswith("firing rates and dead inputs from 8 of 40 samples")
    assert few.rates == compress(net, x[::5], options).rates != every.rates
    for name, layer in every.projections.items():
        assert np.array_equal(layer.codes, few.projections[name].codes)


def test_inputs_that_no_spike_reaches_are_counted() -> None:
    net = nets.convolutions()
    x = nets.spikes(1, 10, 6, *net.input_shape, rate=0.2)
    x[:, :, 0] = 0
    x[:, :, :, :, 1:] = 0
    first = net.projections[0]
    conv = first.connection
    seen = torch.tensor(x.any(axis=(0, 1))[None]).double()
    if first.pool is not None:
        seen = torch.nn.functional.avg_pool2d(
            seen, first.pool.kernel, first.pool.stride, first.pool.padding
        )
    stride, padding, dilation, groups = (
        conv.geometry[name] for name in ("stride", "padding", "dilation", "groups")
    )
    patches = torch.nn.functional.unfold(
        seen, conv.weight.shape[2:], dilation, padding, stride
    ).numpy()[0]
    dead = int((~patches.any(axis=1)).sum())
    assert 0 < dead < groups * conv.fan_in
    options = CompressionOptions(method="magnitude", tune=False)
    assert compress(net, x, options).projections[first.name].dead_inputs == dead


def test_the_report_says_that_nothing_was_measured(tmp_path: Path) -> None:
    spikes = nets.spikes(2, 8, 6, 24)
    model = nn.Sequential(nn.Linear(24, 12), norse.LIFBoxCell(), nn.Linear(12, 4), norse.LICell())
    done = osbc_deploy.deploy(
        norse.SequentialState(*model),
        calibration=spikes,
        target="loihi2",
        method="magnitude",
        backend_samples=0,
    )
    done.save(tmp_path / "image")
    report = read_report(tmp_path / "image")
    assert [layer["relative_loss"] for layer in report["compression"]["layers"]] == [None, None]
    assert report_page(report).count("<td>not measured</td>") == 2
    console = Console(record=True, width=200)
    print_report(report, console)
    assert console.export_text().count("not measured") == 2
