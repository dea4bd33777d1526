"""The networks of the OSBC paper: trained, compressed at the paper's settings, and measured.

    python examples/recipe.py --dataset digits
    python examples/recipe.py --dataset nmnist --data-root FOLDER
    python examples/recipe.py --dataset cifar10dvs --data-root FOLDER --device cuda
    python examples/recipe.py --dataset dvs128gesture --data-root FOLDER --device cuda

Shi, Li, Ward-Cherrier, arXiv 2506.03996: a network of two fully connected layers (2FC, 2312-800-10)
for N-MNIST, and of five convolutions and two fully connected layers (5Conv2FC) for CIFAR10-DVS and
DVS128 Gesture; 97 % of the weights removed, or all weights in 4 bits. Ours, where nothing we had
says otherwise: 128 channels, kernels of 3 x 3, batch normalization and average pooling by 2 behind
every convolution while there is something to pool, 512 hidden neurons; leaky neurons that keep half
of their potential in a step (threshold 1, reset to 0), no biases; frames of 48 x 48 for
CIFAR10-DVS; how it is trained. The digits are what comes with the tool, for a machine without data.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import norse.torch as norse
import torch
from _training import accuracy, save, train
from torch import nn

from osbc_deploy.bundled.digits import digits_events
from osbc_deploy.data.datasets import DATASETS, DatasetRequest, load_dataset
from osbc_deploy.data.samples import Samples, check_samples
from osbc_deploy.errors import OsbcError, UsageError
from osbc_deploy.importing import import_network
from osbc_deploy.job import seed_everything
from osbc_deploy.references import load_weights

# The table is the benchmarks'; they are scripts like this one, in a folder beside it.
sys.path.append(str(Path(__file__).resolve().parent.parent / "benchmarks"))

from _accuracy import Task
from accuracy import METHODS, PRUNE, QUANTIZE, bench

NETWORKS = {"digits": "2fc", "nmnist": "2fc", "cifar10dvs": "5conv2fc", "dvs128gesture": "5conv2fc"}
CLASSES = {"digits": 10, "nmnist": 10, "cifar10dvs": 10, "dvs128gesture": 11}
SIZES = {"cifar10dvs": 48}
EPOCHS = {"digits": 30, "nmnist": 20, "cifar10dvs": 100, "dvs128gesture": 100}
PAPER = ((0.97, 8), (0.0, 4))
COMPARED = ("osbc, tuned", "osbc", "obc", "magnitude")


def lif() -> norse.LIFBoxCell:
    """V = 0.5 v + 0.5 x; with norse's dt of 1 ms."""
    return norse.LIFBoxCell(
        norse.LIFBoxParameters(
            tau_mem_inv=torch.tensor(500.0),
            v_leak=torch.tensor(0.0),
            v_th=torch.tensor(1.0),
            v_reset=torch.tensor(0.0),
        )
    )


def two_fc(shape: tuple[int, ...], classes: int, hidden: int) -> norse.SequentialState:
    inputs = shape[0] * shape[1] * shape[2]
    return norse.SequentialState(
        nn.Flatten(),
        nn.Linear(inputs, hidden, bias=False),
        lif(),
        nn.Linear(hidden, classes, bias=False),
        lif(),
    )


