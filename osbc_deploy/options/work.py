"""The tables of options of where work is done, which change nothing of what comes of it.

They are part of :mod:`osbc_deploy.options`, which says how tables are read.
"""

# Annotations are read by `option`, so this module does without their postponement.

import re
from collections.abc import Iterator
from dataclasses import dataclass

from osbc_deploy.options.option import Options, StrPath, option

__all__ = ["ClusterOptions", "DeviceOptions", "ResumeOptions"]


@dataclass(frozen=True, kw_only=True)
class ResumeOptions(Options):
    """Finished layers on disk."""

    resume: StrPath | None = option(
        None, "Keep finished layers here, and go on from them when killed.", metavar="FOLDER"
    )


@dataclass(frozen=True, kw_only=True)
class ClusterOptions(Options):
    """Where work is spread to."""

    workers: int | None = option(
        None,
        "Processes of this machine to spread samples and rows over; by default this one alone, and "
        "in a sweep, which spreads points, one per core.",
        metavar="N",
        least=1,
        most=1024,
    )
    scheduler: str | None = option(
        None,
        "Spread them over the cluster of this dask scheduler, which is trusted.",
        metavar="tcp://HOST:PORT",
    )

    def _contradictions(self) -> Iterator[str]:
        yield from super()._contradictions()
        if self.scheduler is None:
            return
        if self.workers is not None:
            yield "workers: scheduler has its own. Leave one of the two out."
        if not re.fullmatch(r"(tcp|tls)://[^\s/]+:[0-9]{1,5}", self.scheduler):
            yield (
                f"scheduler: {self.scheduler!r} is not an address. Give one such as "
                "tcp://localhost:8786."
            )


@dataclass(frozen=True, kw_only=True)
class DeviceOptions(Options):
    """What torch computes on."""

    device: str | None = option(
        None,
        "Run MODEL and sum the Hessians in torch there; the solver stays on the CPU.",
        metavar="cpu|cuda|cuda:N",
    )
