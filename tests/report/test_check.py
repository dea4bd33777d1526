"""``check`` believes what it can count again, and what belongs together by digest."""

from __future__ import annotations

import hashlib
import html
import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from forgeries import FORGERIES, OWN_TARGET, SAMPLES, Report, Site, checked, make_site, write
from osbc_deploy.chip.target import load_target
from osbc_deploy.cli.main import main
from osbc_deploy.errors import UsageError
from osbc_deploy.provenance import Request
from osbc_deploy.report.check.budget import Budget, Limits, read_budget, with_limits


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    return make_site(tmp_path_factory.mktemp("site"))


@pytest.mark.parametrize("kind", FORGERIES)
def test_no_forgery_passes(kind: str, site: Site, tmp_path: Path) -> None:
    code, said = checked(site, tmp_path, FORGERIES[kind](np.random.default_rng(3), site, tmp_path))
    assert code in (4, 5, 6), said
    assert len(said) == 1


@pytest.mark.parametrize("name", [*Site.HONEST, "own"])
def test_what_nobody_touched_passes(name: str, site: Site) -> None:
    args = ["--target", str(site.root / "own.toml")] if name == "own" else []
    if name not in ("other_data", "own"):
        args += ["--test", str(site.root / "data.npz")]
    assert checked(site, site.root, args, image=name) == (0, [])


def claim(site: Site, work: Path, change: Any, name: str = "plain", *, seal: bool = True) -> str:
    """Return what is said of a deployment whose report says something else; its code first."""
    folder = site.copy(name, work)
    report = site.report(name)
    change(report)
    write(folder, report, seal=seal)
    args = [] if name == "plain" else ["--target", str(site.root / f"{name}.toml")]
    code, said = checked(site, work, args)
    return f"{code} {' '.join(said)}"


def lower_cores(report: Report) -> None:
    report["memory"]["cores_used"] = report["pruning"]["deployed"]["cores"] = 2
    report["cores"][0]["core"] = 2


def raise_accuracy(report: Report) -> None:
    report["accuracy"].update({"fixed_point": 1.0, "float": 1.0})


def fit_with_nothing_over(report: Report) -> None:
    report.update(fits=True, excesses=[])
    report["memory"]["cores_available"] = 120


def differ_in_potentials(report: Report) -> None:
    report["fidelity"]["mismatched_potentials"] = 8


@pytest.mark.parametrize(
    ("change", "name", "said"),
    [
        (lower_cores, "plain", "6 error[E600]: {image}: the report differs from what is counted: "
         "cores.0.core: 2 instead of 0; memory.cores_used: 2 instead of 3. Deploy again."),
        (fit_with_nothing_over, "small", "6 error[E600]: {image}: the report differs from what is "
         "counted: fits: True instead of False; excesses: 0 instead of 1; memory.cores_available: "
         "120 instead of 2. Deploy again."),
        (lambda r: r["target"].update(title="Any"), "plain", "6 error[E600]: {image}: the report "
         "differs from what is counted: target.title: Any instead of Intel Loihi 2, "
         "compiler-derived core model. Deploy again."),
        (differ_in_potentials, "plain",
         "5 over: mismatched spikes and potentials: 8 of 0, 8 over"),
        (lambda r: None, "small",
         "4 over: chip: chip: 3 cores needed, 2 available (1 over)"),
    ],
)  # fmt: skip
def test_the_reason_is_reported(
    change: Any, name: str, said: str, site: Site, tmp_path: Path
) -> None:
    image = tmp_path / "image"
    assert claim(site, tmp_path, change, name) == said.format(image=image)


