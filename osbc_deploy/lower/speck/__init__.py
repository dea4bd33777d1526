"""How a float network becomes Speck's integers."""

from __future__ import annotations

from osbc_deploy.fixedpoint.arithmetics import Lowering
from osbc_deploy.lower.speck.features import check_features, check_input
from osbc_deploy.lower.speck.lowering import lower, unmeasured

__all__ = ["LOWERING"]

LOWERING = Lowering(
    check_features=check_features, lower=lower, unmeasured=unmeasured, check_input=check_input
)
