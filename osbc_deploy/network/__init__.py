"""The float network: what was trained, with one neuron step defined exactly."""

from osbc_deploy.network.graph import (
    AvgPool,
    Conv,
    Dense,
    Network,
    Population,
    Projection,
    Readout,
)
from osbc_deploy.network.neurons import IF, LI, LIF, CubaLI, CubaLIF, LinearDynamics, Neuron

__all__ = [
    "IF",
    "LI",
    "LIF",
    "AvgPool",
    "Conv",
    "CubaLI",
    "CubaLIF",
    "Dense",
    "LinearDynamics",
    "Network",
    "Neuron",
    "Population",
    "Projection",
    "Readout",
]
