"""Vector instructions for compiled loops, where a compiler cannot know that nothing overlaps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types as _types
from numba.core import cgutils as _cgutils
from numba.extending import intrinsic as _intrinsic

__all__ = ["cgutils", "element", "intrinsic", "repeated", "types", "vector_at"]

# Neither says what its functions take.
cgutils: Any = _cgutils
types: Any = _types


def intrinsic(function: Callable[..., Any]) -> Callable[..., Any]:
    """Make a function build instructions; who calls it leaves out its first parameter."""
    # A number that is written out is a type of its own, and builds instructions for that number.
    made: Callable[..., Any] = _intrinsic(prefer_literal=True)(function)
    return made


def element(context: Any, builder: Any, kind: Any, array: Any, at: Any) -> Any:
    """Return an element of a one-dimensional array."""
    return builder.load(builder.gep(_data(context, builder, kind, array), [at]))


def _data(context: Any, builder: Any, kind: Any, array: Any) -> Any:
    if kind.layout != "C" or kind.ndim != 1:
        raise TypeError(f"{kind}: neighbors are not side by side")
    return cgutils.create_struct_proxy(kind)(context, builder, array).data


def vector_at(
    context: Any, builder: Any, kind: Any, array: Any, at: Any, count: int
) -> tuple[Any, Any]:
    """Return a pointer to some elements of a one-dimensional array, and their values."""
    data = _data(context, builder, kind, array)
    number = context.get_data_type(kind.dtype)
    vector = ir.VectorType(number, count)
    pointer = builder.bitcast(builder.gep(data, [at]), vector.as_pointer())
    return pointer, builder.load(pointer, align=kind.dtype.bitwidth // 8)


def repeated(builder: Any, value: Any, count: int) -> Any:
    """Return a vector of the same number."""
    one = ir.Constant(ir.VectorType(value.type, count), ir.Undefined)
    first = builder.insert_element(one, value, ir.Constant(ir.IntType(32), 0))
    zeros = ir.Constant(ir.VectorType(ir.IntType(32), count), [0] * count)
    return builder.shuffle_vector(first, one, zeros)
