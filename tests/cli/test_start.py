"""How the program ends when its streams close or fill up, and when it is told to end."""

from __future__ import annotations

import errno
import json
import os
import re
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import pytest

from osbc_deploy.cli import progress
from osbc_deploy.cli.info import targets_group
from osbc_deploy.cli.main import main

LIST = ["targets", "list"]


def osbc(*args: Any, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "osbc_deploy", *map(str, args)],
        stderr=subprocess.PIPE,
        text=True,
        check=False,
        timeout=1800,
        **options,
    )


def closed_pipe() -> int:
    """Return an end of a pipe from which nobody reads."""
    reader, writer = os.pipe()
    os.close(reader)
    return writer


@pytest.mark.parametrize("args", [LIST, [*LIST, "--json"], ["--help"], ["fit", "--help"]])
def test_a_reader_that_goes_away_is_said_in_one_sentence(args: list[str]) -> None:
    done = osbc(*args, stdout=closed_pipe())
    assert done.returncode == 141
    assert done.stderr == "error[E202]: stdout: its reader went away before all was printed.\n"


def test_the_reader_of_both_streams_goes_away() -> None:
    command = [sys.executable, "-m", "osbc_deploy", *LIST]
    done = subprocess.run(command, stdout=closed_pipe(), stderr=subprocess.STDOUT, check=False)
    assert done.returncode == 141


def imported(
    command: list[str], where: Path | None = None
) -> tuple[subprocess.CompletedProcess[str], set[str]]:
    """Run a command, and return the modules that it imported as well."""
    program = (
        "import sys\nfrom osbc_deploy.cli.start import start\n"
        "try:\n    start()\n"
        "finally:\n    print(*sys.modules, file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *command],
        capture_output=True,
        text=True,
        check=False,
        timeout=1800,
        cwd=where,
    )
    return done, set(done.stderr.splitlines()[-1].split())


@pytest.mark.parametrize("command", ["--help", "--version", "deploy --help", "check --help"])
def test_help_imports_nothing_that_takes_time(command: str) -> None:
    done, found = imported(command.split())
    assert done.returncode == 0
    assert "osbc_deploy.cli.main" in found
    packages = {name.partition(".")[0] for name in found} - set(sys.stdlib_module_names)
    # Start-up hooks of an environment begin with an underscore.
    assert {name for name in packages if not name.startswith("_")} == {"click", "osbc_deploy"}
    assert not found & {"asyncio", "email", "hashlib", "importlib.metadata", "socket"}


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("missing.py:net --calibration data.npz", "missing.py: no such file"),
        ("missing:net --calibration data.npz", "there is no package 'missing'"),
        ("missing.nir --calibration data.npz", "missing.nir: no such file"),
        ("model.py:net --calibration missing.npz", "missing.npz: no such file"),
        ("model.py:net --calibration missing:data", "there is no package 'missing'"),
        ("model.py:net --calibration data.npz --weights w.pth", "w.pth: no such file"),
        ("verfy model.py:net --calibration data.npz", "Did you mean 'verify'?"),
    ],
)
def test_what_is_not_there_is_said_before_torch_is_imported(
    tmp_path: Path, command: str, said: str
) -> None:
    (tmp_path / "data.npz").touch()
    (tmp_path / "model.py").touch()
    done, found = imported([*command.split(), "--target", "loihi2-sim"], tmp_path)
    assert done.returncode == 2
    assert said in done.stderr
    assert done.stderr.count("error[E201]:") == 1
    packages = {name.partition(".")[0] for name in found}
    assert not packages & {"torch", "norse", "numba", "scipy"}


