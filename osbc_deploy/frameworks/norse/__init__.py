"""norse: its neurons and how its modules are read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from osbc_deploy.frameworks.plugin import FrameworkPlugin

if TYPE_CHECKING:
    from osbc_deploy.frameworks.framework import Framework
    from osbc_deploy.model.graph import Network

__all__ = ["FRAMEWORK"]


def _read(module: Any, input_shape: tuple[int, ...], **options: Any) -> Network:
    from osbc_deploy.frameworks.norse.reading import read_norse

    return read_norse(module, input_shape, **options)


def _module() -> Framework:
    from osbc_deploy.frameworks.norse.reading import NORSE

    return NORSE


FRAMEWORK = FrameworkPlugin(
    title="norse",
    read=_read,
    install="pip install norse",
    module=_module,
)