def five_conv_two_fc(
    shape: tuple[int, ...], classes: int, channels: int, hidden: int
) -> norse.SequentialState:
    layers: list[nn.Module] = []
    before, side = shape[0], shape[1]
    for _ in range(5):
        layers += [
            nn.Conv2d(before, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
            lif(),
        ]
        if side >= 2:
            layers.append(nn.AvgPool2d(2))
            side //= 2
        before = channels
    layers += [
        nn.Flatten(),
        nn.Dropout(0.2),
        nn.Linear(channels * side * side, hidden, bias=False),
        lif(),
        nn.Linear(hidden, classes, bias=False),
        lif(),
    ]
    return norse.SequentialState(*layers)


def excite(model: nn.Module) -> None:
    """Start with weights that make neurons fire: torch's leave a spiking network silent.

    Half of an input reaches the potential, so its normalized deviation starts at 2 thresholds; the
    fully connected layers, which hear about one input in ten, start with about 1.3.
    """
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.constant_(layer.weight, 2.0)
        elif isinstance(layer, nn.Linear):
            nn.init.normal_(layer.weight, std=4.0 / layer.in_features**0.5)


def load(given: argparse.Namespace) -> tuple[Samples | None, Samples, Samples]:
    """Return samples to train on (None with weights), to calibrate on and to test on."""
    if given.dataset == "digits":
        parts = [
            check_samples(f"digits/{split}", data.spikes, data.labels)
            for split in ("train", "calibration", "test")
            for data in [digits_events(split, given.seed)]
        ]
        return parts[0], parts[1], parts[2]
    if given.data_root is None:
        raise UsageError(f"--data-root: is missing. Give the folder that holds {given.dataset}.")

    def request(count: int | None) -> DatasetRequest:
        size = given.size or SIZES.get(given.dataset)
        return DatasetRequest(
            given.dataset,
            given.data_root,
            steps=given.steps,
            size=size,
            samples_per_class=count,
            test_samples_per_class=given.test_samples_per_class,
        )

    few, many = request(given.samples_per_class), request(given.train_samples_per_class)
    return (
        None if given.weights else load_dataset(many, "train", seed=given.seed),
        load_dataset(few, "train", seed=given.seed),
        load_dataset(few, "test", seed=given.seed),
    )


def main() -> None:
    given = arguments()
    training, calibration, test = load(given)
    seed_everything(given.seed)
    classes = CLASSES[given.dataset]
    kind = given.network or NETWORKS[given.dataset]
    model = (
        two_fc(test.input_shape, classes, given.hidden or 800)
        if kind == "2fc"
        else five_conv_two_fc(test.input_shape, classes, given.channels, given.hidden or 512)
    )
    if given.weights is not None:
        load_weights(model, given.weights)
    elif training is not None:
        excite(model)
        model.to(given.device)
        epochs = given.epochs or EPOCHS[given.dataset]
        train(model, training, epochs, rate=2e-3, gain=0.7, device=given.device)
        print(f"training accuracy {accuracy(model, training, given.device):.4f}")
        model.cpu()
    if given.output is not None:
        save(model, given.output)
    model.eval()
    network = import_network(model, None, calibration)
    task = Task(f"{given.dataset} {kind}", network, calibration.spikes, test.spikes, test.labels)
    settings = [*PRUNE, *QUANTIZE] if given.more else PAPER
    bench(task, {name: METHODS[name] for name in COMPARED}, settings)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dataset", choices=["digits", *DATASETS], required=True)
    parser.add_argument("--data-root", type=Path, help="the files as published, extracted")
    parser.add_argument("--steps", type=int, default=15)
    parser.add_argument("--size", type=int, help="side of a frame in pixels")
    parser.add_argument("--network", choices=["2fc", "5conv2fc"], help="the paper's by default")
    parser.add_argument("--hidden", type=int, help="hidden neurons: 800 (2fc) or 512 (5conv2fc)")
    parser.add_argument("--channels", type=int, default=128)
    parser.add_argument("--weights", type=Path, help="safetensors of this network; no training")
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--device", default="cpu", help="to train on, such as cuda")
    parser.add_argument("--train-samples-per-class", type=int, help="all by default")
    parser.add_argument("--samples-per-class", type=int, default=20, help="for calibration")
    parser.add_argument("--test-samples-per-class", type=int, help="all by default")
    parser.add_argument("--more", action="store_true", help="more sparsities and bits")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("-o", "--output", type=Path, help="write the trained weights here")
    return parser.parse_args()


if __name__ == "__main__":
    try:
        main()
    except OsbcError as error:
        sys.exit(f"error: {error}")
