"""SynSense's simulation of Speck (sinabs, in torch) as a backend.

It runs in a child process (see :mod:`osbc_backend_sinabs.worker`) and takes sinabs' layers alone:
the chip's driver, which sinabs asks for, is not needed.
"""

from osbc_backend_sinabs.backend import BACKEND

__all__ = ["BACKEND"]
