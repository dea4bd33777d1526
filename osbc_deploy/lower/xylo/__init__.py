"""How a float network becomes Xylo's integers."""

from __future__ import annotations

from osbc_deploy.fixedpoint.arithmetics import Lowering
from osbc_deploy.lower.xylo.features import check_features, check_input
from osbc_deploy.lower.xylo.lowering import lower
from osbc_deploy.lower.xylo.neurons import dynamics, unmeasured

__all__ = ["LOWERING"]

LOWERING = Lowering(
    check_features=check_features,
    lower=lower,
    unmeasured=unmeasured,
    dynamics=dynamics,
    check_input=check_input,
)
