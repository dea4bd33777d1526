"""What users write by mistake: mypy finds every line that says so, and no other."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from torch import nn

import osbc_deploy
from osbc_deploy import DeployOptions, FitBudget, FitOptions, VerifyOptions

net = nn.Sequential(nn.Linear(4, 2))
spikes = np.zeros((3, 10, 4), np.uint8)

osbc_deploy.deploy(net)  # wrong
osbc_deploy.deploy(3, spikes)  # wrong
osbc_deploy.deploy(net, 3.5)  # wrong
osbc_deploy.deploy(net, spikes, "loihi2")  # wrong
osbc_deploy.deploy(net, spikes, sparsty=0.9)  # wrong
osbc_deploy.deploy(net, spikes, bits=4.5)  # wrong
osbc_deploy.deploy(net, spikes, method="gptq")  # wrong
osbc_deploy.deploy(net, spikes, allocation=FitBudget())  # wrong
osbc_deploy.deploy(net, spikes, reset="hard")  # wrong
osbc_deploy.deploy(net, spikes, readout=3)  # wrong
osbc_deploy.deploy(net, spikes, samples=4)  # wrong
osbc_deploy.deploy(net, spikes, options=FitOptions())  # wrong
osbc_deploy.deploy(net, spikes, options={"bits": 4})  # wrong
DeployOptions(0.9)  # wrong
DeployOptions(allocation="fair")  # wrong
DeployOptions().bits = 3  # wrong
VerifyOptions(tau="5")  # wrong
FitOptions(bits=4)  # wrong
FitBudget(cores="five")  # wrong
osbc_deploy.verify(net, spikes, max_sparsity=0.9)  # wrong
osbc_deploy.fit(net, spikes, sparsity=0.9)  # wrong
osbc_deploy.fit(net, spikes, allocation="lamps")  # wrong
osbc_deploy.inspect(net, form=(2, 4))  # wrong
osbc_deploy.export(net, "fw", format="c")  # wrong
osbc_deploy.export("image", "fw")  # wrong
osbc_deploy.load_target(3)  # wrong
osbc_deploy.nothing(net)  # wrong
print(osbc_deploy.deploy(net, spikes).fit)  # wrong
osbc_deploy.deploy(net, spikes).fits = True  # wrong
osbc_deploy.deploy(net, spikes).save()  # wrong
osbc_deploy.inspect(net).save(Path("x"))  # wrong
cores: str = osbc_deploy.deploy(net, spikes).mapping.cores_used  # wrong
