"""The network in the chip's integers as data, and the engine that runs it; no torch, no solver.

The network is in :mod:`.network`, with what its input carries (:mod:`.coding`), its kinds of
connection, the widths of registers (:mod:`.formats`) and whether they hold it (:mod:`.ranges`).

What neurons compute in a step is an arithmetic (:mod:`.arithmetics`): Loihi's is :mod:`.loihi`,
Xylo's :mod:`.xylo`, Speck's :mod:`.speck`. :mod:`.engine` runs one on samples and keeps what
:mod:`.record` says. The specification of Loihi's engine is :mod:`.plain`, in NumPy; the compiled
one gives the same bits:

- :mod:`.compiled` prepares a network, and :mod:`.learning` prepares it anew once it is known how
  often its neurons fire;
- :mod:`.cells` are populations, :mod:`.sites` where their sums lie, :mod:`.passes` projections
  without their zeros: as lists and blocks (:mod:`.packing`), or as whole maps (:mod:`.maps`);
- the loops are :mod:`.kernels` on :mod:`.lanes` (spikes to sums) and :mod:`.stepping` on
  :mod:`.neuron_lanes` (sums to spikes), counted in :mod:`.tally`.
"""

from osbc_deploy.fixedpoint.engine import run
from osbc_deploy.fixedpoint.network import (
    FixedConv,
    FixedDense,
    FixedPointNetwork,
    FixedPopulation,
    FixedProjection,
)

__all__ = [
    "FixedConv",
    "FixedDense",
    "FixedPointNetwork",
    "FixedPopulation",
    "FixedProjection",
    "run",
]
