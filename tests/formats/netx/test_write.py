"""A network written as NetX and read back is the same network."""

from __future__ import annotations

import re
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import h5py
import norse.torch as norse
import numpy as np
import pytest
import torch
from torch import nn

from osbc_deploy import pipeline
from osbc_deploy.chip.target import load_target
from osbc_deploy.compress.network import compress
from osbc_deploy.compress.options import CompressionOptions
from osbc_deploy.errors import ArtefactError, UnsupportedModelError, UsageError
from osbc_deploy.fixedpoint.coding import SPIKES, InputFormat
from osbc_deploy.fixedpoint.engine import run
from osbc_deploy.fixedpoint.formats import NumberFormats
from osbc_deploy.fixedpoint.network import FixedDense, FixedPointNetwork
from osbc_deploy.formats.netx.limits import loader_keeps
from osbc_deploy.formats.netx.read import read_netx, read_netx_fixed, stored_weights
from osbc_deploy.formats.netx.write import write_netx
from osbc_deploy.frameworks.norse.neurons import LI, LIF, CubaLI
from osbc_deploy.lower.lowering import lower
from osbc_deploy.model.graph import Dense, Network, Population, Projection
from osbc_deploy.model.simulate import simulate
from osbc_deploy.testing import Case, random_networks

NETX = load_target("loihi2-netx").number_formats


@pytest.fixture(scope="module")
def drawn() -> list[Case]:
    return random_networks(150, NETX, start=2)


def same(left: Any, right: Any) -> None:
    """Compare two networks, field by field."""
    assert left.input_shape == right.input_shape
    assert left.readout == right.readout
    for kind in ("populations", "projections"):
        for ours, theirs in zip(getattr(left, kind), getattr(right, kind), strict=True):
            for field in fields(ours):
                a, b = getattr(ours, field.name), getattr(theirs, field.name)
                if field.name == "connection":
                    for inner in fields(a):
                        x, y = getattr(a, inner.name), getattr(b, inner.name)
                        if inner.name == "delay" and (x is None or not x.any()):
                            assert y is None or not y.any()
                        else:
                            assert np.array_equal(x, y), (field.name, inner.name)
                elif field.name != "reset_offset":
                    assert np.array_equal(a, b), (ours.name, field.name)


def writable(case: Case, *, recurrent: bool = False, delayed: bool = False) -> FixedPointNetwork:
    """The chain in a random network, as far as NetX has it.

    Its dense layers hear themselves, or hear late: few draws do.
    """
    network = case.network
    zero = [np.zeros(p.size, int) for p in network.populations]
    populations = tuple(
        replace(p, reset="zero", reset_interval=0, u_init=z, v_init=z)
        for p, z in zip(network.populations, zero, strict=True)
    )
    pre, chain, held = "input", [], []
    for p in populations:
        into = [replace(q, graded=False) for q in network.afferents(p.name) if q.pre == pre][:1]
        if not into:
            # A branch, which no chain has.
            break
        held.append(p)
        if recurrent and p.spiking and isinstance(into[0].connection, FixedDense):
            # A recurrent layer has no delays.
            weight = into[0].connection.weight
            into = [replace(into[0], connection=FixedDense(weight))]
            again = FixedDense(np.resize(weight, (p.size, p.size)))
            into.append(replace(into[0], name=f"recurrent {p.name}", pre=p.name, connection=again))
        elif delayed and isinstance(into[0].connection, FixedDense):
            connection = into[0].connection
            late = np.resize([0, 2, 1], connection.weight.shape)
            into = [replace(into[0], connection=replace(connection, delay=late))]
        chain += into
        pre = p.name
    return replace(network, populations=tuple(held), projections=tuple(chain), input=SPIKES)


