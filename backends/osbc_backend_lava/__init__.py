"""Lava's fixed-point CPU simulator as a backend.

The simulator runs in a child process of its own (see :mod:`osbc_backend_lava.worker`); nothing of
Lava is imported here.
"""

from osbc_backend_lava.backend import BACKEND, LavaBackend

__all__ = ["BACKEND", "LavaBackend"]
