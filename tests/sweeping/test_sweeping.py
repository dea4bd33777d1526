"""Sweeps: each point against a deployment of its own, and what comes of being killed."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import multiprocessing
import os
import re
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import jsonschema
import numpy as np
import pytest

import small_models
from osbc_deploy import SweepOptions, SweepResult, deploy, sweep
from osbc_deploy.cli.main import main
from osbc_deploy.errors import ArtefactError, UsageError
from osbc_deploy.progress import Silent
from osbc_deploy.report.sweeping.build import build_sweep, sweep_json_schema
from osbc_deploy.sweeping.grid import points_of
from osbc_deploy.sweeping.study import Failure

NAMES = ("small_models:model", "small_models:data")
COMMON: dict[str, Any] = {"backend": "engine", "backend_samples": 1}
GRID: dict[str, Any] = {
    "targets": ["loihi2", "loihi2-sim"],
    "methods": ["osbc", "magnitude"],
    "bits": [2, 4],
    "sparsities": [0.5, 0.8],
    "seeds": [3],
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> SweepResult:
    """Return a sweep that nothing disturbed, in this process."""
    ledger = tmp_path_factory.mktemp("ledger") / "of the sweep"
    return sweep(*NAMES, workers=1, ledger=ledger, **GRID, **COMMON)


def test_a_point_is_the_deployment_of_its_own(whole: SweepResult) -> None:
    assert len(whole.points) == 16
    for point, record in list(whole.points.items())[::3]:
        np.random.seed(3)
        c = point.configuration
        done = deploy(
            *NAMES, target=c.target, method=c.method, bits=c.bits, sparsity=c.sparsity, **COMMON
        )  # type: ignore[arg-type]
        assert record["network_sha256"] == done.provenance["network_sha256"]
        assert record["output_sha256"] == done.provenance["output_sha256"]
        assert record["memory_bytes"] == done.mapping.bytes
        assert record["accuracy"]["fixed_point"] == done.accuracy.fixed_point
        assert len(record["deviations"]) == len(done.deviations)


def test_the_front_is_what_nothing_beats(whole: SweepResult) -> None:
    every = [
        (s.configuration.target, -(s.score or 0.0), s.memory_bytes, s.cores)
        for s in whole.summaries
    ]
    for summary, mine in zip(whole.summaries, every, strict=True):
        beaten = any(
            other[0] == mine[0]
            and other != mine
            and all(a <= b for a, b in zip(other, mine, strict=True))
            for other in every
        )
        assert summary.best is not beaten
    assert 0 < sum(s.best for s in whole.summaries) < len(every)


def test_a_ledger_gives_what_it_has_and_computes_the_rest(
    whole: SweepResult, tmp_path: Path
) -> None:
    ledger = Path(os.fspath(whole.options.ledger or ""))
    kept = sorted(ledger.glob("point-*"))
    assert len(kept) == whole.computed == 16
    before = {path: path.read_bytes() for path in kept}
    for path in kept[:3]:
        path.unlink()
    again = sweep(*NAMES, workers=1, ledger=ledger, **GRID, **COMMON)
    assert again.computed == 3
    assert again.points == whole.points
    assert {path: path.read_bytes() for path in sorted(ledger.glob("point-*"))} == before
    # A larger grid takes what a smaller one has.
    larger = sweep(*NAMES, workers=1, ledger=ledger, **{**GRID, "bits": [2, 3, 4]}, **COMMON)
    assert larger.computed == 8
    assert whole.points.items() <= larger.points.items()


def test_what_does_not_belong_to_a_ledger_is_refused(whole: SweepResult, tmp_path: Path) -> None:
    ledger = Path(os.fspath(whole.options.ledger or ""))

    def again(*names: str, **changed: Any) -> SweepResult:
        values = {**GRID, **COMMON, "workers": 1, "ledger": ledger, **changed}
        return sweep(*(names or NAMES), **values)

    with pytest.raises(UsageError, match="another sweep; changed since: model. Resume"):
        again("small_models:other_model", NAMES[1])
    with pytest.raises(
        UsageError, match=r"changed since: options \(tune was True and is False\)\."
    ):
        again(tune=False)
    drawn = np.random.default_rng(1).random((40, 6, 24)) < 0.2
    with pytest.raises(UsageError, match="since: calibration of seed 3, test samples of seed 3"):
        sweep(NAMES[0], drawn.astype(np.uint8), workers=1, ledger=ledger, **GRID, **COMMON)
    broken = next(p for p in ledger.glob("point-*") if '"bits": 2' in p.read_text())
    content = broken.read_text()
    broken.write_text(content.replace('"cores": 2', '"cores": 1'))
    with pytest.raises(ArtefactError, match="its content is not what was written"):
        again()
    broken.write_text(content[:100])
    with pytest.raises(ArtefactError, match="Remove it and start again"):
        again()
    broken.write_text(content)
    (tmp_path / "letters").write_text("mine")
    with pytest.raises(UsageError, match="is not a ledger of osbc-deploy"):
        again(ledger=tmp_path)


def test_a_ledger_that_lost_what_it_belongs_to_gives_no_point_of_another(tmp_path: Path) -> None:
    of: dict[str, Any] = {"targets": ["loihi2"], "bits": [4], "sparsities": [0.5], **COMMON}
    one, other = ((np.random.default_rng(n).random((8, 6, 24)) < 0.2).astype("u1") for n in (1, 2))
    first = sweep(NAMES[0], one, workers=1, ledger=tmp_path, **of)
    claim, (kept,) = tmp_path / "samples-given.json", tmp_path.glob("point-*.json")
    claim.write_text("garbage")
    with pytest.raises(ArtefactError, match=r"samples-given.json: .* Remove it and start again"):
        sweep(NAMES[0], other, workers=1, ledger=tmp_path, **of)
    for samples, computed in ((other, 1), (one, 0)):
        claim.unlink()
        again = sweep(NAMES[0], samples, workers=1, ledger=tmp_path, **of)
        assert again.computed == computed
    assert again.points == first.points
    # So is what this program did not write, though its checksum is right.
    content = kept.read_text()
    record = json.loads(content)["record"]
    for damage, words in (
        ({"record": {}}, "record lacks or has no place for accuracy, cores"),
        ({"record": record | {"cores": True}}, "cores is True"),
        ({"record": record | {"accuracy": None}}, "accuracy is none"),
        ({"record": record | {"warnings": "no"}}, "warnings is no list"),
        ({}, "'record'"),
    ):
        changed = {"point": json.loads(content)["point"], **damage}
        digest = hashlib.sha256(json.dumps(changed, sort_keys=True).encode()).hexdigest()
        kept.write_text(json.dumps({**changed, "sha256": digest}))
        with pytest.raises(ArtefactError, match=rf"{kept.name}: cannot be read \({words}"):
            sweep(NAMES[0], one, workers=1, ledger=tmp_path, **of)
    kept.write_text(content)
    # So with the whole ledger's.
    manifest = tmp_path / "ledger.json"
    sweep(NAMES[0], one, workers=1, ledger=tmp_path / "tuned", tune=False, **of)
    manifest.write_bytes((tmp_path / "tuned" / "ledger.json").read_bytes())
    assert sweep(NAMES[0], one, workers=1, ledger=tmp_path, tune=False, **of).computed == 1
    # Without it, the folder would not be known for a ledger.
    manifest.write_text("garbage")
    with pytest.raises(
        ArtefactError, match=r"ledger.json: .* Remove the folder, or choose another"
    ):
        sweep(NAMES[0], one, workers=1, ledger=tmp_path, tune=False, **of)


def test_two_sweeps_do_not_write_one_ledger(whole: SweepResult) -> None:
    import fcntl

    ledger = Path(os.fspath(whole.options.ledger or ""))
    with (ledger / "lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(UsageError, match="another sweep is writing this ledger"):
            sweep(*NAMES, workers=1, ledger=ledger, **GRID, **COMMON)


class Killer(Silent):
    """Kills a worker when the first point is done, while both have more to do."""

    killed = 0

    def advance(self, steps: int = 1) -> None:
        if steps and not self.killed:
            self.killed = multiprocessing.active_children()[0].pid or 0
            os.kill(self.killed, signal.SIGKILL)


def test_two_workers_one_of_which_is_killed(whole: SweepResult) -> None:
    killer = Killer()
    spread = sweep(*NAMES, workers=2, progress=killer, **GRID, **COMMON)
    assert killer.killed
    assert spread.computed == 16
    assert spread.points == whole.points


def test_report_page_and_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {name: tmp_path / f"sweep.{name}" for name in ("csv", "html", "json")}
    arguments = ["sweep", NAMES[0], "--calibration", NAMES[1], "--workers", "1"]
    arguments += ["--target", "loihi2", "--sparsity", "0.5,0.9", "--bits", "4", "--seeds", "1,2"]
    arguments += ["--backend-samples", "0", "--csv", str(files["csv"])]
    arguments += ["--html", str(files["html"]), "--report", str(files["json"])]
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == 0
    assert "> │ loihi2" in capsys.readouterr().out
    report = json.loads(files["json"].read_text())
    jsonschema.validate(report, sweep_json_schema())
    rows = list(csv.DictReader(io.StringIO(files["csv"].read_text())))
    assert [row["seed"] for row in rows] == ["1", "1", "2", "2"]
    for number, configuration in enumerate(report["configurations"]):
        scores = [float(row["accuracy_fixed_point"]) for row in rows[number::2]]
        assert configuration["score"] == pytest.approx(np.mean(scores))
        assert configuration["error"] == pytest.approx(np.std(scores, ddof=1) / 2**0.5)
    page = files["html"].read_text()
    pictures = page.split("<svg")[1:]
    assert len(pictures) == 2
    for picture in pictures:
        drawn = ElementTree.fromstring("<svg" + picture.split("</svg>")[0] + "</svg>")  # noqa: S314
        assert len(drawn.findall(".//g[@class='dot']//use")) == 2


WIDE = """
import snntorch, torch
def net():
    torch.manual_seed(1)
    first, second = (snntorch.Leaky(beta=0.9, init_hidden=True, output=o) for o in (False, True))
    return torch.nn.Sequential(torch.nn.Linear(24, 20), first, torch.nn.Linear(20, 4), second)
