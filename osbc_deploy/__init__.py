"""osbc-deploy: fit a trained spiking network to a neuromorphic chip."""

from __future__ import annotations

from types import ModuleType
from typing import TYPE_CHECKING, Any

from osbc_deploy import results
from osbc_deploy._version import __version__

if TYPE_CHECKING:
    from osbc_deploy.deployment import Deployment
    from osbc_deploy.fitting import FitBudget, FitResult, fit
    from osbc_deploy.pipeline import deploy
    from osbc_deploy.verification import Verification, verify

__all__ = [
    "Deployment",
    "FitBudget",
    "FitResult",
    "Verification",
    "__version__",
    "deploy",
    "fit",
    "verify",
]

_PLACES = {
    "Deployment": "deployment",
    "FitBudget": "fitting",
    "FitResult": "fitting",
    "Verification": "verification",
    "deploy": "pipeline",
    "fit": "fitting",
    "verify": "verification",
}
"""Modules of the public names, which are imported on first use: ``--help`` answers at once."""


def __getattr__(name: str) -> Any:
    if name in _PLACES:
        from importlib import import_module

        return getattr(import_module(f"osbc_deploy.{_PLACES[name]}"), name)
    raise AttributeError(f"module 'osbc_deploy' has no attribute {name!r}")


def _rendering() -> ModuleType:
    from osbc_deploy.report import rendering

    return rendering


results.rendered_by(_rendering)