def test_random_chains_come_back_the_same(drawn: list[Case], tmp_path: Path) -> None:
    path = tmp_path / "a.net"
    written, refused = {"conv": 0, "dense": 0, "delays": 0, "recurrent": 0}, []
    for number, case in enumerate(drawn):
        network = writable(case, recurrent=number % 4 == 0, delayed=number % 4 == 1)
        try:
            write_netx(network, path)
        except UnsupportedModelError as error:
            refused += error.offenders
            continue
        back = read_netx_fixed(path, NETX)
        same(network, back)
        with h5py.File(path) as file:
            kinds = [layer["type"][0].decode() for layer in file["layer"].values()]
            written["delays"] += any("delay" in layer for layer in file["layer"].values())
        written["recurrent"] += "dense_rec" in kinds
        for kind in ("conv", "dense"):
            written[kind] += kind in kinds
        spikes = (case.spikes != 0).astype(np.uint8)
        assert np.array_equal(run(network, spikes).output, run(back, spikes).output)
    # What is drawn hangs on the modules that are loaded: hypothesis takes constants from them.
    assert min(written.values()) > 1, written
    # What is refused is what the loader would change, or cannot hold.
    expected = re.compile("do not survive|are not whole|all weights are zero")
    assert all(expected.search(line) for line in refused)


