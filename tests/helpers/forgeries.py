"""Artefact folders as they are mixed up by accident and forged on purpose, for ``check``."""

from __future__ import annotations

import contextlib
import copy
import io
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import norse.torch as norse
import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file
from torch import nn

import osbc_deploy
from osbc_deploy.cli.main import main
from osbc_deploy.formats.folder import network_digest, read_network
from osbc_deploy.provenance import sealed

__all__ = ["FORGERIES", "Forgery", "Site", "checked", "make_site"]

SAMPLES = 20
OWN_TARGET = """schema = 1
name = "{name}"
inherits = "loihi2"
[sources]
me = "a description for these tests"
[chip]
cores = {{ value = {cores}, unit = "cores", grade = "assumed", source = "me" }}
"""
BUDGET = "schema = 1\n[budget]\ncores = 120\naccuracy_floor = 0.01\n"
GROWTH = BUDGET + "[growth]\ncores = 0\nmemory = 0.0\naccuracy_drop = 0.0\n"

Report = dict[str, Any]


@dataclass(frozen=True)
class Site:
    """Honest deployments, and where they are.

    Attributes
    ----------
    root : Path
        Holds a folder for each name, ``data.npz``, ``own.toml``, ``small.toml``, ``budget.toml``
        and ``growth.toml``.
    """

    root: Path

    HONEST = ("plain", "retrained", "sparser", "other_data", "large_chip")
    """Those that keep the budget on a target that comes with the tool."""

    def copy(self, name: str, work: Path) -> Path:
        """Return a copy of a deployment's folder."""
        return Path(shutil.copytree(self.root / name, work / "image"))

    def report(self, name: str) -> Report:
        """Return a deployment's report."""
        found: Report = json.loads((self.root / name / "report.json").read_text())
        return found


def network(seed: int) -> nn.Module:
    """Return three layers with random weights."""
    torch.manual_seed(seed)
    model = norse.SequentialState(
        nn.Conv2d(2, 6, 3),
        norse.LIFBoxCell(),
        nn.Flatten(),
        nn.Linear(216, 8),
        norse.LIFBoxCell(),
        nn.Linear(8, 4),
        norse.LICell(),
    )
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(20)
    return model


def classes(model: nn.Module, spikes: np.ndarray) -> np.ndarray:
    """Return the class that the framework gives each sample; every fifth one is wrong."""
    with torch.no_grad():
        state, total = None, torch.zeros(len(spikes), 4)
        for step in torch.tensor(spikes, dtype=torch.float32).unbind(1):
            out, state = model(step, state)
            total += out
    found = total.argmax(1).numpy()
    found[::5] = (found[::5] + 1) % 4
    return found


def make_site(root: Path) -> Site:
    """Deploy some networks for real."""
    rng = np.random.default_rng(0)
    spikes = (rng.random((2 * SAMPLES, 10, 2, 8, 8)) < 0.3).astype(np.uint8)
    labels = classes(network(0), spikes)
    mine = (spikes[:SAMPLES], labels[:SAMPLES])
    np.savez(root / "data.npz", spikes=mine[0], labels=mine[1])
    (root / "budget.toml").write_text(BUDGET)
    (root / "growth.toml").write_text(GROWTH)
    for name, cores in (("own", 50), ("small", 2)):
        (root / f"{name}.toml").write_text(OWN_TARGET.format(name=name, cores=cores))
    for name, seed, options in (
        ("plain", 0, {}),
        ("retrained", 1, {}),
        ("sparser", 0, {"sparsity": 0.8}),
        ("other_data", 0, {"test": (spikes[SAMPLES:], labels[SAMPLES:])}),
        ("large_chip", 0, {"target": "kapoho-point"}),
        ("no_labels", 0, {"test": mine[0]}),
        ("own", 0, {"target": str(root / "own.toml")}),
        ("small", 0, {"target": str(root / "small.toml")}),
    ):
        asked: dict[str, Any] = {
            "target": "loihi2", "sparsity": 0.5, "bits": 6, "tune": False, "backend_samples": 2,
        }  # fmt: skip
        osbc_deploy.deploy(network(seed), mine, **(asked | options)).save(root / name)
    return Site(root)


def checked(site: Site, work: Path, args: list[str], image: str = "image") -> tuple[int, list[str]]:
    """Run ``check`` in this process and return its exit code and what it says on stderr."""
    budget = [] if "--budget" in args else ["--budget", str(site.root / "budget.toml")]
    out, err = io.StringIO(), io.StringIO()
    with (
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        pytest.raises(SystemExit) as done,
    ):
        main(["check", str(work / image), *budget, *args])
    return int(done.value.code or 0), err.getvalue().splitlines()


