"""``osbc-deploy doctor``: what is installed, what is missing, and what to do about it."""

from __future__ import annotations

import json
import os
import platform
import shutil
from typing import Any

import click

from osbc_deploy._version import __version__
from osbc_deploy.cli.console import emit, say
from osbc_deploy.cli.info import listed_backends
from osbc_deploy.cli.options import json_option
from osbc_deploy.cli.places import Command

__all__ = ["doctor_command"]

_PACKAGES = (
    "numpy", "scipy", "torch", "norse", "nir", "h5py", "numba", "safetensors", "scikit-learn",
    "distributed", "pydantic", "click", "rich", "matplotlib",
)  # fmt: skip
_EXTRAS = {
    "snntorch": "pip install 'osbc-deploy[snntorch]'",
    "spikingjelly": "pip install 'osbc-deploy[spikingjelly]'",
    "tonic": "pip install 'osbc-deploy[datasets]'",
    "neurobench": "pip install 'osbc-deploy[neurobench]'",
    "pandas": "pip install 'osbc-deploy[pandas]'",
    "imgtool": "pip install 'osbc-deploy[mcuboot]'",
    "xylosim": "see docs/xylo.md",
    "sinabs": "see docs/speck.md",
    "hypothesis": "pip install 'osbc-deploy[testing]'",
}
"""Packages that add something, and what adds them."""

_TOOLS = {
    "cc": "a C compiler measures an export on this machine",
    "gcc": "a C compiler measures an export on this machine",
    "clang": "a C compiler measures an export on this machine",
    "arm-none-eabi-gcc": "measures an export for Cortex-M (Debian: gcc-arm-none-eabi)",
    "qemu-system-arm": "runs an export on an emulated Cortex-M (Debian: qemu-system-arm)",
    "riscv64-unknown-elf-gcc": "compiles an export for RISC-V (Debian: gcc-riscv64-unknown-elf)",
    "qemu-system-riscv32": "runs an export on an emulated RISC-V (Debian: qemu-system-misc)",
    "cmake": "builds an exported CMake package",
}
"""Programs that some commands use where they are there, and what for."""


def _plugins() -> tuple[list[dict[str, Any]], bool]:
    """Return the plugins of all other kinds, and whether all of our own can be used."""
    from osbc_deploy.chip.memory import MEMORY_MODELS
    from osbc_deploy.fixedpoint.arithmetics import ARITHMETICS
    from osbc_deploy.formats.format import listed_formats
    from osbc_deploy.frameworks.plugin import FRAMEWORKS, found_version
    from osbc_deploy.plugins import Listed

    details = {}
    for framework in FRAMEWORKS.listed():
        if framework.plugin is not None:
            found = found_version(framework.name, framework.plugin)
            remedy = f": {framework.plugin.install}" if framework.plugin.install else ""
            details[framework.name] = found or f"not installed{remedy}"
    listed: list[Listed[Any]]
    listed = [*FRAMEWORKS.listed(), *listed_formats(), *MEMORY_MODELS.listed(),
              *ARITHMETICS.listed()]  # fmt: skip
    entries = [
        {
            "kind": entry.kind,
            "name": entry.name,
            "package": entry.package,
            "ok": entry.plugin is not None,
            "detail": entry.fault or details.get(entry.name, entry.package),
        }
        for entry in listed
    ]
    return entries, all(entry.plugin is not None for entry in listed if entry.own)


def _version(package: str) -> str | None:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _machine() -> dict[str, Any]:
    """Return what decides how fast it is: cores, threads asked for, and the BLAS of NumPy."""
    import threadpoolctl

    from osbc_deploy.cluster.spread import cores

    if _version("numpy") is not None:
        import numpy  # noqa: F401 - its libraries are listed once they are loaded
    pools = [
        f"{pool['internal_api']} {pool['version'] or ''}, {pool['num_threads']} threads"
        + (f", {pool['architecture']}" if pool.get("architecture") else "")
        for pool in threadpoolctl.threadpool_info()
    ]
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "cores": cores(),
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS"),
        "pools": pools,
    }


@click.command("doctor", cls=Command)
@json_option
def doctor_command(as_json: bool) -> int:
    """Say what is installed, what is missing, and what to do about it.

    Exits with 2 when something the core needs is missing; a missing backend, extra or tool, or a
    plugin of others that cannot be used, is only reported.
    """
    packages = {name: _version(name) for name in _PACKAGES}
    extras = {name: _version(name) for name in _EXTRAS}
    tools = {name: shutil.which(name) for name in _TOOLS}
    backends = listed_backends()
    plugins, whole = _plugins()
    machine = _machine()
    code = 0 if whole and all(packages.values()) else 2
    if as_json:
        emit(
            json.dumps(
                {
                    "osbc-deploy": __version__,
                    "python": platform.python_version(),
                    "packages": packages,
                    "extras": extras,
                    "tools": tools,
                    "machine": machine,
                    "backends": backends,
                    "plugins": plugins,
                },
                indent=1,
            )
        )
        return code
    say(f"{'osbc-deploy':<23} {__version__}")
    say(f"{'python':<23} {platform.python_version()}")
    for name, found in packages.items():
        say(f"{name:<23} {found or 'MISSING: pip install ' + name}")
    for name, found in extras.items():
        say(f"{'extra ' + name:<23} {found or 'not installed: ' + _EXTRAS[name]}")
    for name, path in tools.items():
        say(f"{name:<23} {path or 'not found: ' + _TOOLS[name]}")
    threads = machine["OMP_NUM_THREADS"] or "not set"
    say(f"{'machine':<23} {machine['system']}, {machine['cores']} cores, OMP_NUM_THREADS {threads}")
    for pool in machine["pools"]:
        say(f"{'threads':<23} {pool}")
    for entry in backends:
        state = "ok" if entry["ok"] else "MISSING"
        say(f"{'backend ' + entry['name']:<23} {state}: {entry['detail']}")
        if entry["remedy"]:
            say(f"  {entry['remedy']}")
    for entry in plugins:
        state = "ok" if entry["ok"] else "BROKEN"
        named = f"{entry['kind']} {entry['name']}"
        say(f"{named:<23} {state}: {entry['detail']}")
    return code
