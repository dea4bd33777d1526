"""The table of options and everything that reads it: none may know another option than it."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

import click
import numpy as np
import pytest
from click.testing import CliRunner

import osbc_deploy
from osbc_deploy.cli.compress import compress_command
from osbc_deploy.cli.deploy import deploy_command
from osbc_deploy.cli.fit import fit_command
from osbc_deploy.cli.options import config_option, takes
from osbc_deploy.cli.sweep import sweep_command
from osbc_deploy.cli.verify import verify_command
from osbc_deploy.data.datasets import DATASETS, DatasetRequest
from osbc_deploy.errors import UsageError
from osbc_deploy.job import VerbCall, verb
from osbc_deploy.options import (
    REQUESTED,
    VERIFIED,
    CompressionRequest,
    CompressOptions,
    DataOptions,
    Dataset,
    DeployOptions,
    FitBudget,
    FitOptions,
    InputOptions,
    SweepOptions,
    VerifyOptions,
)
from osbc_deploy.options.option import Options, Row, option, reported, rows, schema
from osbc_deploy.provenance import Call, request
from osbc_deploy.report.deployment.build import json_schema
from osbc_deploy.report.verification.build import verify_json_schema

VERBS = [
    (osbc_deploy.deploy, deploy_command, DeployOptions, InputOptions),
    (osbc_deploy.verify, verify_command, VerifyOptions, InputOptions),
    (osbc_deploy.fit, fit_command, FitOptions, InputOptions),
    (osbc_deploy.sweep, sweep_command, SweepOptions, DataOptions),
    (osbc_deploy.compress_model, compress_command, CompressOptions, DataOptions),
]
COMMON = "target weights dt reset bits method readout classes backend backend_samples time_limit"
DEPLOYED = (
    f"{COMMON} sparsity allocation pattern mixed tune solver_memory resume workers scheduler "
)
DEPLOYED += "device"
NAMES = {
    "deploy": DEPLOYED,
    "verify": f"{DEPLOYED} samples tau neurons gates",
    "fit": f"{COMMON} budget max_sparsity",
    "sweep": "targets sparsities bits methods seeds ledger workers scheduler weights dt reset "
    "readout classes backend backend_samples time_limit allocation pattern mixed tune "
    "solver_memory",
    "compress_model": "weights sparsity bits method allocation pattern mixed tune solver_memory "
    "resume readout classes repeat exclude device workers scheduler",
}
"""Keywords that scripts of users have; see docs/stability.md."""


def flat(table: type[Options]) -> list[Row]:
    return [r for row in rows(table) for r in (flat(row.table) if row.table else [row])]


def other(row: Row) -> Any:
    """Return a value that is allowed and not the default."""
    one = {"flag": not row.default, "whole": 5, "number": 0.5, "text": "2:4", "path": "there"}
    value = next(c for c in row.choices if c != row.default) if row.choices else one[row.kind]
    return (value,) if row.many else value


def chosen(table: type[Options]) -> Options:
    return table(
        **{row.name: chosen(row.table) if row.table else other(row) for row in rows(table)}
    )


@pytest.mark.parametrize(("function", "command", "table", "inputs"), VERBS)
def test_python_and_command_line_have_the_tables_options(
    function: Any, command: click.Command, table: type[Options], inputs: type[Options]
) -> None:
    names = [row.name for row in rows(table)]
    assert set(NAMES[function.__name__].split()) <= set(names)
    signature = inspect.signature(function).parameters
    assert list(signature)[:2] == ["module", "calibration"]
    others = {"module", "calibration", "test", "progress", "call", "options"}
    assert set(signature) == {*names, *others}
    assert {name: signature[name].default for name in names} == {
        row.name: row.default for row in rows(table)
    }
    shown = {p.name: p for p in command.params if isinstance(p, click.Option) and not p.hidden}
    own = {"nir_file", "html", "plot", "report_file", "as_json", "quiet", "config", "csv_file"}
    own |= {"log", "verbose"}
    if table is CompressOptions:
        own.add("output")
    assert set(shown) - own == {row.name for row in flat(table) + flat(inputs)}
    for row in flat(table) + flat(inputs):
        assert shown[row.name].help == row.about.help
        assert shown[row.name].required == row.about.required
        if row.choices:
            assert list(shown[row.name].type.choices) == list(row.choices)


@pytest.mark.parametrize("by", ["flags", "config"])
@pytest.mark.parametrize(
    "table",
    [DeployOptions, VerifyOptions, FitOptions, CompressOptions, InputOptions, SweepOptions],
)
def test_flags_and_keys_of_a_configuration_reach_the_options(
    by: str, table: type[Options], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Options] = []

    @click.command("job")
    @takes(options=table)
    @config_option
    def job(options: Options) -> None:
        seen.append(options)

    def run(*args: str) -> Options:
        done = CliRunner().invoke(job, args, catch_exceptions=False)
        assert done.exit_code == 0, done.output
        return seen.pop()

    # The pattern that other() draws does not go with every allocation and method.
    monkeypatch.setattr(table, "_contradictions", lambda self: ())
    wanted = chosen(table)
    target = () if table in (InputOptions, CompressOptions) else ("--target", "loihi2-sim")
    plain = run(*target)
    assert plain == (replace(table(), budget=FitBudget()) if table is FitOptions else table())
    flags, keys = [], []
    for row in flat(table):
        value = other(row)
        shown = ",".join(map(str, value)) if row.many else str(value)
        name = row.about.flags[-1] if row.about.flags else f"--{row.name.replace('_', '-')}"
        if row.kind == "flag":
            flags.append(name if value else name.replace("--", "--no-"))
        else:
            flags += [name, shown]
        text = {"flag": str(value).lower(), "whole": str(value), "number": str(value)}
        quoted = text.get(row.kind, f'"{shown}"')
        if row.many:
            quoted = f'"{shown}"' if row.kind in ("whole", "number") else f'["{shown}"]'
        keys.append(f"{name.lstrip('-')} = {quoted}")
    if by == "flags":
        found = run(*flags)
    else:
        (tmp_path / "c.toml").write_text("[job]\n" + "\n".join(keys))
        found = run("--config", str(tmp_path / "c.toml"))
    for row in rows(table):
        value = getattr(found, row.name)
        assert (str(value) if row.kind == "path" else value) == getattr(wanted, row.name)


def test_a_key_in_two_spellings_is_refused(tmp_path: Path) -> None:
    @click.command("job")
    @takes(options=VerifyOptions)
    @config_option
    def job(options: Options) -> None:
        raise AssertionError(options)

    (tmp_path / "c.toml").write_text('[job]\ngate = ["mismatch=0"]\ngates = ["clipped=0"]\n')
    done = CliRunner().invoke(job, ["--config", str(tmp_path / "c.toml")])
    assert isinstance(done.exception, UsageError)
    assert "[job] gates: stands there twice" in str(done.exception)


def test_reports_and_their_schemas_hold_what_the_table_says() -> None:
    requested = json_schema()["properties"]["compression"]["properties"]["requested"]
    verified = verify_json_schema()["properties"]["options"]
    # Reports of schema 6 and 3 have always had these.
    names = {"sparsity", "bits", "allocation", "pattern", "mixed", "tune"}
    assert names | {"damping"} <= requested["properties"].keys()
    assert names | {"method", "readout", "tau"} <= verified["properties"].keys()
    for found, place, table in (
        (requested, REQUESTED, CompressionRequest),
        (verified, VERIFIED, VerifyOptions),
    ):
        values = reported(place, table, table())
        assert list(found["properties"]) == found["required"] == list(values)
    limits = requested["properties"]["sparsity"]
    assert (limits["type"], limits["minimum"], limits["exclusiveMaximum"]) == ("number", 0, 1)
    assert requested["properties"]["allocation"]["enum"] == ["lamps", "uniform", "global", "auto"]


def test_a_former_name_goes_on_working_and_warns(tmp_path: Path) -> None:
    seen: list[DeployOptions] = []

    @click.command("job")
    @takes(options=DeployOptions)
    @config_option
    def job(options: DeployOptions) -> None:
        seen.append(options)

    (tmp_path / "old.toml").write_text('[job]\nbudget = "global"\n')
    for args in (["--budget", "global"], ["--config", str(tmp_path / "old.toml")]):
        done = CliRunner().invoke(job, ["--target", "loihi2", *args])
        assert (done.exit_code, seen.pop().allocation) == (0, "global"), done.output
        assert "budget is called allocation now" in done.stderr
    both = ["--target", "loihi2", "--budget", "global", "--allocation", "lamps"]
    with pytest.raises(UsageError, match="allocation: is given twice"):
        CliRunner().invoke(job, both, catch_exceptions=False)
    assert "--budget" not in CliRunner().invoke(job, ["--help"]).output
    with (
        pytest.warns(DeprecationWarning, match="budget is called allocation now"),
        pytest.raises(UsageError, match="allocation: 'fair' is not one of"),
    ):
        osbc_deploy.deploy(None, None, target="loihi2", budget="fair")


@dataclass(frozen=True, kw_only=True)
class ToyOptions(DeployOptions):
    toy: int = option(3, "A toy.", least=1, most=9, reported=[REQUESTED])


# What its annotation is without this module's postponement of annotations.
ToyOptions.__dataclass_fields__["toy"].type = int


@dataclass(frozen=True, kw_only=True)
class ToyCall(ToyOptions, VerbCall):
    options: DeployOptions | None = None


@verb(ToyCall, DeployOptions)
def toy_verb(call: ToyCall) -> ToyCall:
    return call


def test_a_new_option_is_a_field_and_nothing_else() -> None:
    @click.command()
    @takes(options=ToyOptions)
    def command(options: ToyOptions) -> None:
        click.echo(f"toy is {options.toy}")

    run = CliRunner()
    assert "A toy.  [default: 3]" in run.invoke(command, ["--help"]).output
    assert run.invoke(command, ["--target", "x", "--toy", "4"]).output == "toy is 4\n"
    call = toy_verb("net", "data", toy=7)
    assert call.toy == 7
    assert inspect.signature(toy_verb).parameters["toy"].default == 3
    asked = request(toy_verb, ToyOptions, replace(call, call=Call("command", 0)))
    assert asked.options["toy"] == 7
    assert request(toy_verb, ToyOptions, call).command.endswith("toy_verb('net', 'data', toy=7)")
    assert reported(REQUESTED, ToyOptions, call)["toy"] == 7
    assert schema(REQUESTED, ToyOptions)["properties"]["toy"] == {
        "type": "integer", "minimum": 1, "maximum": 9, "description": "A toy."
    }  # fmt: skip
    with pytest.raises(UsageError, match="^toy: 10 is outside 1 to 9"):
        ToyOptions(toy=10)


def test_python_shows_the_tables_help() -> None:
    said = DeployOptions.__doc__ or ""
    assert said.startswith("What ``deploy`` is asked to do.\n\nAttributes\n----------\n")
    for row in rows(DeployOptions):
        assert f"\n{row.name} : " in said
        assert f"\n    {row.about.help}\n" in said
    assert "\nmethod : {'osbc', 'obc', 'magnitude', 'paper'}\n" in said
    assert "\nclasses : int or None\n" in said


def test_keywords_override_the_options_object() -> None:
    options = DeployOptions(sparsity=0.5, bits=3)
    call = toy_verb("net", "data", options=options, bits=6)
    assert (call.sparsity, call.bits, call.toy) == (0.5, 6, 3)
    # Options of a table derived from it count where the verb takes them.
    assert toy_verb("net", "data", options=ToyOptions(toy=5)).toy == 5
    assert toy_verb("net", "data", options=VerifyOptions(bits=2, tau=9.0)).bits == 2
    wrong: Any = FitOptions()
    with pytest.raises(UsageError, match=r"a FitOptions was given. Give DeployOptions\(...\)"):
        toy_verb("net", "data", options=wrong)
    more: Any = {"sparsty": 0.5}
    with pytest.raises(TypeError, match="unexpected keyword argument 'sparsty'"):
        toy_verb("net", "data", **more)


@pytest.mark.parametrize(
    ("table", "given", "said"),
    [
        (DeployOptions, {"sparsity": 1}, "sparsity: 1 is outside 0 <= sparsity < 1. Give the"),
        (DeployOptions, {"sparsity": float("nan")}, "sparsity: nan is outside"),
        (DeployOptions, {"bits": 4.0}, "bits: 4 is not a whole number."),
        (DeployOptions, {"bits": True}, "bits: True is not a whole number."),
        (DeployOptions, {"tune": 1}, "tune: 1 is neither True nor False."),
        (DeployOptions, {"pattern": "4:4"}, "pattern: '4:4' is not one of weights,"),
        (DeployOptions, {"backend": 3}, "backend: 3 is not a text."),
        (DeployOptions, {"method": np.zeros(2)}, "method: array([0., 0.]) is not one of osbc,"),
        (DeployOptions, {"weights": "a\0b"}, "weights: holds a null character"),
        (DeployOptions, {"backend_samples": -1}, "backend samples: -1 is less than 0."),
        (DeployOptions, {"time_limit": 0}, "time limit: 0 is not a number above 0."),
        (VerifyOptions, {"tau": float("inf")}, "tau: inf is not a finite number above 0."),
        (DeployOptions, {"time_limit": float("nan")}, "time limit: nan is not a finite number ab"),
        (DeployOptions, {"dt": float("nan")}, "dt: nan is not a finite number."),
        (VerifyOptions, {"gates": "mismatch=0"}, "gates: 'mismatch=0' is not a list."),
        (FitOptions, {"bits": (4, 9)}, "bits: 9 is outside 1 to 8."),
        (FitOptions, {"bits": ()}, "bits: fit tries 2, 3, 4, 5, 6, 8, not none."),
        (FitOptions, {"budget": 5}, "budget: 5 is not a FitBudget."),
        (FitBudget, {"accuracy_drop": 1.5}, "accuracy drop: 1.5 is outside 0 to 1. Give a"),
        (InputOptions, {"seed": 2**32}, "seed: 4294967296 is outside 0 to 4294967295."),
    ],
)
def test_what_is_wrong_with_a_value_is_one_sentence(
    table: type[Options], given: dict[str, Any], said: str
) -> None:
    with pytest.raises(UsageError) as error:
        table(**given)
    assert str(error.value).startswith(said)


def test_every_wrong_value_is_named_at_once() -> None:
    wrong: Any = {"sparsity": 2, "method": "magic", "classes": "ten"}
    with pytest.raises(UsageError) as error:
        DeployOptions(**wrong)
    first, *rest = str(error.value).splitlines()
    assert first == "options: 3 are not valid:"
    assert [line.split(":")[0] for line in rest] == ["  - sparsity", "  - method", "  - classes"]
    with pytest.raises(UsageError, match=r"(?s)allocation: global.*pattern: 2:4 needs a Hessian"):
        DeployOptions(pattern="2:4", allocation="global", method="magnitude")


def test_a_pattern_of_n_of_m_says_the_sparsity_by_itself() -> None:
    settled = DeployOptions(pattern="1:4")
    assert settled.sparsity == 0.75
    assert SweepOptions(pattern="2:4").sparsities == (0.5,)
    # What nobody asked for contradicts nothing, on whatever way it came.
    assert replace(settled, pattern="2:4").sparsity == 0.5
    assert replace(settled, pattern="weights").sparsity == 0.9
    assert CompressionRequest(pattern="1:3", sparsity=DeployOptions().sparsity).sparsity == 2 / 3
    assert DeployOptions(pattern="1:4", sparsity=0.75).sparsity == 0.75
    for pattern, sparsity in (("9:10", 0.1), ("7:10", 0.3), ("1:3", 2 / 3), ("1:3", 0.6667)):
        assert DeployOptions(pattern=pattern, sparsity=sparsity).sparsity == sparsity
        assert SweepOptions(pattern=pattern, sparsities=(sparsity,)).sparsities == (sparsity,)
    for table, asked in (
        (DeployOptions, {"sparsity": 0.9}),
        (CompressOptions, {"sparsity": 0.5}),
        (SweepOptions, {"sparsities": (0.75, 0.9)}),
    ):
        with pytest.raises(UsageError, match="pattern 1:4, which keeps 1 of 4 weights"):
            table(pattern="1:4", **asked)


@pytest.mark.parametrize("by", ["flag", "config", "none"])
def test_the_default_that_is_given_is_told_from_the_default(by: str, tmp_path: Path) -> None:
    (tmp_path / "job.toml").write_text("[toy]\nsparsity = 0.9\n")
    given = {"flag": ["--sparsity", "0.9"], "config": ["--config", str(tmp_path / "job.toml")]}

    @click.command("toy")
    @config_option
    @takes(options=CompressionRequest)
    def toy(options: CompressionRequest) -> None:
        click.echo(options.sparsity)

    found = CliRunner().invoke(toy, ["--pattern", "2:4", *given.get(by, [])])
    if by == "none":
        assert found.output == "0.5\n"
    else:
        assert "0.9 contradicts pattern 2:4" in str(found.exception)


def test_numbers_of_numpy_are_numbers() -> None:
    found = DeployOptions(bits=np.int64(3), sparsity=np.float32(0.5), mixed=np.bool_(True))
    assert [type(v) for v in (found.bits, found.sparsity, found.mixed)] == [int, float, bool]
    widths: Sequence[int] = [np.int64(8), np.int64(4)]  # type: ignore[list-item]
    assert FitOptions(bits=widths).bits == (8, 4)


def test_choices_are_those_of_the_code_that_takes_them() -> None:
    assert set(get_args(Dataset)) == set(DATASETS)
    assert DatasetRequest("nmnist", Path()).steps == InputOptions().steps
