"""Make lava-nc 0.10.0, written for Python 3.10 and NumPy 1, run on newer ones.

Upstream is archived, so both steps are applied from outside and touch nothing else.
"""

from __future__ import annotations

import dataclasses
import functools
import sys
from typing import Any

import numpy as np

__all__ = ["prepare"]


def prepare() -> None:
    """Import the parts of Lava that need help, with that help; call before any other import."""
    if sys.version_info >= (3, 11):
        _import_var_model()
    if np.lib.NumpyVersion(np.__version__) >= "2.1.0":
        _repair_reshape_port()
    _widen_convolution_parameters()


def _import_var_model() -> None:
    """Import Lava's var_model with one dataclass made hashable.

    Since Python 3.11 a dataclass refuses an unhashable default, and one field there has an
    instance of the (unhashable) dataclass ByteEncoder as its default.
    """
    original = dataclasses.dataclass

    @functools.wraps(original)
    def hashable(cls: Any = None, /, **options: Any) -> Any:
        if cls is None:
            return functools.partial(hashable, **options)
        if cls.__name__ == "ByteEncoder":
            options["unsafe_hash"] = True
        return original(cls, **options)

    dataclasses.dataclass = hashable
    try:
        import lava.magma.compiler.var_model  # noqa: F401
    finally:
        dataclasses.dataclass = original


def _widen_convolution_parameters() -> None:
    """Keep stride, padding and the like as int32 instead of int8.

    More than 127 groups wrap in int8, and NumPy 2 computes ``int8 + int`` in int8, so larger maps
    or more channels would overflow.
    """
    from lava.magma.core.model.py.type import LavaPyType
    from lava.proc.conv.models import AbstractPyConvModel

    for name in ("kernel_size", "stride", "padding", "dilation", "groups"):
        setattr(AbstractPyConvModel, name, LavaPyType(np.ndarray, np.int32, precision=32))


def _repair_reshape_port() -> None:
    """Replace two methods that pass ``newshape``, deprecated in NumPy 2.1 and gone in 2.4."""
    from lava.magma.core.process.ports.ports import ReshapePort

    def forward(self: Any) -> Any:
        return functools.partial(np.reshape, shape=self.shape)

    def backward(self: Any) -> Any:
        return functools.partial(np.reshape, shape=self.old_shape)

    ReshapePort.get_transform_func_fwd = forward
    ReshapePort.get_transform_func_bwd = backward
