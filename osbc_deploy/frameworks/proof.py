"""Hold what was read from a module against the framework's own forward.

Reading what is registered is not reading what is computed: hooks, a replaced forward, neurons that
are used twice or start elsewhere, code between the layers. So every import is run beside the module
itself, spike by spike at its output and at every neuron layer whose calls can be watched, and
refused where the two differ.

Folding a BatchNorm or a pooling rounds differently, and a spike may be decided by that. Where the
two differ in the model's own precision, double precision decides: there rounding moves no spike.
What it moves in single precision is measured (:mod:`.rounding`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from torch import nn

from osbc_deploy.arrays import InputArray
from osbc_deploy.errors import UnsupportedModelError, reason
from osbc_deploy.frameworks.calling import (
    TIME_BEHIND,
    Call,
    described,
    double_by_default,
    is_half,
    stays,
    still,
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
    encoder,
)
from osbc_deploy.frameworks.failing import also_acting, cannot_run
from osbc_deploy.frameworks.finite import check_finite, check_weights
from osbc_deploy.frameworks.framework import Framework, Reading
from osbc_deploy.frameworks.hosting import HostPrefix
from osbc_deploy.frameworks.reading import read_call
from osbc_deploy.frameworks.repeats import TakesStepsError
from osbc_deploy.frameworks.rounding import TIED, rounded
from osbc_deploy.frameworks.substitution import Substitution, substituted
from osbc_deploy.model.graph import Network, Shape
from osbc_deploy.options.notation import Readout

__all__ = ["ProvenReader"]

_REMEDY = (
    "Only what the layers themselves compute can be imported. Leave out what else acts on them "
    "(hooks, a replaced forward, functions between layers, other initial states, a neuron layer "
    "used twice) and train the network without it."
)
_STEPS = (
    "Have forward() take one time step, or all of them, and call each neuron layer once in each: "
    "not once more, and not in a loop of its own unless samples stay the same (--repeat T)."
)
_ANSWER = (
    "Have forward() answer with what the last neuron layer gives: its spikes, or its potentials if "
    "it never resets; of all steps, or their sum, mean, maximum or last; alone or in a tuple. "
    "Where N in a row vote for a class, answer with their mean (AvgPool1d(N))."
)
_REMEDIES = {"": _REMEDY, "tied": TIED, "steps": _STEPS, "answer": _ANSWER}
_TRACED = 2
"""Samples on which a forward is traced: two tell a batch from a sample."""


@dataclass(frozen=True, eq=False)
class ProvenReader:
    """Turns modules of a framework into float networks, once these compute what the modules do.

    A module is called before it is read, so that weights which a pre-hook computes (weight_norm,
    spectral_norm, pruning) are the ones that its forward uses. It is left as it was, its state
    reset.
    """

    framework: Framework

    def __call__(
        self,
        module: nn.Module,
        input_shape: Shape,
        *,
        source: str = "",
        samples: InputArray | None = None,
        substitute: Substitution | None = None,
        host: HostPrefix | None = None,
    ) -> Network:
        """Return what is read from a module.

        Parameters
        ----------
        module : torch.nn.Module
            A container of the framework's layers, nested as deep as one likes, or a module of
            one's own that calls them.
        input_shape : tuple of int
            Shape of one time step of one sample, such as (2, 34, 34).
        source : str
            Name of the model for the report.
        samples : ndarray of uint8 (n, T, *input_shape), optional
            Real samples, on which it must compute what the framework computes. Without them nothing
            is proven, and a module of one's own is refused.
        substitute : Substitution, optional
            What is exchanged in the module before; then it is held against what that makes of it.
            See :mod:`osbc_deploy.frameworks.substitution`.
        host : HostPrefix, optional
            What runs on the host, which is given what makes spikes of samples. See
            :mod:`osbc_deploy.frameworks.hosting`.

        Raises
        ------
        UnsupportedModelError
            With every part that cannot be represented, and where it is; when the module cannot be
            run; or with the first layer that computes something else.
        ArtefactError
            When weights or parameters are NaN or infinite.
        """
        check_finite(module, self.framework)
        with substituted(module, self.framework, samples, substitute) as said:
            network = _proven(module, self.framework, input_shape, samples, source, host)
        return replace(network, warnings=(*network.warnings, *said))


def _proven(
    module: nn.Module,
    framework: Framework,
    input_shape: Shape,
    samples: InputArray | None,
    source: str,
    host: HostPrefix | None,
) -> Network:
    own = framework.own(module)
    source = source or type(module).__name__
    try:
        with undisturbed(module):
            half = is_half(module)
            if half:
                module.float()
            if samples is None:
                nothing = np.zeros((_TRACED, 3, *input_shape), np.uint8)
                runs = _ways(module, framework, own)
                network = next(
                    iter(_readings(module, framework, runs, nothing, source, host).values())
                ).network
            else:
                network = _held(module, framework, samples, source, own, host)
    finally:
        framework.reset(module)
    if own and samples is None:
        raise UnsupportedModelError(
            f"{', '.join(own)}: what forward() computes is known only from running it",
            remedy="Give samples, on which the import is held against it.",
        )
    if half:
        said = "half-precision weights are simulated in float32"
        network = replace(network, notes=(*network.notes, said))
    return network


def _read(
    module: nn.Module,
    framework: Framework,
    samples: InputArray,
    source: str,
    host: HostPrefix | None,
    call: Call,
) -> Reading:
    """Read a module as it computes on a few samples when it is called in some way."""
    shown = as_input(module, np.resize(samples[:_TRACED], (_TRACED, *samples.shape[1:])))
    return read_call(module, framework, call, shown, source=source, host=host)


def _ways(module: nn.Module, framework: Framework, own: list[str]) -> list[Call]:
    """Return how a module may be called, first the usual way."""
    usual = framework.usual(module)
    return [usual, *(c for c in framework.calls if c is not usual)] if own else [usual]


def _readings(
    module: nn.Module,
    framework: Framework,
    runs: Sequence[Call],
    samples: InputArray,
    source: str,
    host: HostPrefix | None,
) -> dict[Call, Reading]:
    """Read a module in each way of calling it; it is refused where none can be read."""
    found: dict[Call, Reading] = {}
    faults: list[UnsupportedModelError] = []
    taken: list[UnsupportedModelError] = []
    for call in runs:
        try:
            found[call] = _read(module, framework, samples, source, host, call)
        except TakesStepsError as error:  # noqa: PERF203 - a few turns
            taken.append(error)
        except UnsupportedModelError as error:
            faults.append(error)
    if not found:
        # Encoders take what stays the same, and make steps of it.
        raise _least(module, faults or taken, framework.own(module))
    return found


def _held(
    module: nn.Module,
    framework: Framework,
    samples: InputArray,
    source: str,
    own: list[str],
    host: HostPrefix | None,
) -> Network:
    said: list[str] = []
    ways = _ways(module, framework, own)
    if own and stays(samples):
        ways.append(still)
    runs = [call for call in ways if _can(module, framework, call, samples, said)]
    try:
        if own and not runs:
            raise cannot_run(source, framework, said, module, samples.shape)
        # What a container holds says more than how it fails.
        readings = _readings(module, framework, runs or ways, samples, source, host)
        if not runs:
            raise cannot_run(source, framework, said, module, samples.shape)
        return _shown(module, framework, samples, source, own, host, readings, said)
    except UnsupportedModelError as refused:
        behind = [c for c in TIME_BEHIND if own and _can(module, framework, c, samples, [])]
        if not behind:
            raise
        try:
            readings = _readings(module, framework, behind, samples, source, host)
            return _shown(module, framework, samples, source, own, host, readings, said)
        except UnsupportedModelError as also:
            raise (refused if runs else also) from None


def _shown(
    module: nn.Module,
    framework: Framework,
    samples: InputArray,
    source: str,
    own: list[str],
    host: HostPrefix | None,
    readings: Mapping[Call, Reading],
    said: Sequence[str],
) -> Network:
    """Return what was read in the first way of calling a module in which it computes the same."""
    differences: list[Difference] = []
    proof, note = None, ""
    warned: tuple[str, ...] = ()
    for call, reading in readings.items():
        check_weights(reading.network)
        data = choose(reading.network, samples, still=call is still)
        found = compared(module, framework, reading, call, data)
        if isinstance(found, Proof):
            proof = found
            break
        differences.append(found)
    if proof is None:
        # Other ways of calling it differ in more.
        least = min(differences, key=lambda d: d.rank)
        reading, read = (
            readings[least.call],
            partial(_read, module, framework, samples, source, host),
        )
        wide = _in_double(module, framework, partial(read, least.call), least, data)
        if isinstance(wide, Difference):
            raise _refusal(module, framework, source, wide, data, said)
        proof = wide
        note, warned = rounded(module, framework, reading, least.call, data)
    network = reading.network
    if host is not None:
        host.encode = encoder(module, framework, reading, proof.call, data.batch)
    if own and not reading.followed and network.output.name not in proof.active:
        raise UnsupportedModelError(
            f"{', '.join(own)}: the output is silent on these samples",
            (f"{network.output.name}: never fires",),
            "Give samples on which it fires, (n, T, ...): if yours have time first, swap the axes. "
            "Without spikes nothing shows what forward() does with them.",
        )
    whose = f"verified against {framework.title}'s"
    if own and not reading.followed:
        warned = (*warned, *proof.doubts())
    if own:
        whose = f"{', '.join(own)} verified against its"
    notes = (*network.notes, *proof.notes(network, data, whose, note))
    network = replace(network, notes=notes, warnings=(*network.warnings, *warned))
    return _read_out(network, proof.readout, reading.votes)


def _read_out(network: Network, readout: Readout, votes: int) -> Network:
    """Return a network whose outputs hold what its model's answer takes of them.

    Raises
    ------
    UnsupportedModelError
        Where outputs vote, but not by their sum.
    """
    if votes > 1:
        if readout not in ("", "sum"):
            raise UnsupportedModelError(
                f"{network.source}: no readout lets outputs vote and takes their {readout} over "
                "time",
                remedy="Have forward() answer with the votes of all steps, their sum or mean.",
            )
        readout = f"vote:{votes}"
    output = network.output
    neuron, _ = output.neuron.read_by(readout or "sum")
    return replace(network.with_neurons({output.name: neuron}), readout=readout)


def _least(
    module: nn.Module, faults: Sequence[UnsupportedModelError], own: Sequence[str]
) -> UnsupportedModelError:
    """Return the error of the way of calling a module in which it has fewest faults."""
    least = min(faults, key=lambda e: len(e.offenders))
    more = ""
    if own:
        more = f" What {', '.join(own)} computes between layers is read as far as it moves, adds, "
        more += "scales or pools."
    return UnsupportedModelError(
        least.summary, least.offenders, f"{least.remedy}{more}{also_acting(module)}"
    )


def _can(
    module: nn.Module, framework: Framework, call: Call, samples: InputArray, said: list[str]
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
        with framework.widened(module), double_by_default():
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
    remedy += also_acting(module)
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
