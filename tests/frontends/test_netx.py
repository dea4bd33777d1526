"""NetX files: what they say, what is refused, and damaged ones."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from osbc_deploy.compress.network import CompressionOptions, compress
from osbc_deploy.errors import (
    ArtefactError,
    OsbcError,
    UnsupportedModelError,
    UsageError,
    reason,
)
from osbc_deploy.fixedpoint.engine import run
from osbc_deploy.fixedpoint.formats import NumberFormats
from osbc_deploy.fixedpoint.lower import lower
from osbc_deploy.fixedpoint.network import FixedDense
from osbc_deploy.frontends.netx import read_netx, read_netx_fixed
from osbc_deploy.network.simulate import simulate

DATA = Path(__file__).parents[2].parent / "shared" / "data"


def put(
    file: Any, number: int, kind: str, *, neuron: dict[str, Any] | None = None, **rest: Any
) -> None:
    """Write a layer as lava-dl does."""
    group = file.require_group("layer").create_group(str(number))
    group["type"] = np.array([kind.encode()])
    for key, value in rest.items():
        group[key] = value
    if neuron is not None:
        registers = {"type": "CUBA", "iDecay": 4096, "vDecay": 400, "vThMant": 60, "refDelay": 1}
        inner = group.create_group("neuron")
        for key, value in (registers | neuron).items():
            inner[key] = value


def small(path: Path, **neuron: Any) -> Path:
    """A convolution, a flatten and two dense layers, the second with biases."""
    rng = np.random.default_rng(0)
    weight = rng.integers(-60, 61, (4, 2, 3, 3, 1)).astype(np.float32)
    with h5py.File(path, "w") as file:
        put(file, 0, "input", shape=np.array([2, 6, 5]))
        put(
            file, 1, "conv", neuron=neuron, shape=np.array([4, 3, 5]), weight=weight,
            stride=np.array([2, 1]), padding=np.array([1, 1]), dilation=1, groups=1,
            bias=np.array([3, 0, -2, 1.0]), inChannels=2, outChannels=4,
            kernelSize=np.array([3, 3]),
        )  # fmt: skip
        put(file, 2, "flatten")
        put(
            file, 3, "dense", neuron=neuron, shape=np.array([7]),
            weight=2 * rng.integers(-128, 127, (7, 60)), delay=np.arange(7) % 3,
        )  # fmt: skip
        put(
            file, 4, "dense", neuron={"vDecay": 0, "iDecay": 1000} | neuron, shape=np.array([3]),
            weight=rng.integers(0, 100, (3, 7)),
        )  # fmt: skip
    return path


def test_a_file_becomes_the_integers_it_says(tmp_path: Path, formats: NumberFormats) -> None:
    network = read_netx_fixed(small(tmp_path / "a.net"), formats)
    assert network.input_shape == (2, 6, 5)
    assert [p.shape for p in network.populations] == [(4, 3, 5), (7,), (3,)]
    conv, dense, last = network.projections
    with h5py.File(tmp_path / "a.net") as file:
        for projection, layer in ((conv, 1), (dense, 3), (last, 4)):
            plain = file[f"layer/{layer}/weight"][()].reshape(projection.connection.weight.shape)
            # Plain integers are mantissas times 2^exponent; a spike of one input shows them.
            assert np.array_equal(projection.connection.weight * 2.0**projection.weight_exp, plain)
    assert network.populations[0].du[0] == 4095
    assert (network.populations[2].du[0], network.populations[2].dv[0]) == (999, 0)
    assert np.array_equal(
        network.populations[0].bias_mant.reshape(4, -1)[:, 0] * 2**6, [192, 0, -128, 64]
    )
    # The axons of layer 3 have delays, which their synapses in layer 4 carry out.
    assert isinstance(last.connection, FixedDense)
    assert last.connection.delay is not None
    assert np.array_equal(last.connection.delay, np.tile(np.arange(7) % 3, (3, 1)))


def test_a_dense_chain_runs_as_plain_integers_do(tmp_path: Path, formats: NumberFormats) -> None:
    rng = np.random.default_rng(1)
    weight = rng.integers(-90, 91, (6, 5))
    path = tmp_path / "a.net"
    with h5py.File(path, "w") as file:
        put(
            file, 0, "dense", neuron={"vDecay": 512, "vThMant": 100}, shape=np.array([6]),
            weight=weight, bias=np.full(6, 2),
        )  # fmt: skip
    spikes = (rng.random((1, 30, 5)) < 0.5).astype(np.uint8)
    v, expected = np.zeros(6, int), []
    for x in spikes[0]:
        kept = np.sign(v) * ((np.abs(v) * (4096 - 512)) >> 12)
        v = kept + 64 * (weight @ x) + 2 * 64
        fired = v > 100 * 64
        v[fired] = 0
        expected.append(fired)
    network = read_netx_fixed(path, formats)
    found = run(network, spikes).output[0]
    assert np.array_equal(found, expected)
    assert found.any()


def without_delays(tmp_path: Path) -> Path:
    path = small(tmp_path / "b.net")
    with h5py.File(path, "r+") as file:
        del file["layer/3/delay"]
        del file["layer/4/neuron/iDecay"], file["layer/4/neuron/vDecay"]
        file["layer/4/neuron/iDecay"], file["layer/4/neuron/vDecay"] = 1000, 300
    return path


def test_the_float_network_has_the_same_registers(tmp_path: Path, formats: NumberFormats) -> None:
    path = without_delays(tmp_path)
    network, fixed = read_netx(path), read_netx_fixed(path, formats)
    rng = np.random.default_rng(2)
    spikes = (rng.random((6, 20, 2, 6, 5)) < 0.3).astype(np.uint8)
    options = CompressionOptions(sparsity=0.0, bits=8, tune=False)
    lowered = lower(compress(network, spikes, options), spikes, formats).network
    for ours, theirs in zip(lowered.populations, fixed.populations, strict=True):
        assert np.array_equal(ours.du, theirs.du)
        assert np.array_equal(ours.dv, theirs.dv)
    # Only rounding of states tells the float network from the integers.
    floats = simulate(network, spikes, record=[p.name for p in network.populations])
    integers = run(fixed, spikes, record=[p.name for p in fixed.populations])
    for name in integers.spikes:
        ours = floats.spikes[name].reshape(integers.spikes[name].shape)
        assert (ours == integers.spikes[name]).mean() > 0.97
        assert integers.spikes[name].any()


def test_everything_that_cannot_be_loaded_is_listed(tmp_path: Path, formats: Any) -> None:
    path = tmp_path / "a.net"
    ones = {"shape": np.array([2]), "weight": np.ones((2, 2))}
    with h5py.File(path, "w") as file:
        put(file, 0, "dense", neuron={"type": "SDNN"}, **ones)
        put(file, 1, "average")
        put(file, 2, "concat")
        put(file, 3, "pool")
        put(file, 4, "dense", neuron={"gradedSpike": True}, **ones)
    for read in (lambda: read_netx(path), lambda: read_netx_fixed(path, formats)):
        with pytest.raises(UnsupportedModelError) as caught:
            read()
        assert len(caught.value.offenders) == 5
        assert caught.value.exit_code == 3


def test_weights_beyond_8_bits_are_refused(tmp_path: Path, formats: Any) -> None:
    path = tmp_path / "a.net"
    with h5py.File(path, "w") as file:
        put(file, 0, "dense", neuron={}, shape=np.array([1]), weight=np.array([[-3, 254]]))
        put(file, 1, "dense", neuron={}, shape=np.array([1]), weight=np.array([[600]]))
        put(file, 2, "dense", neuron={}, shape=np.array([1]), weight=np.array([[601]]))
    with pytest.raises(UnsupportedModelError) as caught:
        read_netx_fixed(path, formats)
    assert len(caught.value.offenders) == 2


def test_registers_out_of_range_are_refused(tmp_path: Path, formats: Any) -> None:
    path = small(tmp_path / "a.net", vThMant=2**17)
    with pytest.raises(UnsupportedModelError, match=r"vth: 131072 to 131072, allowed 0 to 131071"):
        read_netx_fixed(path, formats)


def test_what_the_loader_ignores_is_noted(tmp_path: Path) -> None:
    path = without_delays(tmp_path)
    with h5py.File(path, "r+") as file:
        file["layer/1/neuron/wgtExp"] = 3
    assert any("wgtExp is ignored" in note for note in read_netx(path).notes)


def test_delays_are_refused_where_they_would_be_lost(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedModelError, match="layer 3: delays"):
        read_netx(small(tmp_path / "a.net"))


DAMAGE = {
    "not HDF5": lambda p: p.write_bytes(b"not HDF5 at all, but long enough to be looked at" * 9),
    "empty": lambda p: p.write_bytes(b""),
    "no layers": lambda p: edit(p, lambda f: f.__delitem__("layer")),
    "a layer is missing": lambda p: edit(p, lambda f: f.__delitem__("layer/1")),
    "no weight": lambda p: edit(p, lambda f: f.__delitem__("layer/4/weight")),
    "weight is text": lambda p: edit(p, lambda f: change(f, "layer/4/weight", "text")),
    "another size": lambda p: edit(p, lambda f: change(f, "layer/4/weight", np.ones((3, 8)))),
    "not finite": lambda p: edit(p, lambda f: change(f, "layer/4/weight", np.full((3, 7), np.nan))),
    "external link": lambda p: edit(
        p, lambda f: change(f, "layer/4/weight", h5py.ExternalLink("/etc/passwd", "x"))
    ),
    "soft link": lambda p: edit(
        p, lambda f: change(f, "layer/4/weight", h5py.SoftLink("/layer/3/weight"))
    ),
    "declares too much": lambda p: edit(p, huge),
    "stride of zero": lambda p: edit(p, lambda f: change(f, "layer/1/stride", 0)),
    "no such groups": lambda p: edit(p, lambda f: change(f, "layer/1/groups", 5)),
}


def edit(path: Path, action: Any) -> None:
    with h5py.File(path, "r+") as file:
        action(file)


def change(file: Any, key: str, value: Any) -> None:
    del file[key]
    file[key] = value


def huge(file: Any) -> None:
    del file["layer/4/weight"]
    file.create_dataset("layer/4/weight", shape=(3, 2**31), dtype="f4", chunks=(1, 2**20))


@pytest.mark.parametrize("what", DAMAGE)
def test_damaged_files_are_refused(what: str, tmp_path: Path, formats: NumberFormats) -> None:
    path = small(tmp_path / "a.net")
    DAMAGE[what](path)
    said = r"a\.net: .*(Export it again|needs .* of memory)"
    with pytest.raises(ArtefactError, match=said) as caught:
        read_netx_fixed(path, formats)
    assert caught.value.exit_code == 6


@pytest.mark.parametrize("name", ["gone.net", "folder.net"])
def test_a_missing_file_is_wrong_usage(name: str, tmp_path: Path, formats: NumberFormats) -> None:
    (tmp_path / "folder.net").mkdir()
    for read in (read_netx, lambda p: read_netx_fixed(p, formats)):
        with pytest.raises(UsageError, match=f"{name}: no such file") as caught:
            read(tmp_path / name)
        assert caught.value.exit_code == 2


def test_what_the_library_says_is_quoted_whole(tmp_path: Path, formats: NumberFormats) -> None:
    path = small(tmp_path / "a.net")
    edit(path, lambda f: f.__delitem__("layer"))
    with pytest.raises(ArtefactError, match=r"is no NetX network \(/layer is missing\)"):
        read_netx_fixed(path, formats)
    assert reason(OSError("cannot open 'a.net'")) == "cannot open 'a.net'"
    assert reason(KeyError("no 'layer'")) == "no 'layer'"
    assert reason(ValueError()) == "ValueError"


def test_truncated_and_flipped_files_never_crash(tmp_path: Path, formats: NumberFormats) -> None:
    whole = small(tmp_path / "a.net").read_bytes()
    path = tmp_path / "b.net"
    for length in range(0, len(whole) - 1, 211):
        path.write_bytes(whole[:length])
        with pytest.raises(ArtefactError):
            read_netx_fixed(path, formats)
    rng = np.random.default_rng(0)
    for place in rng.integers(0, len(whole), 300):
        broken = bytearray(whole)
        broken[place] ^= 1 << rng.integers(8)
        path.write_bytes(bytes(broken))
        # HDF5 has no checksum over its data, so a changed weight is not noticed.
        with contextlib.suppress(OsbcError):
            read_netx_fixed(path, formats)


@pytest.mark.skipif(not (DATA / "netx-tinynet").is_dir(), reason="lava-dl's test data is not here")
def test_lava_dls_own_test_network_gives_its_ground_truth(formats: NumberFormats) -> None:
    folder = DATA / "netx-tinynet"
    bias = np.load(folder / "input_bias.npy").astype(int)
    network = read_netx_fixed(folder / "tiny.net", formats, input_bias=bias)
    truth = np.load(folder / "output.npy")[0, :, 0, 0, 1:].T
    found = run(network, np.zeros((1, len(truth), 1, 16, 16), np.uint8)).output[0]
    assert np.array_equal(found, truth)
    assert truth.any()


@pytest.mark.skipif(not (DATA / "netx-oxford").is_dir(), reason="lava-dl's tutorial is not here")
def test_lava_dls_oxford_network_is_read(formats: NumberFormats) -> None:
    path = DATA / "netx-oxford" / "network.net"
    network = read_netx_fixed(path, formats)
    assert [p.size for p in network.populations] == [256, 200]
    assert [p.shape for p in read_netx(path).populations] == [(256,), (200,)]
