"""Records decoded: as the schema says, with the layers of the user's model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cbor2
import jsonschema
import numpy as np
import pytest
from click.testing import CliRunner

from osbc_deploy.cli.main import cli
from osbc_deploy.errors import ArtefactError, UsageError
from osbc_deploy.firmware.about import read_about
from osbc_deploy.firmware.runtime import export_runtime
from osbc_deploy.fixedpoint.formats import NumberFormats
from osbc_deploy.telemetry.counting import count_window
from osbc_deploy.telemetry.decoding import decoded, read_files, schema
from osbc_deploy.telemetry.record import Window
from osbc_deploy.testing import Case, random_networks


@pytest.fixture(scope="module")
def case(formats: NumberFormats) -> Case:
    return next(c for c in random_networks(6, formats, start=5) if len(c.network.populations) > 2)


@pytest.fixture(scope="module")
def folder(case: Case, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("telemetry")
    export_runtime(case.network, folder / "rt")
    windows = [count_window(case.network, case.spikes, sequence=i) for i in range(3)]
    (folder / "a.bin").write_bytes(windows[0].to_bytes() + windows[1].to_bytes())
    (folder / "b.bin").write_bytes(windows[2].to_bytes())
    return folder


def called(*arguments: object) -> tuple[int, str, str]:
    done = CliRunner().invoke(cli, ["telemetry", "decode", *map(str, arguments)])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.exit_code, done.stdout, done.stderr


def test_json_and_cbor_hold_the_same_and_what_the_schema_says(case: Case, folder: Path) -> None:
    files = [folder / "a.bin", folder / "b.bin"]
    code, printed, _ = called(*files, "--network", folder / "rt", "--json", "-o", folder / "d.cbor")
    assert code == 0
    data: dict[str, Any] = json.loads(printed)
    jsonschema.validate(data, schema())
    assert cbor2.loads((folder / "d.cbor").read_bytes()) == data
    called(*files, "--network", folder / "rt" / "network.json", "-o", folder / "d.json")
    assert json.loads((folder / "d.json").read_text()) == data
    assert [window["sequence"] for window in data["windows"]] == [0, 1, 2]
    # Each counter is that of a layer which the model's owner knows.
    network = case.network
    for layer, p in zip(data["windows"][0]["layers"], network.populations, strict=True):
        assert (layer["population"], layer["layer"]) == (p.name, network.layers[p.name])
    known = {p.name for p in network.projections}
    assert {layer["layer"] for layer in data["network"]["layers"]} <= known


def test_the_terminal_shows_layers_and_answers(folder: Path) -> None:
    code, printed, _ = called(folder / "a.bin", "--network", folder / "rt")
    about = read_about(folder / "rt")
    assert code == 0
    assert f"network {about.identity}: 2 windows" in printed
    assert all(p.layer in printed for p in about.populations)


def test_stopped_counters_are_named(case: Case, folder: Path) -> None:
    window = count_window(case.network, case.spikes)
    full = Window(**window.__dict__ | {"silent": 2**16 - 1, "margins": (0,) * 7 + (2**16,)})
    from_device = full.to_bytes()
    (folder / "full.bin").write_bytes(from_device)
    data = decoded(read_files([folder / "full.bin"]), read_about(folder / "rt"))
    assert data["windows"][0]["stopped"] == ["silent", "margins"]
    assert not any(layer["stopped"] for layer in data["windows"][0]["layers"])


def test_records_of_another_network_are_refused(
    case: Case, folder: Path, formats: NumberFormats
) -> None:
    other = random_networks(1, formats, start=9)[0]
    (folder / "other.bin").write_bytes(count_window(other.network, other.spikes).to_bytes())
    about = read_about(folder / "rt")
    with pytest.raises(UsageError, match=f"the network is {about.identity[:16]}"):
        decoded(read_files([folder / "a.bin", folder / "other.bin"]), about)


def test_all_broken_files_are_named(folder: Path) -> None:
    (folder / "torn.bin").write_bytes((folder / "b.bin").read_bytes()[:-1])
    (folder / "none.bin").write_bytes(b"")
    with pytest.raises(ArtefactError, match=r"(?s)torn.bin: .*cut.*none.bin: .*there is none"):
        read_files([folder / "torn.bin", folder / "a.bin", folder / "none.bin"])


@pytest.mark.parametrize(
    ("text", "said"),
    [("", "cannot be read"), ("[]", "does not describe a network"), ("{}", "schema: "),
     ('{"schema": "osbc-deploy/network/2"}', "schema: ")],
)  # fmt: skip
def test_what_does_not_describe_a_network_is_refused(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "network.json").write_text(text)
    with pytest.raises(ArtefactError, match=said):
        read_about(tmp_path)


def test_counts_of_one_neuron_by_hand(case: Case) -> None:
    """Every sample is a window of its own, or all are one: sums and histograms add up."""
    whole = count_window(case.network, case.spikes)
    parts = [count_window(case.network, case.spikes[i : i + 1]) for i in range(len(case.spikes))]
    for number, layer in enumerate(whole.layers):
        seen = [part.layers[number] for part in parts]
        assert layer.spikes == sum(part.spikes for part in seen)
        assert list(layer.counts) == list(np.sum([part.counts for part in seen], axis=0))
        assert layer.fired <= sum(part.fired for part in seen)
