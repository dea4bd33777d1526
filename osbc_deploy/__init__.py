"""osbc-deploy: fit a trained spiking network to a neuromorphic chip.

The public names are those below, and nothing else; ``docs/stability.md`` says what may change. All
but errors, options and results are imported on first use, so that ``import osbc_deploy`` and
``osbc-deploy --help`` answer at once.
"""

from __future__ import annotations

from types import ModuleType
from typing import TYPE_CHECKING

from osbc_deploy import errors, options, results
from osbc_deploy._version import __version__
from osbc_deploy.options import (
    CompressOptions,
    DeployOptions,
    FitBudget,
    FitOptions,
    SweepOptions,
    VerifyOptions,
)

if TYPE_CHECKING:
    from osbc_deploy.arguments import Data, Model
    from osbc_deploy.chip.target import Target, load_target
    from osbc_deploy.data.samples import Samples
    from osbc_deploy.deployment import Deployment
    from osbc_deploy.exporting import export
    from osbc_deploy.fitting import FitResult, fit
    from osbc_deploy.inspection import Inspection, inspect
    from osbc_deploy.model.graph import Network
    from osbc_deploy.modules import CompressedModel, compress_model
    from osbc_deploy.pipeline import deploy
    from osbc_deploy.references import load_samples
    from osbc_deploy.sweeping import SweepResult, sweep
    from osbc_deploy.verification import Verification, verify

__all__ = [
    "CompressOptions",
    "CompressedModel",
    "Data",
    "DeployOptions",
    "Deployment",
    "FitBudget",
    "FitOptions",
    "FitResult",
    "Inspection",
    "Model",
    "Network",
    "Samples",
    "SweepOptions",
    "SweepResult",
    "Target",
    "Verification",
    "VerifyOptions",
    "__version__",
    "compress_model",
    "deploy",
    "errors",
    "export",
    "fit",
    "inspect",
    "load_samples",
    "load_target",
    "options",
    "results",
    "sweep",
    "verify",
]

_PLACES = {
    "CompressedModel": "modules",
    "Data": "arguments",
    "Deployment": "deployment",
    "FitResult": "fitting",
    "Inspection": "inspection",
    "Model": "arguments",
    "Network": "model.graph",
    "Samples": "data.samples",
    "SweepResult": "sweeping",
    "Target": "chip.target",
    "Verification": "verification",
    "compress_model": "modules",
    "deploy": "pipeline",
    "export": "exporting",
    "fit": "fitting",
    "inspect": "inspection",
    "load_samples": "references",
    "load_target": "chip.target",
    "sweep": "sweeping",
    "verify": "verification",
}
"""Modules of the names that are imported on first use."""

# A type checker that saw this would take every name for one of ours.
if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        if name in _PLACES:
            from importlib import import_module

            return getattr(import_module(f"osbc_deploy.{_PLACES[name]}"), name)
        raise AttributeError(f"module 'osbc_deploy' has no attribute {name!r}")

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})


def _rendering() -> ModuleType:
    from osbc_deploy.report import rendering

    return rendering


results.rendered_by(_rendering)
