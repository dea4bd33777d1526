"""The parent side: what is needed, and how the worker is started."""

from __future__ import annotations

import sys

from osbc_deploy.child import SimulatorBackend

__all__ = ["BACKEND"]

BACKEND = SimulatorBackend(
    name="sinabs",
    summary="SynSense's simulation of Speck's neurons (sinabs)",
    arithmetics=("speck",),
    needed={"sinabs": "sinabs", "pbr": "pbr", "nirtorch": "nirtorch"},
    remedy=(
        "Install it with: pip install 'osbc-deploy[sinabs]' and then pip install --no-deps "
        "sinabs==3.1.3 (without what it declares: simulating needs no driver of the chip)."
    ),
    command=(sys.executable, "-m", "osbc_backend_sinabs.worker"),
)
