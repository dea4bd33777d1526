"""Two networks for Xylo, and how they are trained on touch.

A Braille letter, felt by 12 sensors: events of 5 ms, counted in bins of four, and one of seven
letters as the answer.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import norse.torch as norse
import numpy as np
import snntorch as snn
import torch
from norse.torch.functional.reset import reset_subtract
from torch import nn

from osbc_deploy.data.samples import Samples, check_samples

BIN = 4
HIDDEN = 100
EPOCHS = 60
KEPT = 20.0
"""Weight of potentials beyond two thresholds in the loss."""


def letters(path: Path) -> tuple[Samples, Samples]:
    """Return the samples to train and calibrate on, and those to test on: every fifth."""
    with np.load(path, allow_pickle=False) as data:
        label = data["label"]
        n = len(label)
        events = np.unpackbits(data["packed"].reshape(-1))[: n * 256 * 12].reshape(n, 256, 12)
    counts = events.reshape(n, 256 // BIN, BIN, 12).sum(axis=2).astype(np.uint8)
    test = np.arange(n) % 5 == 4
    return tuple(  # type: ignore[return-value]
        check_samples(name, counts[part], label[part].astype(np.int64))
        for name, part in (("train", ~test), ("test", test))
    )


def snntorch_net() -> nn.Module:
    """SnnTorch as it is by default: a reset by subtraction, one step late; recurrent."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(12, HIDDEN, bias=False),
        snn.RSynaptic(
            alpha=0.7, beta=0.85, all_to_all=True, linear_features=HIDDEN, init_hidden=True
        ),
        nn.Linear(HIDDEN, 7, bias=False),
        snn.Synaptic(alpha=0.7, beta=0.9, init_hidden=True, output=True),
    )


def norse_net() -> nn.Module:
    """Boxes of norse with a soft reset, which have no synaptic current."""
    torch.manual_seed(0)
    p = norse.LIFBoxParameters(
        tau_mem_inv=torch.tensor(150.0), v_th=torch.tensor(0.5), reset_method=reset_subtract
    )
    return norse.SequentialState(
        nn.Linear(12, HIDDEN, bias=False),
        norse.LIFBoxCell(p=p),
        nn.Linear(HIDDEN, 7, bias=False),
        norse.LIFBoxCell(p=p),
    )


def output_of(model: nn.Module, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the spikes (T, n, 7) of samples (n, T, 12), and how far potentials go too high.

    A neuron of the chip fires twice in a step from two thresholds on, one of the frameworks does
    not; the second part is the mean square of what potentials reach beyond.
    """
    found, beyond = [], torch.zeros(())
    if isinstance(model, norse.SequentialState):
        state: Any = None
        for t in range(x.shape[1]):
            out, state = model(x[:, t], state)
            found.append(out)
            # Once the threshold was taken away.
            tops = [(model[i].p.v_th, state[i].v) for i in (1, 3)]
            beyond = beyond + sum(torch.relu(v / top - 1).square().mean() for top, v in tops)
        return torch.stack(found), beyond / x.shape[1]
    cells = [cell for cell in model if isinstance(cell, snn.SpikingNeuron)]
    for cell in cells:
        cell.reset_mem()
    for t in range(x.shape[1]):
        found.append(model(x[:, t])[0])
        # Before the threshold is.
        beyond = beyond + sum(torch.relu(c.mem / c.threshold - 2).square().mean() for c in cells)
    return torch.stack(found), beyond / x.shape[1]


def train(model: nn.Module, samples: Samples) -> nn.Module:
    """Train on the number of spikes that each output fires."""
    torch.manual_seed(1)
    x = torch.from_numpy(samples.spikes.astype(np.float32))
    y = torch.from_numpy(np.array(samples.labels))
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for epoch in range(EPOCHS):
        right, above = 0, 0.0
        for batch in torch.randperm(len(x)).split(64):
            spikes, beyond = output_of(model, x[batch])
            counts = spikes.sum(dim=0)
            loss = nn.functional.cross_entropy(counts / 4, y[batch]) + KEPT * beyond
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            right += int((counts.argmax(dim=1) == y[batch]).sum())
            above = float(beyond.detach())
        if epoch % 10 == 9:
            print(
                f"  epoch {epoch + 1}: {right / len(x):.1%} of the training samples, {above:.3f}",
                flush=True,
            )
    return model.eval()
