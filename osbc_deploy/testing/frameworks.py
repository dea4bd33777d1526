"""Whether what is read from a framework's modules computes what the modules compute."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import nn

from osbc_deploy.arrays import FloatArray, SpikeArray
from osbc_deploy.errors import OsbcError, UnsupportedModelError
from osbc_deploy.frameworks.plugin import FRAMEWORKS, FrameworkPlugin
from osbc_deploy.model.graph import Network
from osbc_deploy.model.simulate import simulate

__all__ = ["assert_framework_exact"]

Make: TypeAlias = Callable[[], nn.Module]
Forward: TypeAlias = Callable[[nn.Module, torch.Tensor], torch.Tensor]

_SAMPLES, _STEPS = 5, 18
_RATE = 0.4
"""Spikes per input and step of the samples."""
_SCALES = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0)
"""Sizes of the weights into a neuron that are tried until the output is active."""
_MEAN = 0.2
"""Mean of the weights, in their deviations, so that spikes excite more than they inhibit."""
_ACTIVE = 0.01
"""Share of the outputs that are not 0 from which a comparison says something."""


@dataclass(frozen=True, eq=False)
class _Drawn:
    """A random module, its samples, and what it answers to them."""

    title: str
    module: nn.Module
    weighted: tuple[nn.Module, ...]
    spikes: SpikeArray
    x: torch.Tensor
    """(T, n, ...)."""


def assert_framework_exact(
    framework: FrameworkPlugin | str | Callable[..., Network],
    neurons: Mapping[str, Make],
    *,
    forward: Forward,
    stack: Callable[[Sequence[nn.Module]], nn.Module] = lambda layers: nn.Sequential(*layers),
    readouts: Mapping[str, Make] | None = None,
    dtypes: Sequence[torch.dtype] = (torch.float32, torch.float64),
    n: int = 20,
    start: int = 0,
) -> Counter[str]:
    """Make sure that networks read from a framework's modules compute what the modules compute.

    Random stacks of torch's layers and the framework's neurons, in single and double precision, are
    read and run on random samples. Every output must be that of the framework's own forward, bit
    for bit. The module must be left as it was, and where a hook changes its forward, what is read
    must compute that as well, or be refused.

    Parameters
    ----------
    framework : FrameworkPlugin, str or callable
        What the plugin registers, the name of one that is installed, or what reads modules.
    neurons : dict of callable
        Make a layer of spiking neurons each, for any number of them; by what messages call it.
        All are tried in turn. What they draw by torch's random numbers depends on `start` alone.
    forward : callable
        ``forward(module, x)`` runs the module from its initial state on input (T, n, ...), in the
        way that the framework's users do, and returns its output (T, n, ...).
    stack : callable
        Makes a module of layers, as the framework's users do; torch's Sequential by default.
    readouts : dict of callable, optional
        Make layers that never fire, whose potential is the answer; tried as the last layer.
    dtypes : sequence of torch.dtype
        Precisions that the framework runs in, tried in turn.
    n : int
        Modules to read.
    start : int
        Seed of the modules.

    Returns
    -------
    Counter
        Numbers compared by kind of neuron.

    Raises
    ------
    AssertionError
        With the first difference.
    """
    plugin = FRAMEWORKS.load(framework) if isinstance(framework, str) else framework
    read = plugin.read if isinstance(plugin, FrameworkPlugin) else plugin
    kinds: list[tuple[str, Make, Make | None]]
    kinds = [(name, make, None) for name, make in neurons.items()]
    first = next(iter(neurons.values()))
    kinds += [(name, first, make) for name, make in (readouts or {}).items()]
    counted: Counter[str] = Counter()
    for number in range(n):
        name, make, last = kinds[number % len(kinds)]
        drawn, expected = _drawn(number, name, make, last, stack, forward, dtypes, start)
        network = _read(read, drawn)
        found = simulate(network, drawn.spikes).output
        _assert_equal(drawn.title, found, expected)
        again = _answer(forward, drawn)
        if not np.array_equal(again, expected):
            raise AssertionError(
                f"{drawn.title}: after it was read, the module itself gives another output. "
                "Reading it must leave its weights and its state as they were."
            )
        counted[name] += expected.size
        if number < len(kinds):
            _assert_noticed(read, forward, drawn, expected)
    return counted


def _drawn(
    number: int,
    name: str,
    make: Make,
    last: Make | None,
    stack: Callable[[Sequence[nn.Module]], nn.Module],
    forward: Forward,
    dtypes: Sequence[torch.dtype],
    start: int,
) -> tuple[_Drawn, FloatArray]:
    """Draw a module whose output is active, with what it answers."""
    about = ""
    for scale in _SCALES:
        rng = np.random.default_rng((start, number))
        torch.manual_seed(int(rng.integers(2**31)))
        dtype = dtypes[number % len(dtypes)]
        layers, shape, title = _layers(rng, make, last)
        weighted = tuple(m for m in layers if isinstance(m, nn.Linear | nn.Conv2d))
        with torch.no_grad():
            for layer in weighted:
                fan_in = layer.weight[0].numel()
                layer.weight.normal_(_MEAN, 1.0).mul_(scale / fan_in**0.5)
        module = stack(layers).to(dtype).eval()
        spikes = (rng.random((_SAMPLES, _STEPS, *shape)) < _RATE).astype(np.uint8)
        x = torch.from_numpy(np.moveaxis(spikes, 1, 0).copy()).to(dtype)
        about = f"{name}, module {number} of start {start} ({title}; {str(dtype)[6:]})"
        drawn = _Drawn(about, module, weighted, spikes, x)
        expected = _answer(forward, drawn)
        if np.count_nonzero(expected) >= _ACTIVE * expected.size:
            return drawn, expected
    raise AssertionError(
        f"{about}: its output is silent whatever its weights, so nothing can be compared. Give "
        "neurons that fire at inputs between 1 and 100."
    )


def _layers(
    rng: np.random.Generator, make: Make, last: Make | None
) -> tuple[list[nn.Module], tuple[int, ...], str]:
    """Return random layers, the shape of their input, and what they are."""
    layers: list[nn.Module] = []
    size = int(rng.integers(3, 12))
    shape: tuple[int, ...] = (size,)
    if rng.integers(2):
        channels, side = int(rng.integers(1, 4)), int(rng.integers(4, 7))
        out = int(rng.integers(2, 5))
        shape = (channels, side, side)
        layers += [nn.Conv2d(channels, out, 3, padding=1, bias=bool(rng.integers(2))), make()]
        if rng.integers(2):
            layers.append(nn.AvgPool2d(2))
            side //= 2
        layers.append(nn.Flatten())
        size = out * side * side
    for _ in range(int(rng.integers(1, 3))):
        wide = int(rng.integers(3, 10))
        layers += [nn.Linear(size, wide, bias=bool(rng.integers(2))), make()]
        size = wide
    if last is not None:
        layers[-1] = last()
    return layers, shape, ", ".join(type(layer).__name__ for layer in layers)


def _answer(forward: Forward, drawn: _Drawn) -> FloatArray:
    """Return what a module answers, (n, T, ...)."""
    with torch.no_grad():
        answer = forward(drawn.module, drawn.x)
    if not isinstance(answer, torch.Tensor) or answer.shape[:2] != drawn.x.shape[:2]:
        got = tuple(answer.shape) if isinstance(answer, torch.Tensor) else type(answer).__name__
        raise AssertionError(f"forward: answers {got} to input of {tuple(drawn.x.shape)}")
    found: FloatArray = answer.transpose(0, 1).numpy()
    return found


def _read(read: Callable[..., Any], drawn: _Drawn) -> Network:
    shape = drawn.spikes.shape[2:]
    try:
        network = read(drawn.module, shape, source=drawn.title, samples=drawn.spikes)
    except OsbcError as error:
        raise AssertionError(f"{drawn.title}: was refused: {error}") from error
    if not isinstance(network, Network):
        raise AssertionError(f"{drawn.title}: was read as a {type(network).__name__}")
    return network


def _assert_equal(title: str, found: FloatArray, expected: FloatArray) -> None:
    if found.shape != expected.shape:
        raise AssertionError(
            f"{title}: what was read answers in shape {found.shape}, the framework in "
            f"{expected.shape}"
        )
    wrong = np.argwhere(found != expected)
    if len(wrong):
        # Of all differences, the earliest step holds the cause.
        at = tuple(wrong[np.lexsort((wrong[:, 0], wrong[:, 1]))[0]])
        sample, step, *neuron = map(int, at)
        raise AssertionError(
            f"{title}: {len(wrong)} of {expected.size} outputs are not the framework's: first in "
            f"sample {sample}, step {step}, neuron {', '.join(map(str, neuron))}, where the "
            f"framework gives {expected[at]} and what was read {found[at]}"
        )


def _assert_noticed(
    read: Callable[..., Any], forward: Forward, drawn: _Drawn, expected: FloatArray
) -> None:
    """Make sure that a module is held against its forward, which a hook changes here."""
    # It shows on real samples alone, as code of a user's own may.
    hook = drawn.weighted[-1].register_forward_hook(
        lambda layer, given, answer: -answer if given[0].any() else answer
    )
    try:
        changed = _answer(forward, drawn)
        if np.array_equal(changed, expected):
            return
        network = read(
            drawn.module, drawn.spikes.shape[2:], source=drawn.title, samples=drawn.spikes
        )
        if np.array_equal(simulate(network, drawn.spikes).output, changed):
            return
    except UnsupportedModelError:
        return
    finally:
        hook.remove()
    raise AssertionError(
        f"{drawn.title}: a hook that changes what its forward computes goes unnoticed. Hold what "
        "is read against the forward, as osbc_deploy.frameworks.proof.ProvenReader does."
    )
