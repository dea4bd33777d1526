"""What build systems of microcontrollers want beside the sources of a library.

One folder is a CMake package, a component of ESP-IDF, a module of Zephyr, and a library of
PlatformIO and of Arduino at once: each reads files of its own and leaves the others alone.
"""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["PACKAGE_FILES", "package_values"]

PACKAGE_FILES = {
    "CMakeLists.txt": "CMakeLists.txt",
    "idf_component.yml": "idf_component.yml",
    "library.json": "library.json",
    "library.properties": "library.properties",
    "zephyr/module.yml": "module.yml",
    "zephyr/CMakeLists.txt": "zephyr.cmake",
    "zephyr/Kconfig": "Kconfig",
}
"""By the file that is written, its template in ``templates/packages``."""


def package_values(
    name: str,
    files: Sequence[str],
    *,
    header: str,
    description: str,
    golden: str = "",
    arguments: str = "",
) -> dict[str, str]:
    """Return what their templates say of a library.

    Parameters
    ----------
    name : str
        Of the library.
    files : sequence of str
        Its headers and sources, beside `golden`; those in folders are left out.
    header : str
        The one that an application includes.
    description : str
        A few words.
    golden : str
        The source with golden vectors, for the program that runs them.
    arguments : str
        What that program is given.
    """
    return {
        "name": name,
        "NAME": name.upper(),
        "header": header,
        "headers": " ".join(sorted(f for f in files if f.endswith(".h") and "/" not in f)),
        "sources": " ".join(sorted(f for f in files if f.endswith(".c") and "/" not in f)),
        "description": description,
        "host": f"examples/host.c {golden}".rstrip(),
        "arguments": arguments,
    }