Forgery = Callable[[np.random.Generator, Site, Path], list[str]]
"""Makes ``work / "image"`` and returns the further arguments of ``check``."""

FORGERIES: dict[str, Forgery] = {}


def forgery(make: Forgery) -> Forgery:
    FORGERIES[make.__name__] = make
    return make


def pick(rng: np.random.Generator, options: Any) -> Any:
    return options[int(rng.integers(len(options)))]


def write(folder: Path, report: Report, *, seal: bool = True) -> None:
    (folder / "report.json").write_text(json.dumps(sealed(report) if seal else report))


# Mixed up by accident.


@forgery
def report_of_another_network(rng: np.random.Generator, site: Site, work: Path) -> list[str]:
    names = ["plain", "retrained", "sparser"]
    beside = pick(rng, names)
    folder = site.copy(beside, work)
    other = pick(rng, [name for name in names if name != beside])
    shutil.copy(site.root / other / "report.json", folder)
    return []


@forgery
def network_file_of_another(rng: np.random.Generator, site: Site, work: Path) -> list[str]:
    folder = site.copy("plain", work)
    shutil.copy(site.root / pick(rng, ["retrained", "sparser"]) / "network.safetensors", folder)
    return []


@forgery
def no_report(rng: np.random.Generator, site: Site, work: Path) -> list[str]:
    file = site.copy(pick(rng, site.HONEST), work) / "report.json"
    file.rename(pick(rng, [file.with_suffix(".bak"), work / "report.json"]))
    if rng.integers(2):
        file.mkdir()
    return []


@forgery
def no_network(rng: np.random.Generator, site: Site, work: Path) -> list[str]:
    folder = site.copy(pick(rng, site.HONEST), work)
    for name in ("network.json", "network.safetensors")[int(rng.integers(2)) :]:
        (folder / name).unlink()
    return []


@forgery
def cut_off(rng: np.random.Generator, site: Site, work: Path) -> list[str]:
    file = site.copy("plain", work) / pick(
        rng, ["report.json", "network.json", "network.safetensors"]
    )
    content = file.read_bytes()
    file.write_bytes(content[: int(rng.integers(len(content) - 1))])
    return []


@forgery
def target_described_anew(rng: np.random.Generator, site: Site, work: Path) -> list[str]:
    site.copy("own", work)
    changed = work / "own.toml"
    text = OWN_TARGET.format(name="own", cores=int(rng.integers(60, 120)))
    changed.write_text(text)
    return ["--target", str(changed)]


@forgery
def target_of_ones_own_not_given(rng: np.random.Generator, site: Site, work: Path) -> list[str]:
    site.copy(pick(rng, ["own", "small"]), work)
    return []


@forgery
def deployed_on_another_chip(rng: np.random.Generator, site: Site, work: Path) -> list[str]:
    name, asked = pick(rng, [("large_chip", "loihi2"), ("plain", "kapoho-point")])
    site.copy(name, work)
    return ["--target", asked]


@forgery
def old_schema(rng: np.random.Generator, site: Site, work: Path) -> list[str]:
    folder = site.copy("plain", work)
    report = site.report("plain")
    report["schema"] = f"osbc-deploy/report/{rng.integers(6)}"
    write(folder, report)
    return []


@forgery
def other_test_data_given(_: np.random.Generator, site: Site, work: Path) -> list[str]:
    site.copy("other_data", work)
    return ["--test", str(site.root / "data.npz")]


# Networks changed.


def arrays(folder: Path) -> dict[str, Any]:
    return {k: np.array(v) for k, v in load_file(folder / "network.safetensors").items()}


@forgery
def weights_changed(rng: np.random.Generator, site: Site, work: Path) -> list[str]:
    folder = site.copy("plain", work)
    found = arrays(folder)
    weight = found[pick(rng, sorted(name for name in found if name.endswith("weight")))].reshape(-1)
    place = int(rng.integers(weight.size))
    weight[place] = 0 if weight[place] else 8
    save_file(found, folder / "network.safetensors")
    return []


