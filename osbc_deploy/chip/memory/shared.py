"""A whole network on one core: the memory of Xylo chips."""

from __future__ import annotations

from typing import ClassVar

from osbc_deploy.chip.facts import Count, Fact, Positive, Strict
from osbc_deploy.chip.layers import Layer, Ranges, Usage
from osbc_deploy.chip.memory.base import Arrangement, MemoryBase
from osbc_deploy.model.graph import INPUT

__all__ = ["SharedCore"]


class SharedCaps(Strict):
    """What the core holds for all layers together."""

    inputs: Fact[Positive]
    hidden: Fact[Positive]
    outputs: Fact[Positive]


class SharedCore(MemoryBase):
    """Memory model of one core that all layers share.

    Attributes
    ----------
    word_bits : Fact
    caps : SharedCaps
        Input channels, hidden neurons and output neurons.
    synapse_words, neuron_words : Fact
    least_layers : Fact
        Populations that a network must have.
    recurrent_outputs : Fact
        Whether output neurons may project to neurons of the chip.
    """

    arrangement: ClassVar[Arrangement] = "together"
    """All layers lie on the one core."""
    ends: ClassVar[tuple[str, ...]] = ("inputs", "outputs")

    caps: SharedCaps
    synapse_words: Fact[Positive]
    neuron_words: Fact[Count]
    least_layers: Fact[Positive]
    recurrent_outputs: Fact[bool]

    @property
    def scale_groups(self) -> int:
        """Different thresholds, so weight scales: each neuron has its own."""
        return self.caps.hidden.value

    def limits(self) -> dict[str, int]:
        """Return the capacity of the core by resource."""
        return {name: getattr(self.caps, name).value for name in SharedCaps.model_fields}

    def cost(self, layer: Layer, ranges: Ranges) -> Usage:
        """Return what a layer adds to the core; `ranges` is the whole layer."""
        del ranges
        synapses = sum(a.connection.weight.size for a in layer.afferents)
        payload = sum(a.connection.weight.size * a.bits for a in layer.afferents)
        words = int(synapses) * self.synapse_words.value
        return Usage(
            {
                "inputs": sum(a.pre_size for a in layer.afferents if a.pre == INPUT),
                "hidden": 0 if layer.is_output else layer.size,
                "outputs": layer.size if layer.is_output else 0,
            },
            words=words + layer.size * self.neuron_words.value,
            neurons=layer.size,
            axons=sum(a.pre_size for a in layer.afferents),
            synapses=int(synapses),
            encoding="dense",
            bits={
                "payload": payload,
                "index": 0,
                "header": 0,
                "padding": max(0, words * self.word_bits.value - payload),
            },
        )

    def broken_rules(self, layers: tuple[Layer, ...]) -> list[str]:
        """Return what the chip cannot do at all, however much room its core has."""
        found = []
        if len(layers) < self.least_layers.value:
            found.append(
                f"chip: {len(layers)} layer of neurons, at least {self.least_layers.value} are "
                "needed: hidden neurons, and outputs behind them "
                "(at_least_two_neuron_layers_needed)"
            )
        output = layers[-1]
        for layer in layers:
            for afferent in layer.afferents:
                if afferent.connection.convolutional:
                    found.append(f"{layer}: a convolution; this chip connects neurons one by one")
                if afferent.delay_bits:
                    found.append(f"{layer}: synaptic delays, none are possible")
                if afferent.pre == output.name and not self.recurrent_outputs.value:
                    found.append(
                        f"{layer}: receives input from the output; only hidden neurons may be "
                        "recurrent (output_neurons_cannot_be_recurrent)"
                    )
                if afferent.pre == INPUT and layer is output and len(layers) > 1:
                    found.append(
                        f"{layer}: receives input from the input; the output may receive it from "
                        "hidden neurons only"
                    )
        return found

    def rule_names(self) -> dict[str, str]:
        """Return the design rules and arguments of Rockpool's mapper."""
        caps = self.caps
        return {
            "inputs": f"le_{caps.inputs.value}_input_channels",
            "hidden": "max_hidden_neurons",
            "outputs": f"le_{caps.outputs.value}_output_channels",
        }
