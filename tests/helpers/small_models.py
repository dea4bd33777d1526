"""A network small enough to be deployed many times, by the name its factory has."""

from __future__ import annotations

import norse.torch as norse
import numpy as np
import torch
from torch import nn


def model() -> nn.Module:
    """Return a network of two layers that tells four kinds of input apart."""
    random = torch.Generator().manual_seed(1)
    layers = norse.SequentialState(
        nn.Linear(24, 16, bias=False), norse.LIFCell(), nn.Linear(16, 4, bias=False), norse.LICell()
    )
    with torch.no_grad():
        for parameter in layers.parameters():
            parameter.copy_(0.9 * torch.randn(parameter.shape, generator=random))
    return layers


def data() -> tuple[np.ndarray, np.ndarray]:
    """Return spikes and labels drawn from NumPy's own state, as data sets do."""
    spikes = (np.random.random((40, 6, 24)) < 0.2).astype(np.uint8)
    return spikes, np.random.randint(0, 4, 40)


def other_model() -> nn.Module:
    """Return the same with weights that nobody seeded."""
    layers = model()
    with torch.no_grad():
        for parameter in layers.parameters():
            parameter.copy_(torch.randn(parameter.shape))
    return layers
