"""Verification: how a network's forms differ, from floating point to the chip's simulator."""

from osbc_deploy.verification.result import Verification
from osbc_deploy.verification.run import verify

__all__ = ["Verification", "verify"]
