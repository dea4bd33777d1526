"""SynSense's simulator of Xylo cores (xylosim) as a backend.

The simulator runs in a child process (see :mod:`osbc_backend_xylo.worker`): it keeps bare pointers
to Python's objects, and a mistake in it must not end the program.
"""

from osbc_backend_xylo.backend import BACKEND

__all__ = ["BACKEND"]
