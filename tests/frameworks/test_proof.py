"""What is imported computes what its framework computes, whatever acts on its layers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import norse.torch as norse
import numpy as np
import pytest
import torch
from torch import nn

from osbc_deploy.data.samples import check_samples
from osbc_deploy.errors import ArtefactError, UnsupportedModelError
from osbc_deploy.frameworks import comparing
from osbc_deploy.importing import import_network
from osbc_deploy.model.graph import Network
from osbc_deploy.model.simulate import simulate

pytest.importorskip("snntorch")
pytest.importorskip("spikingjelly")
import snntorch as snn
from spikingjelly.activation_based import layer, neuron

from odd_modules import FRAMEWORKS, KINDS, LOADABLE, outcome

Bits = np.ndarray[Any, Any]


def imported(module: nn.Module, x: Bits) -> Network:
    return import_network(module, None, check_samples("calibration", x))


def refused(module: nn.Module, x: Bits) -> UnsupportedModelError:
    with pytest.raises(UnsupportedModelError) as caught:
        imported(module, x)
    return caught.value


@pytest.mark.parametrize("number", range(len(KINDS)))
def test_odd_networks_are_imported_as_they_compute_or_refused(number: int) -> None:
    kind = KINDS[number]
    found = outcome(FRAMEWORKS[number % 3], kind, number)
    assert found.what != "wrong", found.said
    assert found.what in ("equal", "equal in double") or kind not in LOADABLE, found.said


def integrate(weight: float, threshold: float, **options: Any) -> nn.Module:
    """Return one neuron that adds up its input and fires above the threshold, in snnTorch."""
    cell = snn.Leaky(1.0, threshold, init_hidden=True, reset_mechanism="zero", **options)
    model = nn.Sequential(nn.Linear(1, 1, bias=False), cell)
    with torch.no_grad():
        model[0].weight.fill_(weight)
    return model


def replaced(layer: nn.Module, change: Callable[[Any], Any]) -> None:
    """Have a layer compute something else in its own forward, where nothing sees it."""
    before = layer.forward
    layer.forward = lambda x: change(before(x))  # type: ignore[method-assign]


def ones(n: int, steps: int) -> Bits:
    return np.ones((n, steps, 1), np.uint8)


def test_a_difference_names_its_layer_step_sample_and_count() -> None:
    model = integrate(1.0, 1.5)
    replaced(model[0], lambda y: 0.5 * y)
    # Without that it fires at 2, in steps 1, 3 and 5; with it at 2, in step 3 alone, since in
    # snnTorch the reset comes a step late.
    error = refused(model, ones(2, 6))
    assert error.offenders == ("1: 4 of 12 spikes differ, the first in step 1 of sample 0",)
    assert "snnTorch's own forward" in error.summary
    assert "a replaced forward on 0" in error.remedy
    assert "Sequential" not in str(error.remedy)


def test_a_hook_is_part_of_what_the_forward_does() -> None:
    model = integrate(1.0, 1.5)
    model[0].register_forward_hook(lambda m, x, y: 0.5 * y + 0.25)
    model[1].register_forward_pre_hook(lambda m, x: (x[0] - 0.5,))
    # A quarter a step arrives, and fires at 1.75.
    network = imported(model, ones(2, 16))
    assert simulate(network, ones(1, 16)).output.ravel().nonzero()[0].tolist() == [6, 13]
    model[0].register_forward_hook(lambda m, x, y: y.clamp(max=0.6))
    error = refused(model, ones(2, 16))
    assert error.offenders == (
        "forward: clamp is not supported: it bends a current between layers, and what reaches a "
        "neuron is a sum of weighted spikes; train with neurons in its place",
    )
    assert "There are: a forward hook on 0" in error.remedy


def test_what_changes_one_sample_of_a_hundred_is_found() -> None:
    x = np.zeros((100, 5, 2), np.uint8)
    x[:, :, 0] = 1
    x[70, 3, 1] = 1
    model = nn.Sequential(layer.Linear(2, 1, bias=False), neuron.IFNode(2.5))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[1.0, 1.0]]))
    replaced(model[0], lambda y: y.clamp(max=1.0))
    # Potentials 1, 2, 3 (fires), 2, 3 (fires) in sample 70, where the clamp leaves 1, 2, 3, 1, 2.
    # The second batch of samples holds 36.
    assert refused(model, x).offenders == (
        "1: 1 of 180 spikes differ, the first in step 4 of sample 70",
    )


def test_neurons_that_start_elsewhere_are_refused() -> None:
    model = nn.Sequential(layer.Linear(1, 1, bias=False), neuron.IFNode(3.0, None))
    with torch.no_grad():
        model[0].weight.fill_(1.0)
    assert simulate(imported(model, ones(1, 6)), ones(1, 6)).output.ravel().tolist() == [
        *(0, 0, 1, 0, 0, 1),
    ]
    model[1].set_reset_value("v", 1.0)
    # It fires at 3, in steps 1 and 4.
    (found,) = refused(model, ones(1, 6)).offenders
    assert found == "1: 4 of 6 spikes differ, the first in step 1 of sample 0"
    assert model[1].v == 1.0


class Looped(nn.Module):
    """Integrates over time in its own forward; `act` is called with current, step and spikes."""

    def __init__(self, act: Callable[[Any, int, list[Any]], Any]) -> None:
        super().__init__()
        self.fc, self.cell = integrate(1.0, 1.5)
        self.act = act

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        spikes: list[Any] = []
        for t, frame in enumerate(x):
            current = self.act(self.fc(frame), t, spikes)
            if current is None:
                break
            spikes.append(self.cell(current))
        return torch.stack(spikes).sum(0)


@pytest.mark.parametrize(
    ("act", "words"),
    [
        (lambda y, t, s: y * (0.5 if t > 4 else 1.0), "first in step 5 of sample 0"),
        (lambda y, t, s: None if len(s) > 3 else y, "cell: called 4 times in 8 steps"),
        (lambda y, t, s: y + 0.9 * torch.rand_like(y), "add of something that is no number"),
        (lambda y, t, s: y + 0.9 * float(torch.rand(1)), "answers differently when it is called"),
    ],
)
def test_forwards_that_change_over_time_are_refused(act: Any, words: str) -> None:
    torch.manual_seed(0)
    assert words in "\n".join(refused(Looped(act), ones(40, 8)).offenders)
    assert imported(Looped(lambda y, t, s: y), ones(3, 8)).source == "Looped"


def norm_of(model: nn.Module) -> nn.Module:
    with pytest.warns(FutureWarning, match="weight_norm"):
        nn.utils.weight_norm(model[0])
    return model


def test_weights_under_weight_norm_are_those_the_forward_uses() -> None:
    cell = norse.IAFCell(norse.IAFParameters(v_th=torch.tensor(3.0), v_reset=torch.tensor(0.0)))
    model = norm_of(norse.SequentialState(nn.Linear(2, 1, bias=False), cell))
    stale = model[0].weight.clone()
    model.load_state_dict(
        {"0.weight_g": torch.tensor([[5.0]]), "0.weight_v": torch.tensor([[3.0, 4.0]])}
    )
    assert torch.equal(model[0].weight, stale)
    network = imported(model, np.ones((1, 4, 2), np.uint8))
    # 5 v / |v| with v = (3, 4).
    assert network.projections[0].connection.weight.tolist() == [[3.0, 4.0]]
    assert torch.equal(model[0].weight, stale)


def test_weights_that_become_nan_on_the_way_are_refused() -> None:
    model = norm_of(integrate(1.0, 1.5))
    with torch.no_grad():
        model[0].weight_v.zero_()
    with pytest.raises(ArtefactError, match=r"the weights that 0 compute with are NaN"):
        imported(model, ones(1, 4))


def shared(linear: type, cell: Callable[[], nn.Module], container: type) -> nn.Module:
    torch.manual_seed(1)
    block = container(linear(4, 4), cell())
    model: nn.Module = container(linear(3, 4), cell(), block, block)
    with torch.no_grad():
        for part in (model[0], block[0]):
            part.weight.copy_(torch.rand_like(part.weight))
    return model


def test_a_block_used_twice_is_two_layers_where_the_framework_keeps_states_apart() -> None:
    x = (np.random.default_rng(1).random((9, 10, 3)) < 0.5).astype(np.uint8)
    cell = lambda: norse.LIFBoxCell(norse.LIFBoxParameters(v_th=torch.tensor(0.1)))  # noqa: E731
    network = imported(shared(nn.Linear, cell, norse.SequentialState), x)
    assert [p.name for p in network.populations] == ["1", "2.1", "2.1#2"]
    model = shared(nn.Linear, lambda: snn.Leaky(0.9, 0.5, init_hidden=True), nn.Sequential)
    assert refused(model, x).offenders[0].startswith("2.1: ")
    model = shared(layer.Linear, lambda: neuron.IFNode(0.5), nn.Sequential)
    assert refused(model, x).offenders[0].startswith("2.1: ")


FIRES: dict[str, Callable[[torch.Tensor], nn.Module]] = {
    "norse": lambda v: norse.IAFCell(norse.IAFParameters(v_th=v, v_reset=torch.tensor(0.0))),
    "snnTorch": lambda v: snn.Leaky(1.0, v, init_hidden=True),
}


@pytest.mark.parametrize("framework", FIRES)
def test_double_precision_decides_where_a_folded_norm_rounds(framework: str) -> None:
    torch.manual_seed(0)
    size = 2000
    linear, norm = nn.Linear(1, size, bias=False), nn.BatchNorm1d(size)
    with torch.no_grad():
        norm.running_mean.uniform_(-0.3, 0.3)
        norm.running_var.uniform_(0.4, 2.0)
        # Thresholds that the potential meets in step 2, but for rounding.
        current = norm.eval()(linear(torch.ones(1, 1)))[0]
        reached = current + current + current
        reached[20:] *= 1.5
    container = norse.SequentialState if framework == "norse" else nn.Sequential
    model = container(linear, norm, FIRES[framework](reached)).eval()
    network = imported(model, ones(2, 4))
    assert any("equal in double precision; in single" in note for note in network.notes)
    assert network.dtype == "float32"
    with torch.no_grad():
        reached[20:] /= 1.5
    assert "rounding in single precision decides too many" in refused(model, ones(2, 4)).summary
    # With a bias that is off by a thousandth, it is no rounding.
    replaced(norm, lambda y: y + 0.001)
    assert refused(model, ones(2, 4)).offenders[0].startswith("2: ")


def test_potentials_that_meet_the_threshold_are_said_to() -> None:
    rng = np.random.default_rng(0)
    model = nn.Sequential(
        layer.Conv2d(2, 8, 3, padding=1, bias=False), layer.AvgPool2d(3), neuron.IFNode(1.0, None)
    )
    with torch.no_grad():
        model[0].weight.copy_(torch.from_numpy(rng.integers(-1, 3, (8, 2, 3, 3)) / 4))
    x = (rng.random((64, 12, 2, 12, 12)) < 0.4).astype(np.uint8)
    error = refused(model, x)
    assert "spikes differ, the first in" in error.offenders[0]
    assert "meet thresholds exactly" in error.remedy


@pytest.mark.parametrize("reset", [None, 0.0])
def test_so_they_are_where_the_import_is_the_one_that_fires(reset: float | None) -> None:
    # Sums of ninths are to be 1, which either of the two may miss by the last bit.
    rng = np.random.default_rng(2)
    model = nn.Sequential(
        layer.Conv2d(1, 2, 3, padding=1, bias=False), neuron.IFNode(1.0, None),
        layer.AvgPool2d(3, 1), neuron.IFNode(1.0, reset),
    )  # fmt: skip
    with torch.no_grad():
        model[0].weight.copy_(torch.from_numpy(rng.integers(-2, 5, (2, 1, 3, 3)) / 4))
    x = (rng.random((16, 12, 1, 6, 6)) < 0.3).astype(np.uint8)
    error = refused(model.double(), x)
    assert error.offenders[0].startswith("3: ")
    assert "meet thresholds exactly" in error.remedy


def test_a_module_is_left_as_it_was() -> None:
    model = integrate(1.0, 1.5).train()
    model.insert(1, nn.BatchNorm1d(1).eval())
    model[0].register_forward_pre_hook(lambda m, x: m.weight.data.mul_(1.5) and None)
    hook = model[0].register_forward_hook(lambda m, x, y: None)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    random = torch.get_rng_state()
    refused(model, ones(2, 4))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(value.dtype == before[name].dtype for name, value in model.state_dict().items())
    assert [part.training for part in model.modules()] == [True, True, False, True]
    assert torch.equal(torch.get_rng_state(), random)
    assert list(model[0]._forward_hooks) == [hook.id]
    assert not any(part._forward_hooks for part in model[1:])
    assert not model[2].mem.any()


def test_lifted_networks_take_one_time_step_after_the_other() -> None:
    torch.manual_seed(0)
    x = (np.random.default_rng(0).random((6, 9, 2, 4, 4)) < 0.4).astype(np.uint8)
    box = norse.LIFBoxParameters(v_th=torch.tensor(0.05))
    model = norse.Lift(
        norse.SequentialState(
            nn.Conv2d(2, 3, 3),
            norse.LIFBoxCell(box),
            nn.Flatten(),
            nn.Linear(12, 2),
            norse.LIFBoxCell(box),
        )
    )
    with torch.no_grad():
        for part in (model.lifted_module[0], model.lifted_module[3]):
            part.weight.mul_(4)
        expected = model(torch.from_numpy(np.moveaxis(x, 1, 0)).float())[0].movedim(0, 1).numpy()
    assert expected.any()
    assert np.array_equal(simulate(imported(model, x), x).output, expected)


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (nn.Sequential(nn.Linear(1, 2), snn.Leaky(0.9), nn.Linear(2, 1), snn.Leaky(0.9)),
         "cells of a torch.nn.Sequential need init_hidden=True"),
        (nn.Sequential(nn.Linear(1, 2), norse.LIFBoxCell(), nn.Linear(2, 1), norse.LIFBoxCell()),
         "norse.torch.SequentialState passes the states"),
    ],
)  # fmt: skip
def test_what_its_framework_cannot_run_is_refused(model: nn.Module, words: str) -> None:
    error = refused(model, ones(1, 3))
    assert "itself cannot run it" in error.summary
    assert "TypeError" in error.offenders[0]
    assert words in error.remedy


def test_what_stays_silent_is_said() -> None:
    model = integrate(1.0, 100.0)
    notes = imported(model, ones(2, 4)).notes
    assert notes[-1].startswith("not proven: 1 stays silent on these samples, potentials are equal")
    # Its potential shows what no spike does.
    replaced(model[0], lambda y: 0.5 * y)
    assert "potentials differ" in refused(model, ones(2, 4)).offenders[0]
    quiet = nn.Sequential(*integrate(1.0, 1.5), *integrate(1.0, 100.0))
    assert imported(quiet, ones(2, 4)).notes[-1].startswith("3 stays silent")


def test_samples_are_taken_up_to_a_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    model = integrate(1.0, 1.5)
    assert "on 200 of 200 samples" in imported(model, ones(200, 4)).notes[-1]
    monkeypatch.setattr(comparing, "WORK", 1.0)
    assert "on 64 of 200 samples and 8 random ones" in imported(model, ones(200, 4)).notes[-1]
    assert "on 9 of 9 samples" in imported(model, ones(9, 4)).notes[-1]


class Named(nn.Linear):
    """Computes what a Linear does."""


class Halved(nn.Linear):
    """Computes something else, which is looked into."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 0.5 * super().forward(x)


