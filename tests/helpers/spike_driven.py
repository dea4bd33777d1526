"""Spike-driven self-attention of tokens, as it is written with Linear and BatchNorm1d."""

from __future__ import annotations

import torch
from spikingjelly.activation_based import functional, layer, neuron
from torch import nn

__all__ = ["Attention", "lively"]


def lif(threshold: float = 1.0) -> nn.Module:
    node: nn.Module = neuron.LIFNode(tau=2.0, v_threshold=threshold, detach_reset=True)
    return node


class Map(nn.Module):
    """A linear map of every token's channels, and its norm."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.map = nn.Linear(before, after, bias=False)
        self.norm = nn.BatchNorm1d(after)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        steps, batch, _, rows, cols = x.shape
        tokens = self.map(x.flatten(0, 1).flatten(2).transpose(1, 2))
        return self.norm(tokens.transpose(1, 2)).reshape(steps, batch, -1, rows, cols)


class Attention(nn.Module):
    """Keys mask values, what is left is counted over tokens, and neurons of that mask queries."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.first = lif()
        self.maps = nn.ModuleList(Map(width, width) for _ in range(3))
        self.neurons = nn.ModuleList(lif() for _ in range(3))
        self.counted = lif(0.5)
        self.last = Map(width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        answer: torch.Tensor = self.last(self.masked(self.first(x))) + x
        return answer

    def masked(self, spikes: torch.Tensor) -> torch.Tensor:
        """Return the queries that are let through."""
        steps, batch, width, rows, cols = spikes.shape
        query, key, value = (
            node(each(spikes))
            .flatten(3)
            .transpose(-1, -2)
            .reshape(steps, batch, rows * cols, self.heads, width // self.heads)
            .permute(0, 1, 3, 2, 4)
            .contiguous()
            for each, node in zip(self.maps, self.neurons, strict=True)
        )
        mask = self.counted(key.mul(value).sum(dim=-2, keepdim=True))
        masked = query.mul(mask).transpose(3, 4)
        return masked.reshape(steps, batch, width, rows, cols).contiguous()


def lively(model: nn.Module) -> nn.Module:
    """Give norms what training would, so that neurons fire, and let all take all steps."""
    with torch.no_grad():
        for part in model.modules():
            if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d):
                part.running_mean.normal_(0.0, 0.05)
                part.running_var.uniform_(0.05, 0.2)
                part.weight.uniform_(1.0, 2.0)
                part.bias.uniform_(1.0, 2.0)
            elif isinstance(part, layer.Linear):
                part.weight.mul_(3.0)
    functional.set_step_mode(model, "m")
    return model.eval()
