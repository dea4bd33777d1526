"""Good files of every kind that the tool reads, small, made by real writers, to be damaged."""

from __future__ import annotations

import itertools
import json
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import nir
import numpy as np
from safetensors.numpy import save_file

from float_networks import mlp
from osbc_deploy.chip.mapping import map_network
from osbc_deploy.chip.target import load_target
from osbc_deploy.compress.network import compress
from osbc_deploy.compress.options import CompressionOptions
from osbc_deploy.data.samples import check_samples
from osbc_deploy.fixedpoint.network import (
    FixedConv,
    FixedDense,
    FixedPointNetwork,
    FixedPopulation,
    FixedProjection,
)
from osbc_deploy.formats.folder import write_network
from osbc_deploy.formats.image.write import write_image
from osbc_deploy.formats.netx.write import write_netx
from osbc_deploy.formats.nir.write import write_nir
from osbc_deploy.job import Job
from osbc_deploy.model.graph import Network
from osbc_deploy.pipeline import finish

__all__ = ["TARGET", "Corpus", "make"]

TARGET = "loihi2"

BUDGET = """schema = 1
[budget]
cores = 6
memory_bytes = 220_000
accuracy_floor = 0.0
accuracy_drop = 1.0
[resources]
synapses = 0.8
[layers.w0]
memory_bytes = 80_000
[growth]
memory = 0.05
accuracy_drop = 0.01
"""

CONFIG = """[report]
form = "csv"
[check]
budget = "budget.toml"
form = "table"
[deploy]
target = "loihi2"
sparsity = 0.5
bits = 4
mixed = true
[verify]
gate = ["mismatch=0.5"]
"""


@dataclass(frozen=True)
class Corpus:
    """A folder of good files, and the networks they hold."""

    folder: Path
    network: Network
    statistics: dict[str, str]

    def files(self, *patterns: str) -> list[Path]:
        return sorted(p for pattern in patterns for p in self.folder.glob(pattern) if p.is_file())


def make(folder: Path) -> Corpus:
    """Write one or more good files of every kind."""
    rng = np.random.default_rng(0)
    network = mlp(sizes=(12, 10, 6, 4))
    spikes = (rng.random((12, 8, 12)) < 0.4).astype(np.uint8)
    data = check_samples("data", spikes, np.arange(12) % 4)
    _npz(folder, spikes)
    save_file({f"{p.name}.weight": np.array(p.connection.weight) for p in network.projections},
              folder / "weights.safetensors")  # fmt: skip
    job = Job(load_target(TARGET), network, data, data, "sum", None, 0, 60.0)
    options = CompressionOptions(sparsity=0.5, bits=4, tune=False)
    compress(network, spikes, options, state=folder / "state")
    done = finish(job, compress(network, spikes, options))
    done.save(folder / "image")
    write_nir(network, folder / "mlp.nir", dt=1e-3)
    _recurrent(folder / "recurrent.nir", rng)
    _packed(folder / "packed.nir", folder / "recurrent.nir")
    fixed = _fixed(rng)
    (folder / "conv").mkdir()
    write_network(fixed, folder / "conv")
    write_image(fixed, map_network(fixed, load_target(TARGET)), folder / "conv.img")
    write_netx(_chain(rng), folder / "ours.net")
    _lava(folder / "lava.net", rng)
    for name in ("loihi2", "speck", "xylo-audio2", "loihi1"):
        text = (Path(__file__).parents[2] / "targets" / f"{name}.toml").read_text()
        (folder / f"target-{name}.toml").write_text(text)
    (folder / "budget.toml").write_text(BUDGET)
    (folder / "config.toml").write_text(CONFIG)
    (folder / "baseline.json").write_text((folder / "image" / "report.json").read_text())
    _events(folder, rng)
    manifest = json.loads((folder / "state" / "state.json").read_text())
    return Corpus(folder, network, manifest["belongs_to"])


def _npz(folder: Path, spikes: Any) -> None:
    labels = np.arange(12) % 4
    np.savez(folder / "stored.npz", spikes=spikes, labels=labels)
    np.savez_compressed(folder / "packed.npz", spikes=spikes.astype(np.float32), labels=labels)
    np.savez(folder / "fortran.npz", spikes=np.asfortranarray(spikes.astype(bool)))


