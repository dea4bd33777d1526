"""Weights with which neurons fire, and none of them always."""

from __future__ import annotations

import torch
from torch import nn


def lively(model: nn.Module, seed: int = 0, strength: float = 3.0) -> nn.Module:
    """Draw the weights of a model's layers; their sum is about as strong whatever the fan-in."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for part in model.modules():
            if isinstance(part, nn.Linear | nn.Conv1d | nn.Conv2d):
                scale = strength / part.weight[0].numel() ** 0.5
                part.weight.normal_(0.3 * scale, scale)
    return model.eval()
