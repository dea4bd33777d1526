"""A fleet in a box: twenty devices, a bad update, sensors in trouble, and what is noticed when.

    python examples/fleet/run.py [--data FOLDER] [-o FOLDER]

Every device is a process that runs the C runtime on networks from its own flash and reports by
telemetry; a gateway judges what arrives and goes back where its policy says so. With --data the
sensors see the recordings of N-MNIST in FOLDER (``Train`` and ``Test``), otherwise the bundled
digits. The page says what happened; the stores and records beside it are for
``osbc-deploy release status`` and ``osbc-deploy monitor``.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import numpy as np
from fleet import Plan, Trouble, Version, built, run_fleet
from numpy.typing import NDArray
from page import fleet_page

from osbc_deploy import deploy
from osbc_deploy.bundled.digits import digits_events
from osbc_deploy.bundled.models import weights_path
from osbc_deploy.data.datasets import DatasetRequest, load_dataset
from osbc_deploy.data.samples import Samples, check_samples
from osbc_deploy.errors import OsbcError
from osbc_deploy.firmware.blob import write_blob
from osbc_deploy.firmware.tables import lay_out
from osbc_deploy.fixedpoint.network import FixedPointNetwork
from osbc_deploy.folders import FolderKind
from osbc_deploy.monitor.baseline import Baseline, Promise, make_baseline, save_baseline
from osbc_deploy.monitor.intake import Intake
from osbc_deploy.release.checks import Device
from osbc_deploy.release.keys import make_keys, public_bytes, read_private
from osbc_deploy.release.selftest import make_selftest
from osbc_deploy.release.signing import make_release
from osbc_deploy.release.storage import Geometry
from osbc_deploy.telemetry.counting import count_windows
from osbc_deploy.writing import check_folder, new_folder, write_whole

RECORDS = 100
"""Of each device."""
WINDOW = 10
"""Samples of a record."""
EACH = 5
"""Records between two rounds of the gateway."""
TRIAL = 50
"""Samples of a trial."""
LONG = 1500
"""Records of a baseline."""
TARGET = "cam-a"
PAGE = "fleet.html"
_WRITTEN = (PAGE, "key.pem", "key.pub.pem", "baselines/*.json", "devices/*/store/store.*",
            "devices/*/records.bin")  # fmt: skip


@dataclass(frozen=True)
class World:
    """What the sensors see, and the networks for it.

    Attributes
    ----------
    name : str
    samples : ndarray (n, T, *input_shape)
        That every device's sensor draws from.
    dense, sparse, half : FixedPointNetwork
        All weights in 8 bits, a tenth of them in 4, and half of them in 6.
    """

    name: str
    samples: NDArray[Any]
    dense: FixedPointNetwork
    sparse: FixedPointNetwork
    half: FixedPointNetwork

    def scene(self, device: int, record: int) -> NDArray[Any]:
        """Return what a device sees in a window."""
        random = np.random.default_rng([device, record])
        return self.samples[random.integers(0, len(self.samples), WINDOW)]


def digits() -> World:
    """Return the bundled digits, as a few cameras see them, and the bundled network."""
    model, weights = "osbc_deploy.bundled.models:digits_mlp", weights_path("digits_mlp")
    first = digits_events("calibration")
    calibration = check_samples("digits", first.spikes, first.labels)
    seen = np.concatenate([digits_events("test", seed).spikes for seed in range(5)])
    return _world("the bundled digits", seen, model, calibration, weights=weights)


def nmnist(folder: Path) -> World:
    """Return N-MNIST's recordings, and a network that is trained on those of ``Train``."""
    sys.path.append(str(Path(__file__).resolve().parents[1]))
    import torch
    from _training import train
    from recipe import excite, two_fc

    request = DatasetRequest("nmnist", folder, steps=15, samples_per_class=None)
    training, test = (load_dataset(request, part) for part in ("train", "test"))
    torch.manual_seed(0)
    model = two_fc(training.input_shape, 10, 100)
    excite(model)
    print(f"training 2312-100-10 on {len(training)} recordings", flush=True)
    train(model, training, 8, 2e-3, 0.5)
    return _world(f"{len(test)} recordings of N-MNIST", test.spikes, model, training.take(200))


def _world(
    name: str, seen: NDArray[Any], model: Any, calibration: Samples, **options: Any
) -> World:
    networks = []
    for sparsity, bits in ((0.0, 8), (0.9, 4), (0.5, 6)):
        done = deploy(model, calibration, target="loihi2", sparsity=sparsity, bits=bits,
                      tune=False, backend_samples=0, **options)  # fmt: skip
        networks.append(done.lowered.network)
    return World(name, seen.reshape(*seen.shape[:2], *networks[0].input_shape), *networks)


def dead(samples: NDArray[Any], random: np.random.Generator) -> NDArray[Any]:
    """Return what is left where a tenth of the pixels say nothing."""
    return samples * (random.random(samples.shape[2:]) >= 0.1).astype(samples.dtype)


def hot(samples: NDArray[Any], random: np.random.Generator) -> NDArray[Any]:
    """Return the same with three pixels in a hundred firing in every step."""
    return samples | (random.random(samples.shape[2:]) < 0.03).astype(samples.dtype)


def faint(samples: NDArray[Any], random: np.random.Generator) -> NDArray[Any]:
    """Return what is left where a fifth of the events is lost."""
    return samples * (random.random(samples.shape) >= 0.2).astype(samples.dtype)


