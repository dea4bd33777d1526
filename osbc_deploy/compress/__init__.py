"""Optimal Spiking Brain Compression: prune and quantize for the membrane potential."""

from osbc_deploy.compress.network import (
    BUDGETS,
    METHODS,
    CompressedNetwork,
    CompressedProjection,
    CompressionOptions,
    LayerChoice,
    Statistics,
    collect,
    compress,
)

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
