"""How many spikes rounding in single precision moves, in a network that double precision proved.

A spike that rounding moves is heard by the next layer, and deep networks make many of a few: what
arrives at the end may differ in some percent of all spikes although each layer computes the same.
So each layer is run by itself as well, on the spikes that the framework's own layers give. What
moves there is rounding of that layer alone: next to nothing, unless its potentials meet thresholds
exactly.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
from torch import nn

from osbc_deploy.arrays import InputArray
from osbc_deploy.errors import UnsupportedModelError
from osbc_deploy.frameworks.calling import Call, undisturbed
from osbc_deploy.frameworks.comparing import Data, answered, heard_of, watched
from osbc_deploy.frameworks.framework import Framework, Reading
from osbc_deploy.frameworks.recording import Recorder
from osbc_deploy.model.simulate import simulate

__all__ = ["TIED", "rounded"]

TIED = (
    "Its potentials meet thresholds exactly, and a BatchNorm or pooling that is folded into "
    "weights rounds otherwise. Pool behind neurons, or train with other thresholds."
)
_MOST = 0.01
"""Share of a layer's spikes that rounding of that layer may move."""


@dataclass(frozen=True)
class Moved:
    """The layer in which most spikes are others than the framework's, and their share."""

    layer: str = ""
    share: float = 0.0


def rounded(
    module: nn.Module, framework: Framework, reading: Reading, call: Call, data: Data
) -> tuple[str, tuple[str, ...]]:
    """Return what to note of rounding in single precision, and what to warn of.

    Raises
    ------
    UnsupportedModelError
        When rounding of a single layer decides too many of its spikes.
    """
    whole, alone = _moved(module, framework, reading, call, data)
    if alone.share > _MOST:
        raise UnsupportedModelError(
            f"{reading.network.source}: rounding in single precision decides too many of its "
            "spikes",
            (
                f"{alone.layer}: {alone.share:.1%} of its spikes are others than "
                f"{framework.title}'s on the same input, {_MOST:.0%} may be",
            ),
            TIED,
        )
    note = " in double precision; in single precision rounding shows"
    if whole.share:
        note += f" (at most {whole.share:.2g} of a layer's spikes, in {whole.layer})"
    if whole.share <= _MOST:
        return note, ()
    title = framework.title
    return note, (
        f"import: equal to {title}'s forward in double precision; in single precision rounding "
        f"grows from layer to layer, to {whole.share:.1%} of the spikes of {whole.layer}, although "
        f"on {title}'s own spikes it moves no more than {alone.share:.2g} of any layer's",
    )


def _moved(
    module: nn.Module, framework: Framework, reading: Reading, call: Call, data: Data
) -> tuple[Moved, Moved]:
    """Return what moves in the whole network, and in layers that hear the framework's spikes."""
    network = reading.network
    names = [p.name for p in network.populations if p.neuron.spiking]
    values: Counter[str] = Counter()
    whole: Counter[str] = Counter()
    alone: Counter[str] = Counter()
    with undisturbed(module):
        for _, spikes, _ in data.batches():
            with Recorder(module, watched(reading), framework.potential) as recorder:
                answered(module, framework, call, spikes)
            heard = heard_of(reading, recorder, spikes)
            found = {name: recorder.seen(name, *spikes.shape[:2]) for name in names}
            theirs = {name: seen.answer for name, seen in found.items() if seen is not None}
            given = {name: _as_read(reading, name, fired) for name, fired in theirs.items()}
            ours = simulate(network, heard, record=names, batch_size=len(spikes)).spikes
            for name, fired in theirs.items():
                values[name] += fired.size
                whole[name] += int(np.count_nonzero(reading.as_seen(name, ours[name]) != fired))
                others = {k: v for k, v in given.items() if k != name}
                done = simulate(
                    network, heard, record=[name], given=others, until=name, output=False,
                    batch_size=len(spikes),
                )  # fmt: skip
                alone[name] += int(np.count_nonzero(done.spikes[name] != given[name]))
    return _worst(whole, values), _worst(alone, values)


def _as_read(reading: Reading, name: str, fired: InputArray) -> InputArray:
    """Return spikes in the order and shape of the population read from a module's layer."""
    shape = (*fired.shape[:2], *reading.network.shape_of(name))
    spikes = np.empty(fired.shape, np.uint8)
    spikes[..., reading.orders.get(name, slice(None))] = fired
    return spikes.reshape(shape)


def _worst(counts: Counter[str], values: Counter[str]) -> Moved:
    worst = max(values, key=lambda name: counts[name] / values[name], default="")
    return Moved(worst, counts[worst] / values[worst]) if worst else Moved()
