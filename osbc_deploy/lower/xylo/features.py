"""What a Xylo core's neurons and connections must be able to do for a float network."""

from __future__ import annotations

from collections.abc import Iterator

from osbc_deploy.errors import ChipLimitError
from osbc_deploy.fixedpoint.coding import InputFormat
from osbc_deploy.fixedpoint.xylo import MOST_SPIKES
from osbc_deploy.lower.timing import timing
from osbc_deploy.model.graph import INPUT, Network, Population

__all__ = ["check_features", "check_input"]


def check_features(network: Network) -> None:
    """Make sure a Xylo core can run the neurons.

    Raises
    ------
    ChipLimitError
        With every offender.
    """
    offenders = [line for p in network.populations for line in _odd_neurons(network, p)]
    offenders += _odd_ways(network)
    if not offenders:
        times = timing(network)
        late = {**times.delays, **times.relays, **times.shown}
        offenders = [f"{name}: skips neurons; this chip has no delays" for name in late]
    if offenders:
        raise ChipLimitError(
            "network: neurons or connections that Xylo's arithmetic does not have",
            offenders,
            "Change the network and train again.",
        )


def check_input(given: InputFormat) -> None:
    """Make sure that spikes can be what the input carries.

    Raises
    ------
    ChipLimitError
    """
    most = MOST_SPIKES["input"]
    if given.kind == "values" or given.signed or given.high > most:
        holds = "real values" if given.kind == "values" else f"numbers of {given.bits} bits"
        holds += " with a sign" if given.signed else ""
        raise ChipLimitError(
            f"input: holds {holds}, this chip takes 0 to {most} spikes of a channel in a step "
            "(MAX_NUM_INP_SPIKES). Make counts of the samples, such as "
            f"np.rint(x / x.max() * {most}), a channel for each sign, and train on these."
        )


def _odd_neurons(network: Network, population: Population) -> Iterator[str]:
    name, neuron = population.name, population.neuron
    if neuron.exact:
        yield f"{name}: gates on whole sums, which decays by a shift do not leave whole"
        return
    if not neuron.spiking:
        yield f"{name}: a readout that never fires; all neurons of this chip do"
        return
    kind = neuron.reset_rule().kind
    if kind != "subtract":
        does = {"zero": "sets the potential to its reset value"}.get(kind, "leaves the potential")
        yield (
            f"{name}: a spike {does}; this chip takes the threshold away (snnTorch's "
            "reset_mechanism=\"subtract\", norse's LIFBoxCell with reset_subtract, SpikingJelly's "
            "v_reset=None)"
        )
    if (neuron.parameters["v_threshold"] <= 0).any():
        yield f"{name}: v_threshold is not above 0"
    if neuron.v_init.any():
        yield f"{name}: starts at a potential that is not 0, as no neuron of this chip does"
    linear = neuron.dynamics()
    if linear.decay_u is not None and (linear.decay_u == 1).any():
        biased = any(p.connection.bias is not None for p in network.afferents(name))
        if biased:
            yield f"{name}: a bias into a synaptic current that never decays grows without limit"


def _odd_ways(network: Network) -> Iterator[str]:
    output = network.output.name
    if len(network.populations) == 1:
        yield (
            "network: one layer of neurons; hidden neurons are needed, and outputs behind them "
            "(at_least_two_neuron_layers_needed)"
        )
    for p in network.projections:
        if p.connection.convolutional:
            yield f"{p.name}: a convolution; this chip connects neurons one by one"
        if p.pool is not None:
            yield f"{p.name}: a pooling in front of it"
        if p.delay is not None and p.delay.any():
            yield f"{p.name}: synaptic delays; this chip has none"
        if p.pre == output:
            yield (
                f"{p.name}: spikes of the outputs, which leave the chip "
                "(output_neurons_cannot_be_recurrent)"
            )
        if p.pre == INPUT and p.post == output and len(network.populations) > 1:
            yield f"{p.name}: input to the outputs, which only hear hidden neurons"
