"""snnTorch: its neurons and how its modules are read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from osbc_deploy.frameworks.plugin import FrameworkPlugin

if TYPE_CHECKING:
    from osbc_deploy.frameworks.framework import Framework
    from osbc_deploy.model.graph import Network

__all__ = ["FRAMEWORK"]


def _read(module: Any, input_shape: tuple[int, ...], **options: Any) -> Network:
    from osbc_deploy.frameworks.snntorch.reading import read_snntorch

    return read_snntorch(module, input_shape, **options)


def _module() -> Framework:
    from osbc_deploy.frameworks.snntorch.reading import SNNTORCH

    return SNNTORCH


FRAMEWORK = FrameworkPlugin(
    title="snnTorch",
    read=_read,
    install="pip install 'osbc-deploy[snntorch]'",
    oldest=(1, 0),
    module=_module,
)
