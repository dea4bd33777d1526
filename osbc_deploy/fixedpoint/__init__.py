"""The network in the chip's integers: its data, its arithmetic, its engine, and the lowering."""

from osbc_deploy.fixedpoint.engine import EngineRun, run
from osbc_deploy.fixedpoint.formats import NumberFormats
from osbc_deploy.fixedpoint.network import (
    FixedConv,
    FixedDense,
    FixedPointNetwork,
    FixedPopulation,
    FixedProjection,
)

__all__ = [
    "EngineRun",
    "FixedConv",
    "FixedDense",
    "FixedPointNetwork",
    "FixedPopulation",
    "FixedProjection",
    "NumberFormats",
    "run",
]
