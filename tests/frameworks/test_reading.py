"""What a forward does is followed, however it is written, and gives the framework's own spikes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import norse.torch as norse
import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

import drawn
from osbc_deploy.data.samples import check_samples
from osbc_deploy.errors import UnsupportedModelError, UsageError
from osbc_deploy.frameworks.hosting import HostPrefix
from osbc_deploy.importing import import_network
from osbc_deploy.job import VerbCall, prepare
from osbc_deploy.model.graph import Network
from osbc_deploy.model.simulate import simulate

snn = pytest.importorskip("snntorch")
pytest.importorskip("spikingjelly")
from spikingjelly.activation_based import functional as jelly  # noqa: E402 - after the check
from spikingjelly.activation_based import layer, neuron  # noqa: E402

Bits = np.ndarray[Any, Any]
T = 9


def raster(*shape: int) -> Bits:
    return (np.random.default_rng(0).random((6, T, *shape)) < 0.4).astype(np.uint8)


def imported(model: nn.Module, x: Bits) -> Network:
    return import_network(model.eval(), None, check_samples("calibration", x))


def equal(model: nn.Module, x: Bits, expected: torch.Tensor) -> Network:
    """Make sure that an import gives what the framework gave, (T, n, ...), and return it."""
    network = imported(model, x)
    shaped = x.reshape(*x.shape[:2], *network.input_shape)
    ours = simulate(network, shaped).output
    theirs = expected.detach().movedim(0, 1).numpy()
    assert np.array_equal(ours.reshape(theirs.shape), theirs)
    assert theirs.any()
    return network


def frames(x: Bits) -> torch.Tensor:
    return torch.from_numpy(np.moveaxis(x, 1, 0).copy()).float()


def lively(model: nn.Module) -> nn.Module:
    return drawn.lively(model, strength=1.6)


def box() -> nn.Module:
    return norse.LIFBoxCell(norse.LIFBoxParameters(v_th=torch.tensor(0.1)))


def cuba() -> Any:
    return norse.LIFParameters(v_th=torch.tensor(0.15))


STACK = norse.SequentialState
NORSE: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "Lift(SequentialState)": (
        lambda: norse.Lift(STACK(nn.Conv2d(2, 4, 3), box(), nn.Flatten(), nn.Linear(64, 4), box())),
        (2, 6, 6),
    ),
    "Lift(Flatten)": (
        lambda: STACK(
            norse.Lift(nn.Conv2d(2, 4, 3)),
            norse.LIF(cuba()),
            norse.Lift(nn.Flatten()),
            nn.Linear(64, 4),
            norse.LIF(cuba()),
        ),
        (2, 6, 6),
    ),
    "LIFRecurrentCell": (
        lambda: STACK(norse.LIFRecurrentCell(6, 10, p=cuba()), nn.Linear(10, 4), box()),
        (6,),
    ),
    "LIFRecurrent": (
        lambda: STACK(norse.LIFRecurrent(6, 10, p=cuba()), nn.Linear(10, 4), norse.LI()),
        (6,),
    ),
    "RecurrentSequential": (
        lambda: STACK(norse.RecurrentSequential(nn.Linear(6, 6), box()), nn.Linear(6, 3), box()),
        (6,),
    ),
    "RecurrentSequential of an inner layer": (
        lambda: STACK(
            norse.RecurrentSequential(nn.Linear(6, 6), box(), nn.Linear(6, 5), output_modules=1),
            nn.Linear(6, 3),
            box(),
        ),
        (6,),
    ),
}


@pytest.mark.parametrize("name", NORSE)
def test_what_norse_is_made_of(name: str) -> None:
    make, shape = NORSE[name]
    torch.manual_seed(3)
    model, x = lively(make()), raster(*shape)
    with torch.no_grad():
        if name in ("Lift(SequentialState)", "Lift(Flatten)", "LIFRecurrent"):
            expected = model(frames(x))[0]
        else:
            state, outputs = None, []
            for frame in frames(x):
                output, state = model(frame, state)
                outputs.append(output)
            expected = torch.stack(outputs)
    network = equal(model, x, expected)
    feeds_back = any(network.is_feedback(p) for p in network.projections)
    assert feeds_back == ("Recurrent" in name)


def test_feedback_over_several_populations_is_refused_with_its_reason() -> None:
    inner = norse.RecurrentSequential(nn.Linear(6, 9), box(), nn.Linear(9, 6), box())
    with pytest.raises(UnsupportedModelError) as caught:
        imported(lively(STACK(inner, nn.Linear(6, 3), box())), raster(6))
    (found,) = caught.value.offenders
    assert "feedback from 0.module.3 reaches 0.module.1 2 steps late instead of 1" in found


def recurrent(cell: Callable[[], nn.Module]) -> nn.Module:
    return nn.Sequential(layer.Linear(6, 6), cell(), layer.Linear(6, 3), neuron.IFNode(0.3))


JELLY: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "LinearRecurrentContainer": (
        lambda: recurrent(lambda: layer.LinearRecurrentContainer(neuron.LIFNode(2.0), 6, 6)),
        (6,),
    ),
    "LinearRecurrentContainer of layers": (
        lambda: nn.Sequential(
            layer.LinearRecurrentContainer(
                nn.Sequential(nn.Linear(6, 5), neuron.LIFNode(v_threshold=0.3)), 6, 5
            ),
            layer.Linear(5, 3),
            neuron.IFNode(0.3),
        ),
        (6,),
    ),
    "ElementWiseRecurrentContainer": (
        lambda: recurrent(
            lambda: layer.ElementWiseRecurrentContainer(
                neuron.IFNode(0.4), lambda y, x: x - 0.5 * y
            )
        ),
        (6,),
    ),
    "StepModeContainer": (
        lambda: recurrent(
            lambda: layer.StepModeContainer(True, "s", nn.Linear(6, 6), neuron.IFNode(0.4))
        ),
        (6,),
    ),
}


@pytest.mark.parametrize("name", JELLY)
@pytest.mark.parametrize("mode", ["s", "m"])
def test_containers_of_spikingjelly(name: str, mode: str) -> None:
    make, shape = JELLY[name]
    torch.manual_seed(3)
    model, x = lively(make()), raster(*shape)
    for part in model:
        part.step_mode = mode
    with torch.no_grad():
        expected = model(frames(x)) if mode == "m" else torch.stack([model(f) for f in frames(x)])
    jelly.reset_net(model)
    network = equal(model, x, expected)
    feeds_back = any(network.is_feedback(p) for p in network.projections)
    assert feeds_back == ("Recurrent" in name)


def test_threshold_dependent_batch_norm() -> None:
    model = nn.Sequential(
        layer.Conv2d(2, 4, 3, bias=False),
        layer.ThresholdDependentBatchNorm2d(1.2, 0.5, 4),
        neuron.IFNode(0.5),
        layer.Flatten(),
        layer.Linear(64, 3),
        neuron.LIFNode(v_threshold=0.2),
    ).double()
    jelly.set_step_mode(lively(model), "m")
    model[1].running_var.uniform_(0.4, 1.5)
    model[1].running_mean.uniform_(-0.3, 0.3)
    x = raster(2, 6, 6)
    with torch.no_grad():
        expected = model(frames(x).double())
    jelly.reset_net(model)
    network = equal(model, x, expected)
    assert "1: ThresholdDependentBatchNorm2d folded into 0" in network.notes


class Usual(nn.Module):
    """The class of snnTorch's tutorials; `act` is between layers, `loop` says how it steps."""

    def __init__(self, act: Callable[[Any], Any], loop: str = "size") -> None:
        super().__init__()
        self.act, self.loop = act, loop
        self.conv1, self.lif1 = nn.Conv2d(1, 6, 3), snn.Leaky(0.8, threshold=0.4)
        self.conv2, self.lif2 = nn.Conv2d(6, 5, 2), snn.Leaky(0.9, threshold=0.3)
        self.fc, self.out = nn.Linear(5 * 2 * 2, 3), snn.Leaky(0.9, threshold=0.3)

    def forward(self, x: torch.Tensor) -> Any:
        mem1, mem2, mem3 = (c.init_leaky() for c in (self.lif1, self.lif2, self.out))
        spk_rec, mem_rec = [], []
        for step in range(T if self.loop == "fixed" else x.size(0)):
            spk1, mem1 = self.lif1(self.act(self.conv1(x[step])), mem1)
            spk2, mem2 = self.lif2(self.conv2(spk1), mem2)
            spk3, mem3 = self.out(self.fc(spk2.view(x.size(1), -1)), mem3)
            spk_rec.append(spk3)
            mem_rec.append(mem3)
        return torch.stack(spk_rec, dim=0), torch.stack(mem_rec, dim=0)


