"""Functions of tensors as operations of a graph: those that have a layer's name, and arithmetic."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import nn

from osbc_deploy.frameworks.folding import as_array
from osbc_deploy.frameworks.joining import joined, put_sum, sample_axes
from osbc_deploy.frameworks.layers import conv_layer, joined_linear, rectified
from osbc_deploy.frameworks.logic import LOGIC, put_gate
from osbc_deploy.frameworks.operations import Add, Scale, Shift
from osbc_deploy.frameworks.padding import pad_function
from osbc_deploy.frameworks.reasons import PRODUCTS, unsupported_part
from osbc_deploy.frameworks.tracing import Value
from osbc_deploy.frameworks.transposed import transposed_layer

if TYPE_CHECKING:
    from osbc_deploy.frameworks.builder import Builder
    from osbc_deploy.frameworks.flow import Called

__all__ = ["FUNCTIONS", "LINEAR"]

_OF_FUNCTIONS: Mapping[str, type[nn.Module]] = {
    "avg_pool1d": nn.AvgPool1d,
    "avg_pool2d": nn.AvgPool2d,
    "adaptive_avg_pool1d": nn.AdaptiveAvgPool1d,
    "adaptive_avg_pool2d": nn.AdaptiveAvgPool2d,
    "max_pool1d": nn.MaxPool1d,
    "max_pool2d": nn.MaxPool2d,
    "adaptive_max_pool2d": nn.AdaptiveMaxPool2d,
}
"""Functions that take what the layer of their name is built with."""


def _function(builder: Builder, called: Called) -> None:
    """Take a function as the layer it is."""
    event = called.event
    kind = _OF_FUNCTIONS[event.name.partition("#")[0]]
    names = ("kernel_size", "stride", "padding", "dilation", "ceil_mode", "return_indices")
    args, kwargs = event.args[1:], dict(event.kwargs)
    kwargs.pop("input", None)
    if kind in (nn.MaxPool1d, nn.MaxPool2d):
        kwargs |= dict(zip(names, args, strict=False))
        args = ()
    builder.layer(called, kind(*args, **kwargs))


def _given(called: Called, *names: str) -> list[Any]:
    """Return what a function was given under names, in their order."""
    event = called.event
    given = {**dict(zip(names, event.args, strict=False)), **event.kwargs}
    return [given.get(name) for name in names]


def _functional_linear(builder: Builder, called: Called) -> None:
    _, weight, bias = _given(called, "input", "weight", "bias")
    if not all(isinstance(w, torch.Tensor | None) for w in (weight, bias)):
        builder.refuse(called, "linear takes weights from the signal; on the chip they are fixed")
        return
    joined_linear(builder, called, as_array(weight), None if bias is None else as_array(bias))


def _functional_convolution(builder: Builder, called: Called) -> None:
    _, weight, bias, stride, padding, dilation, groups = _given(
        called, "input", "weight", "bias", "stride", "padding", "dilation", "groups"
    )
    if not all(isinstance(w, torch.Tensor | None) for w in (weight, bias)):
        builder.refuse(called, "a convolution by signals; on the chip weights are fixed")
        return
    dims = weight.ndim - 2
    kind = nn.Conv2d if dims == 2 else nn.Conv1d
    layer = kind(
        weight.shape[1] * (groups or 1), len(weight), tuple(weight.shape[2:]),
        stride or 1, padding or 0, dilation or 1, groups or 1, bias=False, device="meta",
    )  # fmt: skip
    layer.weight = nn.Parameter(weight, requires_grad=False)
    layer.bias = None if bias is None else nn.Parameter(bias, requires_grad=False)
    conv_layer(builder, called, layer)


def _functional_transposed(builder: Builder, called: Called) -> None:
    _, weight, bias, stride, padding, _, groups, dilation = _given(
        called,
        *("input", "weight", "bias", "stride", "padding", "output_padding", "groups", "dilation"),
    )
    if not all(isinstance(w, torch.Tensor | None) for w in (weight, bias)):
        builder.refuse(called, "a convolution by signals; on the chip weights are fixed")
        return
    kind = nn.ConvTranspose2d if weight.ndim == 4 else nn.ConvTranspose1d
    layer = kind(
        len(weight), weight.shape[1] * (groups or 1), tuple(weight.shape[2:]), stride or 1,
        padding or 0, 0, groups or 1, bias=False, dilation=dilation or 1, device="meta",
    )  # fmt: skip
    layer.weight = nn.Parameter(weight, requires_grad=False)
    layer.bias = None if bias is None else nn.Parameter(bias, requires_grad=False)
    transposed_layer(builder, called, layer)


def _constant(builder: Builder, called: Called) -> Any:
    """Return the only argument that is no signal, as an array that fits a sample; None without.

    ValueError where it does not fit.
    """
    event = called.event
    others = [a for a in event.args if isinstance(a, int | float | torch.Tensor)]
    if len(others) != 1:
        return None
    value = as_array(others[0]).astype(np.float64)
    shape = called.sources[0].shape
    while value.ndim > len(shape):
        if (value != value[:1]).any():
            raise ValueError
        value = value[0]
    layout = builder.layout(called.sources[0])
    if layout is not None and value.size > 1:
        if not layout.whole:
            raise ValueError
        return layout.values(value)
    if len(shape) == 2 and builder.flat and value.ndim == 2:
        value = value[:, None]
    return value


def _add(builder: Builder, called: Called) -> None:
    signal_first = isinstance(called.event.args[0], Value)
    _shift(builder, called, 1.0, 1.0, scaled="second" if signal_first else "first")


def _subtract(builder: Builder, called: Called) -> None:
    signal_first = isinstance(called.event.args[0], Value)
    if signal_first != called.event.name.startswith("rsub"):
        _shift(builder, called, 1.0, -1.0, scaled="second")
    else:
        _shift(builder, called, -1.0, 1.0, scaled="first")


def _shift(
    builder: Builder,
    called: Called,
    sign: float,
    of_constant: float,
    *,
    scaled: Literal["first", "second"],
) -> None:
    """Put ``sign * signal + of_constant * constant``, or the sum of two signals.

    What torch calls `alpha` is a factor of the one that is `scaled`.
    """
    name = called.event.name
    sources = called.sources
    others = dict(called.event.kwargs)
    alpha = others.pop("alpha", 1)
    if others or len(sources) not in (1, 2) or not isinstance(alpha, int | float):
        builder.refuse(called, f"{name} of anything but two signals")
        return
    sign *= alpha if scaled == "first" else 1
    of_constant *= alpha if scaled == "second" else 1
    if len(sources) == 2:
        _sum(builder, called, sign, of_constant)
        return
    try:
        constant = _constant(builder, called)
    except ValueError:
        constant = None
    if constant is None:
        builder.refuse(called, f"{name} of something that is no number")
        return
    if sign != 1.0:
        builder.put(called, called.name, Scale(np.asarray(sign)))
    shift = builder.bias(called, of_constant * constant)
    if shift is not None:
        builder.put(called, f"{called.name}.shift", Shift(shift))


def _sum(builder: Builder, called: Called, first: float, second: float) -> None:
    try:
        (one, two), layout = joined(builder, called, called.event.name)
    except ValueError as why:
        if builder.known(called):
            builder.refuse(called, str(why))
        return
    builder.lies(called, layout)
    # Of sums over time, what the first was multiplied by goes with the answer.
    second *= called.sources[1].factor / called.sources[0].factor
    if one == two and first == second:
        # A signal that is added to itself is heard once.
        builder.now[called] = one
        builder.put(called, called.name, Scale(np.asarray(2.0)))
        return
    heard = []
    for sign, names in ((first, one), (second, two)):
        signed = names
        if sign != 1.0:
            signed = [builder.node(f"{called.name}.scale", Scale(np.asarray(sign)), names)]
        heard += signed
    builder.now[called] = heard
    builder.put(called, called.name, Add())


def _multiply(builder: Builder, called: Called) -> None:
    name = called.event.name
    try:
        constant = _constant(builder, called)
    except ValueError:
        constant = None
    divides = "div" in name
    if len(called.sources) == 2 and name in ("mul", "rmul", "imul", "multiply"):
        put_gate(builder, called, "product", 2)
    elif len(called.sources) > 1 or name in ("rtruediv", "rdiv"):
        builder.refuse_part(
            called, f"{name} of signals by signals; on the chip only weights multiply"
        )
    elif constant is None or (divides and not np.all(constant)):
        builder.refuse(called, f"{name} by something that is no number")
    else:
        builder.put(called, called.name, Scale(1.0 / constant if divides else constant))


def _product(builder: Builder, called: Called) -> None:
    """Take a product with a matrix of weights as the Linear it is."""
    name = called.event.name
    if len(called.sources) > 1:
        builder.refuse(called, unsupported_part(name))
        return
    if name == "einsum" and "," not in str(called.event.args[0]):
        builder.refuse(called, "einsum of a signal alone; write the sum and permute that it is")
        return
    weight, bias = _einsum(called) if name == "einsum" else _factors(called)
    if weight is None or weight.ndim != 2:
        builder.refuse(
            called,
            f"{name} of a signal by weights, but not as a Linear does; write F.linear(x, weight) "
            "with a weight of (outputs, inputs)",
        )
        return
    joined_linear(builder, called, as_array(weight), None if bias is None else as_array(bias))


def _factors(called: Called) -> tuple[torch.Tensor | None, torch.Tensor | None]:
    """Return the weight (outputs, inputs) and bias of a product; None where there are none."""
    name, bias = called.event.name, None
    if name == "addmm":
        bias, signal, weight, *more = _given(called, "input", "mat1", "mat2", "beta", "alpha")
        known = isinstance(bias, torch.Tensor) and bias.ndim == 1
        if not known or any(factor not in (None, 1) for factor in more):
            return None, None
    elif name in ("matmul", "mm"):
        signal, weight = _given(called, "input", "mat2" if name == "mm" else "other")
    else:
        return None, None
    if not isinstance(signal, Value) or not isinstance(weight, torch.Tensor) or weight.ndim != 2:
        return None, None
    return weight.T, bias


def _einsum(called: Called) -> tuple[torch.Tensor | None, None]:
    """Return the weight (outputs, inputs) of an einsum that maps the last axis of a signal."""
    equation, *operands = called.event.args
    if len(operands) == 1 and isinstance(operands[0], tuple | list):
        operands = list(operands[0])
    inputs, _, output = str(equation).replace(" ", "").partition("->")
    named = list(zip(inputs.split(","), operands, strict=False))
    if len(named) != 2:
        return None, None
    (seen, _), (axes, weight) = sorted(named, key=lambda pair: isinstance(pair[1], torch.Tensor))
    before, last = seen[:-1], seen[-1:]
    after = axes.replace(last, "")
    if len(axes) != 2 or len(after) != 1 or after in seen or output != before + after:
        return None, None
    return (weight.T if axes[0] == last else weight), None


def _negate(builder: Builder, called: Called) -> None:
    builder.put(called, called.name, Scale(np.asarray(-1.0)))


def _reduced(builder: Builder, called: Called) -> None:
    """Take a sum or mean along axes of a sample."""
    event = called.event
    axes, keep = sample_axes(called)
    if not axes:
        builder.refuse(called, f"{event.name} over samples or time, and others at once")
        return
    try:
        put_sum(builder, called, axes, keep=keep, mean=event.name == "mean")
    except ValueError as why:
        if builder.known(called):
            builder.refuse(called, f"{event.name} {why}")


FUNCTIONS: Mapping[str, Callable[[Builder, Called], None]] = {
    **LOGIC,
    **dict.fromkeys(_OF_FUNCTIONS, _function),
    **dict.fromkeys(("add", "radd", "iadd"), _add),
    **dict.fromkeys(("sub", "rsub", "isub", "subtract"), _subtract),
    **dict.fromkeys(("mul", "rmul", "imul", "multiply", "div", "truediv"), _multiply),
    **dict.fromkeys((*PRODUCTS, "addmm"), _product),
    **dict.fromkeys(("sum", "mean"), _reduced),
    "neg": _negate,
    **dict.fromkeys(("relu", "relu_"), rectified),
    "pad": pad_function,
    "linear": _functional_linear,
    "conv1d": _functional_convolution,
    "conv2d": _functional_convolution,
    **dict.fromkeys(("conv_transpose1d", "conv_transpose2d"), _functional_transposed),
}
"""How functions of tensors are read, by name."""

LINEAR = (
    *("add", "radd", "iadd", "sub", "rsub", "isub", "neg"),
    *("mul", "rmul", "imul", "multiply", "div", "truediv"),
    *("flatten", "reshape", "view", "squeeze", "ravel", "view_as", "reshape_as", "linear"),
    *("matmul", "mm", "addmm", "einsum"),
    *("avg_pool1d", "avg_pool2d", "adaptive_avg_pool1d", "adaptive_avg_pool2d"),
)
"""Functions that make of a sum what they make of its parts, summed."""
