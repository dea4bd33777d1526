"""Hold what was read from a module against the framework's own forward.

Reading what is registered is not reading what is computed: hooks, a replaced forward, neurons that
are used twice or start elsewhere, code between the layers. So every import is run beside the module
itself, spike by spike at its output and at every neuron layer whose calls can be watched, and
refused where the two differ.

Folding a BatchNorm or a pooling rounds differently, and a spike may be decided by that. Where the
two differ in the model's own precision, double precision decides: there rounding moves no spike.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import TypeAlias

import numpy as np
import torch
from torch import nn

from osbc_deploy.arrays import SpikeArray
from osbc_deploy.errors import UnsupportedModelError, reason
from osbc_deploy.frameworks.calling import (
    Call,
    called,
    described,
    evaluated,
    time_first,
    undisturbed,
)
from osbc_deploy.frameworks.comparing import (
    Data,
    Difference,
    Proof,
    answered,
    as_input,
    choose,
    compared,
    moved,
)
from osbc_deploy.frameworks.finite import check_finite, check_weights
from osbc_deploy.frameworks.framework import Framework, Placed, Reading
from osbc_deploy.frameworks.substitution import Substitution, substituted
from osbc_deploy.model.graph import Network

__all__ = ["proven"]

_REMEDY = (
    "Only what the layers themselves compute can be imported. Leave out what else acts on them "
    "(hooks, a replaced forward, functions between layers, other initial states, a neuron layer "
    "used twice) and train the network without it."
)
_TIED = (
    "Its potentials meet thresholds exactly, and a BatchNorm or pooling that is folded into "
    "weights rounds otherwise. Pool behind neurons, or train with other thresholds."
)
_STEPS = (
    "Have forward() take one time step, or all of them, and call each neuron layer once in each: "
    "not once more, and not in a loop of its own over an input that stays the same."
)
_ANSWER = (
    "Have forward() answer with what the last neuron layer gives: its spikes, or its potentials if "
    "it never resets; of all steps, or their sum, mean, maximum or last; alone or in a tuple."
)
_REMEDIES = {"": _REMEDY, "tied": _TIED, "steps": _STEPS, "answer": _ANSWER}
_ROUNDED = 0.01
"""Share of a layer's spikes that rounding in single precision may move."""

Read: TypeAlias = Callable[[Sequence[Placed] | None], Reading]


def proven(
    module: nn.Module,
    framework: Framework,
    read: Read,
    samples: SpikeArray | None,
    substitute: Substitution | None = None,
) -> Network:
    """Return what is read from a module, once it computes what the module itself computes.

    The module is called once before it is read, so that weights which a pre-hook computes
    (weight_norm, spectral_norm, pruning) are the ones that its forward uses. It is left as it was,
    its state reset.

    Parameters
    ----------
    module : torch.nn.Module
    framework : Framework
    read : callable
        Reads the module as it is at that time; takes its layers in the order they are called, or
        None if that is the order they were registered in.
    samples : ndarray of uint8 (n, T, ...), or None
        Without samples nothing is proven, and modules of the user's own are refused.
    substitute : Substitution, optional
        What is exchanged in the module before; then it is held against what that makes of it.

    Raises
    ------
    UnsupportedModelError
        When parts cannot be represented, the module cannot be run, or it computes something else.
    ArtefactError
        When weights are NaN or infinite.
    """
    check_finite(module, framework)
    with substituted(module, framework, samples, substitute) as said:
        network = _proven(module, framework, read, samples)
    return replace(network, warnings=(*network.warnings, *said))


def _proven(
    module: nn.Module, framework: Framework, read: Read, samples: SpikeArray | None
) -> Network:
    own = framework.own(module)
    if samples is None:
        with evaluated(module):
            network = read(None).network
        if own:
            raise UnsupportedModelError(
                f"{', '.join(own)}: what forward() computes is known only from running it",
                remedy="Give samples, on which the import is held against it.",
            )
    else:
        try:
            with undisturbed(module):
                network = _held(module, framework, read, samples, own)
        finally:
            framework.reset(module)
    if _is_half(module):
        said = "half-precision weights are simulated in float32"
        network = replace(network, notes=(*network.notes, said))
    return network


def _is_half(module: nn.Module) -> bool:
    return any(p.dtype in (torch.float16, torch.bfloat16) for p in module.parameters())


