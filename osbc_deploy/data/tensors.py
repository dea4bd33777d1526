"""Arrays of whatever holds numbers: tensors of any kind too, without importing torch for them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from osbc_deploy.errors import DataError, reason
from osbc_deploy.limits import Allowance, array_bytes

__all__ = ["as_array"]


def as_array(name: str, value: Any) -> NDArray[Any]:
    """Return an array with the values of an array, a tensor, or lists of numbers.

    Tensors may need a gradient, be sparse, quantized or on a device, and of a type that NumPy lacks
    (bfloat16), which becomes float32.

    Parameters
    ----------
    name : str
        What holds the values, for an error.
    value : array_like or torch.Tensor

    Raises
    ------
    ArtefactError
        When it cannot become an array, or a sparse tensor needs more memory than allowed.
    """
    try:
        return np.asarray(_dense(name, value.detach()) if hasattr(value, "detach") else value)
    except (ValueError, TypeError, RuntimeError, NotImplementedError, AttributeError) as error:
        raise DataError(
            f"{name}: cannot be converted to an array ({reason(error)}). Give a dense array or "
            "tensor of numbers."
        ) from error


def _dense(name: str, tensor: Any) -> Any:
    """Return a tensor as an array, or as a tensor that NumPy takes."""
    if getattr(tensor, "is_quantized", False):
        tensor = tensor.dequantize()
    if str(tensor.layout) != "torch.strided":
        dense = array_bytes(tensor.shape, tensor.element_size())
        Allowance(name, remedy="Give fewer samples").take(dense)
        tensor = tensor.to_dense()
    tensor = tensor.cpu().resolve_conj().resolve_neg()
    try:
        return tensor.numpy()
    except TypeError:
        # Floating point of 16 bits and fewer that NumPy does not have.
        return tensor.float().numpy()
