"""Sweeps: many deployments of one network, side by side."""

from osbc_deploy.sweeping.result import SweepResult
from osbc_deploy.sweeping.run import sweep

__all__ = ["SweepResult", "sweep"]
