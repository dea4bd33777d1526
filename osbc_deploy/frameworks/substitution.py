"""Average pooling in the place of max pooling of currents: fitted, measured, and said.

No neuron takes the largest of several currents. Their average can be merged into the convolution
before it, but is less. So the averages of every channel are scaled and shifted to what the largest
were on calibration samples, one pooling after the other, each on what arrives from those before;
scale and shift go into the weights and biases of the layer that makes the currents. What the
exchange costs is measured with the framework's own forward, before and after.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn

from osbc_deploy.arrays import FloatArray, InputArray, IntArray
from osbc_deploy.errors import UnsupportedModelError, UsageError
from osbc_deploy.frameworks.calling import Call, undisturbed
from osbc_deploy.frameworks.comparing import answered
from osbc_deploy.frameworks.framework import Framework
from osbc_deploy.model.readout import NO_ANSWER

__all__ = ["SUBSTITUTIONS", "Substitution", "substituted"]

SUBSTITUTIONS = ("maxpool=avg",)
_MEMORY = 2**28
"""Bytes that the recordings of currents may take."""
_SAMPLES = 64
_FITS = ("least squares", "equal variance")
_MAKERS = (nn.Conv1d, nn.Conv2d, nn.BatchNorm1d, nn.BatchNorm2d)
_POOLS: dict[type[nn.Module], type[nn.Module]] = {
    nn.MaxPool1d: nn.AvgPool1d,
    nn.MaxPool2d: nn.AvgPool2d,
}


@dataclass(frozen=True, eq=False)
class Substitution:
    """What may be exchanged where a model cannot be represented as it is.

    Attributes
    ----------
    what : {"maxpool=avg"}
    labels : ndarray of int (n,) or None
        Of the samples that the model is read with.

    Raises
    ------
    UsageError
        When nothing is known of that name.
    """

    what: str
    labels: IntArray | None = None

    def __post_init__(self) -> None:
        if self.what not in SUBSTITUTIONS:
            raise UsageError(
                f"--substitute: {self.what!r} is not one of {', '.join(SUBSTITUTIONS)}. Leave it "
                "out, or give one of these."
            )


@dataclass
class _Seen:
    """What happened in a run: currents by the layer that made them, spikes, and the answer."""

    currents: dict[nn.Module, list[torch.Tensor]] = field(default_factory=dict)
    """What poolings gave, of each channel (channels, everything else)."""
    pools: dict[nn.Module, set[nn.Module | None]] = field(default_factory=dict)
    """The makers of the currents that poolings took; None for spikes, and for what none made."""
    spikes: dict[nn.Module, list[torch.Tensor]] = field(default_factory=dict)
    answer: FloatArray = field(default_factory=lambda: np.zeros((0, 0)))


@contextmanager
def substituted(
    module: nn.Module,
    framework: Framework,
    samples: InputArray | None,
    asked: Substitution | None,
) -> Iterator[list[str]]:
    """Exchange what was asked for in a module while the context lasts.

    Parameters
    ----------
    module : torch.nn.Module
    framework : Framework
    samples : ndarray of uint8 (n, T, ...) or None
    asked : Substitution or None

    Yields
    ------
    list of str
        What was exchanged, and what it costs; empty where there was nothing to exchange.

    Raises
    ------
    UsageError
        Without samples to measure on.
    UnsupportedModelError
        Where a pooling takes currents that no convolution or BatchNorm gives it.
    """
    if asked is None:
        yield []
        return
    if samples is None:
        raise UsageError("--substitute: what it costs is measured on samples. Give --calibration.")
    with undisturbed(module):
        places = [(parent, name) for parent in module.modules() for name in parent._modules]
        before = {place: place[0]._modules[place[1]] for place in places}
        try:
            yield _exchange(module, framework, samples, asked.labels)
        finally:
            for (parent, name), child in before.items():
                parent._modules[name] = child
            framework.reset(module)


def _exchange(
    module: nn.Module, framework: Framework, samples: InputArray, labels: IntArray | None
) -> list[str]:
    call = _call(module, framework, samples)
    if call is None:
        # Why it cannot be run is said where it is read.
        return []
    first = _run(module, framework, call, samples[:1])
    size = sum(t.numel() * 4 for parts in first.currents.values() for t in parts)
    count = int(np.clip(_MEMORY // max(1, 2 * size), 1, min(len(samples), _SAMPLES)))
    chosen = [number * len(samples) // count for number in range(count)]
    samples = samples[chosen]
    wanted = _run(module, framework, call, samples)
    names = {m: name for name, m in module.named_modules()}
    pools = [pool for pool, makers in wanted.pools.items() if makers != {None}]
    if lost := [names[p] for p in pools if None in wanted.pools[p]]:
        raise UnsupportedModelError(
            "--substitute: poolings of which not all take the currents of a layer",
            [f"{name}: takes spikes, or what no convolution or BatchNorm gave it" for name in lost],
            "Put each of them right behind a convolution or BatchNorm, and give spikes one of "
            "their own.",
        )
    if not pools:
        return []
    makers = [m for m in wanted.currents if any(m in wanted.pools[p] for p in pools)]
    for pool in pools:
        _replace(module, pool, _average(pool))
    held = [{k: v.clone() for k, v in m.state_dict().items()} for m in makers]
    runs: dict[str, tuple[_Seen, list[dict[str, torch.Tensor]]]] = {}
    for how in _FITS:
        for maker, state in zip(makers, held, strict=True):
            _restore(maker, state)
        for maker in makers:
            seen = _run(module, framework, call, samples)
            _fit(maker, wanted.currents[maker], seen.currents[maker], how)
        states = [{k: v.clone() for k, v in m.state_dict().items()} for m in makers]
        runs[how] = (_run(module, framework, call, samples), states)
    best = min(runs, key=lambda how: float(((runs[how][0].answer - wanted.answer) ** 2).sum()))
    after, states = runs[best]
    for maker, state in zip(makers, states, strict=True):
        _restore(maker, state)
    known = None if labels is None else labels[chosen]
    return [
        f"{', '.join(names[p] for p in pools)}: average pooling in the place of max pooling of "
        f"currents (maxpool=avg), weights and biases of {', '.join(names[m] for m in makers)} "
        f"refitted ({best})",
        f"maxpool=avg costs, by {framework.title}'s own forward on {count} calibration samples: "
        + _cost(wanted, after, known, names),
    ]


def _call(module: nn.Module, framework: Framework, samples: InputArray) -> Call | None:
    """Return the first way of calling a module that it takes."""
    for call in framework.calls:
        try:
            answered(module, framework, call, samples[:2])
        except (Exception, SystemExit):  # noqa: BLE001, S112 - any forward may do anything
            continue
        return call
    return None


def _run(module: nn.Module, framework: Framework, call: Call, samples: InputArray) -> _Seen:
    """Run a module and keep what poolings and neurons gave."""
    seen = _Seen()
    made: list[tuple[nn.Module, torch.Tensor, int]] = []

    def makes(layer: nn.Module, given: Any, answer: torch.Tensor) -> None:
        made[:] = [(layer, answer, answer._version)]

    def pools(layer: nn.Module, given: Any, answer: torch.Tensor) -> None:
        taken = given[0]
        maker = None
        if made and not ((taken == 0) | (taken == 1)).all():
            last, output, version = made[0]
            same = taken.data_ptr() == output.data_ptr() and taken.numel() == output.numel()
            maker = last if same and output._version == version else None
        seen.pools.setdefault(layer, set()).add(maker)
        if maker is not None:
            channels = -2 if isinstance(layer, nn.MaxPool1d | nn.AvgPool1d) else -3
            flat = answer.detach().movedim(channels, 0).flatten(1)
            seen.currents.setdefault(maker, []).append(flat.clone())

    def fires(layer: nn.Module, given: Any, answer: Any) -> None:
        first = answer[0] if isinstance(answer, tuple | list) else answer
        if isinstance(first, torch.Tensor):
            seen.spikes.setdefault(layer, []).append(first.detach() != 0)

    hooks = []
    for layer in module.modules():
        if isinstance(layer, _MAKERS):
            hooks.append(layer.register_forward_hook(makes))
        elif isinstance(layer, (*_POOLS, *_POOLS.values())):
            hooks.append(layer.register_forward_hook(pools))
        elif framework.neurons and isinstance(layer, framework.neurons):
            hooks.append(layer.register_forward_hook(fires))
    try:
        answer = answered(module, framework, call, samples)[0]
    finally:
        for hook in hooks:
            hook.remove()
    n, steps = samples.shape[:2]
    if answer.ndim > 2 and answer.shape[:2] in ((steps, n), (n, steps)):
        answer = answer.sum(axis=int(answer.shape[:2] != (steps, n)))
    seen.answer = answer.reshape(n, -1).astype(np.float64)
    return seen


def _average(pool: Any) -> nn.Module:
    """Return an average pooling of the windows of a pooling by maximum."""
    # The framework's own version keeps the time axis as the pooling does.
    kind: Any = next(average for largest, average in _POOLS.items() if isinstance(pool, largest))
    name: str = kind.__name__
    for base in type(pool).__mro__:
        package = sys.modules[base.__module__]
        if base.__name__ == name.replace("Avg", "Max") and hasattr(package, name):
            kind = getattr(package, name)
            break
    made: nn.Module = kind(pool.kernel_size, pool.stride, pool.padding, pool.ceil_mode)
    if hasattr(pool, "step_mode"):
        made.step_mode = pool.step_mode
    return made.eval()


def _replace(module: nn.Module, old: nn.Module, new: nn.Module) -> None:
    for parent in list(module.modules()):
        for name, child in parent._modules.items():
            if child is old:
                parent._modules[name] = new


def _fit(maker: Any, wanted: list[torch.Tensor], given: list[torch.Tensor], how: str) -> None:
    """Scale and shift the channels of a layer so that averages are what the largest were."""
    y, x = (torch.cat(parts, 1).double() for parts in (wanted, given))
    varies = x.var(1, correction=0)
    if how == "least squares":
        spread = ((x - x.mean(1, True)) * (y - y.mean(1, True))).mean(1)
    else:
        spread = (varies * y.var(1, correction=0)).sqrt()
    scale = torch.where(varies > 0, spread / varies, torch.ones_like(varies))
    shift = y.mean(1) - scale * x.mean(1)
    weight = maker.weight.detach()
    many = scale.reshape(-1, *(1,) * (weight.ndim - 1))
    bias = torch.zeros_like(shift) if maker.bias is None else maker.bias.detach().double()
    maker.weight = nn.Parameter((weight.double() * many).to(weight.dtype))
    maker.bias = nn.Parameter((bias * scale + shift).to(weight.dtype))


def _restore(maker: Any, state: dict[str, torch.Tensor]) -> None:
    maker.weight = nn.Parameter(state["weight"].clone())
    maker.bias = nn.Parameter(state["bias"].clone()) if "bias" in state else None


def _cost(wanted: _Seen, after: _Seen, labels: IntArray | None, names: dict[nn.Module, str]) -> str:
    a, b = (_classes(seen.answer) for seen in (wanted, after))
    parts = [f"{int((a != b).sum())} of {len(a)} get another class"]
    if labels is not None:
        right = (f"{float((found == labels).mean()):.2%}" for found in (a, b))
        parts.insert(0, f"accuracy {' to '.join(right)}")
    differ = [
        f"{names[layer]} {_share(spikes, after.spikes[layer]):.2%}"
        for layer, spikes in wanted.spikes.items()
        if layer in after.spikes
    ]
    if differ:
        parts.append(f"spikes that differ: {', '.join(differ)}")
    return "; ".join(parts)


def _classes(answer: FloatArray) -> IntArray:
    silent = (answer == answer[:, :1]).all(axis=1) & (answer.shape[1] > 1)
    return np.where(silent, NO_ANSWER, answer.argmax(axis=1))


def _share(one: list[torch.Tensor], other: list[torch.Tensor]) -> float:
    pairs = list(zip(one, other, strict=True))
    return sum(int((a != b).sum()) for a, b in pairs) / max(1, sum(a.numel() for a, _ in pairs))
