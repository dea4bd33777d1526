"""What a deployment produced."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from osbc_deploy.accuracy import Accuracy
from osbc_deploy.chip.mapping import Mapping as ChipMapping
from osbc_deploy.chip.place import Placement
from osbc_deploy.chip.step import StepLoad
from osbc_deploy.chip.target import Target
from osbc_deploy.chip.traffic import Operations
from osbc_deploy.chip.unpruned import Footprint, footprint
from osbc_deploy.compress.result import CompressedNetwork
from osbc_deploy.deviations import Deviation
from osbc_deploy.fidelity import Fidelity
from osbc_deploy.firmware.work import StepCost
from osbc_deploy.fixedpoint.coding import InputSeen
from osbc_deploy.fixedpoint.record import Activity
from osbc_deploy.lower.lowering import Lowered
from osbc_deploy.model.graph import Network
from osbc_deploy.plain_text import many
from osbc_deploy.results import Saved

__all__ = ["Deployment"]


@dataclass(frozen=True, eq=False, repr=False)
class Deployment(Saved):
    """Everything a deployment produced.

    Attributes
    ----------
    target : Target
    network : Network
        The float network as imported.
    compressed : CompressedNetwork
    lowered : Lowered
        Holds the fixed-point network.
    mapping : ChipMapping
    unpruned : Footprint
        What the same network would take with all weights and neurons, in the same bits.
    placement : Placement or None
        None for a chip without a mesh, or when it does not fit.
    operations : dict of Operations
        Synaptic operations of a calibration sample, by population.
    load : StepLoad
        What a mean step of the calibration samples asks of cores and links.
    accuracy : Accuracy
    fidelity : Fidelity
    activity : dict
        Of every population on the evaluated samples.
    input : InputSeen
        What the evaluated samples became as the chip's input; its format is the network's.
    provenance : dict
        What was asked for, when and where, and the fingerprints of model, network, target and data.
    warnings : tuple of str
        What puts the results in doubt, to be read before them.
    steps : StepCost or None
        Modelled instructions of a step on the calibration samples; None where the target has none.
    """

    target: Target
    network: Network
    compressed: CompressedNetwork
    lowered: Lowered
    mapping: ChipMapping
    unpruned: Footprint
    placement: Placement | None
    operations: Mapping[str, Operations]
    load: StepLoad
    accuracy: Accuracy
    fidelity: Fidelity
    activity: Mapping[str, Activity]
    input: InputSeen
    provenance: Mapping[str, Any]
    warnings: tuple[str, ...] = ()
    steps: StepCost | None = None

    @property
    def fits(self) -> bool:
        """Whether the network fits the chip."""
        return self.mapping.fits

    @property
    def footprint(self) -> Footprint:
        """What the network takes on the chip."""
        return footprint(self.mapping, self.target)

    @property
    def deviations(self) -> tuple[Deviation, ...]:
        """Everything that was done differently from the plain request."""
        imported = tuple(Deviation("import", self.network.source, n) for n in self.network.notes)
        said = (*self.target.remarks, *self.mapping.notes)
        remarks = tuple(Deviation("map", self.target.name, text) for text in said)
        made = self.compressed.deviations + self.lowered.deviations + self._run_notes()
        layers = self.lowered.network.layers
        of_layers = (replace(d, subject=layers.get(d.subject, d.subject)) for d in made)
        return (*imported, *of_layers, *remarks)

    def _run_notes(self) -> tuple[Deviation, ...]:
        hung = self.fidelity.restarts
        restarted = (
            Deviation(
                "run", self.fidelity.backend or "", f"hung {many(hung, 'time')} and was restarted"
            ),
        )
        return (restarted if hung else ()) + tuple(
            Deviation(
                "run",
                name,
                f"the current wrapped {many(seen.wraps, 'time')} and the potential "
                f"saturated {many(seen.saturations, 'time')} on the evaluated samples",
            )
            for name, seen in self.activity.items()
            if seen.wraps or seen.saturations
        )