def deaf(network: FixedPointNetwork) -> FixedPointNetwork:
    """Return a network that says nothing: a build whose thresholds went wrong."""
    high = network.formats.vth_max
    return replace(
        network,
        populations=tuple(
            replace(p, vth=np.full(p.size, high), bias_mant=np.zeros(p.size))
            for p in network.populations
        ),
    )


def versions_of(world: World, key: Path, long: int = LONG) -> dict[int, Version]:
    """Return all releases: two that are well, and three that are not."""
    signer, random = read_private(key), np.random.default_rng(7)
    drawn = world.samples[random.integers(0, len(world.samples), long * WINDOW)]
    tested = check_samples("self-test", world.samples[:4])
    known = faint(drawn, random)

    def version(
        number: int, what: str, network: FixedPointNetwork, *, vectors: FixedPointNetwork,
        baseline: NDArray[Any] | None = None,
    ) -> Version:  # fmt: skip
        blob = write_blob(network, lay_out(network))
        _, release = make_release(
            blob, make_selftest(vectors, tested, 4).pack(), signer, version=number, target=TARGET,
            trial_samples=TRIAL, silent_most=TRIAL // 4, clipped_most=10**6,
        )  # fmt: skip
        limits = None if baseline is None else baseline_of(network, baseline)
        return Version(number, what, blob, release, limits)

    dense, sparse, half = world.dense, world.sparse, world.half
    made = (
        version(1, "all weights, 8 bits", dense, vectors=dense, baseline=drawn),
        version(2, "a tenth of the weights, 4 bits", sparse, vectors=sparse, baseline=drawn),
        version(3, "built from other weights than were tested", dense, vectors=sparse),
        version(4, "thresholds out of reach, so it says nothing", deaf(sparse),
                vectors=deaf(sparse)),
        version(5, "made for a lens that loses a fifth of the events", half, vectors=half,
                baseline=known),
    )  # fmt: skip
    return {v.number: v for v in made}


def baseline_of(network: FixedPointNetwork, samples: NDArray[Any]) -> Baseline:
    """Return the baseline of samples in a row: one false alarm in 30 days, a record a minute."""
    layers = [network.layers[p.name] for p in network.populations]
    windows = count_windows(network, samples, WINDOW)
    promise = Promise(days=30, per_day=1440)
    return make_baseline(
        Intake(tuple(windows), {}, ()), layers, promise, source="engine", short=True
    )


def plans_of(devices: int) -> list[Plan]:
    """Return what happens to each device; half of the gateways only report drift."""
    updates = {0: 1, 20: 2}
    more = {0: {40: 3}, 1: {40: 3}, 2: {40: 4}, 3: {40: 4}, 4: {50: 5}, 5: {50: 5}}
    kinds: tuple[tuple[str, Callable[..., NDArray[Any]]], ...] = (
        ("a tenth of the pixels is dead", dead),
        ("three pixels in a hundred are hot", hot),
        ("a fifth of the events is lost", faint),
    )
    troubles = {
        7 + place: Trouble(what, 60, change)
        for place, (what, change) in enumerate(kinds * 2)
    }  # fmt: skip
    return [
        Plan(updates | more.get(n, {}), troubles.get(n), "rollback" if n < 10 else "report")
        for n in range(devices)
    ]


def _run(world: World, devices: int, work: Path, program: Path) -> None:
    """Run a fleet within a folder, and write its page there."""
    key = work / "key.pem"
    make_keys(key)
    print(f"{world.name}: baselines of {LONG:,} records", flush=True)
    versions = versions_of(world, key)
    largest = max(len(v.release) for v in versions.values())
    geometry = Geometry(4096, -(-largest // 4096) * 4096)
    takes = Device(TARGET, (public_bytes(read_private(key)),), geometry)
    fleet = run_fleet(
        work / "devices", plans_of(devices), versions, world.scene, takes, records=RECORDS,
        each=EACH, program=program, say=print,
    )  # fmt: skip
    (work / "baselines").mkdir()
    for version in versions.values():
        if version.baseline is not None:
            save_baseline(version.baseline, work / "baselines" / f"{version.number}.json")
    for device in fleet:
        whole = b"".join(path.read_bytes() for path in sorted(device.records.iterdir()))
        (device.folder / "records.bin").write_bytes(whole)
        shutil.rmtree(device.records)
    page = fleet_page(world.name, fleet, versions, records=RECORDS, window=WINDOW, each=EACH)
    write_whole(work / PAGE, page)


def _files(folder: Path) -> list[str]:
    """Return what in a folder is of a fleet."""
    names = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return [name for name in names if any(fnmatch(name, pattern) for pattern in _WRITTEN)]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the fleet and write its page."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n", maxsplit=1)[0])
    parser.add_argument("--data", type=Path, metavar="FOLDER", help="N-MNIST's folder.")
    parser.add_argument("--devices", type=int, default=20)
    parser.add_argument("-o", "--output", type=Path, default=Path("fleet"), metavar="FOLDER")
    given = parser.parse_args(arguments)
    start, kind = time.perf_counter(), FolderKind(PAGE, _files)
    try:
        check_folder(given.output, kind)
        with tempfile.TemporaryDirectory() as name, built(Path(name)) as program:
            world = digits() if given.data is None else nmnist(given.data)
            with new_folder(given.output, kind) as work:
                _run(world, given.devices, work, program)
    except OsbcError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    print(f"wrote {given.output / PAGE} ({time.perf_counter() - start:.0f} s)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
