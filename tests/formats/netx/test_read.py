"""NetX files: what they say, what is refused, and damaged ones."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from osbc_deploy.compress.network import compress
from osbc_deploy.compress.options import CompressionOptions
from osbc_deploy.errors import (
    ArtefactError,
    OsbcError,
    UnsupportedModelError,
    UsageError,
    reason,
)
from osbc_deploy.fixedpoint.engine import run
from osbc_deploy.fixedpoint.formats import NumberFormats
from osbc_deploy.fixedpoint.network import FixedDense
from osbc_deploy.formats.netx.read import read_netx, read_netx_fixed
from osbc_deploy.lower.lowering import lower
from osbc_deploy.model.simulate import simulate
from osbc_deploy.progress import SILENT

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
    # A delay of each neuron is one of its synapses: so lava-dl's loader has it since its 0.4.
    assert isinstance(dense.connection, FixedDense)
    assert dense.connection.delay is not None
    assert np.array_equal(dense.connection.delay, np.tile(np.arange(7) % 3, (60, 1)).T)
    assert isinstance(last.connection, FixedDense)
    assert last.connection.delay is None


def plain_steps(
    weight: Any, weight_rec: Any, spikes: Any, du: int, dv: int, vth: int, bias: Any, delay: Any
) -> Any:
    """Spikes of a layer, step by step, by Lava's equations for its fixed-point LIF and Dense."""
    u = v = np.zeros(len(weight), int)
    fired, found = np.zeros(len(weight), int), []
    for t in range(len(spikes)):
        # What left a synapse `delay` steps ago arrives now, and what was fired one step ago.
        a = weight_rec @ fired
        for k in range(t + 1):
            a = a + np.where(delay == k, weight, 0) @ spikes[t - k]
        u = np.sign(u) * ((np.abs(u) * (4096 - (du + 1))) >> 12) + 64 * a
        v = np.sign(v) * ((np.abs(v) * (4096 - dv)) >> 12) + u + bias * 64
        fired = (v > vth * 64).astype(int)
        v = np.where(fired, 0, v)
        found.append(fired)
    return np.array(found)


@pytest.mark.parametrize("flat_list", [False, True])
def test_a_recurrent_layer_feeds_back_a_step_later(
    flat_list: bool, tmp_path: Path, formats: NumberFormats
) -> None:
    rng = np.random.default_rng(3)
    weight, back = 2 * rng.integers(-60, 60, (5, 8)), 2 * rng.integers(-60, 60, (5, 5))
    path = tmp_path / "a.net"
    with h5py.File(path, "w") as file:
        put(
            file, 0, "dense_rec", neuron={"iDecay": 1500, "vDecay": 410}, shape=np.array([5]),
            weight=(weight.ravel() if flat_list else weight).astype("f4"),
            weight_rec=(back.ravel() if flat_list else back).astype("f4"),
            inFeatures=8, outFeatures=5,
        )  # fmt: skip
    network = read_netx_fixed(path, formats)
    spikes = (rng.random((1, 30, 8)) < 0.3).astype(np.uint8)
    expected = plain_steps(weight, back, spikes[0], 1499, 410, 60, 0, np.zeros((5, 8)))
    assert np.array_equal(run(network, spikes).output[0], expected)
    without = plain_steps(weight, 0 * back, spikes[0], 1499, 410, 60, 0, np.zeros((5, 8)))
    assert not np.array_equal(expected, without)
    # As a float network it feeds back to itself as well.
    floats = read_netx(path)
    assert [(p.pre, p.post) for p in floats.projections] == [
        ("input", "layer 0"), ("layer 0", "layer 0")
    ]  # fmt: skip
    assert (simulate(floats, spikes).output[0] == expected).mean() > 0.97


