"""The bundled networks as norse stacks, and where their trained weights are.

They are trained on the training split of :mod:`osbc_deploy.bundled.digits` by the scripts in
``examples/``.
"""

from __future__ import annotations

from pathlib import Path

import norse.torch as norse
import torch
from norse.torch.functional.leaky_integrator_box import LIBoxParameters
from norse.torch.module.leaky_integrator_box import LIBoxCell
from torch import nn

__all__ = ["digits_conv", "digits_mlp", "weights_path"]

_TAU_MEM_INV = 500.0
"""1/s; with norse's dt of 1 ms the membrane keeps half of its potential per step."""
_TAU_SYN_INV = 400.0


def digits_conv() -> norse.SequentialState:
    """Return the convolutional network for input (2, 20, 20).

    The answer is the membrane potential of the readout, summed over time.
    """
    return norse.SequentialState(
        nn.Conv2d(2, 16, 3, padding=1, bias=False),
        nn.BatchNorm2d(16),
        _lif_box(),
        nn.AvgPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1, bias=False),
        nn.BatchNorm2d(32),
        _lif_box(),
        nn.AvgPool2d(2),
        nn.Flatten(),
        nn.Dropout(0.2),
        nn.Linear(32 * 5 * 5, 100),
        _lif_box(),
        nn.Linear(100, 10),
        LIBoxCell(
            LIBoxParameters(tau_mem_inv=torch.tensor(_TAU_MEM_INV), v_leak=torch.tensor(0.0))
        ),
    )


def digits_mlp() -> norse.SequentialState:
    """Return the fully connected network for input (2, 20, 20).

    Its neurons have a synaptic current; the answer is the number of output spikes.
    """
    return norse.SequentialState(
        nn.Flatten(),
        nn.Linear(2 * 20 * 20, 120),
        norse.LIFCell(
            norse.LIFParameters(
                tau_syn_inv=torch.tensor(_TAU_SYN_INV), tau_mem_inv=torch.tensor(_TAU_MEM_INV)
            )
        ),
        nn.Linear(120, 10),
        _lif_box(),
    )


def weights_path(name: str) -> Path:
    """Return the shipped weights of ``"digits_conv"`` or ``"digits_mlp"``."""
    return Path(__file__).parent / f"{name}.safetensors"


def _lif_box() -> norse.LIFBoxCell:
    return norse.LIFBoxCell(
        norse.LIFBoxParameters(
            tau_mem_inv=torch.tensor(_TAU_MEM_INV),
            v_leak=torch.tensor(0.0),
            v_th=torch.tensor(1.0),
            v_reset=torch.tensor(0.0),
        )
    )