"""


def test_what_no_weights_change_is_said_with_what_helps(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "wide.py").write_text(WIDE)
    spikes = (np.random.default_rng(1).random((8, 6, 24)) < 0.4).astype(np.uint8)
    np.savez(tmp_path / "data.npz", spikes=spikes)
    of = [f"{tmp_path}/wide.py:net", "--calibration", str(tmp_path / "data.npz"), "--quiet"]
    of += ["--target", "xylo-audio2", "--backend-samples", "0"]
    helps = "No weights change that: give the network fewer inputs, or take another target."
    for verb, options in (
        ("sweep", ["--sparsity", "0.5,0.9", "--bits", "4", "--workers", "1"]),
        ("deploy", ["--sparsity", "0.5"]),
        ("fit", []),
    ):
        with pytest.raises(SystemExit) as end:
            main([verb, *of, *options])
        said = capsys.readouterr().err
        assert end.value.code == 4
        assert "inputs 24 exceeds 16 (8 over; le_16_input_channels)" in said
        assert helps in said
        assert "\\n" not in said
        assert not re.search("fewer bits|sparsity", said)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"seeds": [1, 2]}, "seeds: 1 and 2 draw the same calibration samples"),
        ({"methods": ["magnitude"], "pattern": "2:4"}, "pattern: 2:4 needs a Hessian"),
        ({"bits": []}, "bits: is empty"),
        ({"sparsities": [0.5, 1.0]}, "sparsities: 1 is outside 0 <= sparsities < 1"),
        ({"scheduler": "localhost"}, "scheduler: 'localhost' is not an address"),
        ({"scheduler": "tcp://a:1", "workers": 2}, "workers: scheduler has its own"),
        ({"seeds": range(6000)}, "72,000 points are asked for, 10,000 are allowed"),
    ],
)
def test_sweeps_that_make_no_sense(options: dict[str, Any], words: str) -> None:
    values = {"targets": ["loihi2"], **options}
    with pytest.raises(UsageError, match=words):
        sweep(small_models.model(), small_models.data()[0], **values)


def test_solver_memory_that_is_enough_for_no_point_is_refused_before_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    of: dict[str, Any] = {"targets": ["loihi2"], "bits": [4], "workers": 1, **COMMON}
    with pytest.raises(UsageError, match=r"--solver-memory: 1000 B is less than the Hessians"):
        sweep(*NAMES, solver_memory=1000, ledger=tmp_path / "ledger", **of)
    assert not (tmp_path / "ledger").exists()
    # Where some point needs none, the others' failures are said line by line.
    arguments = ["sweep", NAMES[0], "--calibration", NAMES[1], "--workers", "1", "--bits", "4"]
    arguments += ["--target", "loihi2", "--sparsity", "0.5", "--solver-memory", "1000"]
    arguments += ["--method", "osbc", "--method", "magnitude", "--no-tune"]
    with pytest.raises(SystemExit) as end:
        main([*arguments, "--backend-samples", "0", "--html", str(tmp_path / "sweep.html")])
    assert end.value.code == 2
    page = (tmp_path / "sweep.html").read_text()
    for text in (capsys.readouterr().out, page):
        assert "is less than the Hessians" in text
        assert "\\n" not in text
    assert "layers need:<br>  - 0: needs" in page


def test_points_that_fail_keep_their_place_and_the_name_of_the_score(tmp_path: Path) -> None:
    of: dict[str, Any] = {"targets": ["loihi2"], "bits": [4], "workers": 1, "backend_samples": 0}
    labelled = (np.ones((40, 6, 24), np.uint8), np.arange(40) % 4)
    some = sweep(
        NAMES[0], labelled, methods=["osbc", "magnitude"], tune=False, sparsities=[0.5, 0.8],
        solver_memory=1000, **of,
    )  # fmt: skip
    assert len(some.points) == len(some.failures) == 2
    listed = [(s.configuration.method, s.configuration.sparsity) for s in some.summaries]
    assert listed == [("osbc", 0.5), ("osbc", 0.8), ("magnitude", 0.5), ("magnitude", 0.8)]
    none = replace(some, points={}, failures=dict.fromkeys(points_of(some.options), Failure("", 2)))
    assert build_sweep(none)["score"] == "accuracy"
    assert [c["draws"] for c in build_sweep(none)["configurations"]] == [0, 0, 0, 0]


def test_seeds_that_make_another_model_are_refused() -> None:
    with pytest.raises(UsageError, match="seeds: each of them makes another model"):
        sweep("small_models:other_model", NAMES[1], targets=["loihi2"], seeds=[1, 2])


def test_what_is_given_twice_counts_once() -> None:
    asked = SweepOptions(targets=["a"], bits=[4, 2, 4], sparsities=[0.5], seeds=[1, 1])
    assert [(p.configuration.bits, p.seed) for p in points_of(asked)] == [(4, 1), (2, 1)]
