"""Optimal Spiking Brain Compression: prune and quantize for the membrane potential."""

from osbc_deploy.compress.network import (
    CompressedNetwork,
    CompressedProjection,
    Statistics,
    collect,
    compress,
)
from osbc_deploy.compress.options import BUDGETS, METHODS, CompressionOptions, LayerChoice

__all__ = [
    "BUDGETS",
    "METHODS",
    "CompressedNetwork",
    "CompressedProjection",
    "CompressionOptions",
    "LayerChoice",
    "Statistics",
    "collect",
    "compress",
]
