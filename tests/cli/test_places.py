"""No command writes where it reads, or twice in one place; what it would have done is not begun."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from osbc_deploy.cli.main import cli
from osbc_deploy.cli.places import Command
from osbc_deploy.errors import UsageError

FILES = (
    "k.pem", "k2.pem", "net.img", "net.safetensors", "net.py", "cin.npz", "plain", "t2.bin",
    "b.json", "c.toml", "my.toml", "rt/runtime.json", "rt/network.bin", "image/network.json",
    "image/report.json", "store/store.bin", "store/store.json", "spool/0", "runs/ledger.json",
    "layers/state.json",
)  # fmt: skip
SIGN = "release sign rt/network.bin --target cam --version 1 --no-self-test"
OWN = "net.py:make --calibration cin.npz --target my.toml"
MODEL = "net.py:make --calibration cin.npz --target loihi2"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with files of all kinds, which say their names."""
    monkeypatch.chdir(tmp_path)
    for name in FILES:
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_text("{}" if name.endswith("json") else name)
    Path("c.toml").write_text("[sweep]\n[deploy]\n")
    Path("rt/runtime.json").write_text('{"files": ["network.bin"]}')
    Path("link").symlink_to("store")
    return tmp_path


def content(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (f"{SIGN} --key k.pem -o k.pem", "-o: k.pem is what --key names, which would be lost"),
        (f"{SIGN} --key k.pem -o r --mcuboot ./k.pem", "--mcuboot: k.pem is what --key names"),
        (f"{SIGN} --key k.pem -o rt/network.bin", "-o: rt/network.bin is what IMAGE names"),
        (f"{SIGN} --key k.pem -o rt/runtime.json", "belongs to rt/network.bin, which IMAGE names"),
        (f"{SIGN} --key k.pem -o new --mcuboot new", "-o: new is what --mcuboot names, too"),
        ("release boot store -o store/store.bin", "lies in store, which belongs to STORE alone"),
        ("release boot link/ -o store/new", "lies in link, which belongs to STORE alone"),
        ("release boot store -o x --self-test x", "-o: x is what --self-test names, too"),
        ("release create new --target cam --key new/k.pem", "holds new/k.pem, which --key names"),
        ("telemetry decode b.json t2.bin --network rt -o t2.bin", "is what RECORDS names"),
        ("telemetry decode t2.bin --network rt -o rt/network.bin", "belongs to rt, which"),
        ("monitor judge t2.bin --baseline b.json --html t2.bin", "--html: t2.bin is what RECORDS"),
        ("monitor judge t2.bin --baseline b.json --html b.json", "is what --baseline names"),
        ("monitor watch spool --baseline b.json --html spool/page", "lies in spool, which"),
        ("monitor baseline image --records t2.bin -o t2.bin", "-o: t2.bin is what --records names"),
        ("monitor baseline image --samples plain -o plain", "-o: plain is what --samples names"),
        (f"verify {MODEL} --weights net.safetensors --html net.safetensors", "what --weights"),
        (f"verify {MODEL} --html net.py", "--html: net.py is what MODEL names"),
        (f"verify {MODEL} -o image --html image/verify.html", "lies in image, which belongs to -o"),
        (f"deploy {MODEL} --nir same -o same", "is what -o names, too"),
        (f"deploy {OWN} --nir my.toml", "--nir: my.toml is what --target names"),
        (f"deploy {MODEL} --resume new -o new", "--resume: new is what -o names, too"),
        (f"deploy {MODEL} --resume new/layers -o new", "--resume: new/layers lies in new, which"),
        (f"deploy {MODEL} --log cin.npz", "--log: cin.npz is what --calibration names"),
        (f"fit {MODEL} --plot same --html same", "--plot: same is what --html names, too"),
        ("compress net.py:make --calibration cin.npz -o cc --report cc", "is what --report names"),
        ("compress net.py:make --calibration cin.npz -o cin.npz", "is what --calibration names"),
        (f"sweep {MODEL} --csv cin.npz", "--csv: cin.npz is what --calibration names"),
        (f"sweep {MODEL} --config c.toml --csv c.toml", "--csv: c.toml is what --config names"),
        (f"sweep {MODEL} --csv same --html same --report same", "is what --html names, too"),
        (f"sweep {MODEL} --ledger runs --report runs/ledger.json", "lies in runs, which"),
        ("export image --format runtime -o image", "-o: image is what PATH names"),
        ("export net.img --format netx -o net.img", "-o: net.img is what PATH names"),
        ("run image --test cin.npz --golden image", "--golden: image is what IMAGE names"),
        ("report image --format json -o image/report.json", "belongs to image, which PATH names"),
        ("report image/report.json -o image/network.json", "belongs to image/report.json"),
        ("check image --budget c.toml --baseline c.toml --update-baseline", "what --budget names"),
        ("check image --baseline image/report.json --update-baseline --ram 1", "belongs to image"),
    ],
)  # fmt: skip
def test_an_output_that_is_an_input_or_another_output_is_refused(
    command: str, said: str, place: Path
) -> None:
    before = content(place)
    done = CliRunner().invoke(cli, command.split())
    assert isinstance(done.exception, UsageError), done.output
    assert said in str(done.exception)
    assert done.exception.exit_code == 2
    assert content(place) == before


def test_what_is_in_nobodys_way_is_not_refused(place: Path) -> None:
    Path("loihi2").mkdir()
    for command in (
        "export image --format c -o loihi2 --target loihi2",
        "check image --baseline b.json --budget b.json",
        "report image -o image/page.html",
        f"{SIGN} --key k.pem -o rt/release",
        "monitor watch . --store store --baseline b.json --once",
    ):
        done = CliRunner().invoke(cli, command.split())
        assert "Name another place" not in str(done.exception)


@pytest.mark.skipif(not hasattr(os, "link"), reason="no hard links here")
def test_another_name_of_the_same_file_is_the_file(place: Path) -> None:
    os.link("k.pem", "alias")
    done = CliRunner().invoke(cli, f"{SIGN} --key k.pem -o alias".split())
    assert "-o: alias is what --key names" in str(done.exception)


def _commands(command: click.Command) -> Iterator[click.Command]:
    if isinstance(command, click.Group):
        for inner in command.commands.values():
            yield from _commands(inner)
    else:
        yield command


def test_every_command_compares_its_paths() -> None:
    found = list(_commands(cli))
    assert len(found) > 25
    assert [command.name for command in found if not isinstance(command, Command)] == []
