"""The fixed-point network as data: integers only, in the chip's registers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple, TypeAlias, get_args

import numpy as np

from osbc_deploy.arrays import FloatArray, IntArray, frozen
from osbc_deploy.fixedpoint.coding import InputFormat, undeclared
from osbc_deploy.fixedpoint.connections import FixedConnection, FixedConv, FixedDense
from osbc_deploy.fixedpoint.formats import NumberFormats
from osbc_deploy.fixedpoint.loihi import effective_bias
from osbc_deploy.model.graph import INPUT, blocks
from osbc_deploy.model.windows import Pair, Shape
from osbc_deploy.options.notation import Readout

__all__ = [
    "INPUT",
    "Decoded",
    "FixedConnection",
    "FixedConv",
    "FixedDense",
    "FixedPointNetwork",
    "FixedPopulation",
    "FixedProjection",
    "InputFormat",
    "Pooling",
    "Reset",
    "Sign",
]

Sign: TypeAlias = Literal["mixed", "excitatory", "inhibitory"]
Reset: TypeAlias = Literal["zero", "subtract"]


@dataclass(frozen=True)
class Pooling:
    """A pooling whose windows tile the source, and which is merged into the weights behind it.

    Attributes
    ----------
    window : (int, int)
        Rows and columns, and the step from one to the next; what is left over at the ends is lost.
    dilation : (int, int)
        Of the convolution behind it, whose own weights have none any more.
    """

    window: Pair
    dilation: Pair = (1, 1)

    def __post_init__(self) -> None:
        if min(*self.window, *self.dilation) < 1:
            raise ValueError(f"window {self.window}, dilation {self.dilation}")


@dataclass(frozen=True, eq=False)
class FixedProjection:
    """A projection in integers: ``a = 2^weight_exp * sum(weight)`` over the active inputs.

    Attributes
    ----------
    name, pre, post : str
        `post` may be `pre`, or a population before it: a recurrent projection.
    connection : FixedConnection
        Mantissas on the grid of `weight_bits`: multiples of
        ``2^(weight_mantissa_bits - weight_bits)``, twice that where signs are mixed.
    weight_bits : int
        Bits each synapse is stored in.
    weight_exp : int
        Exponent of the sum, with delays of the sum of each delay.
    sign : {"mixed", "excitatory", "inhibitory"}
        Which signs the synapses can store; one sign for all leaves them a bit more.
    graded : bool
        The spikes carry a value, which the weights are multiplied with; otherwise anything that
        is not 0 counts as 1. Only the input sends graded spikes.
    pooling : Pooling or None
        What the weights have merged, for chips whose cores pool. It is believed only as far as the
        weights bear it out, and changes no result.
    """

    name: str
    pre: str
    post: str
    connection: FixedConnection
    weight_bits: int
    weight_exp: int
    sign: Sign = "mixed"
    graded: bool = False
    pooling: Pooling | None = None

    def __post_init__(self) -> None:
        if self.sign not in get_args(Sign):
            raise ValueError(f"{self.name}: sign {self.sign!r}")

    @property
    def nonzero(self) -> int:
        """Number of weights that are not 0."""
        return int(np.count_nonzero(self.connection.weight))


class Decoded(NamedTuple):
    """Registers of a population as the arithmetic takes them, each ndarray of int64 (n,).

    Attributes
    ----------
    kept_u, kept_v
        Shares of the states kept in a step, of ``2^decay_bits``.
    bias, threshold, drop
        Aligned with the state; `drop` is what a reset by subtraction takes away.
    """

    kept_u: IntArray
    kept_v: IntArray
    bias: IntArray
    threshold: IntArray
    drop: IntArray


@dataclass(frozen=True, eq=False)
class FixedPopulation:
    """Neurons in integers; every array holds one value per neuron, flattened.

    Attributes
    ----------
    name : str
    shape : tuple of int
    du, dv, vth : ndarray of int32 (n,)
        Current decay, membrane decay, threshold mantissa.
    bias_mant, bias_exp : ndarray of int32 (n,)
    u_init, v_init : ndarray of int32 (n,)
        Synaptic current and membrane potential before the first step.
    spiking : bool
        False for a readout whose potential is the answer.
    v_scale, v_offset : ndarray of float64 (n,)
        ``v_float = v_scale * v + v_offset``: how the integers relate to the float network.
    reset : {"zero", "subtract"}
        What a spike does to the potential: set it to 0, or take `drop` away.
    drop : ndarray of int32 (n,) or None
        In units of the threshold's mantissa; None where it is the threshold, or not needed.
    reset_interval, reset_offset : int
        Set u and v to 0 before every step t (from 0) with ``t % interval == offset % interval``;
        an interval of 0 never does.
    """

    name: str
    shape: Shape
    du: IntArray
    dv: IntArray
    vth: IntArray
    bias_mant: IntArray
    bias_exp: IntArray
    u_init: IntArray
    v_init: IntArray
    spiking: bool
    v_scale: FloatArray
    v_offset: FloatArray
    reset: Reset = "zero"
    reset_interval: int = 0
    reset_offset: int = 0
    drop: IntArray | None = None

    def __post_init__(self) -> None:
        if self.reset not in get_args(Reset):
            raise ValueError(f"{self.name}: reset {self.reset!r}")
        for name in ("du", "dv", "vth", "bias_mant", "bias_exp", "u_init", "v_init"):
            object.__setattr__(self, name, frozen(getattr(self, name), np.int32))
        for name in ("v_scale", "v_offset"):
            object.__setattr__(self, name, frozen(getattr(self, name), np.float64))
        if self.drop is not None:
            idle = self.reset == "zero" or np.array_equal(self.drop, self.vth)
            object.__setattr__(self, "drop", None if idle else frozen(self.drop, np.int32))

    @property
    def reset_amount(self) -> IntArray:
        """What a reset by subtraction takes away, in units of the threshold's mantissa."""
        return self.vth if self.drop is None else self.drop

    def decoded(self, formats: NumberFormats) -> Decoded:
        """Return what the registers mean to the arithmetic."""
        return Decoded(
            formats.decay_unity - (self.du.astype(np.int64) + formats.decay_u_offset),
            formats.decay_unity - self.dv.astype(np.int64),
            effective_bias(self.bias_mant, self.bias_exp),
            self.vth.astype(np.int64) << formats.state_shift,
            self.reset_amount.astype(np.int64) << formats.state_shift,
        )

    @property
    def size(self) -> int:
        """Number of neurons."""
        return math.prod(self.shape)

    @property
    def starts_silent(self) -> bool:
        """Whether the neurons stay at rest until their first input arrives."""
        return not (self.bias_mant.any() or self.u_init.any() or self.v_init.any())


