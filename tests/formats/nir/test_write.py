"""Networks written as NIR give, read back, the spikes they had."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import nir
import norse.torch as norse
import numpy as np
import pytest
import torch
from torch import nn

import float_networks
from osbc_deploy.errors import UnsupportedModelError, UsageError
from osbc_deploy.formats.nir import neurons as families
from osbc_deploy.formats.nir.read import read_nir
from osbc_deploy.formats.nir.write import check_nir, nir_graph, write_nir
from osbc_deploy.frameworks.norse.reading import read_norse
from osbc_deploy.frameworks.snntorch import neurons as snntorch
from osbc_deploy.frameworks.spikingjelly import neurons as spikingjelly
from osbc_deploy.model.graph import Dense, Network, Population, Projection
from osbc_deploy.model.simulate import simulate

ONE, ZERO = np.ones(()), np.zeros(())


def same(network: Network, path: Path, rng: np.random.Generator, **options: Any) -> Network:
    """Write and read a network, and compare all its spikes and potentials."""
    write_nir(network, path)
    again = read_nir(path, **options)
    assert again.dtype == network.dtype
    x = (rng.random((3, 25, *network.input_shape)) < 0.3).astype(np.uint8)
    names = [p.name for p in network.populations]
    assert [p.name for p in again.populations] == names
    before, after = simulate(network, x, record=names), simulate(again, x, record=names)
    assert any(before.spikes[n].any() for n in before.spikes)
    for name in before.spikes:
        np.testing.assert_array_equal(after.spikes[name], before.spikes[name], err_msg=name)
    tolerance = 1e-5 if network.dtype == "float32" else 1e-12
    np.testing.assert_allclose(after.output, before.output, rtol=tolerance, atol=tolerance)
    return again


@pytest.mark.parametrize(
    "network",
    [
        float_networks.mlp(3, bias=True),
        float_networks.convolutions(1),
        float_networks.recurrent(2),
        float_networks.residual(4),
        float_networks.gated(),
    ],
    ids=["mlp", "convolutions", "recurrent", "residual", "gates"],
)
def test_networks_of_every_structure(
    network: Network, tmp_path: Path, rng: np.random.Generator
) -> None:
    again = same(network, tmp_path / "net.nir", rng)
    assert [p.name for p in again.projections] == [p.name for p in network.projections]
    assert any("as our own export noted" in note for note in again.notes)
    for before, after in zip(network.populations, again.populations, strict=True):
        assert after.neuron.exact == before.neuron.exact
    fixed = [p.name for p in network.projections if not p.compressible]
    assert [p.name for p in again.projections if not p.compressible] == fixed


def test_feedback_over_several_populations_keeps_its_delay(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    made = float_networks.loop(0)
    same(made, tmp_path / "net.nir", rng)


def families_network(reset: str) -> Network:
    """Return all of NIR's spiking families in a row, with parameters of their own."""
    rng = np.random.default_rng(5)

    def draw(low: float, high: float) -> np.ndarray:
        return rng.uniform(low, high, 8)

    fires = {"v_threshold": draw(0.3, 0.6), "v_reset": np.zeros(8), "reset": reset}
    neurons = [
        families.IF(gain=draw(0.4, 1.2), **fires),
        families.LIF(draw(0.1, 1), draw(1, 3), draw(-0.1, 0.1), **fires),
        families.CubaLIF(
            draw(0.2, 1), draw(0.1, 1), draw(1, 2), draw(1, 2), draw(-0.1, 0.1), **fires
        ),
        families.Threshold(draw(0.2, 0.6), ZERO),
        families.CubaLI(draw(0.2, 1), draw(0.1, 1), draw(1, 2), draw(1, 2), draw(-0.1, 0.1)),
    ]
    populations = tuple(Population(f"p{i}", (8,), n) for i, n in enumerate(neurons))
    projections = tuple(
        Projection(
            f"w{i}",
            f"p{i - 1}" if i else "input",
            f"p{i}",
            Dense(rng.normal(size=(8, 8)), rng.normal(size=8) * 0.2),
            delay=rng.integers(0, 3, 8),
        )
        for i in range(len(neurons))
    )
    return Network((8,), populations, projections, "float64")


