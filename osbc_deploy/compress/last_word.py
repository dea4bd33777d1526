"""Whether a network is better off without what was tried on it.

Variants are chosen population by population, on a fifth of the samples and by squared errors. Those
of a few samples can be small although an output has come to lie below another on all samples of its
class, so the classes of all calibration samples have the last word.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np

from osbc_deploy.arrays import FloatArray, IntArray, SpikeArray
from osbc_deploy.compress.activity import ACTIVITY, active
from osbc_deploy.compress.result import CompressedNetwork
from osbc_deploy.compress.rows import Workspace
from osbc_deploy.deviations import Deviation
from osbc_deploy.model.graph import Network
from osbc_deploy.model.raster import Raster
from osbc_deploy.model.readout import decode
from osbc_deploy.options.notation import Readout

__all__ = ["better", "worse"]


def better(
    tuned: CompressedNetwork,
    without: Callable[[], CompressedNetwork],
    samples: SpikeArray,
    output: FloatArray,
    arriving: Mapping[str, Raster],
    space: Workspace,
) -> CompressedNetwork:
    """Return a network, or the one without variants where the classes say that it is better.

    Parameters
    ----------
    tuned : CompressedNetwork
    without : callable
        Compresses it without variants; called only where that could be better.
    samples : ndarray of uint8 (n, T, *input_shape)
    output : ndarray (n, T, *output shape)
        The float network's.
    arriving : dict of ndarray or PackedSpikes
        Spikes of the input and of populations, with the weights of `tuned`.
    space : Workspace
    """
    readout = tuned.options.readout
    wanted = _classes(tuned.original, output, readout)
    found = _answers(tuned.network, samples, readout, space, arriving)
    if not worse(wanted, found, wanted):
        return tuned
    plain = without()
    instead = _answers(plain.network, samples, readout, space, {})
    if not worse(wanted, found, instead):
        return tuned
    counts = [np.count_nonzero(classes != wanted) for classes in (found, instead)]
    text = (
        f"variants give {counts[0]} of {len(samples)} calibration samples another class than the "
        f"float network does, the plain weights {counts[1]}: no variant is used"
    )
    projections = {
        name: replace(p, tried=tuned.projections[name].tried)
        for name, p in plain.projections.items()
    }
    deviations = (*plain.deviations, Deviation("compress", "variants", text))
    return replace(tuned, projections=projections, deviations=deviations)


def _answers(
    network: Network,
    samples: SpikeArray,
    readout: Readout,
    space: Workspace,
    given: Mapping[str, Raster],
) -> IntArray:
    """Return the classes (n,) that a network gives samples."""
    run = active(network, samples, space, given=given, memory=space.memory // ACTIVITY)
    return _classes(network, run.output, readout)


def _classes(network: Network, output: FloatArray, readout: Readout) -> IntArray:
    """Return the classes (n,) that a network's output (n, T, ...) stands for."""
    return decode(output, readout, spiking=network.output.neuron.spiking)


def worse(wanted: IntArray, tuned: IntArray, plain: IntArray) -> bool:
    """Tell whether a network misses more of the wanted classes than chance explains.

    Of the samples on which just one of two networks is right, as many would be either's if they
    were equally good; the difference is more than two standard errors (McNemar 1947), counted in
    integers, so that no rounding decides.

    Parameters
    ----------
    wanted, tuned, plain : ndarray of int (n,)
        Classes by the float network, by the one in question and by the other.
    """
    lost = int(np.count_nonzero((tuned != wanted) & (plain == wanted)))
    won = int(np.count_nonzero((tuned == wanted) & (plain != wanted)))
    return lost > won and (lost - won) ** 2 > 4 * (lost + won)
