"""lava-dl's own NetX files: ground truth, and a tutorial network compressed and mapped.

    python benchmarks/netx.py [--data FOLDER]

FOLDER holds ``netx-tinynet`` (lava-dl, tests/netx/gts/tinynet) and ``netx-oxford`` (lava-dl,
tutorials/netx/oxford).
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np

import osbc_backend_lava.backend as lava
from osbc_deploy.chip.mapping import map_network
from osbc_deploy.chip.target import load_target
from osbc_deploy.compress.network import compress
from osbc_deploy.compress.options import CompressionOptions
from osbc_deploy.fixedpoint import FixedPointNetwork, run
from osbc_deploy.formats.netx.read import read_netx, read_netx_fixed
from osbc_deploy.formats.netx.write import write_netx
from osbc_deploy.lower.lowering import lower
from osbc_deploy.progress import SILENT

TARGET = load_target("loihi2-netx")
FORMATS = TARGET.number_formats


def main() -> None:
    parser = argparse.ArgumentParser()
    default = Path(__file__).resolve().parents[2] / "shared" / "data"
    parser.add_argument("--data", type=Path, default=default)
    data = parser.parse_args().data
    tinynet(data / "netx-tinynet")
    oxford(data / "netx-oxford")


def tinynet(folder: Path) -> None:
    bias = np.load(folder / "input_bias.npy").astype(int)
    network = read_netx_fixed(folder / "tiny.net", FORMATS, input_bias=bias)
    truth = np.load(folder / "output.npy")[0, :, 0, 0, 1:].T
    found = run(network, np.zeros((1, len(truth), 1, 16, 16), np.uint8)).output[0]
    print(f"tinynet: {np.sum(found == truth)} of {truth.size} output steps equal lava-dl's, "
          f"{int(truth.sum())} spikes")  # fmt: skip


def oxford(folder: Path) -> None:
    path = folder / "network.net"
    events = np.load(folder / "input.npy")
    spikes = np.zeros((1, 2000, 200), np.uint8)
    spikes[0, np.round(events[:, 2]).astype(int), events[:, 0].astype(int)] = 1
    exact = read_netx_fixed(path, FORMATS)
    compare("oxford as it is", exact, spikes)
    # Windows of the one recording are the calibration samples.
    windows = spikes.reshape(20, 100, 200)
    options = CompressionOptions(sparsity=0.5, bits=8, scale_groups=1)
    compressed = compress(read_netx(path), windows, options)
    lowered = lower(compressed, windows, FORMATS).network
    stored = sum(p.nonzero for p in lowered.projections)
    total = sum(p.connection.weight.size for p in lowered.projections)
    mapping = map_network(lowered, TARGET)
    print(f"oxford compressed: {stored:,} of {total:,} weights ({1 - stored / total:.1%} sparse), "
          f"{mapping.cores_used} cores of {TARGET.name}, fits: {mapping.fits}")  # fmt: skip
    compare("oxford compressed", lowered, spikes)
    before, after = run(exact, spikes).output, run(lowered, spikes).output
    print(f"output spikes: {int(before.sum()):,} before, {int(after.sum()):,} after, "
          f"{np.mean(before == after):.2%} of places the same")  # fmt: skip
    with tempfile.TemporaryDirectory() as name:
        write_netx(lowered, Path(name) / "a.net")
        back = read_netx_fixed(Path(name) / "a.net", FORMATS)
    same = all(
        np.array_equal(a.connection.weight, b.connection.weight) and a.weight_exp == b.weight_exp
        for a, b in zip(lowered.projections, back.projections, strict=True)
    ) and all(
        np.array_equal(getattr(a, key), getattr(b, key))
        for a, b in zip(lowered.populations, back.populations, strict=True)
        for key in ("du", "dv", "vth", "bias_mant", "bias_exp")
    )
    print(f"exported and read again: {'identical' if same else 'DIFFERENT'}")


def compare(title: str, network: FixedPointNetwork, spikes: np.ndarray) -> None:
    names = [p.name for p in network.populations]
    ours = run(network, spikes, record=names, states=names)
    theirs = lava.BACKEND.run(network, spikes, time_limit=600, progress=SILENT, states=names)
    differ = sum(
        int(np.count_nonzero(getattr(ours, kind)[name] != getattr(theirs, kind)[name]))
        for kind in ("spikes", "u", "v")
        for name in names
    )
    fired = {name: int(ours.spikes[name].sum()) for name in names}
    print(f"{title}: engine and Lava differ in {differ} of s, u, v; spikes {fired}")


if __name__ == "__main__":
    main()
