"""A network written as NetX and read back is the same network."""

from __future__ import annotations

import re
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from osbc_deploy.chip.target import load_target
from osbc_deploy.compress.network import CompressionOptions, compress
from osbc_deploy.errors import ArtefactError, UnsupportedModelError, UsageError
from osbc_deploy.export.netx import loaded_weights, write_netx
from osbc_deploy.fixedpoint.engine import run
from osbc_deploy.fixedpoint.formats import NumberFormats
from osbc_deploy.fixedpoint.lower import lower
from osbc_deploy.fixedpoint.network import FixedDense, FixedPointNetwork
from osbc_deploy.frontends.netx import read_netx, read_netx_fixed, stored_weights
from osbc_deploy.network.graph import Dense, Network, Population, Projection
from osbc_deploy.network.neurons import LI, LIF, CubaLI
from osbc_deploy.network.simulate import simulate
from random_networks import Case, collect

NETX = load_target("loihi2-netx").number_formats


@pytest.fixture(scope="module")
def drawn() -> list[Case]:
    return collect(150, NETX, start=2)[0]


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


def writable(case: Case) -> FixedPointNetwork:
    """The chain in a random network, without what NetX has no place for."""
    network = case.network
    zero = [np.zeros(p.size, int) for p in network.populations]
    populations = tuple(
        replace(p, reset="zero", reset_interval=0, u_init=z, v_init=z)
        for p, z in zip(network.populations, zero, strict=True)
    )
    pre, chain = "input", []
    for p in populations:
        projection = next(q for q in network.afferents(p.name) if q.pre == pre)
        connection = projection.connection
        if isinstance(connection, FixedDense):
            connection = FixedDense(connection.weight)
        chain.append(replace(projection, connection=connection, graded=False))
        pre = p.name
    return replace(network, populations=populations, projections=tuple(chain))


def test_random_chains_come_back_the_same(drawn: list[Case], tmp_path: Path) -> None:
    path = tmp_path / "a.net"
    written, refused = {"conv": 0, "dense": 0}, []
    for case in drawn:
        network = writable(case)
        try:
            write_netx(network, path)
        except UnsupportedModelError as error:
            refused += error.offenders
            continue
        back = read_netx_fixed(path, NETX)
        same(network, back)
        for kind in written:
            written[kind] += kind in case.features
        spikes = (case.spikes != 0).astype(np.uint8)
        assert np.array_equal(run(network, spikes).output, run(back, spikes).output)
    assert min(written.values()) > 10, written
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


def test_delays_go_to_the_axons_before_them(drawn: list[Case], tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    case = next(c for c in drawn if "conv" not in c.features and len(c.network.populations) == 2)
    network = writable(case)
    first, second = network.projections
    weight = 2 * rng.integers(-100, 100, second.connection.weight.shape)
    delay = np.broadcast_to(rng.integers(0, 60, weight.shape[1]), weight.shape)
    made = replace(second, connection=FixedDense(weight, delay), weight_bits=8, weight_exp=-1,
                   sign="mixed")  # fmt: skip
    plain = 2 * rng.integers(-100, 100, first.connection.weight.shape)
    start = replace(first, connection=FixedDense(plain), weight_bits=8, weight_exp=0, sign="mixed")
    network = replace(network, projections=(start, made))
    write_netx(network, tmp_path / "a.net")
    back = read_netx_fixed(tmp_path / "a.net", NETX)
    connection = back.projections[1].connection
    assert isinstance(connection, FixedDense)
    assert np.array_equal(connection.delay, delay)
    with h5py.File(tmp_path / "a.net") as file:
        assert "delay" in file["layer/1"]
    bent = delay.copy()
    bent[0, 0] += 1
    late = (replace(start, connection=FixedDense(plain, np.ones(plain.shape, int))),
            replace(made, connection=FixedDense(weight, bent)))  # fmt: skip
    with pytest.raises(UnsupportedModelError, match=r"(?s)delays of the input.*differ between"):
        write_netx(replace(network, projections=late), tmp_path / "b.net")


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
    )
    with pytest.raises(UnsupportedModelError) as caught:
        write_netx(network, tmp_path / "a.net")
    text = str(caught.value)
    for part in ("13 bits", "only resets to zero", "does not start at 0", "graded", "are zero"):
        assert part in text
    assert "--target loihi2-netx" in text
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


@pytest.mark.parametrize(
    ("weight", "expected"),
    [
        ([[1, -1]], [[1, -1]]),
        ([[127, -128]], [[127, -128]]),
        ([[254, -256]], [[254, -256]]),
        ([[254, -255]], None),  # 9 bits
        ([[0, 255]], [[0, 255]]),
        ([[-3, -5]], [[-3, -5]]),
        ([[-256, -1]], [[-255, -1]]),  # clipped
        ([[-4, 0]], [[-4, 0]]),
        ([[0, 0]], None),
        ([[300, 1]], None),
    ],
)
def test_what_the_loader_makes_of_weights(weight: Any, expected: Any) -> None:
    found = loaded_weights(np.array(weight))
    assert (None if found is None else found.tolist()) == expected


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
    with pytest.raises(UsageError, match="exists and is no NetX file"):
        write_netx(network, path)
    assert path.read_text() == "mine"
    assert [p.name for p in tmp_path.iterdir()] == ["notes.net"]