@pytest.mark.parametrize(
    "delay",
    [np.array(3), np.arange(6), np.arange(4)[::-1], np.arange(24).reshape(6, 4) % 5],
    ids=["one", "of neurons", "of inputs", "of synapses"],
)
def test_delays_are_those_of_the_layers_own_synapses(
    delay: Any, tmp_path: Path, formats: NumberFormats
) -> None:
    rng = np.random.default_rng(4)
    weight = rng.integers(-120, 120, (6, 4))
    path = tmp_path / "a.net"
    with h5py.File(path, "w") as file:
        put(
            file, 0, "dense", neuron={"vDecay": 300}, shape=np.array([6]), weight=weight,
            delay=delay.astype("f4"),
        )  # fmt: skip
    spikes = (rng.random((1, 25, 4)) < 0.4).astype(np.uint8)
    own = np.broadcast_to(delay[:, None] if delay.shape == (6,) else delay, (6, 4))
    expected = plain_steps(weight, np.zeros((6, 6), int), spikes[0], 4095, 300, 60, 0, own)
    found = run(read_netx_fixed(path, formats), spikes).output[0]
    assert np.array_equal(found, expected)
    assert found.any()


def driven(path: Path, **neuron: Any) -> Any:
    """A flat input layer with neurons, as lava-dl's MNIST tutorial has it, and a dense layer."""
    weight = 2 * np.random.default_rng(0).integers(-60, 60, (5, 20))
    with h5py.File(path, "w") as file:
        put(
            file, 0, "input", neuron={"vDecay": 120, "vThMant": 80} | neuron, shape=np.array([20]),
            weight=np.array([76.0], "f4"), bias=np.array([64.0], "f4"),
        )  # fmt: skip
        put(file, 1, "dense", neuron={}, shape=np.array([5]), weight=weight)
    return weight


def test_a_flat_input_layer_with_neurons_is_driven_by_its_bias(
    tmp_path: Path, formats: NumberFormats
) -> None:
    weight = driven(tmp_path / "a.net")
    bias = np.random.default_rng(1).integers(0, 60, 20)
    network = read_netx_fixed(tmp_path / "a.net", formats, input_bias=bias)
    assert network.input_shape == (1,)
    assert [p.shape for p in network.populations] == [(20,), (5,)]
    nothing = np.zeros((25, 1), int)
    first = plain_steps(np.zeros((20, 1), int), np.zeros((20, 20), int), nothing, 4095, 120, 80,
                        bias, np.zeros((20, 1)))  # fmt: skip
    second = plain_steps(weight, np.zeros((5, 5), int), first, 4095, 400, 60, 0,
                         np.zeros((5, 20)))  # fmt: skip
    done = run(network, nothing[None].astype(np.uint8), record=["input layer"])
    assert np.array_equal(done.spikes["input layer"][0], first)
    assert np.array_equal(done.output[0], second)
    assert second.any()
    with pytest.raises(ArtefactError, match=r"bias has shape \(3,\), needed \(20,\)"):
        read_netx_fixed(tmp_path / "a.net", formats, input_bias=np.zeros(3, int))
    with pytest.raises(UnsupportedModelError, match="layer 0: an input layer with neurons"):
        read_netx(tmp_path / "a.net")


def test_a_layer_without_neurons_adds_up(tmp_path: Path, formats: NumberFormats) -> None:
    rng = np.random.default_rng(5)
    weight = rng.integers(-90, 91, (3, 4))
    with h5py.File(tmp_path / "a.net", "w") as file:
        put(file, 0, "dense", shape=np.array([3]), weight=weight)
    spikes = (rng.random((1, 20, 4)) < 0.5).astype(np.uint8)
    network = read_netx_fixed(tmp_path / "a.net", formats)
    found = run(network, spikes).output[0]
    assert np.array_equal(found, 64 * np.cumsum(spikes[0].astype(int) @ weight.T, axis=0))
    with h5py.File(tmp_path / "a.net", "r+") as file:
        file["layer/0/bias"] = np.array([0, 1, 0])
    with pytest.raises(UnsupportedModelError, match="layer 0: a bias without neurons"):
        read_netx_fixed(tmp_path / "a.net", formats)


