"""Neuron families of the float network, one module for each framework's arithmetic."""

from osbc_deploy.network.neurons.base import LinearDynamics, Neuron, Reset
from osbc_deploy.network.neurons.norse import IF, LI, LIF, CubaLI, CubaLIF

__all__ = ["IF", "LI", "LIF", "CubaLI", "CubaLIF", "LinearDynamics", "Neuron", "Reset"]
