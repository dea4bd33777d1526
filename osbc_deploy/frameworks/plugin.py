"""The contract of a framework, and the frameworks there are.

A framework is an object of :class:`FrameworkPlugin`, registered as an entry point of the group
``osbc_deploy.frameworks`` under the name of the package that its modules come from. Nothing heavy
is imported with it: a framework itself only for the user who has a model of it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from osbc_deploy.errors import UsageError
from osbc_deploy.plugins import Group

if TYPE_CHECKING:
    from osbc_deploy.frameworks.framework import Framework
    from osbc_deploy.model.graph import Network

__all__ = ["FRAMEWORKS", "FrameworkPlugin", "check_version", "found_version", "titles"]


@dataclass(frozen=True)
class FrameworkPlugin:
    """A framework whose modules can be read.

    Attributes
    ----------
    title : str
        Its name, for messages.
    read : callable
        ``read(module, input_shape, source=name, samples=spikes)`` returns the float network that a
        torch.nn.Module computes. `samples` are spikes (n, T, *input_shape) of uint8, on which it
        is to be held against the module's own forward, as
        :class:`osbc_deploy.frameworks.proof.ProvenReader` does. What cannot be represented is
        refused by an UnsupportedModelError that lists all of it. Where ``--substitute`` asks for
        it, a ``substitute=`` is given too (:mod:`osbc_deploy.frameworks.substitution`), and where
        ``--host-prefix`` does, a ``host=`` (:mod:`osbc_deploy.frameworks.hosting`).
    install : str
        The command that installs the framework, or updates it with ``-U`` behind its ``install``.
    distribution : str
        What the framework is called where its version is asked for; its package's name by default.
    module : callable, optional
        Returns the :class:`osbc_deploy.frameworks.framework.Framework` with which modules are run
        and compressed as they are, those too that no chip holds. Without it they cannot be.
    oldest : tuple of int
        The first version that can be read; empty for any. Neurons of older ones may differ from
        what is read in the last bit or more.
    """

    title: str
    read: Callable[..., Network]
    install: str = ""
    distribution: str = ""
    oldest: tuple[int, ...] = ()
    module: Callable[[], Framework] | None = None


def _accept(name: str, plugin: Any) -> FrameworkPlugin:
    if not isinstance(plugin, FrameworkPlugin):
        raise ValueError(f"it is a {type(plugin).__name__}, not a FrameworkPlugin")
    if not name.isidentifier():
        raise ValueError(f"{name!r} is not the name of a Python package")
    return plugin


FRAMEWORKS: Group[FrameworkPlugin] = Group(
    "osbc_deploy.frameworks", "framework", ("norse", "snntorch", "spikingjelly"), _accept
)


def titles() -> str:
    """Return what all frameworks are called; by name those whose plugin cannot be loaded."""
    listed = FRAMEWORKS.listed()
    return ", ".join(e.name if e.plugin is None else e.plugin.title for e in listed)


def found_version(package: str, plugin: FrameworkPlugin) -> str:
    """Return the version of a framework that is installed; empty where none is."""
    try:
        return version(plugin.distribution or package)
    except PackageNotFoundError:
        return ""


def check_version(package: str, plugin: FrameworkPlugin, model: str) -> None:
    """Make sure that a framework computes what was read from its code.

    Raises
    ------
    UsageError
        When the one that is installed is older.
    """
    found = found_version(package, plugin)
    parts = tuple(int(part) for part in re.findall(r"\d+", found)[: len(plugin.oldest)])
    # A package that is on the path without being installed does not say its version.
    if found and parts < plugin.oldest:
        wanted = ".".join(map(str, plugin.oldest))
        update = plugin.install.replace("install ", "install -U ", 1)
        raise UsageError(
            f"{model}: is made with {plugin.title} {found}, {wanted} or newer is needed. Update "
            f"it{f' with: {update}' if update else ''}"
        )
