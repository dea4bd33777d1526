"""The points of a sweep, and what each of them is asked."""

from __future__ import annotations

import itertools
from dataclasses import asdict, dataclass

from osbc_deploy.errors import UsageError
from osbc_deploy.options import DeployOptions, SweepOptions
from osbc_deploy.options.option import rows
from osbc_deploy.options.work import ClusterOptions

__all__ = ["Configuration", "Point", "options_of", "points_of"]

_MOST = 10_000


@dataclass(frozen=True)
class Configuration:
    """What is asked of a deployment, whatever the data drawn.

    Attributes
    ----------
    target : str
    method : str
    bits : int
    sparsity : float
    """

    target: str
    method: str
    bits: int
    sparsity: float

    def __str__(self) -> str:
        return f"{self.target}, {self.method}, {self.sparsity:.4g} sparsity, {self.bits} bits"


@dataclass(frozen=True)
class Point:
    """One deployment of a sweep.

    Attributes
    ----------
    configuration : Configuration
    seed : int or None
        Of the data; None where they were given and not drawn.
    """

    configuration: Configuration
    seed: int | None

    def __str__(self) -> str:
        drawn = "" if self.seed is None else f", seed {self.seed}"
        return f"{self.configuration}{drawn}"

    def as_dict(self) -> dict[str, object]:
        """Return the point as plain data."""
        return {**asdict(self.configuration), "seed": self.seed}


def points_of(options: SweepOptions) -> tuple[Point, ...]:
    """Return all points, those of one seed and target together; what is given twice counts once.

    Raises
    ------
    UsageError
        When there are more than anybody can mean.
    """
    seeds: list[int | None] = [*dict.fromkeys(options.seeds)] or [None]
    configurations = [
        Configuration(*values)
        for values in itertools.product(
            dict.fromkeys(options.targets),
            dict.fromkeys(options.methods),
            dict.fromkeys(options.bits),
            dict.fromkeys(options.sparsities),
        )
    ]
    if (count := len(seeds) * len(configurations)) > _MOST:
        raise UsageError(
            f"sweep: {count:,} points are asked for, {_MOST:,} are allowed. Sweep a coarser grid, "
            "then a finer one where it matters, with the same ledger."
        )
    return tuple(Point(one, seed) for seed in seeds for one in configurations)


def options_of(options: SweepOptions, point: Configuration) -> DeployOptions:
    """Return the options of the deployment of a point: those of ``deploy``."""
    swept = {row.name: getattr(options, row.name, row.default) for row in rows(DeployOptions)}
    # Points are spread, and not what is within them.
    swept |= {row.name: row.default for row in rows(ClusterOptions)}
    return DeployOptions(**{**swept, **asdict(point)})
