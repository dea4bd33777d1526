"""Xylo's arithmetic: what the engine, the lowering and the compression know of it."""

from __future__ import annotations

from osbc_deploy.fixedpoint.arithmetics import Arithmetic, Plan
from osbc_deploy.fixedpoint.network import FixedPointNetwork
from osbc_deploy.fixedpoint.xylo import MOST_SPIKES, XYLO, faults, run_plain
from osbc_deploy.lower.xylo.features import check_features
from osbc_deploy.lower.xylo.lowering import lower
from osbc_deploy.lower.xylo.neurons import dynamics, unmeasured

__all__ = ["ARITHMETIC"]


def _plan(network: FixedPointNetwork, peak: int, given: frozenset[str], *, strict: bool) -> Plan:
    # Imported here: numba takes half a second, which reading a network need not.
    from osbc_deploy.fixedpoint.xylo_compiled import XyloPlan

    del peak, strict
    return XyloPlan(network, given)


ARITHMETIC = Arithmetic(
    name=XYLO,
    most_spikes=max(MOST_SPIKES["hidden"], MOST_SPIKES["output"]),
    run_plain=run_plain,
    plan=_plan,
    faults=faults,
    check_features=check_features,
    lower=lower,
    unmeasured=unmeasured,
    dynamics=dynamics,
)
