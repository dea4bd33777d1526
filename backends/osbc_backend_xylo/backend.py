"""The parent side: what is needed, and how the worker is started."""

from __future__ import annotations

import sys

from osbc_deploy.child import SimulatorBackend

__all__ = ["BACKEND"]

BACKEND = SimulatorBackend(
    name="xylo",
    summary="SynSense's bit-exact simulator of Xylo cores (xylosim)",
    arithmetics=("xylo",),
    needed={"xylosim": "xylosim"},
    remedy=(
        "Install it with: pip install pybind11 setuptools wheel and then pip install "
        "--no-build-isolation xylosim==0.1.3 (a C++ compiler builds it)."
    ),
    command=(sys.executable, "-m", "osbc_backend_xylo.worker"),
)