def _held(
    module: nn.Module,
    framework: Framework,
    read: Read,
    samples: SpikeArray,
    own: list[str],
) -> Network:
    if _is_half(module):
        module.float()
    said: list[str] = []
    runs = [call for call in framework.calls if _can(module, framework, call, samples, said)]
    if own and not runs:
        raise _cannot_run(type(module).__name__, framework, said)
    order = _order(module, framework, runs, samples) if own else None
    reading = _read(read, order, own)
    network = reading.network
    check_weights(network)
    if reading.traced or not own:
        usual = time_first if reading.over_time else framework.calls[0]
        runs = [call for call in runs if call is usual]
        said = [line for line in said if line.startswith(f"{described(usual)}: ")]
    if not runs:
        raise _cannot_run(network.source, framework, said)
    data = choose(network, samples)
    differences: list[Difference] = []
    proof, note = None, ""
    for call in runs:
        found = compared(module, framework, reading, call, data)
        if isinstance(found, Proof):
            proof = found
            break
        differences.append(found)
    if proof is None:
        # Other ways of calling it differ in more.
        least = min(differences, key=lambda d: d.rank)
        wide = _in_double(module, framework, partial(_read, read, order, own), least, data)
        if isinstance(wide, Difference):
            raise _refusal(module, framework, network.source, wide, data, said)
        proof = wide
        layer, share = moved(module, framework, reading, least.call, data)
        if share > _ROUNDED:
            raise UnsupportedModelError(
                f"{network.source}: rounding in single precision decides too many of its spikes",
                (
                    f"{layer}: {share:.1%} of its spikes are others than {framework.title}'s, "
                    f"{_ROUNDED:.0%} may be",
                ),
                _TIED,
            )
        note = " in double precision; in single precision rounding shows"
        note += f" (at most {share:.2g} of a layer's spikes, in {layer})" if share else ""
    if own and not reading.traced and network.output.name not in proof.active:
        raise UnsupportedModelError(
            f"{', '.join(own)}: the output is silent on these samples",
            (f"{network.output.name}: never fires",),
            "Give samples on which it fires; without them nothing shows what forward() does with "
            "its spikes.",
        )
    whose = f"verified against {framework.title}'s"
    if own:
        whose = f"{', '.join(own)} verified against its"
    return replace(network, notes=(*network.notes, *proof.notes(network, data, whose, note)))


def _cannot_run(source: str, framework: Framework, said: Sequence[str]) -> UnsupportedModelError:
    return UnsupportedModelError(
        f"{source}: {framework.title} itself cannot run it on these samples",
        said,
        f"Make it run in {framework.title} first ({framework.runs}).",
    )


def _read(read: Read, order: Sequence[Placed] | None, own: Sequence[str]) -> Reading:
    """Read a module as it calls its layers, or as it registered them where that is no stack."""
    faults = []
    for layers in (None,) if order is None else (order, None):
        try:
            return read(layers)
        except UnsupportedModelError as error:  # noqa: PERF203 - two turns
            faults.append(error)
    least = min(faults, key=lambda e: len(e.offenders))
    if not own:
        raise least
    how = "they were registered" if order is None or least is not faults[0] else "it calls them"
    raise UnsupportedModelError(
        least.summary,
        least.offenders,
        f"{least.remedy} Of {', '.join(own)}, layers are read in the order in which {how}; what "
        "forward() computes between them in functions (such as max_pool2d), branches, and answers "
        "it leaves unused are not.",
    )


def _can(
    module: nn.Module, framework: Framework, call: Call, samples: SpikeArray, said: list[str]
) -> bool:
    """Tell whether a module can be called in some way; `said` takes why not."""
    x = as_input(module, samples[:2])
    try:
        framework.reset(module)
        call(module, x)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - any forward may do anything
        said.append(f"{described(call)}: raises {type(error).__name__}: {reason(error)}")
        return False
    return True


def _order(
    module: nn.Module, framework: Framework, runs: Sequence[Call], samples: SpikeArray
) -> list[Placed] | None:
    """Return the layers of a module in the order it calls them in a time step.

    None where it does not say: it cannot run a single step, or calls a cell several times in one.
    """
    for call in runs:
        framework.reset(module)
        with called(framework.walk(module)) as order:
            try:
                call(module, as_input(module, samples[:2, :1]))
            except (Exception, SystemExit):  # noqa: BLE001, S112 - another way of calling may do
                continue
        cells = [path for path, layer in order if isinstance(layer, framework.neurons)]
        if cells and len(set(cells)) == len(cells):
            again = Counter[str]()
            for number, (path, layer) in enumerate(order):
                again[path] += 1
                order[number] = (path if again[path] == 1 else f"{path}#{again[path]}", layer)
            return order
    return None


def _in_double(
    module: nn.Module,
    framework: Framework,
    read: Callable[[], Reading],
    found: Difference,
    data: Data,
) -> Proof | Difference:
    """Tell whether a difference is one of rounding: compare again in double precision.

    The module is widened in place, as closures such as hooks go on naming it, and read again.
    """
    with undisturbed(module):
        module.double()
        with framework.widened(module):
            said: list[str] = []
            if _can(module, framework, found.call, data.sets[0][1], said):
                return compared(module, framework, read(), found.call, data)
    why = f"{found.what}; it cannot be run in double precision, where none may ({said[0]})"
    return replace(found, what=why)


def _refusal(
    module: nn.Module,
    framework: Framework,
    source: str,
    difference: Difference,
    data: Data,
    failed: Sequence[str],
) -> UnsupportedModelError:
    found = [f"{difference.layer}: {difference.what}"]
    if not _repeats(module, framework, difference.call, data):
        found.append("forward: answers differently when it is called again with the same samples")
    remedy = _REMEDIES[difference.kind]
    if acting := ", ".join(_acting(module)):
        remedy += f" There are: {acting}."
    if failed:
        remedy += f" It was not called otherwise ({'; '.join(failed)})."
    return UnsupportedModelError(
        f"{source}: the import does not compute what {framework.title}'s own forward computes "
        f"({described(difference.call)})",
        found,
        remedy,
    )


def _repeats(module: nn.Module, framework: Framework, call: Call, data: Data) -> bool:
    """Tell whether a module gives the same answer twice."""
    _, spikes, _ = next(data.batches())
    with undisturbed(module):
        try:
            first, second = (answered(module, framework, call, spikes) for _ in range(2))
        except (Exception, SystemExit):  # noqa: BLE001 - what it raises was said before
            return True
    same = (np.array_equal(a, b, equal_nan=True) for a, b in zip(first, second, strict=False))
    return len(first) == len(second) and all(same)


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
