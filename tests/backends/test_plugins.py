"""Plugins of others: whatever they raise or say ends in one message."""

from __future__ import annotations

import json
from importlib.metadata import EntryPoint
from typing import Any

import pytest
from click.testing import CliRunner

from osbc_deploy import backends
from osbc_deploy.backends import load_backend
from osbc_deploy.cli.main import cli
from osbc_deploy.errors import BackendError

ODD = "\x1b[31m[red]\nok"


class Broken:
    """A plugin that fails at everything."""

    summary = ODD

    def availability(self) -> Any:
        raise ValueError(ODD)

    def run(self, *args: Any, **options: Any) -> Any:
        raise KeyError("inside")


BROKEN = Broken()


@pytest.fixture(autouse=True)
def plugins(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [
        EntryPoint(ODD, f"{__name__}:BROKEN", backends.GROUP),
        EntryPoint("gone", "no_such_package:X", backends.GROUP),
    ]
    monkeypatch.setattr(EntryPoint, "load", _load)
    monkeypatch.setattr(backends, "entry_points", lambda group: found)


def _load(entry: EntryPoint) -> Any:
    if entry.name == "gone":
        raise ImportError(ODD)
    return BROKEN


def test_a_plugin_that_fails_is_a_backend_error() -> None:
    backend = load_backend(ODD)
    state = backend.availability()
    assert not state.ok
    assert state.detail == "asking it failed: \x1b[31m[red] ok"
    with pytest.raises(BackendError, match=r"failed \(KeyError: inside\)"):
        backend.run(None, None, time_limit=1.0, progress=None)  # type: ignore[arg-type]
    with pytest.raises(BackendError, match="its plugin cannot be loaded"):
        load_backend("gone")


@pytest.mark.parametrize("command", ["backends", "doctor"])
def test_what_plugins_say_is_shown_as_text(command: str) -> None:
    done = CliRunner().invoke(cli, [command], standalone_mode=False)
    assert done.exception is None
    assert r"\x1b[31m[red]\nok" in done.output
    assert all(c.isprintable() or c == "\n" for c in done.output)
    told = CliRunner().invoke(cli, [command, "--json"], standalone_mode=False)
    entries = json.loads(told.output)
    found = entries if command == "backends" else entries["backends"]
    assert [(e["name"], e["ok"]) for e in found] == [(ODD, False), ("gone", False)]