@pytest.mark.parametrize("loop", ["size", "fixed"])
@pytest.mark.parametrize(
    "act",
    [
        lambda y: functional.avg_pool2d(y, 2),
        lambda y: functional.avg_pool2d(2.0 * y - 0.1, kernel_size=2),
        lambda y: functional.adaptive_avg_pool2d(y, (3, 3)),
    ],
)
def test_functions_between_layers_of_a_loop(act: Any, loop: str) -> None:
    torch.manual_seed(1)
    model, x = lively(Usual(act, loop).double()), raster(1, 8, 8)
    for cell in (model.lif1, model.lif2, model.out):
        # Surrogates fire in single precision, which no layer of double precision takes.
        cell.spike_grad = lambda v: (v > 0).to(v)
    with torch.no_grad():
        expected, _ = model(frames(x).double())
    equal(model, x, expected)


def test_pooling_by_maximum_is_gates_behind_neurons_and_refused_before_them() -> None:
    class Behind(Usual):
        def forward(self, x: torch.Tensor) -> Any:
            mem1, mem2, mem3 = (c.init_leaky() for c in (self.lif1, self.lif2, self.out))
            rec = []
            for frame in x:
                spk1, mem1 = self.lif1(self.conv1(frame), mem1)
                spk2, mem2 = self.lif2(self.conv2(functional.max_pool2d(spk1, 2)), mem2)
                spk3, mem3 = self.out(self.fc(spk2.flatten(1)), mem3)
                rec.append(spk3)
            return torch.stack(rec)

    torch.manual_seed(1)
    model, x = lively(Behind(lambda y: y)), raster(1, 8, 8)
    with torch.no_grad():
        expected = model(frames(x))
    network = equal(model, x, expected)
    assert [p.shape for p in network.populations[:2]] == [(6, 6, 6), (6, 3, 3)]
    with pytest.raises(UnsupportedModelError) as caught:
        imported(lively(Usual(lambda y: functional.max_pool2d(y, 2))), x)
    (found,) = caught.value.offenders
    assert found.startswith("forward: MaxPool2d takes the largest of several currents")


