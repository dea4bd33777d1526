"""SpikingJelly: its neurons and how its modules are read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from osbc_deploy.frameworks.plugin import FrameworkPlugin

if TYPE_CHECKING:
    from osbc_deploy.frameworks.framework import Framework
    from osbc_deploy.model.graph import Network

__all__ = ["FRAMEWORK"]


def _read(module: Any, input_shape: tuple[int, ...], **options: Any) -> Network:
    from osbc_deploy.frameworks.spikingjelly.reading import read_spikingjelly

    return read_spikingjelly(module, input_shape, **options)


def _module() -> Framework:
    from osbc_deploy.frameworks.spikingjelly.reading import SPIKINGJELLY

    return SPIKINGJELLY


FRAMEWORK = FrameworkPlugin(
    title="SpikingJelly",
    read=_read,
    install="pip install 'osbc-deploy[spikingjelly]'",
    oldest=(2, 0),
    module=_module,
)
