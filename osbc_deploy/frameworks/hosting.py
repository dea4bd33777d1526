"""Layers in front that no chip holds, such as a LayerNorm, run on the host as part of the data.

The chip begins behind a layer that the user names. What that gives is the chip's input: spikes, or
real values, which are rounded as those of data are.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from torch import nn

from osbc_deploy.arrays import InputArray
from osbc_deploy.errors import UsageError

__all__ = ["HostPrefix"]


@dataclass
class HostPrefix:
    """The part of a model that runs on the host.

    Attributes
    ----------
    layer : str
        Path of the last of its layers, or of a container of them.
    encode : callable
        From samples (n, T, ...) to what that layer gives, of float32 (n, T, ...), as the framework
        computes it; there once the model was read.
    """

    layer: str
    encode: Callable[[InputArray], InputArray] = field(default=lambda spikes: spikes)

    def module_of(self, model: nn.Module) -> nn.Module:
        """Return the layer.

        Raises
        ------
        UsageError
            When the model has none of that name.
        """
        layers = dict(model.named_modules())
        if self.layer not in layers or not self.layer:
            names = ", ".join(name for name in list(layers)[:20] if name)
            raise UsageError(
                f"--host-prefix: the model has no layer {self.layer!r}. It has {names}."
            )
        found: nn.Module = layers[self.layer]
        return found