class Remembering(nn.Module):
    """Feeds spikes back, or on, a step late in its own code."""

    def __init__(self, late: str) -> None:
        super().__init__()
        self.late = late
        self.fc, self.back = nn.Linear(6, 7), nn.Linear(7, 7)
        self.cell, self.out = snn.Leaky(0.8, 0.4), snn.Leaky(0.8, 0.3)
        self.end = nn.Linear(7, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mem, mem_out = self.cell.init_leaky(), self.out.init_leaky()
        spk, rec = torch.zeros(x.size(1), 7), []
        before = frame = torch.zeros(x.size(1), 6)
        for frame in x:
            current, old = self.fc(frame), spk
            if self.late == "feedback":
                current = current + self.back(spk)
            if self.late == "input":
                current = current - self.fc(before)
            spk, mem = self.cell(current, mem)
            onward = self.end(spk)
            if self.late == "onward":
                onward = onward + self.end(old) * 0.5
            answer, mem_out = self.out(onward, mem_out)
            rec.append(answer.unsqueeze(0))
            before = frame
        return torch.cat(rec)


@pytest.mark.parametrize("late", ["feedback", "onward", "input"])
def test_what_is_kept_from_the_step_before_arrives_a_step_late(late: str) -> None:
    torch.manual_seed(1)
    model, x = lively(Remembering(late)), raster(6)
    with torch.no_grad():
        expected = model(frames(x))
    if late == "input":
        # The first step hears the bias of a layer whose input is missing, and no other one.
        model.fc.bias.data.zero_()
        with torch.no_grad():
            expected = model(frames(x))
    network = equal(model, x, expected)
    names = [p for p in network.projections if p.delay is not None or network.is_feedback(p)]
    assert len(names) == 1


def test_layers_of_one_dimension_have_a_height_of_1() -> None:
    model = nn.Sequential(
        nn.Conv1d(3, 5, 3, padding=1, stride=2),
        nn.BatchNorm1d(5),
        snn.Leaky(torch.linspace(0.5, 0.9, 5)[:, None], 0.3, init_hidden=True),
        nn.AvgPool1d(2),
        nn.Conv1d(5, 4, 2, dilation=2, groups=1),
        snn.Leaky(0.8, 0.2, init_hidden=True),
        nn.MaxPool1d(2, 1),
        nn.Flatten(),
        nn.Linear(8, 3),
        snn.Leaky(0.8, 0.2, init_hidden=True),
    )
    torch.manual_seed(2)
    model, x = lively(model), raster(3, 20)
    with torch.no_grad():
        expected = torch.stack([model(frame) for frame in frames(x)])
    for cell in model:
        if isinstance(cell, snn.Leaky):
            cell.reset_mem()
    network = equal(model, x, expected)
    assert network.input_shape == (3, 1, 20)
    assert network.populations[0].shape == (5, 1, 10)
    assert "input (3, 20) is read as (3, 1, 20), of one dimension" in network.notes


@pytest.mark.parametrize(
    ("act", "words"),
    [
        (lambda y: y[:, :, 0].unsqueeze(2) + 0 * y, "(6, 1, 6) to others (6, 6, 6) that lie"),
        (lambda y: y[torch.zeros(len(y), dtype=torch.long)], "that tensors choose"),
        (torch.relu, "relu is not supported"),
        (lambda y: y * y, "product of signals of which one is neither spikes"),
        (
            lambda y: torch.cat([y[:, :, :3], y[:, :, 3:]], 2),
            "cat puts (6, 3, 6) and (6, 3, 6) side by side, which only a Linear may hear",
        ),
    ],
)
def test_what_no_projection_does_is_refused_with_its_place(act: Any, words: str) -> None:
    model = lively(Usual(lambda y: functional.avg_pool2d(act(y), 2)))
    with pytest.raises(UnsupportedModelError) as caught:
        imported(model, raster(1, 8, 8))
    assert any(line.startswith("forward: ") and words in line for line in caught.value.offenders)


class Branches(nn.Module):
    """Two convolutions of the input, one pooled, side by side and flattened."""

    def __init__(self, axis: int, *, turned: bool) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(2, 3, 3), nn.Conv2d(2, 3, 3, padding=1)
        self.lif_a, self.lif_b, self.out = (snn.Leaky(0.8, 0.3) for _ in range(3))
        self.fc, self.axis, self.turned = nn.Linear(216, 4), axis, turned

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mem_a, mem_b, mem = (c.init_leaky() for c in (self.lif_a, self.lif_b, self.out))
        rec = []
        for frame in x:
            one, mem_a = self.lif_a(self.a(frame), mem_a)
            two, mem_b = self.lif_b(self.b(frame), mem_b)
            whole = torch.cat([torch.relu(one), functional.max_pool2d(two, 3, 1)], self.axis)
            whole = whole.transpose(1, 2) if self.turned else whole
            spk, mem = self.out(self.fc(whole.flatten(1)), mem)
            rec.append(spk)
        return torch.stack(rec)


@pytest.mark.parametrize(("axis", "turned"), [(1, False), (2, False), (-1, False), (1, True)])
def test_maps_side_by_side_are_flattened_into_a_matrix(axis: int, turned: bool) -> None:
    torch.manual_seed(3)
    model, x = lively(Branches(axis, turned=turned)), raster(2, 8, 8)
    with torch.no_grad():
        expected = model(frames(x))
    network = equal(model, x, expected)
    assert {p.name for p in network.afferents("out")} == {"fc.0", "fc.1"}


class Still(nn.Module):
    """The loop of tutorials over an image that stays the same."""

    def __init__(self) -> None:
        super().__init__()
        self.fc, self.lif = nn.Linear(8, 3), snn.Leaky(0.8, 0.3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mem, rec = self.lif.init_leaky(), []
        for _ in range(5):
            spk, mem = self.lif(self.fc(x), mem)
            rec.append(spk)
        return torch.stack(rec)


def test_a_loop_over_what_stays_the_same_is_refused_as_one() -> None:
    with pytest.raises(UnsupportedModelError) as caught:
        imported(lively(Still()), raster(8))
    assert "lif: is called 5 times in a time step" in caught.value.offenders[0]
    assert "--repeat 5 shows images" in caught.value.offenders[0]


class Opened(nn.Module):
    """SpikingJelly's tutorials: an image becomes as many steps as the model says."""

    def __init__(self, opened: Any) -> None:
        super().__init__()
        self.opened = opened
        self.net = nn.Sequential(
            layer.Conv2d(1, 3, 3, bias=False), neuron.IFNode(0.2), layer.MaxPool2d(2),
            layer.Flatten(), layer.Linear(3, 4), neuron.IFNode(0.1),
        )  # fmt: skip
        jelly.set_step_mode(self, "m")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        answer: torch.Tensor = self.net(self.opened(x)).mean(0)
        return answer


class Rounds(nn.Module):
    """SpikingJelly's older examples: layers before the first neurons once, the others each step."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 3, 3)
        self.net = nn.Sequential(
            neuron.IFNode(0.2), nn.Flatten(), nn.Linear(12, 4), neuron.IFNode(0.1)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        total = self.net(x)
        for _ in range(1, 5):
            total = total + self.net(x)
        return total / 5


@pytest.mark.parametrize(
    ("model", "shape", "readout"),
    [
        (Still(), (8,), ""),
        (Opened(lambda x: x.unsqueeze(0).repeat(5, 1, 1, 1, 1)), (1, 4, 4), "sum"),
        (Opened(lambda x: x[None].expand(5, *x.shape)), (1, 4, 4), "sum"),
        (Opened(lambda x: torch.stack([x] * 5)), (1, 4, 4), "sum"),
        (Rounds(), (1, 4, 4), "sum"),
    ],
)
def test_images_that_forward_shows_by_itself(model: Any, shape: Any, readout: str) -> None:
    torch.manual_seed(1)
    images = np.random.default_rng(0).random((6, *shape), np.float32)
    x = np.repeat(images[:, None], 5, 1)
    network = imported(lively(model).double(), x)
    assert network.readout == readout
    run = simulate(network, x)
    assert all(run.rates.values())
    with torch.no_grad():
        wanted = model(torch.from_numpy(images).double()).numpy()
    ours = run.output.mean(1) if readout else run.output.swapaxes(0, 1)
    assert np.allclose(ours, wanted, rtol=0, atol=1e-9)
    if isinstance(model, Still):
        with pytest.raises(UnsupportedModelError, match="images without time, and --repeat 5"):
            imported(model, x[:, :4])


class Encoded(nn.Module):
    """Normalizes its input on the way to its first neurons, which no chip does."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.fc0, self.lif0 = nn.LayerNorm(8), nn.Linear(8, 10), snn.Leaky(0.6, 0.3)
        self.fc1, self.lif1 = nn.Linear(10, 6), snn.Leaky(0.8, 0.3)
        self.fc2, self.lif2 = nn.Linear(6, 3), snn.Leaky(0.8, 0.3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mem0, mem1, mem2 = (c.init_leaky() for c in (self.lif0, self.lif1, self.lif2))
        rec = []
        for frame in x:
            spk, mem0 = self.lif0(self.fc0(self.norm(frame)), mem0)
            spk, mem1 = self.lif1(self.fc1(spk), mem1)
            spk, mem2 = self.lif2(self.fc2(spk), mem2)
            rec.append(spk)
        return torch.stack(rec)


def test_what_no_chip_does_in_front_runs_on_the_host() -> None:
    torch.manual_seed(4)
    model, x = lively(Encoded()), raster(8)
    samples = check_samples("calibration", x)
    with pytest.raises(UnsupportedModelError, match="norm: LayerNorm is not supported"):
        imported(model, x)
    heard: list[torch.Tensor] = []
    hook = model.lif0.register_forward_hook(lambda m, given, answer: heard.append(answer[0]))
    with torch.no_grad():
        expected = model(frames(x)).movedim(0, 1).numpy()
    hook.remove()
    host = HostPrefix("lif0")
    network = import_network(model, None, samples, host=host)
    assert [p.name for p in network.projections] == ["fc1", "fc2"]
    assert network.input_shape == (10,)
    spikes = host.encode(x)
    assert np.array_equal(spikes, torch.stack(heard, 1).numpy())
    assert np.array_equal(simulate(network, spikes).output, expected)
    assert expected.any()
    (said,) = [note for note in network.notes if "on the host" in note]
    assert said.startswith("on the host, as part of the data: norm, fc0, lif0; the chip begins")
    job = prepare(VerbCall(model, x, host_prefix="lif0", backend_samples=0))
    assert np.array_equal(job.typical.spikes, spikes)


def test_what_the_host_gives_may_be_real() -> None:
    torch.manual_seed(4)
    model = lively(Encoded())
    x = np.random.default_rng(1).normal(size=raster(8).shape).astype(np.float32)
    with torch.no_grad():
        expected = model(frames(x)).movedim(0, 1).numpy()
    job = prepare(VerbCall(model, x, host_prefix="norm", backend_samples=0))
    assert [p.name for p in job.network.projections] == ["fc0", "fc1", "fc2"]
    assert (job.typical.kind, job.input.kind, job.input.signed) == ("values", "values", True)
    with torch.no_grad():
        normed = model.norm(torch.tensor(x)).numpy()
    np.testing.assert_allclose(job.typical.spikes, normed, atol=1e-6)
    assert np.array_equal(simulate(job.network, job.typical.spikes).output, expected)
    assert expected.any()


@pytest.mark.parametrize(
    ("name", "error", "words"),
    [
        ("lif9", UsageError, "the model has no layer 'lif9'. It has norm, fc0, lif0"),
        ("spare", UnsupportedModelError, "--host-prefix: spare is not called"),
    ],
)
def test_a_prefix_that_gives_no_spikes_is_refused(name: str, error: Any, words: str) -> None:
    torch.manual_seed(4)
    model = lively(Encoded())
    model.add_module("spare", nn.Linear(2, 2))
    with pytest.raises(error) as caught:
        import_network(model, None, check_samples("cal", raster(8)), host=HostPrefix(name))
    assert words in str(caught.value)