IMPOSSIBLE: dict[str, tuple[Any, str]] = {
    "no share": (
        lambda r: r["accuracy"].update(fixed_point=0.81, agreement=0.5),
        "accuracy.fixed_point: 0.81 is not a share of 20 samples",
    ),
    "another accuracy with the same answers": (
        lambda r: r["accuracy"].update(fixed_point=1.0),
        "accuracy.agreement: 1.0, with accuracies 0.8 and 1.0",
    ),
    "a float network that was never right": (
        lambda r: r["accuracy"].update(float=0.0, agreement=0.25),
        "accuracy.agreement: 0.25, with accuracies 0.0 and 0.8",
    ),
    "agreement of half a sample": (
        lambda r: r["accuracy"].update(agreement=0.975),
        "accuracy.agreement: 0.975 is not a share of 20 samples",
    ),
    "no agreement": (
        lambda r: r["accuracy"].update(agreement=None),
        "accuracy.agreement: is None, with 0.0 and 0.0 unanswered",
    ),
    "right without an answer": (
        lambda r: r["accuracy"]["no_answer"].update(fixed_point=0.25),
        "accuracy.fixed_point: 0.8, with 0.25 unanswered",
    ),
    "fewer cores than are listed": (
        lambda r: r["memory"].update(cores_used=2),
        "memory.cores_used: is 2, 3 are listed",
    ),
    "more cores than there are": (
        lambda r: r["memory"].update(cores_available=2),
        "fits: with 3 cores, 2 are available",
    ),
    "a core that is full": (
        lambda r: r["cores"][0]["resources"]["synapses"].update(max=1),
        "fits: with more synapses than there is",
    ),
    "bytes of no core": (
        lambda r: r["memory"].update(deployed_bytes=8000, deployed_words=1000),
        "memory.deployed_bytes: are 8,000, those of the cores 8,336",
    ),
    "bytes of other words": (
        lambda r: r["memory"].update(deployed_words=791),
        "memory.deployed_bytes: are 8,336, the words have others",
    ),
    "neurons left out that are on cores": (
        lambda r: r["pruning"]["left_out"].update(
            {r["populations"][0]["name"]: {"neurons": 1000, "left_out": 1}}
        ),
        "pruning.left_out.1: 1 of 1,000 neurons",
    ),
    "other neurons than those on cores": (
        lambda r: r["pruning"]["left_out"].update(
            {
                (p := r["populations"][0])["name"]: {
                    "neurons": math.prod(p["shape"]) + 1,
                    "left_out": 1,
                    "stayed": [[0, math.prod(p["shape"]) - 1]],
                }
            }
        ),
        "pruning.left_out.1.stayed: are ",
    ),
    "more weights than there are": (
        lambda r: r["compression"]["layers"][0].update(nonzero=200),
        "compression.layers.0.sparsity: is 0.111",
    ),
    "sparser than its layers": (
        lambda r: r["compression"].update(sparsity=0.9),
        "compression.sparsity: is 0.9, ",
    ),
    "no layers": (
        lambda r: r["compression"].update(layers=[]),
        "compression.sparsity: is 0.5, 0 of 0 weights are not 0",
    ),
}


@pytest.mark.parametrize("kind", IMPOSSIBLE)
def test_numbers_that_cannot_all_be_true(kind: str, site: Site, tmp_path: Path) -> None:
    """Also of a baseline, whose network is not there to count."""
    change, said = IMPOSSIBLE[kind]
    assert claim(site, tmp_path, change).startswith(
        f"6 error[E600]: {tmp_path}/image/report.json: is not a report to trust: "
    )
    code, lines = checked(
        site, site.root, ["--baseline", str(tmp_path / "image" / "report.json")], image="plain"
    )
    assert code == 6
    assert f" {said}" in lines[0]


def test_an_edit_is_seen_by_the_digest(site: Site, tmp_path: Path) -> None:
    said = claim(site, tmp_path, raise_accuracy, seal=False)
    assert said.startswith("6 ")
    assert "provenance.report_sha256: is of another text" in said


def test_a_claim_that_is_possible_takes_the_test_data_to_refute(site: Site, tmp_path: Path) -> None:
    assert claim(site, tmp_path, raise_accuracy) == "0 "
    code, said = checked(site, tmp_path, ["--test", str(site.root / "data.npz")])
    assert code == 6
    assert "accuracy.fixed_point: 1.0 instead of 0.8" in said[0]


