"""Every file that osbc-deploy writes for 15 networks, as digests: two versions must write the same.

    python benchmarks/same_bytes.py --save before.json      # on the old tree
    python benchmarks/same_bytes.py --compare before.json   # on the new one

Only the command line is used, so the same script runs on any layout of the code. For both bundled
networks, the three NIR files (``--data``, where they are) and ten random stacks of norse, snnTorch
and SpikingJelly: the network's folder, chip image, NetX file (from the target that keeps to what it
holds), C sources, NIR file, and the reports of ``deploy``, ``verify`` and ``fit`` as JSON. What
names the run and not the result (versions, dates, commands, paths, their digests) is left out.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

OF_THE_RUN = {"tool", "date", "command", "report_sha256", "path", "python", "platform", "libraries",
              "arithmetic", "schema", "effort"}  # fmt: skip
"""Keys of a report that say which run it was, not what came out."""

VERSION = re.compile(rb"osbc-deploy \d+\.\d+\.\d+\w*")

MODELS = '''
import random

import numpy as np
import torch
from torch import nn


def _layers(seed, cell, ends):
    """A convolutional or a dense stack with biases, pooling and BatchNorm, drawn by its seed."""
    rng = random.Random(seed)
    torch.manual_seed(seed)
    width = rng.choice([6, 9, 12])
    if seed % 2:
        parts = [nn.Flatten(), nn.Linear(2 * 8 * 8, 5 * width), cell(), nn.Linear(5 * width, 20),
                 cell(), nn.Linear(20, 4), ends()]
    else:
        stride, padding = rng.choice([1, 2]), rng.choice([0, 1])
        side = (8 + 2 * padding - 3) // stride + 1
        parts = [nn.Conv2d(2, width, 3, stride, padding), nn.BatchNorm2d(width), cell(),
                 nn.AvgPool2d(2), nn.Flatten(), nn.Linear(width * (side // 2) ** 2, 4), ends()]
    for part in parts:
        if hasattr(part, "weight") and part.weight.dim() > 1:
            part.weight.data *= 3
        if isinstance(part, nn.BatchNorm2d):
            part.running_mean.normal_(0, 0.1)
            part.running_var.uniform_(0.5, 2)
    return parts


def _norse(seed):
    import norse.torch as norse
    from norse.torch.functional.leaky_integrator_box import LIBoxParameters
    from norse.torch.module.leaky_integrator_box import LIBoxCell

    def cell():
        return norse.LIFBoxCell(norse.LIFBoxParameters(
            v_th=torch.tensor(0.4), tau_mem_inv=torch.tensor(400.0)))

    def ends():
        return LIBoxCell(LIBoxParameters(tau_mem_inv=torch.tensor(500.0)))

    return norse.SequentialState(*_layers(seed, cell, ends if seed % 3 else cell))


def _snntorch(seed):
    import snntorch as snn

    def cell(**more):
        return snn.Leaky(beta=0.8, threshold=0.5, init_hidden=True, reset_mechanism="zero", **more)

    return nn.Sequential(*_layers(seed, cell, lambda: cell(output=True)))


def _spikingjelly(seed):
    from spikingjelly.activation_based import neuron

    def cell():
        return neuron.LIFNode(tau=2.0, v_threshold=0.5)

    return nn.Sequential(*_layers(seed, cell, cell))


def data():
    rng = np.random.default_rng(0)
    return (rng.random((60, 12, 2, 8, 8)) < 0.2).astype(np.uint8), rng.integers(0, 4, 60)


'''
RANDOM = {
    f"{kind}_{seed}": kind
    for seed, kind in enumerate(("norse",) * 4 + ("snntorch",) * 3 + ("spikingjelly",) * 3)
}
NIR = {
    "nmnist_scnn.nir": ((2, 34, 34), "subtract"),
    "braille_rsnn_subtract.nir": ((12,), "subtract"),
    "braille_rsnn_zero.nir": ((12,), "zero"),
}


def main() -> None:
    parser = argparse.ArgumentParser()
    default = Path(__file__).resolve().parents[2] / "shared" / "data"
    parser.add_argument("--data", type=Path, default=default / "nir")
    parser.add_argument("--save", type=Path)
    parser.add_argument("--compare", type=Path)
    parser.add_argument("--keep", type=Path, help="Folder for the files themselves.")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        work = (given.keep or Path(scratch)).resolve()
        work.mkdir(parents=True, exist_ok=True)
        found = dict(digests(work, given.data.resolve()))
    print(f"{len(found)} files")
    if given.save:
        given.save.write_text(json.dumps(found, indent=1) + "\n")
    if given.compare:
        known = json.loads(given.compare.read_text())
        differ = sorted(n for n in known.keys() | found.keys() if known.get(n) != found.get(n))
        for name in differ:
            print(f"  {name}: {known.get(name, 'missing')} -> {found.get(name, 'missing')}")
        print(f"{len(known)} files before, {len(differ)} differ")
        sys.exit(bool(differ))


def digests(work: Path, data: Path) -> Iterator[tuple[str, str]]:
    """Deploy every network, export it in every form, and yield the digest of each file."""
    factories = "".join(
        f"def {name}():\n    return _{kind}({name.rpartition('_')[2]})\n\n\n"
        for name, kind in RANDOM.items()
    )
    (work / "models.py").write_text(MODELS + factories)
    for name, options in networks(work, data):
        folder = work / name
        deploy(work, folder, *options, "--target", "loihi2")
        deploy(work, work / f"{name}-netx", *options, "--target", "loihi2-netx", "--nir",
               work / f"{name}.nir")  # fmt: skip
        run(work, "export", folder, "--format", "c", "-o", work / f"{name}-c")
        run(work, "export", folder, "--format", "image", "-o", work / f"{name}.img")
        run(work, "export", work / f"{name}-netx", "--format", "netx", "-o", work / f"{name}.net")
        for verb, more in (("verify", ("--backend", "engine")), ("fit", ("--cores", "100"))):
            output = run(work, verb, *options, "--target", "loihi2", "--json", *more)
            (work / f"{name}-{verb}.json").write_text(output)
        for path in sorted(work.rglob("*")):
            place = str(path.relative_to(work))
            ours = (f"{name}.", f"{name}-", f"{name}/")
            if path.is_file() and place.startswith(ours):
                yield place, digest(path)


def networks(work: Path, data: Path) -> Iterator[tuple[str, tuple[Any, ...]]]:
    """Yield names and command lines of the networks."""
    yield "digits_conv", ()
    mlp = "osbc_deploy.bundled.models:digits_mlp"
    code = (
        "import numpy as np; from osbc_deploy.bundled.digits import digits_events as d; "
        "from osbc_deploy.bundled.models import weights_path as w\n"
        "for s in ('calibration', 'test'):\n"
        "    x = d(s, seed=0); np.savez(f'{s}.npz', spikes=x.spikes, labels=x.labels)\n"
        "print(w('digits_mlp'))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=work, check=True, text=True,
                          capture_output=True)  # fmt: skip
    yield "digits_mlp", (mlp, "--weights", done.stdout.strip(), "--calibration", "calibration.npz",
                         "--test", "test.npz")  # fmt: skip
    for file, (shape, reset) in NIR.items():
        if not (data / file).is_file():
            print(f"{file} is not in {data}")
            continue
        stem = file.partition(".")[0]
        code = (
            "import numpy as np; r = np.random.default_rng(0); "
            f"np.savez('{stem}.npz', spikes=(r.random((24, 20, *{shape})) < 0.1).astype('u1'))"
        )
        subprocess.run([sys.executable, "-c", code], cwd=work, check=True)
        yield stem, (data / file, "--calibration", f"{stem}.npz", "--reset", reset, "--dt", "1e-4")
    for name in RANDOM:
        yield name, (f"models:{name}", "--calibration", "models:data")


def deploy(work: Path, folder: Path, *options: Any) -> None:
    run(work, "deploy", *options, "--backend", "engine", "-o", folder)


def run(work: Path, *command: Any) -> str:
    """Run a command that may refuse, and return what it printed; what it refused counts too."""
    done = subprocess.run(
        [sys.executable, "-m", "osbc_deploy", *map(str, command)],
        check=False, cwd=work, text=True, capture_output=True,
        env={**os.environ, "SOURCE_DATE_EPOCH": "0"},
    )  # fmt: skip
    if done.returncode == 1:
        raise RuntimeError(f"{command}: {done.stderr}")
    if done.returncode:
        print(f"  {command[0]} {command[1]}: exit {done.returncode}: {done.stderr.strip()[:200]}")
    return done.stdout


def digest(path: Path) -> str:
    content = path.read_bytes()
    if path.suffix == ".json":
        text = json.dumps(results(json.loads(content or b"null")), sort_keys=True)
        content = VERSION.sub(b"osbc-deploy", text.encode())
    elif path.suffix in (".net", ".nir"):
        content = hdf5(path)
    elif path.suffix in (".c", ".h"):
        content = VERSION.sub(b"osbc-deploy", content)
    return hashlib.sha256(content).hexdigest()


def results(value: Any) -> Any:
    """Return JSON data without what names the run."""
    if isinstance(value, dict):
        # A version may know options that another does not; nobody gave them here.
        kept = {k: v for k, v in value.items() if k not in OF_THE_RUN and v is not None}
        return {k: results(v) for k, v in kept.items()}
    return [results(v) for v in value] if isinstance(value, list) else value


def hdf5(path: Path) -> bytes:
    """Return the datasets of an HDF5 file, whose own bytes hold dates."""
    import h5py
    import numpy as np

    parts: list[str] = []

    def visit(name: str, node: Any) -> None:
        of_the_run = name.rpartition("/")[2] in OF_THE_RUN | {"version"}
        if isinstance(node, h5py.Dataset) and not of_the_run:
            value = node[()]
            if node.dtype == object and node.shape:
                # Strings: an array of them holds addresses.
                value = np.array(value.tolist())
            shown = value.tobytes() if hasattr(value, "tobytes") else value
            seen = hashlib.sha256(VERSION.sub(b"osbc-deploy", bytes(shown))).hexdigest()
            parts.append(f"{name} {node.dtype} {node.shape} {seen}")

    with h5py.File(path) as file:
        file.visititems(visit)
    return "\n".join(sorted(parts)).encode()


if __name__ == "__main__":
    main()
