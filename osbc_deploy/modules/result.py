"""What compressing a module returns: its state dict, and what was done to each layer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from osbc_deploy.accuracy import Accuracy
from osbc_deploy.apart import Place, Role, check_apart
from osbc_deploy.compress.options import CompressionOptions
from osbc_deploy.compress.result import CompressedProjection
from osbc_deploy.data.samples import Samples
from osbc_deploy.deviations import Deviation
from osbc_deploy.modules.file import write_weights
from osbc_deploy.modules.weights import Weight
from osbc_deploy.provenance import Request
from osbc_deploy.results import Result

__all__ = ["CompressedModel", "CompressedWeight"]


@dataclass(frozen=True, eq=False)
class CompressedWeight:
    """A weight and what became of it.

    Attributes
    ----------
    weight : Weight
    layer : CompressedProjection
        Its scales are of the weights times the gain of a BatchNorm behind.
    """

    weight: Weight
    layer: CompressedProjection


@dataclass(frozen=True, eq=False, repr=False)
class CompressedModel(Result):
    """A module's weights, compressed.

    Attributes
    ----------
    source : str
        The model's name.
    framework : str
        What it was run with.
    call : str
        How it was called.
    state : dict of torch.Tensor
        The complete state dict, the compressed weights dequantized, on the CPU.
    weights : tuple of CompressedWeight
        In the order of their first call.
    left : dict of str
        Parameters of two axes and more that stayed as they were, and why.
    accuracy : Accuracy
        By the framework itself; of integers there is none.
    options : CompressionOptions
    deviations : tuple of Deviation
    warnings : tuple of str
        What puts the accuracies in doubt.
    fingerprint : str
        SHA-256 of the state dict before.
    calibration, test : Samples
    asked : Request
    read : tuple of Place
        Where model, weights and samples came from.
    """

    source: str
    framework: str
    call: str
    state: Mapping[str, torch.Tensor]
    weights: tuple[CompressedWeight, ...]
    left: Mapping[str, str]
    accuracy: Accuracy
    options: CompressionOptions
    deviations: tuple[Deviation, ...]
    warnings: tuple[str, ...]
    fingerprint: str
    calibration: Samples
    test: Samples
    asked: Request
    read: tuple[Place, ...] = ()

    @property
    def sparsity(self) -> float:
        """Share of the weights of all compressed layers that are 0."""
        total = sum(w.layer.codes.size for w in self.weights)
        return 1.0 - sum(w.layer.nonzero for w in self.weights) / total

    def save(self, path: str | Path) -> None:
        """Write the state dict as safetensors, whole or not at all.

        Raises
        ------
        UsageError
            When it cannot be written, or would take the place of what was read.
        """
        check_apart([Place.of("path", Path(path), Role.FILE), *self.read])
        write_weights(self, Path(path))

    def state_dict(self) -> dict[str, torch.Tensor]:
        """Return a copy of the state dict, for ``load_state_dict`` of the unchanged model."""
        return {name: tensor.clone() for name, tensor in self.state.items()}
