"""What Speck's neurons and connections must be able to do for a float network."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from osbc_deploy.errors import ChipLimitError
from osbc_deploy.fixedpoint.coding import InputFormat
from osbc_deploy.fixedpoint.speck import MOST_SPIKES
from osbc_deploy.lower.merge import inexact
from osbc_deploy.model.graph import Network, Population, Projection

__all__ = ["check_features", "check_input"]


def check_features(network: Network) -> None:
    """Make sure Speck's cores can run the neurons.

    Raises
    ------
    ChipLimitError
        With every offender.
    """
    offenders = [line for p in network.populations for line in _odd_neurons(p)]
    for population in network.populations:
        ways = network.afferents(population.name)
        if len(ways) > 1:
            names = ", ".join(p.name for p in ways)
            offenders.append(
                f"{population.name}: hears {len(ways)} projections ({names}); a core has one kernel"
            )
    offenders += [line for p in network.projections for line in _odd_way(network, p)]
    if offenders:
        raise ChipLimitError(
            "network: neurons or connections that Speck's arithmetic does not have",
            offenders,
            "Change the network and train again: integrate-and-fire neurons without leak "
            "(snnTorch's Leaky(beta=1.0), norse's IAFCell, SpikingJelly's IFNode), layer after "
            "layer.",
        )


def check_input(given: InputFormat) -> None:
    """Make sure that events can be what the input carries.

    Raises
    ------
    ChipLimitError
    """
    if given.kind == "values" or given.signed or given.high > MOST_SPIKES:
        holds = "real values" if given.kind == "values" else f"numbers of {given.bits} bits"
        holds += " with a sign" if given.signed else ""
        raise ChipLimitError(
            f"input: holds {holds}, this chip takes events, counted as 0 to {MOST_SPIKES} a pixel "
            "and step. Make counts of the samples, such as np.rint(x / x.max() * 15), a channel "
            "for each sign, and train on these."
        )


def _odd_neurons(population: Population) -> Iterator[str]:
    name, neuron = population.name, population.neuron
    if neuron.exact:
        yield f"{name}: gates (max pooling, masks), which these cores do not have; use AvgPool2d"
        return
    if not neuron.spiking:
        yield (
            f"{name}: a readout that never fires; all neurons of this chip do, so let the last "
            "layer be spiking ones, and count their spikes"
        )
        return
    linear = neuron.dynamics()
    if linear.decay_u is not None:
        yield f"{name}: a synaptic current; this chip's neurons have none"
    if (linear.decay_v != 1).any():
        yield f"{name}: a leak; this chip's neurons keep their potential"
    kind = neuron.reset_rule().kind
    if kind not in ("subtract", "zero"):
        yield (
            f"{name}: a spike leaves the potential; this chip takes the threshold away, or sets "
            "it to v_reset"
        )
    # What a spike returns to is the chip's 0.
    zero = neuron.parameters.get("v_reset", np.zeros(())) if kind == "zero" else np.zeros(())
    height = neuron.parameters["v_threshold"] - zero
    if (height <= 0).any():
        yield f"{name}: v_threshold is not above {'v_reset' if zero.any() else '0'}"
    elif np.ptp(height / linear.gain) > 0:
        yield (
            f"{name}: neurons of different v_threshold, a core has one; divide each neuron's "
            "weights and bias by its threshold, and set that to 1"
        )
    if (neuron.v_init != zero).any():
        yield (
            f"{name}: starts at a potential that is not {'v_reset' if zero.any() else '0'}, as no "
            "neuron of this chip does"
        )


def _odd_way(network: Network, p: Projection) -> Iterator[str]:
    if network.is_feedback(p):
        yield f"{p.name}: feedback; layers hear those before them"
    if p.delay is not None and p.delay.any():
        yield f"{p.name}: synaptic delays; this chip has none"
    if p.pool is not None and inexact(p, network.shape_of(p.pre)):
        yield (
            f"{p.name}: AvgPool2d(kernel {p.pool.kernel}, stride {p.pool.stride}, padding "
            f"{p.pool.padding}) in front of a convolution that pads; use windows that tile their "
            "input"
        )
