"""What is said of a module that its own framework cannot run."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from torch import nn

from osbc_deploy.errors import UnsupportedModelError
from osbc_deploy.frameworks.framework import Framework

__all__ = ["cannot_run"]


def cannot_run(
    source: str,
    framework: Framework,
    said: Sequence[str],
    module: nn.Module,
    shape: Sequence[int],
) -> UnsupportedModelError:
    """Return the error of a module that fails in its own framework.

    Parameters
    ----------
    source : str
        What the module is called.
    framework : Framework
    said : sequence of str
        How it failed.
    module : Module
    shape : sequence of int
        Of the samples, (n, T, ...).
    """
    return UnsupportedModelError(
        f"{source}: {framework.title} itself cannot run it on these samples",
        (*_misfit(module, shape), *said),
        f"Make it run in {framework.title} first ({framework.runs}).",
    )


def _misfit(module: nn.Module, shape: Sequence[int]) -> Iterator[str]:
    """Say what the first layer with weights takes, where samples (n, T, ...) have something else.

    Only the way of a sample through the module, which failed, would tell whether anything is
    turned on the way there, so this is for whoever gave the wrong shape, and no more.
    """
    for name, part in module.named_modules():
        if isinstance(part, nn.Linear | nn.Conv1d | nn.Conv2d):
            flat = isinstance(part, nn.Linear)
            takes = part.in_features if isinstance(part, nn.Linear) else part.in_channels
            if len(shape) > 2 and (takes != math.prod(shape[2:]) if flat else takes != shape[2]):
                yield (
                    f"{name or type(part).__name__}: the first layer takes {takes:,} "
                    f"{'inputs' if flat else 'channels'}; a step of these samples has the shape "
                    f"({', '.join(map(str, shape[2:]))})"
                )
            return