@pytest.mark.parametrize("form", ["table", "json", "junit", "markdown"])
def test_accuracies_say_on_how_many_samples_and_what_puts_them_in_doubt(
    form: str, site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, report = site.copy("plain", tmp_path), site.report("plain")
    doubt = "labels: calibration holds 3 of the 4 classes that the outputs stand for"
    report["warnings"] = ["a layer is dead", doubt]
    write(folder, report)
    budget = tmp_path / "budget.toml"
    budget.write_text(
        "schema = 1\n[budget]\nsamples = 21\naccuracy_floor = 0.5\naccuracy_drop = 0.9\n"
    )
    with pytest.raises(SystemExit) as done:
        main(["check", str(folder), "--budget", str(budget), "--format", form])
    assert done.value.code == 5
    shown = html.unescape(capsys.readouterr().out).replace("\\", "")
    assert "20 evaluated, at least 21" in shown
    for said in ("80.00% on 20 samples, at least 50.00%", "lost on 20 samples, at most 90.00%"):
        assert f"{said}; {doubt}" in shown
    assert "a layer is dead" not in shown


def test_a_baseline_that_limits_nothing_is_noted(site: Site) -> None:
    same = ["--baseline", str(site.root / "plain")]
    code, said = checked(site, site.root, same, image="plain")
    assert code == 0
    assert len(said) == 1
    assert "plain limits nothing, since the budget has no [growth]" in said[0]
    growth = ["--budget", str(site.root / "growth.toml")]
    assert checked(site, site.root, [*same, *growth], image="plain") == (0, [])


def test_a_report_needs_its_network_beside_it(site: Site, tmp_path: Path) -> None:
    assert checked(site, site.root, [], image="plain/report.json") == (0, [])
    shutil.copy(site.root / "plain" / "report.json", tmp_path)
    # One of another name may be a baseline, of any network.
    image = site.copy("plain", tmp_path)
    shutil.copy(image / "report.json", image / "base.json")
    for report in ("report.json", f"{image.name}/base.json"):
        code, said = checked(site, tmp_path, [], image=report)
        assert code == 6
        assert "is no report.json with its network beside it" in said[0]


@pytest.mark.parametrize("damage", ["another's", "one bit", "no weights", "no manifest"])
@pytest.mark.parametrize(
    "command", ["report {image}", "report {image}/report.json", "diff {image} {root}/sparser",
                "diff {root}/sparser {image}", "check {root}/plain --baseline {image}"],
)  # fmt: skip
def test_whoever_reads_a_report_notices_that_the_network_beside_it_is_not_its(
    command: str, damage: str, site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = site.copy("plain", tmp_path)
    if damage == "another's":
        for name in ("network.json", "network.safetensors"):
            shutil.copy(site.root / "retrained" / name, image)
    elif damage == "one bit":
        weights = bytearray((image / "network.safetensors").read_bytes())
        weights[-1] ^= 1
        (image / "network.safetensors").write_bytes(weights)
    else:
        lost = "network.safetensors" if damage == "no weights" else "network.json"
        (image / lost).unlink()
    words = command.format(root=site.root, image=image).split()
    budget = ["--budget", str(site.root / "budget.toml")] if words[0] == "check" else []
    with pytest.raises(SystemExit) as done:
        main([*words, *budget])
    assert done.value.code == 6
    said = capsys.readouterr()
    assert str(image) in said.err
    assert not said.out


def test_a_report_alone_is_shown_and_compared(site: Site, tmp_path: Path) -> None:
    shutil.copy(site.root / "plain" / "report.json", tmp_path)
    # A baseline may lie in the folder of another deployment.
    shutil.copy(site.root / "plain" / "report.json", site.copy("sparser", tmp_path) / "base.json")
    for words in (["report", tmp_path], ["diff", tmp_path, tmp_path / "image" / "base.json"]):
        with pytest.raises(SystemExit) as done:
            main([str(word) for word in words])
        assert done.value.code == 0


def test_an_option_that_says_otherwise_than_the_budget_is_refused() -> None:
    budget = Budget(schema=1, budget=Limits(flash=20_000, cores=3))
    assert with_limits(budget, {"flash": None, "ram": 7}).budget == Limits(
        flash=20_000, ram=7, cores=3
    )
    assert with_limits(budget, {"flash": 20_000}) == budget
    for other in (19_999, 65_536):
        with pytest.raises(UsageError, match=rf"--flash: {other:,} .* flash of --budget says 20,0"):
            with_limits(budget, {"flash": other})


def test_a_budget_takes_sizes_with_units(tmp_path: Path) -> None:
    file = tmp_path / "budget.toml"
    file.write_text(
        'schema = 1\n[budget]\nflash = "20KB"\nram = "64 K"\nmemory_bytes = "1.5MiB"\n'
        '[layers.0]\nmemory_bytes = "0.5K"\n'
    )
    found = read_budget(file)
    assert found.budget == Limits(flash=20_000, ram=65_536, memory_bytes=1_572_864)
    assert found.layers["0"].memory_bytes == 512
    for wrong in ('"20XB"', '"-1"', '"0.3"', '""', "true", "-1"):
        file.write_text(f"schema = 1\n[budget]\nflash = {wrong}\n")
        with pytest.raises(UsageError, match=r"budget\.flash: "):
            read_budget(file)
    file.write_text('schema = 1\n[budget]\ncores = "4"\n')
    with pytest.raises(UsageError, match=r"budget\.cores: "):
        read_budget(file)


def test_a_report_that_is_no_file_is_called_that(site: Site, tmp_path: Path) -> None:
    folder = site.copy("plain", tmp_path)
    (folder / "report.json").unlink()
    assert "report.json: is not there" in checked(site, tmp_path, [])[1][0]
    os.mkfifo(folder / "report.json")
    code, said = checked(site, tmp_path, [])
    assert code == 6
    assert "report.json: is not a regular file" in said[0]


@pytest.mark.parametrize("name", ["network.json", "network.safetensors"])
def test_another_file_of_the_folder_is_no_report(name: str, site: Site) -> None:
    code, said = checked(site, site.root, [], image=f"plain/{name}")
    assert code == 6
    assert "Give the folder that osbc-deploy ... -o wrote, or deploy again." in said[0]


def test_a_budget_may_allow_bits_that_differ(site: Site, tmp_path: Path) -> None:
    budget = tmp_path / "budget.toml"
    for allowed, code in ((7, 5), (8, 0)):
        budget.write_text(f"schema = 1\n[budget]\nmismatched_spikes = {allowed}\n")
        folder = tmp_path / str(allowed)
        folder.mkdir()
        site.copy("plain", folder)
        report = site.report("plain")
        differ_in_potentials(report)
        write(folder / "image", report)
        assert checked(site, folder, ["--budget", str(budget)])[0] == code


def test_the_digests_are_what_the_documentation_says(site: Site) -> None:
    report = site.report("plain")
    provenance = report["provenance"]
    manifest = json.loads((site.root / "plain" / "network.json").read_text())
    digest = hashlib.sha256(canonical(manifest))
    for name, array in sorted(load_file(site.root / "plain" / "network.safetensors").items()):
        digest.update(canonical([name, str(array.dtype), list(array.shape)]) + array.tobytes())
    assert provenance["network_sha256"] == digest.hexdigest()
    assert provenance["target"] == {"name": "loihi2", "sha256": load_target("loihi2").digest}
    written = provenance.pop("report_sha256")
    assert written == hashlib.sha256(canonical(report)).hexdigest()
    data = np.load(site.root / "data.npz")
    digest = hashlib.sha256(repr(data["spikes"].shape).encode())
    digest.update(np.packbits(data["spikes"]).tobytes() + data["labels"].astype("<i8").tobytes())
    assert provenance["test"] == {
        "name": "calibration", "samples": SAMPLES, "labels": True, "sha256": digest.hexdigest()
    }  # fmt: skip


def canonical(plain: Any) -> bytes:
    return json.dumps(plain, sort_keys=True, separators=(",", ":")).encode()


def test_the_provenance_says_what_was_asked(site: Site) -> None:
    provenance = site.report("own")["provenance"]
    target = str(site.root / "own.toml")
    assert provenance["command"] == (
        "osbc_deploy.pipeline.deploy(<SequentialState>, <tuple>, "
        f"target={target!r}, sparsity=0.5, bits=6, tune=False, backend_samples=2)"
    )
    assert provenance["seed"] is None
    assert provenance["options"]["target"] == target
    assert provenance["options"]["method"] == "osbc"
    assert provenance["options"]["backend"] == "engine"
    assert provenance["environment"]["packages"]["numpy"] == np.__version__
    assert all(blas["kernel"] for blas in provenance["environment"]["blas"])


@pytest.mark.parametrize("epoch", ["", "soon", "1e9", "9" * 30])
def test_a_date_that_is_none_is_refused(epoch: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", epoch)
    with pytest.raises(UsageError, match="SOURCE_DATE_EPOCH: .* is not a time"):
        Request()


def test_a_target_of_ones_own_is_given_and_must_be_the_same(site: Site, tmp_path: Path) -> None:
    code, said = checked(site, site.root, [], image="own")
    assert code == 6
    assert "Give its file with --target" in said[0]
    other = tmp_path / "own.toml"
    other.write_text(OWN_TARGET.format(name="own", cores=51))
    code, said = checked(site, site.root, ["--target", str(other)], image="own")
    assert code == 6
    assert "another description of own" in said[0]
    assert checked(site, site.root, ["--target", "nowhere"], image="own")[0] == 2


@pytest.mark.parametrize(
    "command",
    [
        "check {root}/plain --budget {root}/budget.toml",
        "check {root}/plain --budget {root}/budget.toml --test {root}/data.npz",
        "map {root}/plain --target loihi2",
        "report {root}/plain",
        "report {root}/plain --format html",
        "diff {root}/plain {root}/sparser",
    ],
)
def test_neither_torch_nor_the_solver_is_imported(command: str, site: Site) -> None:
    code = (
        "import sys\nfrom osbc_deploy.cli.main import main\n"
        "try:\n    main(sys.argv[1:])\n"
        "except SystemExit as done:\n    print(done.code, file=sys.stderr)\n"
        "print([m for m in sys.modules if m in ('torch', 'norse', 'lava') "
        "or m.startswith('osbc_deploy.compress')], file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *command.format(root=site.root).split()],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr.splitlines() == ["0", "[]"]