def _recurrent(path: Path, rng: np.random.Generator) -> None:
    def many(value: float, n: int) -> Any:
        return np.full(n, value)

    lif = nir.LIF(tau=many(0.02, 6), r=many(1, 6), v_leak=many(0, 6), v_threshold=many(0.5, 6))
    cuba = nir.CubaLIF(
        tau_syn=many(0.01, 4), tau_mem=many(0.02, 4), r=many(1, 4), v_leak=many(0, 4),
        v_threshold=many(0.5, 4), w_in=many(1, 4),
    )  # fmt: skip
    nodes = {
        "input": nir.Input(np.array([2, 4, 4])),
        "conv": nir.Conv2d((4, 4), rng.normal(size=(3, 2, 3, 3)).astype(np.float32), 1, 1, 1, 1,
                           np.zeros(3, np.float32)),
        "if": nir.IF(r=np.ones((3, 4, 4)), v_threshold=np.full((3, 4, 4), 0.7)),
        "pool": nir.SumPool2d(np.array([2, 2]), np.array([2, 2]), np.array([0, 0])),
        "flatten": nir.Flatten({"input": np.array([3, 2, 2])}, 0, -1),
        "affine": nir.Affine(rng.normal(size=(6, 12)), np.zeros(6)),
        "lif": lif,
        "back": nir.Linear(rng.normal(size=(6, 6))),
        "scale": nir.Scale(np.full(6, 0.5)),
        "delay": nir.Delay(np.full(6, 0.001)),
        "out": nir.Linear(rng.normal(size=(4, 6))),
        "cuba": cuba,
        "output": nir.Output(np.array([4])),
    }  # fmt: skip
    chain = ["input", "conv", "if", "pool", "flatten", "affine", "lif", "scale", "delay", "out",
             "cuba", "output"]  # fmt: skip
    edges = [*itertools.pairwise(chain), ("lif", "back"), ("back", "lif")]
    nir.write(str(path), nir.NIRGraph(nodes, edges, type_check=False))


def _packed(path: Path, source: Path) -> None:
    """Write an HDF5 file again in chunks, compressed, with checksums."""
    with h5py.File(source) as before, h5py.File(path, "w", libver="latest") as after:

        def copy(name: str, item: Any) -> None:
            if isinstance(item, h5py.Group):
                after.require_group(name)
            elif item.shape and item.dtype.kind in "iuf":
                after.create_dataset(
                    name, data=item[()], chunks=True, compression="gzip", shuffle=True,
                    fletcher32=True,
                )  # fmt: skip
            else:
                before.copy(item, after, name)

        before.visititems(copy)


def _population(name: str, shape: tuple[int, ...], **registers: int) -> FixedPopulation:
    size = int(np.prod(shape))
    values = {"du": 4095, "dv": 400, "vth": 20, "bias_mant": 0, "bias_exp": 0, "u_init": 0,
              "v_init": 0} | registers  # fmt: skip
    return FixedPopulation(
        name=name, shape=shape, spiking=True, v_scale=np.ones(size), v_offset=np.zeros(size),
        **{key: np.full(size, value) for key, value in values.items()},
    )  # fmt: skip


def _fixed(rng: np.random.Generator) -> FixedPointNetwork:
    kernel = (rng.integers(-8, 8, (4, 2, 3, 3)) * 2).astype(np.int16)
    dense = (rng.integers(-8, 8, (5, 64)) * 2 * (rng.random((5, 64)) < 0.5)).astype(np.int16)
    again = (rng.integers(-8, 8, (5, 5)) * 2).astype(np.int16)
    return FixedPointNetwork(
        (2, 6, 6),
        (_population("c", (4, 4, 4)), _population("d", (5,), dv=0, vth=100)),
        (
            FixedProjection("k", "input", "c", FixedConv(kernel, (1, 1), (0, 0), (1, 1), 1), 8, 0),
            FixedProjection("w", "c", "d", FixedDense(dense), 8, 1),
            FixedProjection("r", "d", "d", FixedDense(again, np.full((5, 5), 2)), 8, 0),
        ),
        load_target(TARGET).number_formats,
        "sum",
    )


