"""``osbc-deploy release``: sign a network image, and keep it in a store that can go back."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path

import click

from osbc_deploy.cli.console import emit, say
from osbc_deploy.cli.options import config_option, given, json_option, quiet_option
from osbc_deploy.cli.places import Group, GrowingFolder, OutputFile
from osbc_deploy.cli.store import STORE_COMMANDS
from osbc_deploy.errors import ArtefactError, OsbcError, UsageError
from osbc_deploy.plain_text import many

__all__ = ["release_group"]


@click.group("release", cls=Group)
def release_group() -> None:
    """Sign network images, install them, and go back when they fail."""


for _command in STORE_COMMANDS:
    release_group.add_command(_command)


@release_group.command("keygen")
@click.argument("path", type=OutputFile(), metavar="KEY.pem")
def keygen_command(path: Path) -> int:
    """Make a pair of Ed25519 keys: KEY.pem signs and stays secret, KEY.pub.pem goes to devices."""
    from osbc_deploy.release.keys import make_keys

    public = make_keys(path)
    say(f"wrote {path} (keep it secret) and {public}", err=True)
    return 0


@release_group.command("sign")
@click.argument("image", type=click.Path(path_type=Path))
@click.option(
    "-o", "--output", type=OutputFile(), required=True, metavar="FILE", help="The release."
)
@click.option(
    "--key", type=click.Path(path_type=Path), required=True, metavar="KEY.pem", help="Signs it."
)
@click.option("--target", required=True, metavar="NAME", help="Kind of device that it is for.")
@click.option(
    "--version", type=int, required=True, help="Whole number; a store takes only higher ones."
)
@click.option(
    "--network",
    type=click.Path(path_type=Path),
    metavar="PATH",
    help="Network of an image that cannot be read itself, for its self-test: what 'run' takes.",
)
@click.option("--samples", metavar="DATA", help="Inputs of the self-test.")
@click.option(
    "--vectors", type=int, default=3, show_default=True, help="How many of them, the first ones."
)
@click.option("--no-self-test", is_flag=True, help="Leave the self-test out.")
@click.option(
    "--trial-samples",
    type=int,
    default=1000,
    show_default=True,
    help="Samples without a hard fault after which a device confirms the image.",
)
@click.option(
    "--silent",
    type=float,
    default=0.5,
    show_default=True,
    help="Share of them that may stay without an answer.",
)
@click.option(
    "--clipped",
    type=int,
    default=0,
    show_default=True,
    help="Currents and potentials that may be clipped in all of them.",
)
@click.option(
    "--mcuboot",
    type=OutputFile(),
    metavar="FILE",
    help="Write the image here as well, wrapped for MCUboot by imgtool with the same key.",
)
@click.option(
    "--mcuboot-slot",
    type=int,
    default=2**20,
    show_default=True,
    help="Bytes of MCUboot's slot.",
)
@json_option
@quiet_option
@config_option
def sign_command(
    image: Path,
    output: Path,
    key: Path,
    target: str,
    version: int,
    network: Path | None,
    samples: str | None,
    vectors: int,
    no_self_test: bool,
    trial_samples: int,
    silent: float,
    clipped: int,
    mcuboot: Path | None,
    mcuboot_slot: int,
    as_json: bool,
    quiet: bool,
) -> int:
    """Sign IMAGE, with a self-test and the limits of its trial, as a release.

    IMAGE is what the device loads: the network that 'export' wrote. Its self-test is the first
    samples of --samples and the engine's answers to them.
    """
    from osbc_deploy.release.keys import read_private
    from osbc_deploy.release.mcuboot import check_imgtool, wrap
    from osbc_deploy.release.signing import make_release, read_image
    from osbc_deploy.writing import check_file, write_whole

    check_file(output, "-o")
    if mcuboot is not None:
        check_file(mcuboot, "--mcuboot")
        check_imgtool()
    if not 0 <= silent <= 1:
        raise UsageError(f"--silent: {silent:g} is outside 0 to 1. Give the share of samples.")
    if not 1 <= vectors <= 100:
        raise UsageError(f"--vectors: {vectors} is outside 1 to 100. Give a number of samples.")
    if no_self_test and (idle := given("samples", "network", "vectors")):
        raise UsageError(f"--no-self-test: leaves {', '.join(idle)} without use. Drop it or them.")
    if mcuboot is None and given("mcuboot_slot"):
        raise UsageError("--mcuboot-slot: needs --mcuboot FILE to write to.")
    if not no_self_test and samples is None:
        raise UsageError(
            "--samples: is missing. Give data for the self-test, or --no-self-test for an image "
            "that goes on trial unchecked."
        )
    signer, content = read_private(key), read_image(image)
    tested = b"" if samples is None else _selftest(image, network, samples, vectors)
    manifest, release = make_release(
        content, tested, signer, version=version, target=target, trial_samples=trial_samples,
        # As it is written: 0.29 of 100 are 29, although the float times 100 is less.
        silent_most=int(Decimal(str(silent)) * trial_samples), clipped_most=clipped,
    )  # fmt: skip
    wrapped = b""
    if mcuboot is not None:
        wrapped = wrap(content, key=key, version=version, slot=mcuboot_slot)
    write_whole(output, release)
    if mcuboot is not None:
        write_whole(mcuboot, wrapped)
    if as_json:
        facts = {
            "schema": "osbc-deploy/release/1",
            "version": version,
            "target": target,
            "image_id": manifest.image_id.hex(),
            "image_sha256": manifest.image_digest.hex(),
            "image_bytes": manifest.image_bytes,
            "selftest_bytes": manifest.selftest_bytes,
            "release_bytes": len(release),
            "trial": {
                "samples": trial_samples,
                "silent_most": manifest.silent_most,
                "clipped_most": clipped,
            },
            "key_id": manifest.key_id.hex(),
        }
        emit(json.dumps(facts, indent=1))
    if not quiet:
        say(
            f"wrote {output}: version {version} for {target}, {len(release):,} B, self-test "
            f"{manifest.selftest_bytes:,} B of it",
            err=True,
        )
    return 0


def _selftest(image: Path, named: Path | None, samples: str, count: int) -> bytes:
    """Return the self-test of an image; a network named beside it must give the same."""
    from osbc_deploy.references import as_samples
    from osbc_deploy.release.selftest import make_selftest
    from osbc_deploy.running.runnable import read_image

    inputs = as_samples(samples, "samples")
    if given("vectors") and len(inputs) < count:
        raise UsageError(
            f"--vectors: {count} are asked for, {samples} holds {many(len(inputs), 'sample')}. "
            "Give more samples, or ask for fewer."
        )
    try:
        networks = [read_image(image).network]
    except OsbcError as error:
        if named is None:
            raise ArtefactError(
                f"--samples: a self-test needs the network of {image}, which cannot be read from "
                f"it. Name the network with --network, or leave the self-test out with "
                f"--no-self-test. ({error})"
            ) from error
        networks = []
    if named is not None:
        networks.append(read_image(named).network)
    made = [make_selftest(network, inputs, count).pack() for network in networks]
    if made[0] != made[-1]:
        raise UsageError(
            f"--network: {named} answers the samples otherwise than {image}, which every device "
            "would refuse. Leave --network out: the image can be read."
        )
    return made[0]


@release_group.command("library")
@click.option(
    "-o", "--output", type=GrowingFolder(), required=True, metavar="FOLDER", help="Where to."
)
def library_command(output: Path) -> int:
    """Write the same state machine in C99, for the firmware of a device."""
    from importlib.resources import files

    from osbc_deploy.writing import check_inside, write_whole

    check_inside(output)
    for name in ("osbc_slots.h", "osbc_slots.c"):
        text = (files("osbc_deploy.release") / "c" / name).read_text("utf-8")
        write_whole(output / name, text)
        say(f"wrote {output / name}", err=True)
    return 0
