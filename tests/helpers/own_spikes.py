"""Models whose layers are busy, and their import held against the framework's own spikes."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn

from osbc_deploy.data.samples import check_samples
from osbc_deploy.fixedpoint.engine import run
from osbc_deploy.importing import import_network
from osbc_deploy.model.graph import Network
from osbc_deploy.model.simulate import simulate
from osbc_deploy.pipeline import deploy

Bits = np.ndarray[Any, Any]
T = 8


def raster(seed: int, *shape: int) -> Bits:
    """Return samples of spikes (4, T, ...)."""
    return (np.random.default_rng(seed).random((4, T, *shape)) < 0.4).astype(np.uint8)


def frames(x: Bits) -> torch.Tensor:
    """Return samples as frameworks take them, time first."""
    return torch.from_numpy(np.moveaxis(x, 1, 0).copy()).double()


def trained(model: nn.Module, gain: float = 1.6, seed: int = 0) -> nn.Module:
    """Give weights that keep layers busy, and normalizations what training leaves in them."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for part in model.modules():
            if isinstance(part, nn.Linear | nn.Conv1d | nn.Conv2d):
                part.weight.normal_(0, gain / part.weight[0].numel() ** 0.5)
                if part.bias is not None:
                    part.bias.normal_(0.2, 0.3)
            if isinstance(part, nn.BatchNorm2d):
                part.running_mean.normal_(0, 0.2)  # type: ignore[union-attr, operator]
                part.running_var.uniform_(0.5, 2)  # type: ignore[union-attr, operator]
                part.weight.uniform_(0.5, 1.5)
                part.bias.normal_(0.2, 0.3)
    return model.double().eval()


def imported(model: nn.Module, x: Bits) -> Network:
    """Import a module, which holds it against its own forward."""
    return import_network(model, None, check_samples("calibration", x))


def jelly(model: nn.Module, gain: float = 1.6) -> nn.Module:
    """Return a SpikingJelly model that takes all steps at once, with busy layers."""
    from spikingjelly.activation_based import functional

    functional.set_step_mode(model, "m")
    return trained(model, gain)


def fires_alike(model: nn.Module, *shape: int) -> Network:
    """Import a SpikingJelly model, and hold its neurons against it on samples it never saw."""
    from spikingjelly.activation_based import functional, neuron

    network = imported(model, raster(0, *shape))
    fresh = raster(1, *shape)
    seen: dict[str, torch.Tensor] = {}
    handles = [
        part.register_forward_hook(lambda _, __, out, name=name: seen.__setitem__(name, out))
        for name, part in model.named_modules()
        if isinstance(part, neuron.BaseNode)
    ]
    functional.reset_net(model)
    with torch.no_grad():
        model(frames(fresh))
    for handle in handles:
        handle.remove()
    assert set(seen) <= {p.name for p in network.populations}
    found = simulate(network, fresh, record=list(seen)).spikes
    for name, spikes in seen.items():
        assert np.array_equal(found[name], spikes.transpose(0, 1).numpy()), name
        assert 0.02 < found[name].mean() < 0.98, name
    return network


def differ_on_the_chip(model: nn.Module, x: Bits) -> dict[str, tuple[Bits, float]]:
    """Deploy a model; return populations' float spikes, and the share that differs there."""
    done = deploy(model, x, target="loihi2", sparsity=0.3, bits=8, tune=False, backend_samples=0)
    names = [p.name for p in done.network.populations if p.neuron.spiking]
    before = simulate(done.compressed.network, x, record=names)
    after = run(done.lowered.whole, x, record=names)
    found = {}
    for name in names:
        fired = before.spikes[name].reshape(after.spikes[name].shape)
        found[name] = fired, float(np.mean(fired != after.spikes[name]))
    return found