def _chain(rng: np.random.Generator) -> FixedPointNetwork:
    first = (rng.integers(-8, 8, (8, 6)) * 2).astype(np.int16)
    second = (rng.integers(-8, 8, (3, 8)) * 2).astype(np.int16)
    return FixedPointNetwork(
        (6,),
        (_population("p", (8,), bias_exp=6), _population("q", (3,), bias_exp=6)),
        (
            FixedProjection("a", "input", "p", FixedDense(first), 8, 0),
            FixedProjection("b", "p", "q", FixedDense(second), 8, 0),
        ),
        load_target("loihi2-netx").number_formats,
        "sum",
    )


def _lava(path: Path, rng: np.random.Generator) -> None:
    """Write a file as lava-dl does."""
    with h5py.File(path, "w") as file:

        def layer(number: int, kind: str, **values: Any) -> Any:
            group = file.create_group(f"layer/{number}")
            group.create_dataset("type", (1,), "S10", [kind.encode()])
            for key, value in values.items():
                group.create_dataset(key, data=value)
            return group

        def neuron(group: Any, **values: int) -> None:
            inner = group.create_group("neuron")
            inner.create_dataset("type", (1,), "S10", [b"CUBA"])
            for key, value in values.items():
                inner.create_dataset(key, data=value)

        decays = {"iDecay": 4096, "vDecay": 128, "vThMant": 80, "refDelay": 1, "gradedSpike": False}
        layer(0, "input", shape=np.array([1, 6, 6]))
        conv = layer(
            1, "conv", shape=np.array([3, 4, 4]), weight=rng.integers(-60, 60, (3, 1, 3, 3)) * 2,
            stride=np.array([1, 1]), padding=np.array([0, 0]), dilation=np.array([1, 1]), groups=1,
            inChannels=1, outChannels=3, kernelSize=np.array([3, 3]),
        )  # fmt: skip
        neuron(conv, **decays)
        layer(2, "flatten", shape=np.array([48]))
        dense = layer(
            3, "dense", shape=np.array([5]), weight=rng.integers(-60, 60, (5, 48)) * 2,
            bias=np.zeros(5, int), delay=np.zeros(48, int), inFeatures=48, outFeatures=5,
        )  # fmt: skip
        neuron(dense, **decays)


def _events(folder: Path, rng: np.random.Generator) -> None:
    n = 60
    t = np.linspace(0, 299_999, n).astype(int)
    x, y, p = rng.integers(0, 34, n), rng.integers(0, 34, n), rng.integers(0, 2, n)
    words = [(int(a) << 32 | int(b) << 24 | int(c) << 23 | int(d)).to_bytes(5, "big")
             for a, b, c, d in zip(x, y, p, t, strict=True)]  # fmt: skip
    (folder / "nmnist.bin").write_bytes(b"".join(words))
    address = rng.integers(0, 2**15, n)
    body = b"".join(struct.pack(">II", int(a), int(b)) for a, b in zip(address, t, strict=True))
    (folder / "cifar.aedat").write_bytes(b"#!AER-DAT2.0\r\n# a comment\r\n" + body)
    gesture = folder / "gesture"
    gesture.mkdir()
    events = b"".join(
        struct.pack("<II", int(a) << 17 | int(b) << 2 | int(c) << 1 | 1, int(d))
        for a, b, c, d in zip(x, y, p, t, strict=True)
    )
    header = struct.pack("<hhiiiiii", 1, 1, 8, 4, 0, n, n, n)
    other = struct.pack("<hhiiiiii", 0, 1, 8, 4, 0, 2, 2, 2) + bytes(16)
    content = b"#!AER-DAT3.1\r\n#Format: RAW\r\n#!END-HEADER\r\n" + other + header + events
    (gesture / "user01_led.aedat").write_bytes(content)
    # One trial of every gesture, so that the whole data set loads.
    rows = [f"{k},{(k - 1) * 27_000},{k * 27_000}" for k in range(1, 12)]
    (gesture / "user01_led_labels.csv").write_text(
        "class,startTime_usec,endTime_usec\n" + "\n".join(rows) + "\n"
    )
    (gesture / "trials_to_train.txt").write_text("user01_led.aedat\n")
    (gesture / "trials_to_test.txt").write_text("user01_led.aedat\n")
