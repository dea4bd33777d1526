"""What is said of a module that its own framework cannot run."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator, Sequence

from torch import nn

from osbc_deploy.errors import UnsupportedModelError
from osbc_deploy.frameworks.framework import Framework, kind_of

__all__ = ["also_acting", "cannot_run", "encoders"]


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
        (*_misfit(module, shape), *_demands(module, said), *said),
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


def _demands(module: nn.Module, said: Sequence[str]) -> Iterator[str]:
    """Say what a forward takes that it is not given, where it failed for that."""
    if not any("missing" in line and "required" in line for line in said):
        return
    taken = list(inspect.signature(module.forward).parameters.values())[1:]
    asked = [p.name for p in taken if p.default is p.empty and p.kind is p.POSITIONAL_OR_KEYWORD]
    if asked:
        yield (
            f"forward: takes {', '.join(asked)} beside the input; give what is no state a default, "
            "as in def forward(self, x, num_steps=25)"
        )


def encoders(module: nn.Module, framework: Framework) -> list[str]:
    """Say which layers of a framework make spikes of samples, which no chip does."""
    return [
        f"{name or 'model'}: {kind_of(part).__name__} makes spikes of samples, which are the input "
        "here; apply it to the samples, give what it returns as (n, T, ...), and leave it out of "
        "forward()"
        for name, part in module.named_modules()
        if kind_of(part).__name__.endswith(("Encoder", "EncoderStep"))
        and kind_of(part).__module__.split(".")[0] == framework.package
    ]


def also_acting(module: nn.Module) -> str:
    """Say what acts on layers, as an end of a remedy."""
    acting = ", ".join(_acting(module))
    return f" There are: {acting}." if acting else ""


def _acting(module: nn.Module) -> Iterator[str]:
    """Say what acts on layers that is not in them."""
    for name, part in module.named_modules():
        what = {
            "a forward hook": part._forward_hooks,
            "a forward pre-hook": part._forward_pre_hooks,
            "a replaced forward": "forward" in vars(part),
        }
        yield from (f"{kind} on {name or 'the model'}" for kind, there in what.items() if there)
    hooks = nn.modules.module
    if hooks._global_forward_hooks or hooks._global_forward_pre_hooks:
        yield "a hook on all modules"