def test_a_current_folder_that_is_gone_is_said(tmp_path: Path) -> None:
    gone = 'mkdir gone && cd gone && rmdir ../gone && "$0" -m osbc_deploy report "$1"'
    done = subprocess.run(
        ["sh", "-c", gone, sys.executable, str(tmp_path / "image")],
        cwd=tmp_path,
        text=True,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr == (
        "error[E241]: the current folder is not there any more. Change into one that is.\n"
    )


def test_stdout_is_for_results_whatever_a_model_prints(tmp_path: Path) -> None:
    (tmp_path / "chatty.py").write_text(
        "import os, sys\nimport norse.torch as norse\nfrom torch import nn\n"
        "print('imported')\n"
        "class Linear(nn.Linear):\n"
        "    def forward(self, x):\n"
        "        sys.stdout.write('called')\n        return super().forward(x)\n"
        "def net():\n"
        "    os.system('echo from a child')\n    sys.__stdout__.write('made')\n"
        "    return norse.SequentialState(Linear(3, 4), norse.LIFBoxCell())\n"
    )
    command = ["inspect", "chatty:net", "--shape", "3"]
    for json_wanted in (True, False):
        done = osbc(*command, *["--json"] * json_wanted, stdout=subprocess.PIPE, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        for said in ("imported", "called", "from a child", "made"):
            assert said in done.stderr
            assert said not in done.stdout
        if json_wanted:
            assert json.loads(done.stdout)["source"] == "chatty:net"
    unread = ["sh", "-c", '"$0" -m osbc_deploy "$@" 2>&-', sys.executable, *command, "--json"]
    plain = subprocess.run(unread, stdout=subprocess.PIPE, cwd=tmp_path, check=True)
    assert json.loads(plain.stdout)["source"] == "chatty:net"


def test_a_full_disk_under_stdout_is_said_in_one_sentence() -> None:
    with Path("/dev/full").open("w") as full:
        done = osbc(*LIST, stdout=full)
    assert done.returncode == 2
    said = "stdout: cannot be written (No space left on device). Free some of the disk, or choose"
    assert done.stderr == f"error[E202]: {said} another place.\n"


def test_a_verdict_outlives_the_reader(tmp_path: Path) -> None:
    (tmp_path / "bad.toml").write_text("schema = 1\n")
    done = osbc("targets", "validate", "bad.toml", stdout=closed_pipe(), cwd=tmp_path)
    assert done.returncode == 2
    assert "its reader went away" in done.stderr


@pytest.mark.parametrize("number", [0, 1, 2])
def test_streams_that_are_closed_from_the_start(number: int) -> None:
    def close() -> None:
        os.close(number)

    done = osbc(*LIST, stdout=subprocess.PIPE, preexec_fn=close)
    if number == 1:
        assert done.returncode == 2
        assert done.stderr.startswith("error[E202]: stdout: is closed.")
        assert done.stderr.count("\n") == 1
    else:
        assert done.returncode == 0
        assert "loihi2-sim" in done.stdout
        assert done.stderr == ""


def told(command: list[Any], ready: Path, number: int) -> tuple[int, str, str]:
    """Run Python, send it a signal as soon as a file is there, and return how it ended."""
    with subprocess.Popen(
        [sys.executable, *map(str, command)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ready.parent,
    ) as process:
        while not ready.exists() and process.poll() is None:
            time.sleep(0.01)
        process.send_signal(number)
        try:
            out, err = process.communicate(timeout=1800)
        finally:
            process.kill()
    return process.returncode, out, err


def test_a_log_without_a_terminal_says_what_is_being_done(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "_EVERY", 0.01)
    shown: list[str] = []

    def wait_for(text: str) -> None:
        while not any(text in line for line in shown):
            time.sleep(0.01)
            shown.extend(capsys.readouterr().err.splitlines())

    with progress.Bars() as bars:
        wait_for("working, 0 s")
        bars.start("compressing", 7)
        bars.advance(2)
        wait_for("compressing 2 of 7, ")
    capsys.readouterr()
    time.sleep(0.1)
    assert capsys.readouterr().err == ""
    with progress.Bars(quiet=True) as bars:
        bars.start("compressing", 7)
        time.sleep(0.1)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "No space left on device."),
        (OSError(errno.ENOSPC, "No space left", "/tmp/x"), "/tmp/x: No space left."),
        (MemoryError("8 TiB"), "there is not enough memory (8 TiB). Give fewer samples"),
        (MemoryError(), "there is not enough memory (MemoryError). Give fewer samples"),
    ],
)
def test_what_the_machine_lacks_is_said_in_one_sentence(
    error: Exception,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def lacking(*args: object, **options: object) -> None:
        raise error

    monkeypatch.setattr(targets_group, "invoke", lacking)
    with pytest.raises(SystemExit) as ended:
        main(LIST)
    assert ended.value.code == 2
    seen = capsys.readouterr()
    assert (seen.out, seen.err.count("\n")) == ("", 1)
    assert re.match(rf"error\[E24[12]\]: {re.escape(said)}", seen.err)


def test_what_norse_makes_torch_complain_of_is_not_shown(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def loud(*args: object, **options: object) -> None:
        warnings.warn("`torch.jit.script` is deprecated.", FutureWarning, stacklevel=1)

    monkeypatch.setattr(targets_group, "invoke", loud)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        with pytest.raises(SystemExit):
            main(LIST)
    assert capsys.readouterr().err == ""


PROGRAM = """
import sys, time, types
def ready():
    open("ready", "w").close()
def main():
    {body}
    while True:
        {loop}
sys.modules["osbc_deploy.cli.main"] = module = types.ModuleType("main")
module.main = main
from osbc_deploy.cli.start import start
start()
"""

WAITS = ("ready()", "time.sleep(0.01)")
ENDINGS = {
    "while it waits": WAITS,
    # What some libraries make of KeyboardInterrupt.
    "as another error": ("ready()", """try: time.sleep(0.01)
        except BaseException: raise ImportError("numpy") from None"""),
    "swallowed": ("ready()", """try: time.sleep(0.01)
        except BaseException: sys.exit(0)"""),
    "in a destructor": ("""class A:
        def __del__(self):
            ready(); time.sleep(0.5)
    A()""", "time.sleep(0.01)"),
}  # fmt: skip


@pytest.mark.parametrize("how", ENDINGS)
def test_an_interruption_is_one_word_wherever_it_falls(tmp_path: Path, how: str) -> None:
    body, loop = ENDINGS[how]
    program = PROGRAM.format(body=body, loop=loop)
    found = told(["-c", program], tmp_path / "ready", signal.SIGINT)
    assert found == (130, "", "interrupted\n")


def test_a_signal_after_all_is_done_changes_nothing(tmp_path: Path) -> None:
    # The module's end is Python's, after all exit handlers.
    late = """import os
    class Late:
        def __del__(self, kill=os.kill, pid=os.getpid()):
            kill(pid, 2)
    sys.modules["late"] = Late()
    print("done")
    sys.exit(0)"""
    program = PROGRAM.format(body=late, loop="pass")
    found = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        timeout=1800,
    )
    assert (found.returncode, found.stdout, found.stderr) == (0, "done\n", "")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_other_ways_to_be_told(tmp_path: Path, number: int, code: int) -> None:
    program = PROGRAM.format(body=WAITS[0], loop=WAITS[1])
    assert told(["-c", program], tmp_path / "ready", number) == (code, "", "interrupted\n")


def test_a_command_is_interrupted_in_the_users_code(tmp_path: Path) -> None:
    model = "import time\ndef net():\n    open('ready', 'w').close()\n    time.sleep(100)\n"
    (tmp_path / "slow.py").write_text(model)
    command = ["-m", "osbc_deploy", "inspect", "slow:net", "--shape", "3"]
    code, out, err = told(command, tmp_path / "ready", signal.SIGINT)
    assert (code, out, err.split()) == (130, "", ["interrupted"])


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("SOURCE_DATE_EPOCH", "soon", "SOURCE_DATE_EPOCH: 'soon' is not a time. Give"),
        ("SOURCE_DATE_EPOCH", "9" * 17, "is not a time. Give seconds since 1970, or unset it."),
        ("NUMBA_NUM_THREADS", "0", "NUMBA_*: an environment variable is not valid (Num"),
        ("NUMBA_DISABLE_JIT", "1", "NUMBA_DISABLE_JIT: is set, and the compiled loops cannot be"),
    ],
)
def test_an_environment_in_which_nothing_runs_is_said(
    variable: str, value: str, said: str, tmp_path: Path
) -> None:
    env = {**os.environ, variable: value}
    (tmp_path / "out").mkdir()
    done = osbc("map", tmp_path / "out", "--target", "loihi2", env=env, stdout=subprocess.DEVNULL)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr
