"""Optimal Spiking Brain Compression: prune and quantize for the membrane potential."""

from osbc_deploy.compress.calibration import Statistics, collect
from osbc_deploy.compress.network import compress
from osbc_deploy.compress.options import ALLOCATIONS, METHODS, CompressionOptions, LayerChoice
from osbc_deploy.compress.result import CompressedNetwork, CompressedProjection

__all__ = [
    "ALLOCATIONS",
    "METHODS",
    "CompressedNetwork",
    "CompressedProjection",
    "CompressionOptions",
    "LayerChoice",
    "Statistics",
    "collect",
    "compress",
]