def test_a_readout_comes_back_as_one_in_the_float_network(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    hidden = LIF(np.array(0.3), np.zeros(()), np.array(0.5), np.zeros(()))
    for readout in (LI(np.array(0.1), np.zeros(())),
                    CubaLI(np.array(0.2), np.array(0.1), np.zeros(()))):  # fmt: skip
        first, second = (Dense(rng.normal(0, 1, shape), None) for shape in ((12, 8), (4, 12)))
        network = Network(
            (8,),
            (Population("hidden", (12,), hidden), Population("out", (4,), readout)),
            (Projection("a", "input", "hidden", first), Projection("b", "hidden", "out", second)),
            "float64",
        )
        spikes = (rng.random((20, 30, 8)) < 0.3).astype(np.uint8)
        options = CompressionOptions(sparsity=0.0, bits=4, tune=False)
        fixed = lower(compress(network, spikes, options), spikes, NETX, readout="last").network
        write_netx(fixed, tmp_path / "a.net")
        back = read_netx(tmp_path / "a.net")
        assert type(back.output.neuron) is type(readout)
        assert [p.name for p in back.populations] == ["hidden", "out"]
        assert [p.name for p in back.projections] == ["a", "b"]
        assert any("'last' (--readout)" in note for note in back.notes)
        # The float network computes what the file's integers do, but for their rounding.
        theirs, ours = run(fixed, spikes).output / 64, simulate(back, spikes).output
        assert np.abs(ours - theirs).max() < 0.01 * np.abs(theirs).max()
        assert (ours[:, -1].argmax(axis=1) == theirs[:, -1].argmax(axis=1)).all()


def test_a_damaged_manifest_is_refused(drawn: list[Case], tmp_path: Path) -> None:
    network = next(c for c in map(writable, drawn) if not _refused(c, tmp_path / "a.net"))
    for text in ("{", "[1]", '{"layers": []}', '{"layers": {"1": 3}}'):
        write_netx(network, tmp_path / "a.net")
        with h5py.File(tmp_path / "a.net", "r+") as file:
            del file["osbc/manifest"]
            file["osbc/manifest"] = text
        with pytest.raises(ArtefactError, match=r"a\.net: inconsistent network"):
            read_netx(tmp_path / "a.net")
        with pytest.raises(ArtefactError, match=r"a\.net: inconsistent network"):
            read_netx_fixed(tmp_path / "a.net", NETX)


def _refused(network: FixedPointNetwork, path: Path) -> bool:
    try:
        write_netx(network, path)
        read_netx(path)
    except UnsupportedModelError:
        return True
    return False


def test_everything_netx_cannot_hold_is_listed(
    drawn: list[Case], formats: NumberFormats, tmp_path: Path
) -> None:
    case = next(c for c in drawn if "conv" not in c.features)
    network = replace(writable(case), formats=formats)
    p, q = network.populations[0], network.projections[0]
    odd = np.ones(p.size, int)
    broken = replace(
        p, bias_mant=odd, bias_exp=0 * odd, u_init=odd, reset="subtract", reset_interval=4
    )
    nothing = FixedDense(np.zeros((p.size, q.connection.weight.shape[1]), int))
    network = replace(
        network,
        populations=(broken, *network.populations[1:]),
        projections=(replace(q, connection=nothing, graded=True), *network.projections[1:]),
        input=InputFormat("integers", 4),
    )
    with pytest.raises(UnsupportedModelError) as caught:
        write_netx(network, tmp_path / "a.net")
    text = str(caught.value)
    for part in ("13 bits", "only resets to zero", "does not start at 0", "graded", "are zero"):
        assert part in text
    # A reset by subtraction is in no NetX file, whatever the target.
    assert text.endswith("\nUse another format: --format c or image.")
    assert not (tmp_path / "a.net").exists()


def test_the_remedy_is_that_of_the_offenders(drawn: list[Case], tmp_path: Path) -> None:
    network = next(c for c in map(writable, drawn) if not _refused(c, tmp_path / "a.net"))
    p = network.populations[0]
    odd = np.ones(p.size, int)
    for change, said in [
        ({"u_init": odd}, "does not start at 0, as a bias .*\nTrain .* with bias=False\\.$"),
        ({"v_init": odd}, "does not start at 0\nUse another format: --format c or image\\.$"),
        ({"reset": "subtract"}, "only resets to zero.*\nUse another format: .*image\\.$"),
        ({"bias_mant": odd, "bias_exp": 0 * odd}, "13 bits.*\nDeploy with --target loihi2-netx, "),
    ]:
        populations = (replace(p, **change), *network.populations[1:])  # type: ignore[arg-type]
        with pytest.raises(UnsupportedModelError, match=said):
            write_netx(replace(network, populations=populations), tmp_path / "b.net")


def test_delays_that_line_up_branches_are_not_called_feedback(tmp_path: Path) -> None:
    neuron = LIF(np.full((), 0.3), np.zeros(()), np.ones(()), np.zeros(()))
    rng = np.random.default_rng(0)
    dense = [Dense(rng.normal(size=size).astype(np.float32)) for size in ((6, 8), (4, 6), (4, 8))]
    network = Network(
        (8,),
        (Population("a", (6,), neuron), Population("b", (4,), neuron)),
        (
            Projection("in", "input", "a", dense[0]),
            Projection("on", "a", "b", dense[1]),
            Projection("past", "input", "b", dense[2]),
        ),
    )
    x = (rng.random((8, 6, 8)) < 0.4).astype(np.uint8)
    done = compress(network, x, CompressionOptions(sparsity=0.0, bits=8, tune=False))
    lowered = lower(done, x, NETX).network
    assert lowered.projections[-1].connection.longest_delay == 1
    with pytest.raises(UnsupportedModelError) as caught:
        write_netx(lowered, tmp_path / "a.net")
    text = str(caught.value)
    assert "b: is fed by a, input; NetX chains layers" in text
    assert "beside feedback" not in text
    assert text.endswith("\nUse another format: --format c or image.")


def _stack(*layers: Any) -> Any:
    return norse.SequentialState(*layers)


def _readme_network() -> Any:
    """The network of README's "Your network", smaller: its readout has a synaptic current."""
    return _stack(
        nn.Conv2d(2, 3, 3, padding=1), nn.BatchNorm2d(3), norse.LIFBoxCell(), nn.AvgPool2d(2),
        nn.Flatten(), nn.Linear(27, 4), norse.LICell(),
    )  # fmt: skip


def _snntorch_default() -> Any:
    snntorch = pytest.importorskip("snntorch")
    return nn.Sequential(nn.Flatten(), nn.Linear(72, 4), snntorch.Leaky(0.9, init_hidden=True))


REFUSED = {
    "README's network": (
        _readme_network, r"6: does not start at 0, as a bias .*\nTrain .* with bias=False"
    ),
    "norse's LIFCell with bias": (
        lambda: _stack(nn.Flatten(), nn.Linear(72, 4), norse.LIFCell()), "2: does not start at 0"
    ),
    "snnTorch's default reset": (
        _snntorch_default, r"2: NetX only resets to zero.*\nTrain with resets to zero\.$"
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_what_export_would_refuse_is_refused_before_any_work(
    what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    make, said = REFUSED[what]
    module = make().eval()
    spikes = (np.random.default_rng(0).random((8, 6, 2, 6, 6)) < 0.3).astype(np.uint8)
    monkeypatch.setattr(pipeline, "compress", None)
    with pytest.raises(UnsupportedModelError, match=said):
        pipeline.deploy(module, spikes, target="loihi2-netx", backend="engine")


def _recurrent() -> Any:
    snntorch = pytest.importorskip("snntorch")
    return nn.Sequential(
        nn.Flatten(), nn.Linear(72, 5),
        snntorch.RLeaky(0.9, linear_features=5, reset_mechanism="zero", reset_delay=False,
                        init_hidden=True),
    )  # fmt: skip


def _unbiased() -> Any:
    module = _readme_network()
    module[5].bias = None
    # Without training nothing would fire.
    module[0].weight.data *= 30
    return module


def _pooled() -> Any:
    module = _stack(
        nn.Conv2d(2, 4, 3, bias=False), norse.LIFBoxCell(), nn.MaxPool2d(3, 2, 1),
        nn.Flatten(), nn.Linear(16, 4, bias=False), norse.LIFBoxCell(),
    )  # fmt: skip
    module[0].weight.data *= 30
    module[4].weight.data *= 30
    return module


ALLOWED = {
    "README's network without bias": _unbiased,
    "a recurrent layer": _recurrent,
    "gates": _pooled,
}


@pytest.mark.parametrize("what", ALLOWED)
def test_what_is_deployed_is_what_export_writes(what: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = ALLOWED[what]().eval()
    spikes = (np.random.default_rng(0).random((12, 8, 2, 6, 6)) < 0.4).astype(np.uint8)
    done = pipeline.deploy(
        module, spikes, target="loihi2-netx", backend="engine", sparsity=0.3, tune=False
    )
    write_netx(done.lowered.network, tmp_path / "a.net")
    back = read_netx_fixed(tmp_path / "a.net", NETX)
    assert np.array_equal(run(back, spikes).output, run(done.lowered.network, spikes).output)
    assert any("sparse_fc_layer=True" in d.message for d in done.deviations)


@pytest.mark.parametrize(
    ("weights", "kept"),
    [
        # What optimize_weight_bits of lava-dl 0.6 and lava-nc 0.10's weightutils made of them.
        ([[[1, -1]]], True),
        ([[[127, -128]]], True),
        ([[[254, -256]]], True),
        ([[[254, -255]]], False),  # 9 bits
        ([[[0, 255]]], True),
        ([[[-3, -5]]], True),
        ([[[-256, -1]]], False),  # -255, -1
        ([[[-4, 0]]], False),  # -2, 0: shifted to -256, which a single sign does not hold
        ([[[-3, 0]]], True),
        ([[[-128, -128]]], False),  # 0, 0
        ([[[0, 0]]], False),  # OverflowError
        ([[[300, 1]]], False),  # 0, 0
        ([[[3, 1]], [[-4]]], False),  # 3, 1 and -3
        ([[[3, 1]], [[-3]]], True),
        ([[[3, 5]], [[-4]]], True),
    ],
)
def test_what_the_loader_keeps_of_weights(weights: Any, kept: bool) -> None:
    assert loader_keeps(*(np.array(w) for w in weights)) is kept


def test_stored_weights_stand_for_the_plain_ones(formats: NumberFormats) -> None:
    rng = np.random.default_rng(0)
    for top in (1, 2, 7, 40, 127, 254):
        for sign in (-1, 0, 1):
            raw = rng.integers(-top * (sign <= 0), top * (sign >= 0) + 1, (4, 9))
            raw = raw * 2 if top == 254 and sign == 0 else raw
            found = stored_weights(raw // 2 * 2 if top == 254 else raw, formats)
            if found is None:
                assert abs(raw).max() > 255
                continue
            back = found.mantissa * 2.0**found.exponent
            assert np.array_equal(back, raw // 2 * 2 if top == 254 else raw)


def test_other_files_are_left_alone(drawn: list[Case], tmp_path: Path) -> None:
    path = tmp_path / "notes.net"
    path.write_text("mine")
    network = writable(next(c for c in drawn if "conv" not in c.features))
    wide = 2 * np.ones_like(network.projections[0].connection.weight)
    chain = tuple(
        replace(p, connection=FixedDense(2 * np.ones_like(p.connection.weight)), weight_bits=8,
                weight_exp=0, sign="mixed")
        for p in network.projections
    )  # fmt: skip
    network = replace(network, projections=chain)
    assert wide.any()
    with pytest.raises(UsageError, match="exists and is not a NetX file"):
        write_netx(network, path)
    assert path.read_text() == "mine"
    assert [p.name for p in tmp_path.iterdir()] == ["notes.net"]
