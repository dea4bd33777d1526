"""What is lost by drawing some of the rows of a convolution's Hessian, against all of them.

    python benchmarks/sampled_rows.py [--data FOLDER] [--scale 0.5] [--draws 3] [--only TEXT]

Each network is compressed at 90 % and 4 bits, untuned: with every row in every Hessian, and as
always, the first time as it is and then with other seeds. All are judged by the Hessian of all
rows. Networks: 5Conv2FC of ``sizes.py`` made smaller; and two trained ones, the bundled
digits_conv, which is so small that all rows are taken, and, where they are there,
``nir/nmnist_scnn.nir`` of the NIR paper on real recordings of N-MNIST (``real/nmnist``).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from _accuracy import Clock, bundled, parser, read, table, write
from sizes import conv

from osbc_deploy.compress import CompressedNetwork, CompressionOptions, compress, sampling
from osbc_deploy.compress import scene as scene_module
from osbc_deploy.compress.moments import Moments
from osbc_deploy.compress.problem import stacked_weights
from osbc_deploy.compress.support import loss
from osbc_deploy.data.datasets import DatasetRequest, load_dataset
from osbc_deploy.job import VerbCall, prepare
from osbc_deploy.model.graph import Network, Projection

OPTIONS = CompressionOptions(sparsity=0.9, bits=4, tune=False)


@dataclass(frozen=True, eq=False)
class Case:
    """A float network with its calibration samples."""

    name: str
    network: Network
    calibration: np.ndarray


def cases(data: Path, scale: float, only: str) -> Iterator[Case]:
    if only in (name := f"5Conv2FC, scale {scale:g}"):
        yield Case(name, *conv(scale))
    if only in (name := "digits_conv"):
        task = bundled(name)
        yield Case(name, task.network, task.calibration)
    file, recordings = data / "nir" / "nmnist_scnn.nir", data / "real" / "nmnist"
    if only in (name := file.name) and file.is_file() and recordings.is_dir():
        request = DatasetRequest("nmnist", recordings, steps=15, samples_per_class=None)
        found = load_dataset(request, "train")
        call = VerbCall(
            module=file, calibration=found.spikes, reset="zero", target="loihi2-sim",
            backend_samples=0,
        )  # fmt: skip
        yield Case(name, prepare(call).network, found.spikes)


@contextmanager
def moments_of(draw: int | None) -> Iterator[dict[str, Moments]]:
    """Keep the moments that layers are compressed with, of a draw of rows or of all of them."""
    seen: dict[str, Moments] = {}
    held = scene_module.membrane_moments, scene_module.rows_wanted, sampling._SEED

    def kept(afferents: Sequence[Projection], *given: Any, **named: Any) -> Moments:
        seen[afferents[0].post] = found = held[0](afferents, *given, **named)
        return found

    scene_module.membrane_moments = kept
    if draw is None:
        scene_module.rows_wanted = lambda *_: None
    else:
        sampling._SEED += draw
    try:
        yield seen
    finally:
        scene_module.membrane_moments, scene_module.rows_wanted, sampling._SEED = held


def lost(network: Network, done: CompressedNetwork, population: str, exact: Moments) -> np.ndarray:
    """Return what weights into a population lose, relative to none: pruned, and with codes."""
    afferents = network.afferents(population)
    blocks = stacked_weights(afferents)
    found = [done.projections[p.name] for p in afferents]
    kinds = [[p.pruned for p in found], [p.weight for p in found], [0.0 * p.weight for p in found]]
    *changed, whole = (
        sum(
            float(loss(W, V, H).sum())
            for W, V, H in zip(blocks, _stacked(parts, blocks.shape), exact.hessian, strict=True)
        )
        for parts in kinds
    )
    return np.array(changed) / whole


def _stacked(parts: Sequence[Any], shape: tuple[int, ...]) -> np.ndarray:
    return np.concatenate([part.reshape(*shape[:2], -1) for part in parts], axis=2)


def main() -> None:
    arguments = parser(__doc__ or "")
    arguments.set_defaults(data=Path("../shared/data"))
    arguments.add_argument("--scale", type=float, default=0.5)
    arguments.add_argument("--draws", type=int, default=3)
    arguments.add_argument("--only", default="", help="networks whose name holds this")
    given = arguments.parse_args()
    found, shown = {}, []
    for case in cases(given.data, given.scale, given.only):
        with Clock() as many, moments_of(None) as exact:
            every = compress(case.network, case.calibration, OPTIONS)
        best = {name: lost(case.network, every, name, m) for name, m in exact.items()}
        ratios: dict[str, list[np.ndarray]] = {name: [] for name in exact}
        seconds = []
        for draw in range(given.draws):
            with Clock() as few, moments_of(draw) as used:
                done = compress(case.network, case.calibration, OPTIONS)
            seconds.append(few.seconds)
            for name, moments in exact.items():
                ratios[name].append(lost(case.network, done, name, moments) / best[name])
        layers: dict[str, Any] = {}
        for name, moments in exact.items():
            pruned, coded = np.array(ratios[name]).T
            inputs, rows = moments.hessian.shape[1], used[name].rows
            layers[name] = {
                "inputs": inputs, "rows": rows, "of": moments.rows, "losses": best[name].tolist(),
                "ratios": pruned.tolist(), "ratios_coded": coded.tolist(),
            }  # fmt: skip
            shown.append(
                [case.name, name, f"{inputs:,}", f"{rows:,}", f"{moments.rows:,}",
                 f"{best[name][0]:.5f}", *(cell(each) for each in (pruned, coded))]
            )  # fmt: skip
            print(" ".join(shown[-1]), flush=True)
        found[case.name] = {"seconds": seconds, "seconds_of_all_rows": many.seconds, **layers}
    table(["network", "into", "inputs", "rows", "of", "loss", "pruned", "coded"], shown)
    write("sampled_rows", {"networks": read("sampled_rows").get("networks", {}) | found})


def cell(ratios: np.ndarray) -> str:
    """Return the ratio of the first draw, and those of all."""
    return f"{ratios[0]:.4f} ({ratios.min():.4f} to {ratios.max():.4f})"


if __name__ == "__main__":
    main()
