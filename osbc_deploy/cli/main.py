"""The command line: groups the commands and turns errors into exit codes.

Nothing heavy is imported here; every command imports what it needs when it runs.
"""

from __future__ import annotations

import difflib
import io
import logging
import os
import sys
import warnings
from typing import Any

import click

from osbc_deploy._version import __version__
from osbc_deploy.cli import interrupts
from osbc_deploy.cli.compress import compress_command
from osbc_deploy.cli.console import complain, logs, say
from osbc_deploy.cli.deploy import deploy_command
from osbc_deploy.cli.doctor import doctor_command
from osbc_deploy.cli.explain import explain_command
from osbc_deploy.cli.export import export_command
from osbc_deploy.cli.fit import fit_command
from osbc_deploy.cli.info import backends_command, targets_group
from osbc_deploy.cli.inspect import inspect_command
from osbc_deploy.cli.monitor import monitor_group
from osbc_deploy.cli.options import ARGUMENTS, begin_refused_log
from osbc_deploy.cli.release import release_group
from osbc_deploy.cli.reports import check_command, diff_command, map_command, report_command
from osbc_deploy.cli.run import run_command
from osbc_deploy.cli.sweep import sweep_command
from osbc_deploy.cli.telemetry import telemetry_group
from osbc_deploy.cli.verify import verify_command
from osbc_deploy.errors import NotFoundError, OsbcError, UsageError, WritingError, reason
from osbc_deploy.explanations import COMMAND_LINE, MEMORY, SYSTEM

__all__ = ["cli", "main"]

EXIT_CODES = """\b
Exit codes:
  0   ok
  1   a bug in osbc-deploy
  2   wrong usage, configuration, target, backend or workers that cannot run, no place for output
  3   the model is not supported (every offender is listed)
  4   does not fit the chip, or over budget
  5   backend and engine disagree, or below the accuracy asked
  6   data, weights or artefact broken or not trusted
  7   monitor: the data drift
  8   monitor: a device is unhealthy
  130 interrupted (143 by SIGTERM, 129 by a terminal that closed)
  141 all is done, but whoever read stdout went away
\b
An error has a code, such as error[E310]: 'osbc-deploy explain E310' says more.
"""


class DefaultGroup(click.Group):
    """A group whose default command is ``deploy``."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Insert the default command where the user named none."""
        ctx.meta[ARGUMENTS] = tuple(args)
        own = {"--help", "-h", "--version"}
        if args and args[0] not in self.commands and args[0] not in own:
            self._check_verb(args[0])
            args = ["deploy", *args]
        return super().parse_args(ctx, args)

    def _check_verb(self, word: str) -> None:
        """Refuse a mistyped verb: a model has a colon or a suffix, or is a file."""
        if word.startswith("-") or any(c in word for c in ":./\\") or os.path.exists(word):
            return
        for meant in difflib.get_close_matches(word, self.commands, 1):
            raise NotFoundError(f"{word}: is not a command, nor a model. Did you mean '{meant}'?")


@click.group(
    cls=DefaultGroup,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=EXIT_CODES,
    no_args_is_help=True,
)
@click.version_option(__version__, prog_name="osbc-deploy")
def cli() -> None:
    """Fit a trained spiking network to a neuromorphic chip.

    \b
    osbc-deploy --target loihi2-sim
        deploys the bundled trained network on the bundled data
    osbc-deploy MODEL --weights FILE --target loihi2-sim --calibration DATA
        deploys yours; 'osbc-deploy deploy --help' lists all options
    """  # noqa: D301 - click wants the backspace itself, to keep the lines as they are


cli.add_command(deploy_command)
cli.add_command(fit_command)
cli.add_command(sweep_command)
cli.add_command(verify_command)
cli.add_command(compress_command)
cli.add_command(inspect_command)
cli.add_command(report_command)
cli.add_command(check_command)
cli.add_command(diff_command)
cli.add_command(map_command)
cli.add_command(export_command)
cli.add_command(run_command)
cli.add_command(release_group)
cli.add_command(telemetry_group)
cli.add_command(monitor_group)
cli.add_command(targets_group)
cli.add_command(backends_command)
cli.add_command(doctor_command)
cli.add_command(explain_command)


def _log_refused(argv: list[str] | None) -> None:
    """Begin the log that was asked for, if what is refused now has none yet."""
    if not logs():
        try:
            begin_refused_log(sys.argv[1:] if argv is None else argv)
        except WritingError as error:
            complain(error, error.code)


def main(argv: list[str] | None = None) -> Any:
    """Run the command line and exit with the documented code."""
    # SpikingJelly makes torch look for a compiler of GPU code, and warn on machines without one.
    logging.getLogger("torch._library.triton").setLevel(logging.ERROR)
    # norse scripts some of its functions at import, which says nothing about the user's network.
    warnings.filterwarnings("ignore", ".torch.jit", FutureWarning)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # What the terminal's encoding lacks is shown as an escape.
            stream.reconfigure(errors="backslashreplace")
    try:
        code = cli.main(args=argv, prog_name="osbc-deploy", standalone_mode=False)
    except (click.exceptions.Abort, KeyboardInterrupt):
        click.echo("interrupted", err=True)
        sys.exit(interrupts.received() or 130)
    except click.ClickException as error:
        _log_refused(argv)
        # click repeats what it was given.
        shown = io.StringIO()
        error.show(shown)
        text = shown.getvalue().rstrip("\n").replace("Error: ", f"error[{COMMAND_LINE}]: ", 1)
        say(text, err=True, lines=True)
        sys.exit(error.exit_code)
    except OsbcError as error:
        _log_refused(argv)
        complain(error, error.code, lines=True)
        sys.exit(error.exit_code)
    except OSError as error:
        # Of a temporary file, say: every OSError has its cause outside this program.
        place = f"{error.filename}: " if error.filename else ""
        said = f"{place}{error.strerror or reason(error)}."
        try:
            os.getcwd()
        except FileNotFoundError:
            said = "the current folder is not there any more. Change into one that is."
        complain(said, SYSTEM, lines=True)
        sys.exit(UsageError.exit_code)
    except MemoryError as error:
        complain(
            f"there is not enough memory ({reason(error)}). Give fewer samples or a smaller "
            "network, or another machine.",
            MEMORY,
            lines=True,
        )
        sys.exit(UsageError.exit_code)
    sys.exit(code if isinstance(code, int) else 0)
