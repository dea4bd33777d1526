"""Verification: how a network's forms differ, from floating point to the chip's simulator."""

from osbc_deploy.verify.result import Verification
from osbc_deploy.verify.run import verify

__all__ = ["Verification", "verify"]
