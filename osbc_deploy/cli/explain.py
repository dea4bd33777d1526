"""``osbc-deploy explain [CODE]``: what an error code means, and what to do."""

from __future__ import annotations

import difflib
import json
import textwrap
from dataclasses import asdict

import click

from osbc_deploy.cli.console import emit, say
from osbc_deploy.cli.options import json_option
from osbc_deploy.cli.places import Command
from osbc_deploy.errors import NotFoundError
from osbc_deploy.explanations import EXPLANATIONS

__all__ = ["explain_command"]


@click.command("explain", cls=Command)
@click.argument("code", required=False)
@json_option
def explain_command(code: str | None, as_json: bool) -> int:
    """Say what an error code means and what usually helps; without CODE list all.

    The first digit of a code is the exit code.
    """
    name = None if code is None else code.strip("[]").upper().removeprefix("ERROR[")
    if name is not None and name not in EXPLANATIONS:
        near = difflib.get_close_matches(name, EXPLANATIONS, 1, cutoff=0.4)
        meant = f" Did you mean {near[0]}?" if near else ""
        raise NotFoundError(
            f"{code}: is not a code of an error.{meant} 'osbc-deploy explain' lists all."
        )
    if as_json:
        found = {n: asdict(e) for n, e in EXPLANATIONS.items() if name in (None, n)}
        emit(json.dumps(found, indent=1))
    elif name is None:
        for each, about in EXPLANATIONS.items():
            say(f"{each}  {about.title}")
    else:
        about = EXPLANATIONS[name]
        say(f"{name}: {about.title} (exit code {name[1]})")
        say("")
        for line in textwrap.wrap(about.meaning, 80):
            say(line)
        for cause in about.causes:
            for line in textwrap.wrap(cause, 80, initial_indent="- ", subsequent_indent="  "):
                say(line)
    return 0