@forgery
def state_changed(rng: np.random.Generator, site: Site, work: Path) -> list[str]:
    folder = site.copy("plain", work)
    found = arrays(folder)
    part = pick(rng, ["vth", "du", "dv", "bias_mant", "v_init", "v_scale"])
    name = pick(rng, sorted(n for n in found if n.endswith(f".{part}")))
    found[name][int(rng.integers(found[name].size))] += 1
    save_file(found, folder / "network.safetensors")
    return []


@forgery
def manifest_changed(rng: np.random.Generator, site: Site, work: Path) -> list[str]:
    folder = site.copy("plain", work)
    manifest = json.loads((folder / "network.json").read_text())
    change: Callable[[Any], Any] = pick(
        rng,
        [
            lambda m: m.update(readout="max"),
            lambda m: m.update(note="harmless"),
            lambda m: m["projections"][0].update(weight_exp=m["projections"][0]["weight_exp"] - 1),
            lambda m: m["populations"][0].update(reset_interval=0.5),
            lambda m: m["populations"][0].update(spiking=1),
            lambda m: m["formats"].update(state_bits=30),
            lambda m: m["formats"].update(decay_bits=2**63),
            lambda m: m["formats"].update(decay_bits=2**62),
            lambda m: m["formats"].update(state_bits=-3),
            lambda m: m["formats"].update(weight_bits=[float("inf")]),
        ],
    )
    change(manifest)
    (folder / "network.json").write_text(json.dumps(manifest))
    return []


@forgery
def array_added(rng: np.random.Generator, site: Site, work: Path) -> list[str]:
    folder = site.copy("plain", work)
    found = arrays(folder)
    if rng.integers(2):
        found["payload"] = np.zeros(int(rng.integers(1, 9)), np.int16)
    else:
        name = pick(rng, sorted(n for n in found if n.endswith("vth")))
        found[name] = found[name].astype(np.float64)
    save_file(found, folder / "network.safetensors")
    return []


@forgery
def registers_widened(rng: np.random.Generator, site: Site, work: Path) -> list[str]:
    """With the network's own digest, and the report's."""
    folder = site.copy("plain", work)
    manifest = json.loads((folder / "network.json").read_text())
    manifest["formats"][pick(rng, ["state_bits", "bias_mant_bits", "weight_exp_max"])] += 1
    (folder / "network.json").write_text(json.dumps(manifest))
    report = site.report("plain")
    report["provenance"]["network_sha256"] = network_digest(read_network(folder))
    write(folder, report)
    return []


@forgery
def network_replaced_and_digest_with_it(
    rng: np.random.Generator, site: Site, work: Path
) -> list[str]:
    folder = site.copy(pick(rng, ["retrained", "sparser"]), work)
    report = site.report("plain")
    report["provenance"]["network_sha256"] = network_digest(read_network(folder))
    write(folder, report)
    return ["--test", str(site.root / "data.npz")]


@forgery
def weights_changed_and_digest_with_them(
    rng: np.random.Generator, site: Site, work: Path
) -> list[str]:
    """Nothing that is counted changes: only running the network again tells."""
    folder = site.copy("plain", work)
    found = arrays(folder)
    name = pick(rng, sorted(n for n in found if n.endswith("weight")))
    found[name] = np.ascontiguousarray(found[name][::-1])
    save_file(found, folder / "network.safetensors")
    report = site.report("plain")
    report["provenance"]["network_sha256"] = network_digest(read_network(folder))
    write(folder, report)
    return ["--test", str(site.root / "data.npz")]


# Reports edited.


def better(rng: np.random.Generator, report: Report) -> None:
    """Make a report say something better than it did."""
    accuracy, memory = report["accuracy"], report["memory"]
    edits: list[Callable[[], Any]] = [
        lambda: accuracy.update(fixed_point=1.0),
        lambda: accuracy.update(float=0.0),
        lambda: accuracy.update(fixed_point=accuracy["fixed_point"] + 1 / SAMPLES),
        lambda: memory.update(cores_used=memory["cores_used"] - 1),
        lambda: memory.update(deployed_bytes=memory["deployed_bytes"] - 8),
        lambda: report["cores"][0]["resources"]["total"].update(used=1),
        lambda: report["provenance"].update(date="2020-01-01T00:00:00Z"),
        lambda: report["provenance"]["options"].update(sparsity=0.9),
        lambda: report.update(deviations=[]),
    ]
    before = copy.deepcopy(report)
    while report == before:
        pick(rng, edits)()


@forgery
def edited_without_digest(rng: np.random.Generator, site: Site, work: Path) -> list[str]:
    folder = site.copy("plain", work)
    report = site.report("plain")
    better(rng, report)
    write(folder, report, seal=False)
    return []