def test_lava_runs_what_was_read(tmp_path: Path, formats: NumberFormats) -> None:
    lava = pytest.importorskip("osbc_backend_lava.backend").BACKEND
    if not lava.availability().ok:
        pytest.skip("Lava cannot run here")
    rng = np.random.default_rng(6)
    driven(tmp_path / "a.net")
    edit(tmp_path / "a.net", lambda f: put(
        f, 2, "dense_rec", neuron={"iDecay": 900}, shape=np.array([4]),
        weight=rng.integers(-60, 90, (4, 5)), weight_rec=rng.integers(-60, 90, (4, 4)),
    ))  # fmt: skip
    network = read_netx_fixed(tmp_path / "a.net", formats, input_bias=rng.integers(5, 60, 20))
    spikes = np.zeros((1, 30, 1), np.uint8)
    names = [p.name for p in network.populations]
    ours = run(network, spikes, record=names, states=names)
    theirs = lava.run(network, spikes, time_limit=300, progress=SILENT, states=names)
    for name in names:
        assert ours.spikes[name].any()
        for kind in ("spikes", "u", "v"):
            assert np.array_equal(getattr(ours, kind)[name], getattr(theirs, kind)[name]), name


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


def test_weights_that_lava_dls_loader_does_not_keep_are_refused(
    tmp_path: Path, formats: Any
) -> None:
    path = tmp_path / "a.net"
    with h5py.File(path, "w") as file:
        put(file, 0, "dense", neuron={}, shape=np.array([1]), weight=np.array([[-3, 254]]))
        # The loader shifts to the right by a negative count, and all weights are 0.
        put(file, 1, "dense", neuron={}, shape=np.array([1]), weight=np.array([[600]]))
        # A single sign ends at 255, so Lava makes -2 of the -4 that the loader shifts to -256.
        put(file, 2, "dense", neuron={}, shape=np.array([2]), weight=np.array([[-4], [0]]))
        put(
            file, 3, "dense_rec", neuron={}, shape=np.array([2]), weight=np.array([[3, 1], [1, 0]]),
            weight_rec=np.array([[-4, 0], [0, -1]]),
        )  # fmt: skip
        put(file, 4, "dense", neuron={}, shape=np.array([1]), weight=np.array([[0, 0]]))
        put(file, 5, "dense", neuron={}, shape=np.array([1]), weight=np.array([[254]]))
    with pytest.raises(UnsupportedModelError) as caught:
        read_netx_fixed(path, formats)
    assert [line.split(":")[0] for line in caught.value.offenders] == [
        "layer 0", "layer 1", "layer 2", "layer 3", "layer 4"
    ]  # fmt: skip


def test_registers_out_of_range_are_refused(tmp_path: Path, formats: Any) -> None:
    path = small(tmp_path / "a.net", vThMant=2**17)
    with pytest.raises(UnsupportedModelError, match=r"vth: 131072 to 131072, allowed 0 to 131071"):
        read_netx_fixed(path, formats)


def test_what_the_loader_ignores_is_noted(tmp_path: Path) -> None:
    path = without_delays(tmp_path)
    with h5py.File(path, "r+") as file:
        file["layer/1/neuron/wgtExp"] = 3
    assert any("wgtExp is ignored" in note for note in read_netx(path).notes)


def test_delays_are_refused_where_they_would_be_lost(
    tmp_path: Path, formats: NumberFormats
) -> None:
    with pytest.raises(UnsupportedModelError, match="layer 3: delays"):
        read_netx(small(tmp_path / "a.net"))
    path = tmp_path / "b.net"
    with h5py.File(path, "w") as file:
        put(file, 0, "input", shape=np.array([1, 4, 4]))
        put(
            file, 1, "conv", neuron={}, shape=np.array([2, 3, 3]), weight=np.ones((2, 1, 2, 2, 1)),
            stride=1, padding=0, dilation=1, groups=1, delay=np.array([0, 1]),
        )  # fmt: skip
        put(file, 2, "flatten")
        put(
            file, 3, "dense_rec", neuron={}, shape=np.array([3]), weight=np.ones((3, 18)),
            weight_rec=np.ones((3, 3)), delay=np.zeros(3),
        )  # fmt: skip
        put(file, 4, "dense", neuron={}, shape=np.array([1]), weight=np.ones((1, 3)), delay=63)
    with pytest.raises(UnsupportedModelError) as caught:
        read_netx_fixed(path, formats)
    assert caught.value.offenders == (
        "layer 1: delays of a convolution, which lava-dl's loader leaves out",
        "layer 3: delays of a recurrent layer, where lava-dl's loader leaves out the weights' "
        "exponent",
        "layer 4: delays 63 to 63, the chip has 0 to 62",
    )


