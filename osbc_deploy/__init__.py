"""osbc-deploy: fit a trained spiking network to a neuromorphic chip."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from osbc_deploy._version import __version__

if TYPE_CHECKING:
    from osbc_deploy.pipeline import Deployment, deploy

__all__ = ["Deployment", "__version__", "deploy"]


def __getattr__(name: str) -> Any:
    # The pipeline is imported on first use, so that the command line answers --help at once.
    if name in ("Deployment", "deploy"):
        from osbc_deploy import pipeline

        return getattr(pipeline, name)
    raise AttributeError(f"module 'osbc_deploy' has no attribute {name!r}")
