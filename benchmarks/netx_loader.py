"""Random NetX files: what lava-dl's own loader builds, run by Lava, against what is read here.

    python benchmarks/netx_loader.py --lava-dl FOLDER [--files 24]

FOLDER is a checkout of lava-nc/lava-dl, whose ``src/lava/lib/dl/netx`` is imported as it is; torch
and the rest of lava-dl are not needed. Spikes, currents and potentials of every layer are compared.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import multiprocessing
import sys
import tempfile
import types
import warnings
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from osbc_backend_lava.compatibility import prepare
from osbc_deploy.chip.target import load_target
from osbc_deploy.errors import UnsupportedModelError
from osbc_deploy.fixedpoint import run
from osbc_deploy.formats.netx.limits import loader_keeps
from osbc_deploy.formats.netx.read import read_netx_fixed

FORMATS = load_target("loihi2-netx").number_formats
STEPS = 24


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--lava-dl", type=Path, required=True)
    parser.add_argument("--files", type=int, default=24)
    options = parser.parse_args()
    import_loader(options.lava_dl / "src" / "lava" / "lib" / "dl" / "netx")
    kept_weights(2000)
    differ = compared = 0
    features: dict[str, int] = {}
    with tempfile.TemporaryDirectory() as name:
        for number in range(options.files):
            path = Path(name) / f"{number}.net"
            with h5py.File(path, "w") as file:
                drawn = Drawn(np.random.default_rng(number), file)
            found, bias = sorted(drawn.features), drawn.bias
            try:
                network = read_netx_fixed(path, FORMATS, input_bias=bias)
            except UnsupportedModelError as error:
                print(f"{number}: refused: {'; '.join(error.offenders)}")
                continue
            rng = np.random.default_rng(number)
            spikes = (rng.random((1, STEPS, *network.input_shape)) < 0.4).astype(np.uint8)
            names = [p.name for p in network.populations]
            ours = run(network, spikes, record=names, states=names)
            # Lava starts a process for each of its own; a fresh one for each file leaves no trace.
            fork = multiprocessing.get_context("fork")
            with ProcessPoolExecutor(1, mp_context=fork) as pool:
                theirs = pool.submit(play, path, spikes[0], bias).result()
            start = int(bias is None)
            wrong = 0
            for layer, name_of_layer in enumerate(names):
                time = slice(layer + start, layer + start + STEPS)
                # Without neurons the loader adds up in u, which is v there; here v does it alone.
                adds_up = not network.populations[layer].spiking
                for kind in "v" if adds_up else "suv":
                    mine = {"s": ours.spikes, "u": ours.u, "v": ours.v}[kind][name_of_layer][0]
                    mine = np.asarray(mine).reshape(STEPS, -1)
                    other = theirs[layer][kind][time]
                    # ... until the sum leaves the register, where one wraps and one saturates.
                    held = np.maximum.accumulate(np.abs(mine)) < FORMATS.state_limit // 2
                    held |= not adds_up
                    wrong += int(np.count_nonzero((mine != other) & held))
                    compared += int(held.sum())
            fired = int(sum(spikes.sum() for spikes in ours.spikes.values()))
            print(
                f"{number}: {', '.join(sorted(found))}: {wrong} differ, {fired} spikes", flush=True
            )
            differ += wrong
            for feature in found:
                features[feature] = features.get(feature, 0) + 1
    print(f"{differ} of {compared:,} values differ; {features}")


def import_loader(folder: Path) -> None:
    """Make ``lava.lib.dl.netx`` of a checkout importable, without the packages around it."""
    prepare()
    for name, places in {
        "lava.lib.dl": [],
        "lava.lib.dl.netx": [str(folder)],
        "lava.lib.dl.slayer": [],
        "lava.lib.dl.slayer.neuron": [],
        "lava.lib.dl.slayer.neuron.rf": None,
    }.items():
        module: Any = types.ModuleType(name)
        if places is not None:
            module.__path__ = places
        module.__file__ = str(folder / "__init__.py")
        # Only resonate-and-fire neurons ask for it.
        module.neuron_params = None
        sys.modules[name] = module


def play(path: Path, spikes: Any, bias: Any) -> list[dict[str, Any]]:
    """Load a file with lava-dl, run it on Lava, and return s, u and v of its layers by step."""
    from lava.lib.dl.netx.blocks import models, process
    from lava.lib.dl.netx.hdf5 import Network
    from lava.magma.core.run_conditions import RunSteps
    from lava.magma.core.run_configs import Loihi2SimCfg
    from lava.proc.io.source import RingBuffer
    from lava.proc.monitor.process import Monitor

    assert models
    driven = bias is not None
    steps = STEPS + 8
    net = Network(net_config=str(path), reset_interval=128, reset_offset=0 if driven else 1)
    if driven:
        net.in_layer.neuron.bias_mant.init = bias
        net.in_layer.neuron.bias_exp.init = 6
    else:
        shape = net.inp.shape
        data = np.zeros((*shape, steps), int)
        # (C, H, W) here, (W, H, C) there.
        data[..., :STEPS] = (
            np.moveaxis(spikes, 0, -1)
            .transpose(*range(spikes.ndim - 2, -1, -1), spikes.ndim - 1)
            .reshape(data[..., :STEPS].shape)
        )
        RingBuffer(data=data).s_out.connect(net.inp)
    monitors = []
    for layer in net.layers:
        assert isinstance(layer, process.AbstractBlock)
        probes = {}
        for kind in ("s_out", "u", "v"):
            probes[kind[0]] = Monitor()
            probes[kind[0]].probe(getattr(layer.neuron, kind), steps)
        monitors.append(probes)
    net.run(condition=RunSteps(num_steps=steps), run_cfg=Loihi2SimCfg(select_tag="fixed_pt"))
    found = []
    for probes in monitors:
        traces = {}
        for kind, probe in probes.items():
            ((data,),) = (list(process.values()) for process in probe.get_data().values())
            # (T, W, H, C) to (T, C, H, W).
            axes = (0, *range(data.ndim - 1, 0, -1))
            traces[kind] = np.asarray(data).transpose(axes).reshape(steps, -1)
        found.append(traces)
    net.stop()
    return found


class Drawn:
    """A random file, and what is in it."""

    def __init__(self, rng: Any, file: Any) -> None:
        self.rng, self.layers = rng, file.create_group("layer")
        self.features: set[str] = set()
        self.bias: Any = None
        self.shape: tuple[int, ...] = (9,)
        if rng.random() < 0.5:
            self.shape = tuple(rng.integers(3, 7, 3))
        group = self.put("input", shape=np.array(self.shape))
        if rng.random() < 0.4:
            self.features.add("driven input")
            self.neurons(group, int(rng.integers(20, 90)))
            self.bias = rng.integers(-10, 60, self.shape[::-1])
        if len(self.shape) == 3:
            self.conv()
            self.put("flatten")
        size = int(np.prod(self.shape))
        for left in reversed(range(rng.integers(1, 4))):
            size = self.dense(size, last=not left)

    def put(self, kind: str, **values: Any) -> Any:
        group = self.layers.create_group(str(len(self.layers)))
        group["type"] = np.array([kind.encode()])
        for key, value in values.items():
            group[key] = value
        self.features.add(kind)
        return group

    def neurons(self, group: Any, vth: int) -> None:
        group["neuron/type"] = str(self.rng.choice(["CUBA", "LOIHI"]))
        group["neuron/vThMant"] = vth
        group["neuron/iDecay"] = self.rng.choice([4096, 1000, 200])
        group["neuron/vDecay"] = self.rng.choice([0, 128, 2048])

    def conv(self) -> None:
        rng = self.rng
        kernel = tuple(rng.integers(1, 4, 2))
        stride, padding = tuple(rng.integers(1, 3, 2)), tuple(rng.integers(0, 2, 2))
        weight = rng.integers(-128, 128, (int(rng.integers(1, 5)), self.shape[0], *kernel, 1))
        self.shape = (len(weight), *(
            (n + 2 * p - k) // s + 1
            for n, p, k, s in zip(self.shape[1:], padding, kernel, stride, strict=True)
        ))  # fmt: skip
        group = self.put(
            "conv", shape=np.array(self.shape), weight=weight.astype("f4"), groups=1,
            stride=np.array(stride), padding=np.array(padding), dilation=np.array([1, 1]),
        )  # fmt: skip
        if rng.random() < 0.5 and self.bias is None:
            group["bias"] = rng.integers(-3, 4, len(weight))
            self.features.add("bias")
        self.neurons(group, int(rng.integers(40, 200)))

    def dense(self, size: int, *, last: bool) -> int:
        rng = self.rng
        out, recurrent = int(rng.integers(2, 8)), rng.random() < 0.4
        low, high, factor = [(-128, 128, 1), (-128, 128, 2), (0, 200, 1), (-200, 0, 1)][
            rng.integers(4)
        ]
        weight = factor * rng.integers(low, high, (out, size))
        flat = not recurrent and rng.random() < 0.2
        self.features.update({"flat list"} if flat else ())
        group = self.put(
            "dense_rec" if recurrent else "dense", shape=np.array([out]),
            weight=(weight.ravel() if flat else weight).astype("f4"),
        )  # fmt: skip
        if recurrent:
            group["weight_rec"] = factor * rng.integers(low, high, (out, out))
        elif rng.random() < 0.5:
            wanted = [(), (out,), (size,), (out, size)][rng.integers(4)]
            group["delay"] = np.asarray(rng.integers(0, 6, wanted), "f4")
            self.features.add(f"delay {len(wanted)}D")
        if last and not recurrent and rng.random() < 0.3:
            self.features.add("no neurons")
        else:
            self.neurons(group, int(rng.integers(40, 400)))
        return out


def kept_weights(count: int) -> None:
    """Hold our judgement of weights against the loader's own and Lava's own functions."""
    from lava.lib.dl.netx.utils import optimize_weight_bits
    from lava.utils.weightutils import clip_weights, determine_sign_mode, truncate_weights

    rng = np.random.default_rng(0)
    wrong = kept = 0
    for _ in range(count):
        low, high = sorted(rng.choice([-300, -256, -128, -5, -1, 0, 1, 3, 127, 200, 254, 300], 2))
        shapes = [(4, 3), (4, 4)][: rng.integers(1, 3)]
        factor = rng.choice([1, 1, 2, 4])
        parts = [rng.integers(low, high + 1, shape) // factor * factor for shape in shapes]
        same = False
        with contextlib.suppress(OverflowError, ValueError), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with contextlib.redirect_stdout(io.StringIO()):
                joined, bits, exponent, _ = optimize_weight_bits(np.hstack(parts))
            # Lava would shift by a negative count, and the chip has no wider synapse.
            same = exponent <= 0 and 1 <= bits <= 8
            for part, loaded in zip(parts, np.split(joined, [3], axis=1), strict=False):
                sign = determine_sign_mode(loaded)
                stored = truncate_weights(clip_weights(loaded, sign, num_bits=8), sign, bits)
                same = same and bool((stored == part << -exponent).all())
        wrong += same != loader_keeps(*parts)
        kept += same
    print(f"weights: {wrong} of {count:,} judged otherwise than by the loader, {kept:,} are kept")


if __name__ == "__main__":
    main()