def test_a_full_decay_of_the_membrane_is_refused(tmp_path: Path, formats: NumberFormats) -> None:
    path = small(tmp_path / "a.net", vDecay=4096)
    with pytest.raises(UnsupportedModelError, match="dv: 4096 to 4096, allowed 0 to 4095"):
        read_netx_fixed(path, formats)


TURNED = {
    "dense": ("layer/4/weight", lambda w: w.T, r"weight has shape \(7, 3\), needed \(3, inputs\)"),
    "conv (in, out)": (
        "layer/1/weight", lambda w: w.swapaxes(0, 1),
        r"weight has shape \(2, 4, 3, 3\), needed \(4, 4, 3, 3\)",
    ),
    "conv (kh, kw, in, out)": (
        "layer/1/weight", lambda w: w.transpose(2, 3, 1, 0, 4), r"weight has shape \(3, 3, 2, 4\)",
    ),
    "feedback": (
        "layer/5/weight_rec", lambda w: w[:, :2],
        r"weight_rec has shape \(4, 2\), needed \(4, 4\)",
    ),
    "bias": ("layer/1/bias", lambda b: b[:, None], r"bias has shape \(4, 1\), needed \(4,\)"),
    "delay": ("layer/3/delay", lambda d: d[:5], r"delay has shape \(5,\), needed \(7,\)"),
    "inFeatures": ("layer/4/inFeatures", lambda _: 3, "inFeatures is 3, its weights have 7"),
    "outFeatures": ("layer/4/outFeatures", lambda _: 7, "outFeatures is 7, its weights have 3"),
    "outChannels": ("layer/1/outChannels", lambda _: 2, "outChannels is 2, its weights have 4"),
    "inChannels": ("layer/1/inChannels", lambda _: 4, "inChannels is 4, its weights have 2"),
    "kernelSize": (
        "layer/1/kernelSize", lambda _: np.array([5, 3]),
        r"kernelSize is \(5, 3\), its weights have \(3, 3\)",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", TURNED)
def test_arrays_of_another_shape_are_never_made_to_fit(
    what: str, tmp_path: Path, formats: NumberFormats
) -> None:
    path = small(tmp_path / "a.net")
    key, turn, said = TURNED[what]
    with h5py.File(path, "r+") as file:
        file["layer/4/inFeatures"], file["layer/4/outFeatures"] = 7, 3
        put(
            file, 5, "dense_rec", neuron={}, shape=np.array([4]), weight=np.ones((4, 3)),
            weight_rec=np.ones((4, 4)),
        )  # fmt: skip
    read_netx_fixed(path, formats)
    edit(path, lambda f: change(f, key, turn(f[key][()])))
    for read in (read_netx, lambda p: read_netx_fixed(p, formats)):
        with pytest.raises(ArtefactError, match=said):
            read(path)


def test_everything_that_has_another_shape_is_listed(
    tmp_path: Path, formats: NumberFormats
) -> None:
    path = small(tmp_path / "a.net")
    for key in ("layer/3/weight", "layer/4/weight"):
        edit(path, lambda f, key=key: change(f, key, f[key][()].T))
    with pytest.raises(ArtefactError, match=r"layer 3: weight has shape .*; layer 4: weight has"):
        read_netx_fixed(path, formats)


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


@pytest.mark.parametrize(
    ("name", "said"), [("gone.net", "no such file"), ("folder.net", "is a folder")]
)
def test_a_missing_file_is_wrong_usage(
    name: str, said: str, tmp_path: Path, formats: NumberFormats
) -> None:
    (tmp_path / "folder.net").mkdir()
    for read in (read_netx, lambda p: read_netx_fixed(p, formats)):
        with pytest.raises(UsageError, match=f"{name}: {said}") as caught:
            read(tmp_path / name)
        assert caught.value.exit_code == 2


def test_what_the_library_says_is_quoted_whole(tmp_path: Path, formats: NumberFormats) -> None:
    path = small(tmp_path / "a.net")
    edit(path, lambda f: f.__delitem__("layer"))
    with pytest.raises(ArtefactError, match=r"is not a NetX network \(/layer is missing\)"):
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