class Trained(neuron.LIFNode):  # type: ignore[misc]
    """Has a threshold that is trained."""

    def __init__(self) -> None:
        super().__init__()
        del self.v_threshold
        self.v_threshold = nn.Parameter(torch.tensor([0.7]))


class Eager(neuron.LIFNode):  # type: ignore[misc]
    """Integrates twice what it gets."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        answer: torch.Tensor = super().forward(2.0 * x)
        return answer


@pytest.mark.parametrize(
    ("linear", "cell", "refusal"),
    [
        (Named, Trained, ""),
        (Halved, Trained, ""),
        (Named, Eager, "1: "),
    ],
)
def test_subclasses_are_what_they_compute(linear: Any, cell: Any, refusal: str) -> None:
    torch.manual_seed(4)
    model = nn.Sequential(
        linear(4, 6), cell(), layer.Linear(6, 2), neuron.LIFNode(2.0, v_threshold=0.4)
    )
    with torch.no_grad():
        model[0].weight.mul_(4)
        model[2].weight.mul_(4)
    x = (np.random.default_rng(0).random((20, 12, 4)) < 0.5).astype(np.uint8)
    if refusal:
        (found,) = refused(model, x).offenders
        assert found.startswith(refusal)
        assert "spikes differ" in found
        return
    network = imported(model, x)
    with torch.no_grad():
        frames = torch.from_numpy(np.moveaxis(x, 1, 0)).float()
        expected = torch.stack([model(frame) for frame in frames], 1).numpy()
    assert np.array_equal(simulate(network, x).output, expected)
    assert expected.any()
    assert "1: Trained is read as the LIFNode it derives from" in network.notes


class Alone(nn.Module):
    """A model whose forward is a function of its layers."""

    def __init__(self, forward: Callable[[Any, Any], Any], *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.of = forward

    def forward(self, x: torch.Tensor) -> Any:
        return self.of(self.layers, x)


def gain(weight: float) -> nn.Linear:
    linear = nn.Linear(1, 1, bias=False)
    linear.weight.data.fill_(weight)
    return linear


@pytest.mark.parametrize(
    ("forward", "words"),
    [
        (lambda ls, x: [ls[1](ls[0](x)) for _ in range(2)][-1], "call each neuron layer once"),
        (lambda ls, x: ls[1](ls[0](x)) * 3, "answer with what the last neuron layer gives"),
    ],
)
def test_the_remedy_is_for_what_differs(forward: Any, words: str) -> None:
    cell = snn.Leaky(1.0, init_hidden=True, reset_mechanism="zero")
    assert words in refused(Alone(forward, gain(0.4), cell), ones(4, 6)).remedy


def test_a_forward_that_ends_the_program_is_refused() -> None:
    def leave(layers: Any, x: torch.Tensor) -> Any:
        raise SystemExit(0)

    cell = snn.Leaky(1.0, init_hidden=True)
    assert "SystemExit" in str(refused(Alone(leave, gain(0.4), cell), ones(4, 6)))


def test_a_signal_added_to_itself_counts_twice() -> None:
    def twice(layers: Any, x: torch.Tensor) -> Any:
        spikes = layers[1](layers[0](x))
        return layers[3](layers[2](spikes + spikes))

    model = Alone(
        twice,
        layer.Linear(1, 1, bias=False, step_mode="m"),
        neuron.IFNode(step_mode="m"),
        layer.Linear(1, 1, bias=False, step_mode="m"),
        neuron.IFNode(step_mode="m"),
    )
    model.layers[0].weight.data.fill_(0.6)
    model.layers[2].weight.data.fill_(0.3)
    network = imported(model, ones(4, 12))
    # 0.6 a step fires in 6 of 12 steps; 6 times 0.6 is 3 thresholds, 6 times 0.3 only 1.
    assert simulate(network, ones(1, 12)).output.sum() == 3


@pytest.mark.parametrize(
    ("model", "error", "words"),
    [
        (lambda: nn.Sequential(nn.Linear(1, 1, device="meta"), snn.Leaky(0.5)),
         ArtefactError, "have no values yet"),
        (lambda: torch.jit.script(nn.Sequential(nn.Linear(1, 1), nn.ReLU())),
         UnsupportedModelError, "torch.jit has compiled"),
    ],
)  # fmt: skip
def test_layers_without_readable_weights_are_refused(model: Any, error: Any, words: str) -> None:
    with pytest.raises(error, match=words):
        imported(model(), ones(4, 6))


def test_a_layer_that_holds_something_else_is_one_offender() -> None:
    broken = nn.Linear(1, 1)
    broken.weight = None
    broken.forward = lambda x: x
    model = nn.Sequential(broken, snn.Leaky(1.0, init_hidden=True))
    assert [line.split(":")[0] for line in refused(model, ones(4, 6)).offenders] == ["0"]


class HandWritten(nn.Module):
    """Hears itself through a layer, from what torch.zeros gives on."""

    def __init__(self, size: int = 2000) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.one, self.norm = nn.Linear(1, size, bias=False), nn.BatchNorm1d(size)
        self.back, self.size = nn.Linear(size, 1, bias=False), size
        with torch.no_grad():
            self.back.weight.zero_()
            self.norm.running_mean.uniform_(-0.3, 0.3)
            self.norm.running_var.uniform_(0.4, 2.0)
            current = self.norm.eval()(self.one(torch.ones(1, 1)))[0]
            # Thresholds that the potential meets in step 2, but for rounding.
            reached = current + current + current
            reached[20:] *= 1.5
        self.lif = snn.Leaky(1.0, reached)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mem, spk, found = self.lif.init_leaky(), torch.zeros(x.shape[1], self.size), []
        for frame in x:
            spk, mem = self.lif(self.norm(self.one(frame)) + self.back(spk), mem)
            found.append(spk)
        return torch.stack(found)


def test_double_precision_is_tried_with_the_states_that_a_forward_makes() -> None:
    network = imported(HandWritten(), ones(2, 4))
    assert any("equal in double precision; in single" in note for note in network.notes)
    assert torch.get_default_dtype() is torch.float32
