"""Spike-driven Transformer of Yao et al. (NeurIPS 2023) in plain SpikingJelly, of any size.

Stem (patch splitting): convolution, BatchNorm, LIF and max pooling, stage by stage; the last stage
ends in a current, to which a convolution of its own spikes adds the position. Blocks: spike-driven
self-attention (the first of the paper's), then two linear maps, each behind LIF neurons; what each
adds to the current is the membrane shortcut. Head: mean over tokens, LIF, classes.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from spikingjelly.activation_based import functional, layer, neuron
from torch import nn

__all__ = ["Attention", "SpikeDriven", "lively", "made"]


def lif(threshold: float = 1.0) -> nn.Module:
    node: nn.Module = neuron.LIFNode(tau=2.0, v_threshold=threshold, detach_reset=True)
    return node


class Map(nn.Module):
    """A linear map of every token's channels and its norm, in one of the ways it is written."""

    def __init__(self, before: int, after: int, *, linear: bool) -> None:
        super().__init__()
        self.linear = linear
        self.map = nn.Linear(before, after, bias=False) if linear else nn.Conv2d(before, after, 1)
        self.norm = nn.BatchNorm1d(after) if linear else nn.BatchNorm2d(after)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        steps, batch, _, rows, cols = x.shape
        x = x.flatten(0, 1)
        if self.linear:
            tokens = self.map(x.flatten(2).transpose(1, 2))
            x = self.norm(tokens.transpose(1, 2))
        else:
            x = self.norm(self.map(x))
        return x.reshape(steps, batch, -1, rows, cols)


class Stem(nn.Module):
    """Patch splitting, with spikes between its stages."""

    def __init__(self, inputs: int, widths: Sequence[int], pooled: Sequence[bool]) -> None:
        super().__init__()
        sides = zip([inputs, *widths], widths, strict=False)
        self.convolutions = nn.ModuleList(
            nn.Sequential(nn.Conv2d(a, b, 3, padding=1, bias=False), nn.BatchNorm2d(b))
            for a, b in sides
        )
        self.neurons = nn.ModuleList(lif() for _ in widths)
        self.pooled = list(pooled)
        self.pool = nn.MaxPool2d(3, 2, 1)
        width = widths[-1]
        self.position = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        steps, batch = x.shape[:2]
        x = x.flatten(0, 1)
        for number, convolve in enumerate(self.convolutions):
            current = convolve(x)
            spikes = self.neurons[number](current.unflatten(0, (steps, batch)))
            x = spikes.flatten(0, 1)
            if number < len(self.pooled) and self.pooled[number]:
                x = self.pool(x)
        return (self.position(x) + current).reshape(steps, batch, *current.shape[1:])


class Attention(nn.Module):
    """Keys mask values, what is left is counted over tokens, and neurons of that mask queries."""

    def __init__(self, width: int, heads: int, *, linear: bool) -> None:
        super().__init__()
        self.heads = heads
        self.first = lif()
        self.maps = nn.ModuleList(Map(width, width, linear=linear) for _ in range(3))
        self.neurons = nn.ModuleList(lif() for _ in range(3))
        self.counted = lif(0.5)
        self.last = Map(width, width, linear=linear)

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


class Block(nn.Module):
    """Attention and two maps, each adding to the current."""

    def __init__(self, width: int, heads: int, hidden: int, *, linear: bool) -> None:
        super().__init__()
        self.attention = Attention(width, heads, linear=linear)
        self.maps = nn.Sequential(
            lif(), Map(width, hidden, linear=linear), lif(), Map(hidden, width, linear=linear)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.attention(x)
        answer: torch.Tensor = x + self.maps(x)
        return answer


class SpikeDriven(nn.Module):
    """The network; its input is (T, N, C, H, W), its answer the spikes of the classes."""

    def __init__(
        self,
        *,
        inputs: int = 2,
        widths: Sequence[int] = (4, 8),
        pooled: Sequence[bool] = (True,),
        depth: int = 1,
        heads: int = 2,
        ratio: int = 2,
        classes: int = 5,
        linear: bool = False,
    ) -> None:
        super().__init__()
        width = widths[-1]
        self.stem = Stem(inputs, widths, pooled)
        self.blocks = nn.Sequential(
            *(Block(width, heads, ratio * width, linear=linear) for _ in range(depth))
        )
        self.first = lif()
        self.head = layer.Linear(width, classes, step_mode="m")
        self.last = lif()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.blocks(self.stem(x)).flatten(3).mean(3)
        answer: torch.Tensor = self.last(self.head(self.first(x)))
        return answer


def made(seed: int = 0, **options: object) -> nn.Module:
    """Return a network whose neurons fire, from a seed."""
    torch.manual_seed(seed)
    return lively(SpikeDriven(**options))  # type: ignore[arg-type]


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
