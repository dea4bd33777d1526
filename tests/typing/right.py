"""What users write, and mypy --strict accepts; nothing here is run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import nn

import osbc_deploy
from osbc_deploy import DeployOptions, FitBudget, FitOptions, VerifyOptions
from osbc_deploy.errors import FitError, OsbcError


class Recordings(torch.utils.data.Dataset[tuple[torch.Tensor, int]]):
    def __len__(self) -> int:
        return 3

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return torch.zeros(10, 2, 4, 4), index


def factory() -> tuple[object, object]:
    return np.zeros((3, 10, 4)), [0, 1, 2]


net: nn.Module = nn.Sequential(nn.Linear(4, 2))
spikes = np.zeros((3, 10, 4), np.uint8)
labels = np.zeros(3, np.int64)

deployment = osbc_deploy.deploy(net, spikes)
deployment = osbc_deploy.deploy("package.module:factory", calibration="data.npz", target="loihi2")
deployment = osbc_deploy.deploy(Path("net.nir"), Path("data.npz"), dt=1e-4, reset="subtract")
deployment = osbc_deploy.deploy(net, (spikes, labels), test=Recordings(), sparsity=0.8, bits=3)
deployment = osbc_deploy.deploy(net, torch.zeros(3, 10, 4), method="obc", weights=Path("w"))
deployment = osbc_deploy.deploy(module=net, calibration=factory, tune=False)
options = DeployOptions(target="loihi2", pattern="2:4", allocation="uniform")
deployment = osbc_deploy.deploy(net, spikes, options=options, mixed=True)

samples: osbc_deploy.Samples = osbc_deploy.load_samples(spikes)
inspection = osbc_deploy.inspect("net.nir", dt=1e-4)
network: osbc_deploy.Network = inspection.network
deployment = osbc_deploy.deploy(network, samples)

cores: int = deployment.mapping.cores_used
accuracy: float | None = deployment.accuracy.fixed_point
rate: float = deployment.activity["2"].rate
deployment.save("image")
target: osbc_deploy.Target = osbc_deploy.load_target(Path("own.toml"))
osbc_deploy.export(deployment, "fw", format="c", name="digits", samples=spikes)
osbc_deploy.export("image", Path("net.img"), format="image", target=target)

found = osbc_deploy.verify(net, spikes, options=options, gates=["accuracy_drop=0.02"], tau=3.0)
found = osbc_deploy.verify(net, spikes, options=VerifyOptions(samples=4))

broken: bool = bool(found.broken)

budget = FitBudget(cores=5, accuracy_drop=0.01)
try:
    plan = osbc_deploy.fit(net, spikes, options=FitOptions(bits=(4, 8)), budget=budget)
    plan.deployment.save(Path("image"))
except FitError as error:
    print(error.exit_code)
except OsbcError as error:
    print(error)


def both(model: osbc_deploy.Model, data: osbc_deploy.Data) -> osbc_deploy.Deployment:
    return osbc_deploy.deploy(model, data)
