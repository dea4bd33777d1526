"""Types of what the verbs take: a model in any of its forms, samples in any of theirs."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

if TYPE_CHECKING:
    from torch import nn

    from osbc_deploy.data.samples import Samples
    from osbc_deploy.model.graph import Network

__all__ = ["Data", "Dataset", "Model", "NIRGraph", "SpikeData"]


class NIRGraph(Protocol):
    """What ``nir.NIRGraph`` is to a type checker: the package has no types of its own."""

    nodes: dict[str, Any]
    edges: list[tuple[str, str]]


class SpikeData(Protocol):
    """Anything with spikes; labels too, where it has any."""

    @property
    def spikes(self) -> Any:
        """Array of 0 and 1 (n, T, ...)."""


class Dataset(Protocol):
    """A map-style dataset of torch, an array or a tensor."""

    def __getitem__(self, index: int, /) -> Any:
        """Return spikes (T, ...), or a pair of them and their label."""

    def __len__(self) -> int: ...


Model: TypeAlias = "nn.Module | NIRGraph | Network | str | os.PathLike[str]"
Data: TypeAlias = "Samples | SpikeData | Dataset | str | os.PathLike[str] | Callable[[], object]"
