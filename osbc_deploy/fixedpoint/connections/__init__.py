"""The kinds of connection of integer networks, a module each; see :mod:`.model.connections`."""

from __future__ import annotations

from osbc_deploy.fixedpoint.connections.base import FixedConnection
from osbc_deploy.fixedpoint.connections.conv import FixedConv
from osbc_deploy.fixedpoint.connections.dense import FixedDense

__all__ = ["KINDS", "FixedConnection", "FixedConv", "FixedDense"]

KINDS: dict[str, type[FixedConnection]] = {kind.kind: kind for kind in (FixedDense, FixedConv)}
"""By the names that manifests have for them."""
