"""Make sure that weights and parameters are numbers."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn
from torch.nn.parameter import is_lazy

from osbc_deploy.errors import WeightsError
from osbc_deploy.frameworks.folding import as_array
from osbc_deploy.frameworks.framework import Framework
from osbc_deploy.model.graph import Network

__all__ = ["check_finite", "check_weights"]


def check_finite(module: nn.Module, framework: Framework) -> None:
    """Make sure that weights and neuron parameters are numbers.

    Raises
    ------
    ArtefactError
        With the names of all that are not.
    """
    empty = [
        name
        for name, value in (*module.named_parameters(), *module.named_buffers())
        if is_lazy(value) or value.is_meta
    ]
    if empty:
        raise WeightsError(
            f"model: {', '.join(empty)} have no values yet. Call the model once with an input, "
            "which gives lazy layers their shape, build it on a device other than meta, and load "
            "its weights."
        )
    bad = [
        f"{place}.{name}"
        for place, layer in module.named_modules()
        for name, value in framework.values(layer).items()
        if isinstance(value, torch.Tensor | float) and not np.isfinite(as_array(value)).all()
    ]
    bad += [
        name
        for name, value in module.state_dict().items()
        # Quantized layers keep other things there.
        if isinstance(value, torch.Tensor)
        and value.is_floating_point()
        and not torch.isfinite(value).all()
    ]
    if bad:
        raise WeightsError(
            f"model: NaN or infinite values in {', '.join(bad)}. Train again or load another "
            "checkpoint."
        )


def check_weights(network: Network) -> None:
    """Make sure that the weights a network computes with are numbers.

    They may not be where the ones they come from are, as where a norm is 0.
    """
    bad = [
        p.name
        for p in network.projections
        for values in (p.connection.weight, p.connection.bias)
        if values is not None and not np.isfinite(values).all()
    ]
    if bad:
        raise WeightsError(
            f"model: the weights that {', '.join(dict.fromkeys(bad))} compute with are NaN or "
            "infinite. Train again or load another checkpoint."
        )
