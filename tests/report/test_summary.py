"""Results at a prompt, in a notebook and as tables of pandas, against the numbers they hold."""

from __future__ import annotations

import builtins
import re
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest

import osbc_deploy
from float_networks import mlp, spikes
from osbc_deploy.errors import UsageError
from osbc_deploy.fitting import Candidate, FitBudget, FitResult, Plan
from osbc_deploy.inspection import Inspection
from osbc_deploy.results import Result
from osbc_deploy.verification.gates import GateResult
from verified import SIZES, verification

FOUND = verification()
DEPLOYED = FOUND.deployment


def fitted() -> FitResult:
    nothing: Any = None
    plans = [
        Plan({"w0": Candidate(0.5, bits, cores, 10 * cores, loss, nothing, "synapses", "")})
        for bits, cores, loss in ((4, 1, 0.5), (8, 2, 0.25))
    ]
    return FitResult(FitBudget(cores=2), plans[1], tuple(plans), "cores", DEPLOYED)


RESULTS: dict[str, Result] = {
    "deployment": DEPLOYED,
    "verification": FOUND,
    "fit": fitted(),
    "inspection": Inspection(DEPLOYED.network),
}


class Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def read(page: str) -> Page:
    parsed = Page()
    parsed.feed(page)
    return parsed


@pytest.mark.parametrize("kind", RESULTS)
def test_a_result_shows_itself_in_fewer_than_ten_lines(kind: str) -> None:
    lines = repr(RESULTS[kind]).splitlines()
    assert 3 <= len(lines) < 10
    assert lines[0].lower().startswith(f"{kind}: {DEPLOYED.network.source}")
    page = read(RESULTS[kind]._repr_html_())
    assert [line.strip() for line in lines] == [text.strip() for text in page.text[: len(lines)]]
    assert page.tags.count("table") == 1


def test_the_lines_hold_the_results_numbers() -> None:
    text = repr(DEPLOYED)
    cores = DEPLOYED.mapping.cores_used
    assert f"on loihi2-sim, FITS ({cores} of 120 cores)" in text
    assert f"memory: {DEPLOYED.mapping.bytes:,} B on {cores} cores" in text
    assert f"fixed point {DEPLOYED.accuracy.fixed_point:.2%} on 48 samples" in text
    broken = replace(FOUND, findings=(GateResult("mismatch", 0.0, 0.5, False, "too many"),))
    assert "gates: 0 of 1 kept" in repr(broken)
    assert "broken: mismatch: too many" in repr(broken)
    right = int(np.count_nonzero(FOUND.score("float").classes == FOUND.score("float").labels))
    assert f"float: accuracy {right / 48:.2%}" in repr(FOUND)
    assert "plan: 2 cores, loss 0.2500, built NOT as predicted" in repr(fitted())
    assert f"{24 * 40 + 40 * 20 + 20 * 5:,} weights" in repr(Inspection(mlp(sizes=SIZES)))


def test_what_is_long_is_counted() -> None:
    doubted = replace(DEPLOYED, warnings=tuple(f"doubt {k}" for k in range(5)))
    assert repr(doubted).endswith("warning: doubt 0; doubt 1 (and 3 more)")


def test_what_others_wrote_is_text() -> None:
    name = "<b>\x1b[31m\n"
    hostile = replace(DEPLOYED, network=replace(DEPLOYED.network, source=name))
    assert re.search(r"<b>\\x1b\[31m\\n on", repr(hostile))
    page = read(hostile._repr_html_())
    assert r"<b>\x1b[31m\n on" in page.text[0]
    assert page.tags.count("b") == 1


def test_tables_have_a_row_for_each_layer_population_and_plan() -> None:
    pytest.importorskip("pandas")
    layers = DEPLOYED.to_pandas()
    assert list(layers["layer"]) == ["w0", "w1", "w2"]
    assert layers["nonzero"].sum() == sum(
        np.count_nonzero(p.codes) for p in DEPLOYED.compressed.projections.values()
    )
    assert layers["cores"].sum() == DEPLOYED.mapping.cores_used
    steps = FOUND.to_pandas()
    assert set(steps["step"]) == {s.name for s in FOUND.steps}
    assert len(steps) == sum(len(s.propagated) for s in FOUND.steps)
    total = steps[(steps["step"] == "total") & (steps["population"] == "p0")]
    assert total["mismatch"].item() == FOUND.step("total").propagated["p0"].mismatch
    front = fitted().to_pandas()
    assert list(front["cores"]) == [1, 2]
    assert list(front["chosen"]) == [False, True]
    assert list(front["bits w0"]) == [4, 8]
    assert list(Inspection(mlp(sizes=SIZES)).to_pandas()["weights"]) == [960, 800, 100]


def test_without_pandas_one_sentence_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def lacking(name: str, *args: Any) -> Any:
        if name == "pandas":
            raise ModuleNotFoundError("No module named 'pandas'", name="pandas")
        return real(name, *args)

    monkeypatch.setattr(builtins, "__import__", lacking)
    with pytest.raises(UsageError, match="to_pandas: pandas is not installed. .* pip install"):
        DEPLOYED.to_pandas()


def test_an_imported_network_deploys_as_it_is() -> None:
    network = mlp(sizes=SIZES)
    raster = spikes(1, 24, 12, 24)
    done = osbc_deploy.deploy(network, raster, target="loihi2", backend_samples=2, tune=False)
    assert done.network is network
    assert done.fidelity.exact
    assert done.provenance["model"] == network.source
    with pytest.raises(UsageError, match="--weights: .* holds its own weights"):
        osbc_deploy.deploy(network, raster, target="loihi2", weights="w.safetensors")
    with pytest.raises(UsageError, match="--dt: only"):
        osbc_deploy.deploy(network, raster, target="loihi2", dt=1.0)
    with pytest.raises(UsageError, match="calibration: samples have shape"):
        osbc_deploy.deploy(network, raster[..., :5], target="loihi2")
