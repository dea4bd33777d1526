"""Unchanged models of the frameworks' own libraries: imported, lowered, and run on Lava.

    python benchmarks/library_models.py [NAME ...]

Their weights are drawn: what counts is that the import answers as the framework's forward does, and
that the backend gives the engine's bits. BatchNorms take the statistics of the samples first, and
neurons thresholds at which they fire, so that there are spikes to compare at every depth. All is in
double precision, where rounding decides none of them. The table stands in README.md beside this
file.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from spikingjelly.activation_based import functional, neuron, surrogate
from spikingjelly.activation_based.model import parametric_lif_net, sew_resnet, spiking_vgg
from torch import nn

from osbc_deploy import deploy
from osbc_deploy.model.answer import read_by
from osbc_deploy.model.readout import decode
from osbc_deploy.model.simulate import simulate


@dataclass(frozen=True)
class Subject:
    """A library's model.

    Attributes
    ----------
    make : callable
    shape : tuple of int
        Of its input in a time step.
    steps : int
    values : {"images", "counts", "spikes"}
        What it hears: real values that stay the same in all steps, or others in each.
    """

    make: Callable[[], nn.Module]
    shape: tuple[int, ...]
    steps: int = 2
    values: str = "images"


def _fires() -> dict[str, Any]:
    return {"spiking_neuron": neuron.IFNode, "surrogate_function": surrogate.ATan()}


def _sew(connect: str) -> Callable[[], nn.Module]:
    return lambda: sew_resnet.sew_resnet18(cnf=connect, **_fires())


def _plif(model: type[nn.Module], channels: int) -> Callable[[], nn.Module]:
    return lambda: model(channels, neuron.ParametricLIFNode, surrogate_function=surrogate.ATan())


SUBJECTS: dict[str, Subject] = {
    **{
        f"{model.__name__}({channels})": Subject(_plif(model, channels), shape, 4, "counts")
        for model, shape in (
            (parametric_lif_net.NMNISTNet, (2, 34, 34)),
            (parametric_lif_net.CIFAR10DVSNet, (2, 128, 128)),
            (parametric_lif_net.DVSGestureNet, (2, 128, 128)),
        )
        for channels in (16, 128)
    },
    **{f"sew_resnet18 {c}": Subject(_sew(c), (3, 64, 64)) for c in ("ADD", "AND", "IAND")},
    "spiking_vgg11": Subject(lambda: spiking_vgg.spiking_vgg11(**_fires()), (3, 32, 32)),
    "spiking_vgg11_bn": Subject(lambda: spiking_vgg.spiking_vgg11_bn(**_fires()), (3, 64, 64)),
}


def samples(subject: Subject, n: int) -> np.ndarray[Any, Any]:
    """Return random input (n, T, ...)."""
    rng = np.random.default_rng(0)
    if subject.values == "images":
        images = rng.random((n, 1, *subject.shape), np.float32)
        return np.repeat(images, subject.steps, axis=1)
    counts = rng.poisson(0.3, (n, subject.steps, *subject.shape)).astype(np.uint8)
    return counts if subject.values == "counts" else np.minimum(counts, 1)


def lively(model: nn.Module, frames: torch.Tensor) -> nn.Module:
    """Let each BatchNorm take the statistics of the samples, and neurons fire behind the others."""
    for part in model.modules():
        if isinstance(part, nn.modules.batchnorm._BatchNorm):
            part.momentum = None
            part.train()
        elif isinstance(part, neuron.BaseNode):
            part.register_forward_pre_hook(_sensitive)
    with torch.no_grad():
        model(frames)
    for part in model.modules():
        part._forward_pre_hooks.clear()
    functional.reset_net(model)
    return model.eval()


def _sensitive(node: Any, given: Any) -> None:
    """Give a node the threshold that a fifth of its currents reach at once."""
    (current,) = given
    threshold = float(np.quantile(current.numpy(), 0.8))
    node.v_threshold = threshold if threshold > 0 else node.v_threshold


def run(name: str, subject: Subject, count: int, options: dict[str, Any]) -> None:
    """Print what becomes of a model."""
    torch.manual_seed(0)
    model = subject.make().double().eval()
    functional.set_step_mode(model, "m")
    x = samples(subject, count)
    frames = torch.from_numpy(x).double().transpose(0, 1).contiguous()
    lively(model, frames)
    with torch.no_grad():
        answer = model(frames).sum(0).numpy()
    functional.reset_net(model)
    start = time.perf_counter()
    found = deploy(model, x, **options)
    seconds = time.perf_counter() - start
    network, readout = read_by(found.network, found.network.readout or "sum")
    ours = decode(simulate(network, x).output, readout, spiking=network.output.neuron.spiking)
    same = np.mean(ours == answer.argmax(1))
    proof = next(note for note in network.notes if "own forward" in note)
    silent = [
        n for n, seen in found.activity.items() if not seen.spikes and n != network.output.name
    ]
    fidelity = found.fidelity
    print(
        f"| {name} | {len(network.populations)} | {sum(p.size for p in network.populations):,} | "
        f"{network.weights:,} | {same:.0%} | {fidelity.mismatched_spikes} of "
        f"{fidelity.compared_spikes:,} | {fidelity.mismatched_potentials} of "
        f"{fidelity.compared_potentials:,} | {len(found.mapping.cores):,} | {seconds:.0f} s |",
        flush=True,
    )
    print(f"  {proof}\n  silent: {', '.join(silent) or 'none'}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(SUBJECTS))
    parser.add_argument("--samples", type=int, default=4)
    parser.add_argument("--backend-samples", type=int, default=1)
    parser.add_argument("--target", default="loihi2-sim")
    parser.add_argument("--bits", type=int, default=8)
    asked = parser.parse_args()
    options = {
        "target": asked.target,
        "method": "magnitude",
        "sparsity": 0.5,
        "bits": asked.bits,
        "tune": False,
        "backend_samples": asked.backend_samples,
        "time_limit": 36000.0,
    }
    print("| model | populations | neurons | weights | classes | spikes | potentials | cores | |")
    print("|---|---|---|---|---|---|---|---|---|")
    for name in asked.names or SUBJECTS:
        run(name, SUBJECTS[name], asked.samples, options)


if __name__ == "__main__":
    main()
