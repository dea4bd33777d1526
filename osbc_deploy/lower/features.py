"""What the chip's neurons and projections must be able to do for a float network."""

from __future__ import annotations

from collections.abc import Iterator

from osbc_deploy.errors import ChipLimitError
from osbc_deploy.model.graph import Network, Population

__all__ = ["check_features"]


def check_features(network: Network) -> None:
    """Make sure the chip has what the network's neurons need.

    Raises
    ------
    UnsupportedModelError
        With every offender.
    """
    offenders = [line for p in network.populations for line in _offenders(network, p)]
    if offenders:
        raise ChipLimitError(
            "network: neurons the chip cannot run",
            offenders,
            "Change the neurons' parameters and train again.",
        )


def _offenders(network: Network, population: Population) -> Iterator[str]:
    name, neuron = population.name, population.neuron
    dynamics = neuron.dynamics()
    if neuron.spiking:
        reset = neuron.reset_rule()
        p = neuron.parameters
        if reset.kind not in ("zero", "subtract"):
            yield f"{name}: a spike leaves the potential as it is; the chip resets or subtracts"
        if neuron.exact:
            return
        low = p["v_reset"] if reset.kind == "zero" and "v_reset" in p else 0.0
        if (p["v_threshold"] < low).any():
            yield (
                f"{name}: v_threshold lies below v_reset; the chip's threshold is not negative"
                if reset.kind == "zero"
                else f"{name}: v_threshold lies below 0; the chip's threshold is not negative"
            )
        if reset.amount is not None and (reset.amount < 0).any():
            yield f"{name}: a spike adds to the potential; the chip only subtracts"
    for which, value in (("membrane", dynamics.decay_v), ("synaptic", dynamics.decay_u)):
        if value is not None and ((value < 0) | (value > 1)).any():
            yield (
                f"{name}: the {which} decay per step is outside 0 to 1; dt is longer than the "
                "time constant"
            )
    biased = any(p.connection.bias is not None for p in network.afferents(name))
    if dynamics.decay_u is not None and (dynamics.decay_u == 1).any() and biased:
        yield f"{name}: a bias into a synaptic current that never decays grows without limit"
    if (dynamics.gain <= 0).any():
        yield f"{name}: the membrane takes no input (alpha_v is 0)"