@forgery
def accuracy_raised(rng: np.random.Generator, site: Site, work: Path) -> list[str]:
    """To a share that is possible, with the report's digest: only running again tells."""
    folder = site.copy("plain", work)
    report = site.report("plain")
    was = round(report["accuracy"]["fixed_point"] * SAMPLES)
    report["accuracy"]["fixed_point"] = int(rng.integers(was + 1, SAMPLES + 1)) / SAMPLES
    write(folder, report)
    return ["--test", str(site.root / "data.npz")]


@forgery
def accuracy_that_cannot_be(rng: np.random.Generator, site: Site, work: Path) -> list[str]:
    folder = site.copy("plain", work)
    report = site.report("plain")
    report["accuracy"][pick(rng, ["float", "compressed", "fixed_point"])] = pick(
        rng, [1.01, -0.1, 0.99, None, True, "0.95", 1e308]
    )
    write(folder, report)
    return []


@forgery
def no_samples(rng: np.random.Generator, site: Site, work: Path) -> list[str]:
    folder = site.copy("plain", work)
    report = site.report("plain")
    for part in pick(rng, [["accuracy"], ["test"], ["accuracy", "test"]]):
        (report if part == "accuracy" else report["provenance"])[part]["samples"] = 0
    write(folder, report)
    return []


@forgery
def said_to_fit(rng: np.random.Generator, site: Site, work: Path) -> list[str]:
    """A network that does not fit its chip."""
    folder = site.copy("small", work)
    report = site.report("small")
    if rng.integers(2):
        report["fits"] = True
    if report["fits"] or rng.integers(2):
        report["excesses"] = []
    if rng.integers(2):
        report["memory"]["cores_available"] = 120
    write(folder, report)
    return ["--target", str(site.root / "small.toml")]


@forgery
def does_not_fit(_: np.random.Generator, site: Site, work: Path) -> list[str]:
    """And says so."""
    site.copy("small", work)
    return ["--target", str(site.root / "small.toml")]


@forgery
def fit_of_another_chip_claimed(rng: np.random.Generator, site: Site, work: Path) -> list[str]:
    """A small chip's report under the name of a large one."""
    folder = site.copy("small", work)
    report = site.report("small")
    plain = site.report("plain")
    report["target"] = plain["target"]
    if rng.integers(2):
        report["provenance"]["target"] = plain["provenance"]["target"]
    write(folder, report)
    return []


@forgery
def map_only_chip_claimed(rng: np.random.Generator, site: Site, work: Path) -> list[str]:
    folder = site.copy("plain", work)
    report = site.report("plain")
    for part in (report["target"], report["provenance"]["target"]):
        part["name"] = pick(rng, ["speck", "xylo-audio2", "../loihi2", ""])
    write(folder, report)
    return []


@forgery
def counts_lowered(rng: np.random.Generator, site: Site, work: Path) -> list[str]:
    folder = site.copy("plain", work)
    report = site.report("plain")
    memory, core = report["memory"], pick(rng, report["cores"])
    resource = pick(rng, sorted(core["resources"]))
    change: Callable[[], Any] = pick(
        rng,
        [
            lambda: memory.update(cores_used=memory["cores_used"] - 1),
            lambda: memory.update(deployed_bytes=memory["deployed_bytes"] - 8),
            lambda: memory.update(cores_available=10**6),
            lambda: core["resources"][resource].update(max=10**9),
            lambda: core.update(bytes=0),
            lambda: core["resources"].pop(resource),
            lambda: report["cores"].remove(core),
            report["cores"].clear,
            report["populations"].pop,
            lambda: core.update(layer="nowhere"),
            lambda: report["populations"][0].update(layer="nowhere"),
        ],
    )
    change()
    write(folder, report)
    return []


@forgery
def bits_that_differ(rng: np.random.Generator, site: Site, work: Path) -> list[str]:
    folder = site.copy("plain", work)
    report = site.report("plain")
    fidelity = report["fidelity"]
    what = pick(rng, ["spikes", "potentials"])
    most = fidelity[f"compared_{what}"]
    fidelity[f"mismatched_{what}"] = pick(rng, [1, most, most + 1])
    write(folder, report)
    return []