@dataclass(frozen=True, eq=False)
class FixedPointNetwork:
    """A network in the chip's integers.

    Time is each population's own: step t of a population is the step that sees the spikes which
    the population before it fired at t. On the chip a projection delivers one step later, so a
    population runs its `depth` (the longest way from the input) steps behind the input; one that
    does not start silent must be started then. Delays are the chip's; :meth:`latency` turns them
    into own time. The input comes from outside, so the host shows it to
    a convolution when it is due (:meth:`shown_late`).

    Attributes
    ----------
    input_shape : tuple of int
    populations : tuple of FixedPopulation
        In the order activity flows; the last is the output.
    projections : tuple of FixedProjection
        At least one into each population from before it.
    formats : NumberFormats
    readout : str
        "sum", "last" or "max" over time of the output's spikes or potentials.
    input : InputFormat
        What the input carries; any payload of 16 bits, or spikes, by default.
    """

    input_shape: Shape
    populations: tuple[FixedPopulation, ...]
    projections: tuple[FixedProjection, ...]
    formats: NumberFormats
    readout: Readout
    input: InputFormat = None  # type: ignore[assignment]

    def __post_init__(self) -> None:
        graded = any(p.graded for p in self.projections)
        if self.input is None:
            object.__setattr__(self, "input", undeclared(graded=graded))
        if graded != self.input.graded:
            raise ValueError(f"input of {self.input.kind}, and graded is {graded} of projections")
        self._check_graph()

    def _check_graph(self) -> None:
        names = [INPUT, *(p.name for p in self.populations)]
        if len(names) < 2 or len(set(names)) != len(names):
            raise ValueError(f"populations {names[1:]}: at least one is needed, all named apart")
        order = {name: number for number, name in enumerate(names)}
        fed = {INPUT}
        for projection in self.projections:
            pre, post = projection.pre, projection.post
            if pre not in order or order.get(post, 0) == 0:
                raise ValueError(f"{projection.name} leads from {pre} to {post}")
            shape = projection.connection.output_shape(self.shape_of(pre))
            if shape != self.shape_of(post):
                raise ValueError(f"{projection.name} does not take {pre} to {post}")
            if order[pre] < order[post]:
                fed.add(post)
        if missing := [name for name in names if name not in fed]:
            raise ValueError(f"nothing before {', '.join(missing)} projects to it")
        for projection in self.projections:
            soonest = self.latency(projection) + projection.connection.shortest_delay
            needed = int(order[projection.pre] >= order[projection.post])
            if soonest < needed:
                raise ValueError(
                    f"{projection.name} delivers {needed - soonest} steps before the other "
                    "projections; its synapses need longer delays"
                )

    @cached_property
    def depth(self) -> dict[str, int]:
        """Steps that each population runs behind the input, by name."""
        depth = {INPUT: 0}
        for population in self.populations:
            before = [p.pre for p in self.afferents(population.name) if p.pre in depth]
            depth[population.name] = 1 + max((depth[pre] for pre in before), default=0)
        return depth

    def latency(self, projection: FixedProjection) -> int:
        """Return after how many steps of own time a projection without delays delivers.

        0 between neighbours: both count the steps since the sample reached them. 1 from a
        population to itself. A projection that skips populations is early by the populations
        skipped, which is negative here and must be made up for by its delays, or by the host.
        """
        natural = 1 + self.depth[projection.pre] - self.depth[projection.post]
        return natural + self.shown_late(projection)

    def shown_late(self, projection: FixedProjection) -> int:
        """Return by how many steps the host shows the input later to a projection.

        A convolution has no delays. Where it hears the input past populations, it is shown the
        input when these are done, whatever the input carries.
        """
        if projection.pre != INPUT or not projection.connection.convolutional:
            return 0
        return self.depth[projection.post] - 1

    @property
    def output(self) -> FixedPopulation:
        """The population whose activity is the answer."""
        return self.populations[-1]

    def shape_of(self, name: str) -> Shape:
        """Return the shape of a population or of the input."""
        shapes = {p.name: p.shape for p in self.populations}
        return shapes.get(name, self.input_shape)

    def outgoing(self, name: str) -> tuple[FixedProjection, ...]:
        """Return the projections out of a population."""
        return tuple(p for p in self.projections if p.pre == name)

    def afferents(self, name: str) -> tuple[FixedProjection, ...]:
        """Return the projections into a population."""
        return tuple(p for p in self.projections if p.post == name)

    @property
    def layers(self) -> Mapping[str, str]:
        """What tables and messages call each population with what it receives, by population.

        A layer has the name of its weights, as users know it: of the first projection.
        """
        return {p.name: self.afferents(p.name)[0].name for p in self.populations}

    def blocks(self) -> tuple[tuple[int, int], ...]:
        """Return ranges of populations that must be stepped together, in order.

        Without recurrence each is one population.
        """
        return blocks(
            [p.name for p in self.populations], [(p.pre, p.post) for p in self.projections]
        )

    def is_recurrent(self, start: int, stop: int) -> bool:
        """Tell whether a block of :meth:`blocks` feeds back to itself."""
        names = [p.name for p in self.populations[start:stop]]
        return any(
            p.pre in names and p.post in names and names.index(p.pre) >= names.index(p.post)
            for p in self.projections
        )
