"""Pin every package that the set-up brings, those that others need included: constraints.txt.

    python .ci/pins.py [--write]

Says what of this environment is not pinned, or pinned otherwise; with --write the file is renewed
from what is installed here. Run it after ``pip install --upgrade`` of what is to be newer, and
``make test``. A line keeps its condition; a new one holds from Python 3.11 on, as older ones have
other releases. What torch brings for CUDA is pinned by torch itself.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

FILE = Path(__file__).resolve().parent.parent / "constraints.txt"
EXTRAS = ("", "lava", "datasets", "docs", "dev", "mutants", "mcuboot", "testing", "pandas")
# Installed without what they declare (see the Makefile).
ALONE = ("snntorch", "neurobench", "spikingjelly")
OURS = "osbc-deploy"
CONDITION = 'python_version >= "3.11"'


def installed() -> dict[str, str]:
    """Return name and version of all that our requirements lead to and that is here."""
    found: dict[str, str] = {}
    seen: set[tuple[str, str]] = set()

    def walk(name: str, extras: tuple[str, ...]) -> None:
        name = canonicalize_name(name)
        new = [extra for extra in extras if (name, extra) not in seen]
        seen.update((name, extra) for extra in new)
        try:
            about = distribution(name)
        except PackageNotFoundError:
            return
        found[name] = about.version.partition("+")[0]
        for line in (about.requires or ()) if new and name not in ALONE else ():
            need = Requirement(line)
            if need.marker is None or any(need.marker.evaluate({"extra": e}) for e in new):
                walk(need.name, ("", *need.extras))

    walk(OURS, EXTRAS)
    for name in ALONE:
        walk(name, ("",))
    del found[OURS]
    return found


def pinned(lines: list[str]) -> Iterator[tuple[int, str, str, str]]:
    """Return number, package, version and condition of each pin that holds here."""
    for number, line in enumerate(lines):
        if line and not line.startswith("#"):
            need = Requirement(line)
            if need.marker is None or need.marker.evaluate():
                version = str(need.specifier).removeprefix("==")
                yield number, canonicalize_name(need.name), version, str(need.marker or "")


def main() -> None:
    """Compare the file with the environment, or renew it."""
    lines, here = FILE.read_text("utf-8").splitlines(), installed()
    pins = {name: (number, version) for number, name, version, _ in pinned(lines)}
    wrong = {n: v for n, v in here.items() if n not in pins or pins[n][1] != v}
    for name, version in sorted(wrong.items()):
        print(f"{name} {version}: pinned: {pins[name][1] if name in pins else 'no'}")
        if name in pins:
            number, old = pins[name]
            lines[number] = lines[number].replace(f"=={old}", f"=={version}", 1)
        else:
            lines.append(f"{name}=={version}; {CONDITION}")
    print(f"{len(here)} packages, {len(wrong)} not pinned as they are here")
    if "--write" in sys.argv[1:]:
        comments = [line for line in lines if line.startswith("#")]
        pins_now = sorted((line for line in lines if not line.startswith("#")), key=str.lower)
        FILE.write_text("".join(f"{line}\n" for line in [*comments, *pins_now]), "utf-8")
    else:
        sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