@pytest.mark.parametrize("reset", ["zero", "subtract"])
def test_every_family_of_nir(reset: str, tmp_path: Path, rng: np.random.Generator) -> None:
    again = same(families_network(reset), tmp_path / "net.nir", rng)
    assert [type(p.neuron).__name__ for p in again.populations] == [
        "IF", "LIF", "CubaLIF", "Threshold", "CubaLI",
    ]  # fmt: skip


def test_norse_networks_become_the_nodes_of_their_equations(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    torch.manual_seed(2)
    stack = norse.SequentialState(
        nn.Conv2d(2, 4, 3), norse.LIFBoxCell(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(36, 8),
        norse.IAFCell(), nn.Linear(8, 3), norse.LICell(),
    )  # fmt: skip
    with torch.no_grad():
        for parameter in stack.parameters():
            parameter.mul_(6)
    network = read_norse(stack, (2, 8, 8))
    same(network, tmp_path / "net.nir", rng)
    kinds = [type(n).__name__ for n in nir.read(tmp_path / "net.nir").nodes.values()]
    assert {"LIF", "IF", "CubaLI", "AvgPool2d"} <= set(kinds)


@pytest.mark.parametrize("reset", ["zero", "subtract"])
def test_neurons_that_fire_at_the_threshold_still_do(
    reset: str, tmp_path: Path, rng: np.random.Generator
) -> None:
    neuron = spikingjelly.IFNode(np.float32(1.0), np.float32(0.0), reset)
    # Quarters add up to the threshold exactly, time and again.
    weight = rng.integers(-1, 4, (6, 5)).astype(np.float32) / 4
    network = Network(
        (5,),
        (Population("a", (6,), neuron),),
        (Projection("w", "input", "a", Dense(weight)),),
    )
    x = (np.random.default_rng(7).random((3, 25, 5)) < 0.3).astype(np.uint8)
    strict = network.with_neurons({"a": families.IF(ONE, ONE, ZERO, reset)})
    assert (simulate(strict, x).output != simulate(network, x).output).any()
    same(network, tmp_path / "net.nir", rng)


def test_late_resets_of_snntorch_are_refused() -> None:
    neuron = snntorch.Leaky(0.9 * ONE, ONE, ONE)
    network = float_networks.mlp().with_neurons({"p1": neuron})
    with pytest.raises(UnsupportedModelError, match="p1: takes away something else") as caught:
        nir_graph(network)
    assert "network: some neurons" in str(caught.value)
    none = float_networks.mlp().with_neurons({"p1": snntorch.Leaky(0.9 * ONE, ONE, ONE, "none")})
    with pytest.raises(UnsupportedModelError, match="p1: a spike leaves the potential as it is"):
        nir_graph(none)


def test_others_read_the_file(tmp_path: Path) -> None:
    """NIR's own reader checks the types of all nodes."""
    write_nir(float_networks.residual(), tmp_path / "net.nir", dt=1e-3)
    graph = nir.read(tmp_path / "net.nir", type_check=True)
    assert float(graph.nodes["a"].tau.flat[0]) == pytest.approx(1e-3 / 0.3)


def test_what_nir_cannot_hold_is_listed() -> None:
    made = families_network("zero")
    changed = made.with_neurons(
        {
            "p0": replace(made.populations[0].neuron, reset="subtract"),
            "p2": replace(made.populations[2].neuron, alpha_u=np.zeros(8)),
        }
    )
    with pytest.raises(UnsupportedModelError) as caught:
        nir_graph(changed)
    assert caught.value.offenders == (
        "network: some neurons are set to v_reset, others lose the threshold",
        "p2: a synaptic current that never decays",
    )


def test_files_that_are_something_else_stay(tmp_path: Path) -> None:
    other = tmp_path / "other.nir"
    other.write_text("mine")
    with pytest.raises(UsageError, match="is not a NIR graph"):
        write_nir(float_networks.mlp(), other)
    assert other.read_text() == "mine"
    with pytest.raises(UsageError, match=r"net\.h5\.nir"):
        check_nir(tmp_path / "net.h5")
    write_nir(float_networks.mlp(), tmp_path / "net.nir")
    before = (tmp_path / "net.nir").read_bytes()
    bad = families_network("zero").with_neurons({"p2": families.CubaLIF(*[ZERO] * 7)})
    with pytest.raises(UnsupportedModelError):
        write_nir(bad, tmp_path / "net.nir")
    assert (tmp_path / "net.nir").read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["net.nir", "other.nir"]
