"""The commands of ``osbc-deploy release`` that work on a store of two slots."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from osbc_deploy.cli.console import emit, say
from osbc_deploy.cli.options import config_option, json_option
from osbc_deploy.cli.places import Command, GrowingFolder, OutputFile, OutputFolder
from osbc_deploy.errors import ArtefactError, UsageError

if TYPE_CHECKING:
    from osbc_deploy.release.slots import Slots

__all__ = ["STORE_COMMANDS"]

_STORE = click.argument("store", type=GrowingFolder())
_REASONS = ("self-test", "boots", "silent", "clipped", "host")


@click.command("create", cls=Command)
@click.argument("store", type=OutputFolder())
@click.option("--target", required=True, metavar="NAME", help="Kind of device.")
@click.option(
    "--key",
    "keys",
    type=click.Path(path_type=Path),
    multiple=True,
    required=True,
    metavar="KEY.pub.pem",
    help="Whose signature counts; several times for several keys.",
)
@click.option(
    "--slot", type=int, default=2**20, show_default=True, help="Bytes of each of the two slots."
)
@click.option(
    "--sector", type=int, default=4096, show_default=True, help="Bytes that are erased at once."
)
@click.option(
    "--on-drift",
    type=click.Choice(["report", "rollback"]),
    default="report",
    show_default=True,
    help="What 'monitor watch --store' does when the data drift.",
)
@config_option
def create_command(
    store: Path, target: str, keys: tuple[Path, ...], slot: int, sector: int, on_drift: str
) -> int:
    """Make an empty STORE, a folder with two slots, for a gateway or a device's flash."""
    from osbc_deploy.release.checks import Device
    from osbc_deploy.release.keys import read_public
    from osbc_deploy.release.storage import Geometry
    from osbc_deploy.release.store import StoreFacts, make_store

    known = tuple(dict.fromkeys(read_public(path) for path in keys))
    policy: Literal["report", "rollback"] = "rollback" if on_drift == "rollback" else "report"
    make_store(store, StoreFacts(Device(target, known, Geometry(sector, slot)), policy))
    say(f"wrote {store}: two slots of {slot:,} B for {target}", err=True)
    return 0


@click.command("install", cls=Command)
@_STORE
@click.argument("release", type=click.Path(path_type=Path))
@json_option
def install_command(store: Path, release: Path, as_json: bool) -> int:
    """Check RELEASE and put it into the free slot of STORE; the next boot tries it.

    Exit code 6: it is not signed by a key of the store, for another target, not newer than what
    was there, damaged or too large. Nothing was changed then.
    """
    from osbc_deploy.release.checks import RefusedError
    from osbc_deploy.release.signing import read_image
    from osbc_deploy.release.store import open_store

    content = read_image(release, "release")
    with open_store(store, change=True) as slots:
        try:
            slots.install(content)
        except RefusedError as error:
            raise RefusedError(error.why, f"{release}: {error}") from error
        return _show(slots, as_json)


@click.command("boot", cls=Command)
@_STORE
@click.option("-o", "--output", type=OutputFile(), metavar="FILE", help="Write the image here.")
@click.option(
    "--self-test", "selftest", type=OutputFile(), metavar="FILE", help="Write its self-test here."
)
@json_option
def boot_command(store: Path, output: Path | None, selftest: Path | None, as_json: bool) -> int:
    """Take the image that is to run out of STORE, and count the boot if it is on trial.

    What starts the network on a gateway calls this first. Exit code 6: no image may run.
    """
    from osbc_deploy.release.store import open_store
    from osbc_deploy.writing import check_file, write_whole

    asked = ((output, "-o"), (selftest, "--self-test"))
    for path, name in asked:
        if path is not None:
            check_file(path, name)
    with open_store(store, change=True) as slots:
        # A boot of which nothing can be taken out must not count against the image.
        for (path, name), size in zip(asked, slots.largest(), strict=True):
            if path is not None:
                check_file(path, name, room=size)
        found = slots.boot()
        if found.manifest is None:
            raise ArtefactError(f"{store}: holds no image that may run. Install a release.")
        image, tested = slots.image(found.slot, found.manifest)
        if output is not None:
            write_whole(output, image)
        if selftest is not None:
            write_whole(selftest, tested)
        return _show(slots, as_json)


@click.command("confirm", cls=Command)
@_STORE
@json_option
def confirm_command(store: Path, as_json: bool) -> int:
    """Make the image on trial the good one."""
    from osbc_deploy.release.store import open_store

    with open_store(store, change=True) as slots:
        slots.confirm()
        return _show(slots, as_json)


@click.command("judge", cls=Command)
@_STORE
@click.option("--samples", type=int, required=True, help="Samples since the boot.")
@click.option("--silent", type=int, required=True, help="Those of them without an answer.")
@click.option("--clipped", type=int, required=True, help="Clipped currents and potentials.")
@json_option
def judge_command(store: Path, samples: int, silent: int, clipped: int, as_json: bool) -> int:
    """Hold a trial against the limits of its release: confirm it, roll it back, or go on."""
    from osbc_deploy.release.store import open_store

    if min(samples, silent, clipped) < 0:
        raise UsageError("--samples, --silent, --clipped: none can be below 0. Give counts.")
    if silent > samples:
        raise UsageError(
            f"--silent: {silent:,} of {samples:,} samples, which is more than there are. Give both "
            "counts since the same boot."
        )
    with open_store(store, change=True) as slots:
        slots.judge(samples, silent, clipped)
        return _show(slots, as_json)


@click.command("rollback", cls=Command)
@_STORE
@click.option(
    "--version", type=int, default=0, metavar="N", help="Only if this version is the one to leave."
)
@click.option(
    "--reason",
    type=click.Choice(_REASONS),
    default="host",
    show_default=True,
    help="What is kept in the journal.",
)
@json_option
def rollback_command(store: Path, version: int, reason: str, as_json: bool) -> int:
    """Give up the image that is staged or on trial, or go back to the one confirmed before.

    The version that is left is never taken again.
    """
    from osbc_deploy.release.journal import Reason
    from osbc_deploy.release.store import open_store

    with open_store(store, change=True) as slots:
        slots.rollback(Reason[reason.upper().replace("-", "_")], version)
        return _show(slots, as_json)


@click.command("status", cls=Command)
@_STORE
@json_option
def status_command(store: Path, as_json: bool) -> int:
    """Show what STORE holds; every image is checked."""
    from osbc_deploy.release.store import open_store

    with open_store(store, change=False) as slots:
        return _show(slots, as_json)


def _show(slots: Slots, as_json: bool) -> int:
    from osbc_deploy.release.store import status

    found = status(slots)
    if as_json:
        emit(json.dumps(found, indent=1))
        return 0
    extra = f", boot {found['boots']} of 3" if found["state"] == "trial" else ""
    if found["reason"] != "none":
        extra = f" ({found['reason']})"
    say(f"state: {found['state']}{extra}; versions above {found['floor']} are taken")
    for name in ("good", "fallback", "candidate"):
        if (held := found[name]) is not None:
            what = (
                f"version {held['version']}, image {held['image_id']}, {held['image_bytes']:,} B"
                if held["intact"]
                else "DAMAGED"
            )
            say(f"{name}: slot {held['slot']}: {what}")
    return 0


STORE_COMMANDS = (
    create_command,
    install_command,
    boot_command,
    confirm_command,
    judge_command,
    rollback_command,
    status_command,
)
