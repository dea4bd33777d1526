"""What a compression takes, as data: operations of four kinds, bytes and seconds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import astuple, dataclass, fields

from osbc_deploy.limits import shown
from osbc_deploy.plain_text import many

__all__ = ["Effort", "LayerEffort", "Spent", "Work", "duration"]


@dataclass(frozen=True)
class Work:
    """Operations, by kind.

    Attributes
    ----------
    currents : float
        Multiplications of activity by weights, in single precision.
    passes : float
        Numbers read from memory, changed and written.
    products : float
        Multiplications of matrices, in double precision.
    loops : float
        Multiplications in the solver's own order.
    """

    currents: float = 0.0
    passes: float = 0.0
    products: float = 0.0
    loops: float = 0.0

    def __add__(self, other: Work) -> Work:
        return Work(*(a + b for a, b in zip(astuple(self), astuple(other), strict=True)))

    def __mul__(self, times: float) -> Work:
        return Work(*(times * value for value in astuple(self)))

    def seconds(self, pace: Work) -> float:
        """Return how long it takes at this many operations a second."""
        names = [f.name for f in fields(self)]
        return float(sum(getattr(self, n) / getattr(pace, n) for n in names if getattr(self, n)))


@dataclass(frozen=True)
class LayerEffort:
    """What the weights into one population take.

    Attributes
    ----------
    name : str
    outputs, inputs : int
        Rows of weights, and weights of a row.
    rows : int
        Filtered inputs that the Hessian is made of.
    of : int
        Those there are.
    work : Work
    bytes : int
        Of its Hessians and weights, beside what stays for all layers.
    """

    name: str
    outputs: int
    inputs: int
    rows: int
    of: int
    work: Work
    bytes: int


@dataclass(frozen=True)
class Effort:
    """What the compression of a network takes.

    Attributes
    ----------
    samples, steps : int
        For calibration.
    run : Work
        Of the float network.
    kept : int
        Bytes that stay from layer to layer: spikes, and a batch's activity.
    layers : tuple of LayerEffort
    """

    samples: int
    steps: int
    run: Work
    kept: int
    layers: tuple[LayerEffort, ...]

    @property
    def work(self) -> Work:
        """Of all."""
        return sum((layer.work for layer in self.layers), self.run)

    @property
    def bytes(self) -> int:
        """At most, at any time."""
        return self.kept + max((layer.bytes for layer in self.layers), default=0)

    def lines(self, pace: Work) -> Iterator[str]:
        """Yield the plan as text."""
        total = self.work.seconds(pace)
        yield f"plan: about {duration(total)} and {shown(self.bytes)} of memory"
        yield (
            f"  float network, {many(self.samples, 'sample')} of {many(self.steps, 'step')}: "
            f"{duration(self.run.seconds(pace))}, {shown(self.kept)}"
        )
        for layer in self.layers:
            rows = (
                f"{layer.rows:,} rows"
                if layer.rows == layer.of
                else (f"{layer.rows:,} of {layer.of:,} rows")
            )
            yield (
                f"  {layer.name}: {layer.outputs:,} x {layer.inputs:,} weights, {rows}: "
                f"{duration(layer.work.seconds(pace))}, {shown(layer.bytes)}"
            )


@dataclass(frozen=True)
class Spent:
    """What a compression was expected to take, and took.

    Attributes
    ----------
    plan : Effort
    expected, taken : float
        Seconds.
    """

    plan: Effort
    expected: float
    taken: float


def duration(seconds: float) -> str:
    """Return a time for people."""
    if seconds < 100:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
