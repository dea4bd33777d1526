"""Transposed convolutions, which enlarge maps where they have a stride."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from osbc_deploy.frameworks.as_matrix import Transposed, put_maps, put_transposed
from osbc_deploy.frameworks.folding import as_array
from osbc_deploy.model.graph import Conv
from osbc_deploy.model.windows import pair

if TYPE_CHECKING:
    from osbc_deploy.frameworks.builder import Builder
    from osbc_deploy.frameworks.flow import Called

__all__ = ["transposed_layer"]


def transposed_layer(builder: Builder, called: Called, layer: Any) -> None:
    """Put a ConvTranspose2d or ConvTranspose1d behind what it hears.

    One dimension is two with a height of 1. With a stride of 1 it is the convolution of the kernel
    turned round.
    """
    dims, shape = len(layer.kernel_size), called.sources[0].shape
    channels = layer.weight.shape[0]
    if len(shape) != dims + 1 or shape[0] != channels:
        takes = f"({channels}, {'H, W' if dims == 2 else 'L'})"
        builder.misfit(called, f"ConvTranspose{dims}d takes {takes}, gets {shape}")
        return
    weight = as_array(layer.weight)
    weight = weight if weight.ndim == 4 else weight[:, :, None]
    bias = None if layer.bias is None else as_array(layer.bias)
    stride, dilation = pair(layer.stride, 1), pair(layer.dilation, 1)
    padding = pair(layer.padding, 0)
    of = Conv(weight, None, stride, padding, dilation, layer.groups)
    seen = called.shape
    whole = Transposed(of, bias, builder.shape(seen))
    reach = [d * (k - 1) - p for d, k, p in zip(dilation, weight.shape[2:], padding, strict=True)]
    turned = whole.weight()[:, :, ::-1, ::-1]
    conv = Conv(turned, bias, (1, 1), (reach[0], reach[1]), dilation, layer.groups)
    # What is asked for at the far side alone (output_padding) is more than a convolution pads.
    alike = stride == (1, 1) and min(reach) >= 0
    if alike and conv.output_shape(builder.shape(shape)) == whole.given:
        put_maps(builder, called, conv)
    else:
        put_transposed(builder, called, whole)
