"""Two small spiking transformers in plain SpikingJelly, and their training on the bundled digits.

Spikformer (Zhou, Zhu, He, Wang, Yan, Tian, Yuan 2023) multiplies counts of spikes by counts of
spikes in its attention, which no synapse of a chip does. The Spike-driven Transformer (Yao, Hu,
Zhou, Yuan, Tian, Xu, Li 2023) masks spikes with spikes and adds its shortcuts to the membrane.
Both take (T, N, 2, 20, 20) and answer with (N, 10), the mean over time.
"""

from __future__ import annotations

import torch
from spikingjelly.activation_based import functional, neuron, surrogate
from torch import nn

from osbc_deploy.bundled.digits import digits_events

__all__ = ["MODELS", "SpikeDriven", "Spikformer", "frames", "trained"]

WIDTH, HEADS, HIDDEN, DEPTH, STEPS = 48, 4, 96, 2, 5


def lif(threshold: float = 1.0) -> nn.Module:
    node: nn.Module = neuron.LIFNode(
        tau=2.0, v_threshold=threshold, surrogate_function=surrogate.ATan(), detach_reset=True
    )
    return node


class Map(nn.Module):
    """A linear map of every token's channels (T, N, L, C), and its BatchNorm."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.linear = nn.Linear(before, after, bias=False)
        self.norm = nn.BatchNorm1d(after)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        tokens = self.linear(x.flatten(0, 1)).transpose(1, 2)
        return self.norm(tokens).transpose(1, 2).unflatten(0, x.shape[:2])


class Convolution(nn.Module):
    """A 3 x 3 convolution of every step (T, N, C, H, W), and its BatchNorm."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(before, after, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(after)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        answer: torch.Tensor = self.norm(self.convolution(x.flatten(0, 1)))
        return answer.unflatten(0, x.shape[:2])


def pooled(x: torch.Tensor) -> torch.Tensor:
    """Halve rows and columns (T, N, C, H, W)."""
    return nn.functional.max_pool2d(x.flatten(0, 1), 2).unflatten(0, x.shape[:2])


def tokens(x: torch.Tensor) -> torch.Tensor:
    """Return places (T, N, C, H, W) as tokens (T, N, L, C)."""
    return x.flatten(3).transpose(2, 3)


def heads(x: torch.Tensor) -> torch.Tensor:
    """Return tokens (T, N, L, C) by head, (T, N, heads, L, C / heads)."""
    return x.unflatten(3, (HEADS, -1)).transpose(2, 3)


class SpikingSelfAttention(nn.Module):
    """``Q K^T V`` of spikes, scaled, into neurons; no softmax."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v = (nn.Sequential(Map(WIDTH, WIDTH), lif()) for _ in range(3))
        self.counted = lif(0.5)
        self.last = nn.Sequential(Map(WIDTH, WIDTH), lif())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = (heads(part(x)) for part in (self.q, self.k, self.v))
        counts = (q @ k.transpose(-2, -1)) @ v * 0.125
        answer: torch.Tensor = self.last(self.counted(counts.transpose(2, 3).flatten(3)))
        return answer


class SpikformerBlock(nn.Module):
    """Attention and two maps, their spikes added to what they heard."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = SpikingSelfAttention()
        self.maps = nn.Sequential(Map(WIDTH, HIDDEN), lif(), Map(HIDDEN, WIDTH), lif())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.attention(x)
        answer: torch.Tensor = x + self.maps(x)
        return answer


class Spikformer(nn.Module):
    """Patch splitting with a relative position, blocks, and classes of the mean token."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(Convolution(2, WIDTH // 2), lif())
        self.second = nn.Sequential(Convolution(WIDTH // 2, WIDTH), lif())
        self.position = nn.Sequential(Convolution(WIDTH, WIDTH), lif())
        self.blocks = nn.Sequential(*(SpikformerBlock() for _ in range(DEPTH)))
        self.head = nn.Linear(WIDTH, 10)
        functional.set_step_mode(self, "m")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = pooled(self.second(pooled(self.first(x))))
        x = self.blocks(tokens(x + self.position(x)))
        answer: torch.Tensor = self.head(x.mean(2).mean(0))
        return answer


class SpikeDrivenSelfAttention(nn.Module):
    """Keys mask values, what is left is counted over tokens, and neurons of that mask queries."""

    def __init__(self) -> None:
        super().__init__()
        self.heard = lif()
        self.q, self.k, self.v = (nn.Sequential(Map(WIDTH, WIDTH), lif()) for _ in range(3))
        self.counted = lif(0.5)
        self.last = Map(WIDTH, WIDTH)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.heard(x)
        q, k, v = (part(x) for part in (self.q, self.k, self.v))
        mask = self.counted((k * v).sum(dim=2, keepdim=True))
        answer: torch.Tensor = self.last(q * mask)
        return answer


class SpikeDrivenBlock(nn.Module):
    """Attention and two maps, each behind neurons, their currents added to the membrane."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = SpikeDrivenSelfAttention()
        self.maps = nn.Sequential(lif(), Map(WIDTH, HIDDEN), lif(), Map(HIDDEN, WIDTH))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.attention(x)
        answer: torch.Tensor = x + self.maps(x)
        return answer


class SpikeDriven(nn.Module):
    """Patch splitting that ends in a current, blocks with membrane shortcuts, and classes."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(Convolution(2, WIDTH // 2), lif())
        self.second = Convolution(WIDTH // 2, WIDTH)
        self.heard, self.position = lif(), Convolution(WIDTH, WIDTH)
        self.blocks = nn.Sequential(*(SpikeDrivenBlock() for _ in range(DEPTH)))
        self.last = lif()
        self.head = nn.Linear(WIDTH, 10)
        functional.set_step_mode(self, "m")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = pooled(self.second(pooled(self.first(x))))
        x = self.blocks(tokens(x + self.position(self.heard(x))))
        answer: torch.Tensor = self.head(self.last(x).mean(2).mean(0))
        return answer


MODELS = {"Spikformer": Spikformer, "Spike-driven Transformer": SpikeDriven}


def frames(split: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the bundled digits in fewer, longer time steps (n, T, 2, 20, 20), and labels (n,)."""
    data = digits_events(split)
    spikes = torch.tensor(data.spikes)
    return spikes.unflatten(1, (STEPS, -1)).amax(2), torch.tensor(data.labels)


def trained(name: str, seed: int, epochs: int = 15) -> nn.Module:
    """Return a model trained on the training split."""
    torch.manual_seed(seed)
    model = MODELS[name]()
    spikes, labels = frames("train")
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.02)
    batches = -(-len(spikes) // 64)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, epochs * batches)
    model.train()
    for _ in range(epochs):
        for chosen in torch.randperm(len(spikes)).split(64):
            functional.reset_net(model)
            answer = model(spikes[chosen].float().transpose(0, 1))
            loss = nn.functional.cross_entropy(answer, labels[chosen], label_smoothing=0.1)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    functional.reset_net(model)
    return model.eval()