@forgery
def comparisons_that_never_were(rng: np.random.Generator, site: Site, work: Path) -> list[str]:
    folder = site.copy("plain", work)
    report = site.report("plain")
    report["fidelity"].update(
        pick(
            rng,
            [
                {"backend": None},
                {"samples": 0},
                {"samples": SAMPLES + 1},
                {"compared_spikes": 10**9},
                {"compared_potentials": 0},
            ],
        )
    )
    write(folder, report)
    return []


@forgery
def provenance_of_another(rng: np.random.Generator, site: Site, work: Path) -> list[str]:
    folder = site.copy("plain", work)
    report, other = site.report("plain"), site.report("retrained")
    part = pick(rng, ["network_sha256", "target", "steps", "test"])
    report["provenance"][part] = {
        "network_sha256": other["provenance"]["network_sha256"],
        "target": {"name": "loihi2", "sha256": "0" * 64},
        "steps": 11,
        "test": site.report("no_labels")["provenance"]["test"],
    }[part]
    write(folder, report)
    return []


@forgery
def provenance_incomplete(rng: np.random.Generator, site: Site, work: Path) -> list[str]:
    folder = site.copy("plain", work)
    report = sealed(site.report("plain"))
    report["provenance"].pop(pick(rng, sorted(report["provenance"])))
    write(folder, report, seal=False)
    return []


@forgery
def no_json(rng: np.random.Generator, site: Site, work: Path) -> list[str]:
    """What other readers of JSON take, or choke on."""
    file = site.copy("plain", work) / "report.json"
    text = file.read_text()
    value = '"fixed_point": ' + json.dumps(site.report("plain")["accuracy"]["fixed_point"])
    assert value in text
    file.write_text(
        pick(
            rng,
            [
                text.replace(value, '"fixed_point": NaN'),
                text.replace(value, '"fixed_point": Infinity'),
                text.replace(value, '"fixed_point": 1e999'),
                text.replace(value, '"fixed_point": ' + "9" * 5000),
                text.replace(value, value + ', "fixed_point": 1.0'),
                text.replace(value, '"fixed_point": ' + "[" * 100_000),
                text.replace(value, '"fixed_point": ' + '{"a": ' * 200 + "1" + "}" * 200),
                text.replace("{", '{"fits": true, ', 1),
                "[" * 100_000,
                "null",
                "",
            ],
        )
    )
    return []


@forgery
def several_edits(rng: np.random.Generator, site: Site, work: Path) -> list[str]:
    """Two to four better claims with the report's digest, on a network that tells."""
    folder = site.copy("sparser", work)
    report = site.report("plain")
    for _ in range(int(rng.integers(2, 5))):
        better(rng, report)
    if rng.integers(2):
        report["provenance"]["network_sha256"] = network_digest(read_network(folder))
    write(folder, report, seal=bool(rng.integers(4)))
    return ["--test", str(site.root / "data.npz")]


# Baselines.


def against(site: Site, work: Path, baseline: Report, *, seal: bool = True) -> list[str]:
    site.copy("plain", work)
    file = work / "baseline.json"
    file.write_text(json.dumps(sealed(baseline) if seal else baseline))
    return ["--budget", str(site.root / "growth.toml"), "--baseline", str(file)]


@forgery
def baseline_of_another(rng: np.random.Generator, site: Site, work: Path) -> list[str]:
    other = pick(rng, ["retrained", "other_data", "large_chip", "no_labels", "own"])
    again = pick(rng, [[], ["--update-baseline"]])
    return [*against(site, work, site.report(other)), *again]


@forgery
def baseline_edited(rng: np.random.Generator, site: Site, work: Path) -> list[str]:
    baseline = site.report("plain")
    better(rng, baseline)
    return against(site, work, baseline, seal=False)


@forgery
def baseline_that_cannot_be(rng: np.random.Generator, site: Site, work: Path) -> list[str]:
    baseline = site.report("plain")
    change: Callable[[], Any] = pick(
        rng,
        [
            lambda: baseline.update(schema="osbc-deploy/report/5"),
            lambda: baseline["accuracy"].update(samples=0),
            lambda: baseline["provenance"]["test"].update(samples=0),
            lambda: baseline.update(fits=False),
            baseline["cores"].clear,
            lambda: baseline["accuracy"].update(fixed_point=None),
            lambda: baseline["provenance"]["target"].update(sha256="0" * 64),
        ],
    )
    change()
    return against(site, work, baseline)


@forgery
def grown_since_the_baseline(_: np.random.Generator, site: Site, work: Path) -> list[str]:
    """An honest one, which the network does not keep."""
    return against(site, work, site.report("sparser"))
