"""The float network computes what norse computes, bit for bit, or the model is refused."""

from __future__ import annotations

from typing import Any

import norse.torch as norse
import numpy as np
import pytest
import torch
from norse.torch.functional.leaky_integrator_box import LIBoxParameters
from norse.torch.functional.reset import reset_subtract
from norse.torch.models.conv import ConvNet, ConvNet4
from norse.torch.module.leaky_integrator_box import LIBoxCell
from torch import nn

from osbc_deploy.errors import ArtefactError, UnsupportedModelError
from osbc_deploy.frameworks.norse.reading import read_norse
from osbc_deploy.model.simulate import simulate

T, N = 25, 6


def scalar(value: float) -> torch.Tensor:
    return torch.tensor(value)


def box(**changes: Any) -> norse.LIFBoxParameters:
    base = {"tau_mem_inv": scalar(310.0), "v_leak": scalar(0.07), "v_reset": scalar(-0.13)}
    return norse.LIFBoxParameters(**{**base, **changes})


def cuba(**changes: Any) -> norse.LIFParameters:
    base = {
        "tau_mem_inv": scalar(270.0),
        "tau_syn_inv": scalar(190.0),
        "v_leak": scalar(0.05),
        "v_th": scalar(0.9),
        "v_reset": scalar(-0.11),
    }
    return norse.LIFParameters(**{**base, **changes})


CELLS = {
    "LIFBoxCell": lambda: norse.LIFBoxCell(box()),
    "LIFBoxCell subtract": lambda: norse.LIFBoxCell(box(reset_method=reset_subtract)),
    "LIFBoxCell per neuron": lambda: norse.LIFBoxCell(
        box(v_th=torch.linspace(0.2, 1.5, 9), tau_mem_inv=torch.linspace(100, 900, 9))
    ),
    "LIFCell": lambda: norse.LIFCell(cuba()),
    "LIFCell tanh": lambda: norse.LIFCell(cuba(method="tanh")),
    "LIFCell dt": lambda: norse.LIFCell(cuba(), dt=0.0015),
    "IAFCell": lambda: norse.IAFCell(norse.IAFParameters(v_reset=scalar(0.2))),
    "LIBoxCell": lambda: LIBoxCell(LIBoxParameters(tau_mem_inv=scalar(310.0), v_leak=scalar(0.07))),
    "LICell": lambda: norse.LICell(
        norse.LIParameters(tau_mem_inv=scalar(270.0), tau_syn_inv=scalar(190.0))
    ),
}


def per_step(model: nn.Module, x: torch.Tensor) -> np.ndarray[Any, Any]:
    """Run norse itself, one time step at a time, and return (n, T, ...)."""
    state, outputs = None, []
    with torch.no_grad():
        for frame in x:
            output, state = model(frame, state)
            outputs.append(output)
    return torch.stack(outputs, 1).numpy()


def spikes_of(x: torch.Tensor) -> np.ndarray[Any, Any]:
    return x.movedim(0, 1).numpy().astype(np.uint8)


def random_input(*shape: int, rate: float = 0.35) -> torch.Tensor:
    return (torch.rand(T, N, *shape) < rate).float()


@pytest.mark.parametrize("name", CELLS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_every_cell_gives_norse_bits(name: str, dtype: torch.dtype) -> None:
    for seed in range(4):
        torch.manual_seed(seed)
        model = norse.SequentialState(nn.Linear(14, 9), CELLS[name]()).to(dtype)
        with torch.no_grad():
            model[0].weight.mul_(4)
        x = random_input(14).to(dtype)
        expected = per_step(model, x)
        run = simulate(read_norse(model, (14,)), spikes_of(x))
        assert np.array_equal(run.output, expected)
        assert expected.any()


def test_linear_readout_cell_with_weights_of_its_own() -> None:
    torch.manual_seed(1)
    model = norse.SequentialState(
        nn.Linear(14, 9), norse.LIFBoxCell(box()), norse.LILinearCell(9, 4)
    )
    x = random_input(14)
    assert np.array_equal(
        simulate(read_norse(model, (14,)), spikes_of(x)).output, per_step(model, x)
    )


def conv_stack() -> norse.SequentialState:
    return norse.SequentialState(
        nn.Conv2d(2, 6, (3, 2), stride=(1, 2), padding=(1, 1), bias=True),
        norse.LIFBoxCell(box()),
        nn.AvgPool2d(2),
        norse.SequentialState(
            nn.Conv2d(6, 8, 3, padding=2, dilation=2, groups=2),
            norse.LIFCell(cuba(v_th=torch.linspace(0.1, 0.4, 8).reshape(8, 1, 1))),
        ),
        nn.Dropout(0.5),
        nn.Flatten(),
        nn.Linear(8 * 6 * 3, 7),
        norse.LICell(),
    )


def test_convolutions_pooling_and_nesting_give_norse_bits() -> None:
    torch.manual_seed(3)
    model = conv_stack().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3)
    x = random_input(2, 12, 11)
    network = read_norse(model, (2, 12, 11))
    run = simulate(network, spikes_of(x), record=["1", "3.1"])
    assert np.array_equal(run.output, per_step(model, x))
    assert run.rates["1"] > 0.01
    assert run.rates["3.1"] > 0.01


def test_stacks_over_time_equal_stacks_per_step() -> None:
    torch.manual_seed(5)
    conv, linear = nn.Conv2d(2, 4, 3), nn.Linear(4 * 4 * 4, 5)
    model = norse.SequentialState(
        norse.Lift(conv), norse.LIF(cuba()), nn.Flatten(2), norse.Lift(linear), norse.LI()
    )
    x = 1.0 * random_input(2, 6, 6)
    with torch.no_grad():
        conv.weight.mul_(5)
        expected, _ = model(x)
    run = simulate(read_norse(model, (2, 6, 6)), spikes_of(x))
    assert np.array_equal(run.output, expected.movedim(0, 1).numpy())
    assert run.rates["1"] > 0.01


def randomize(norm: Any) -> None:
    with torch.no_grad():
        norm.running_mean.uniform_(-0.3, 0.3)
        norm.running_var.uniform_(0.4, 2.0)
        norm.weight.uniform_(0.5, 1.5)
        norm.bias.uniform_(-0.3, 0.3)


def test_batch_norm_and_pooled_currents_are_folded() -> None:
    # Folding rounds differently, so this is shown in float64 where no spike hangs on it.
    torch.manual_seed(7)
    model = norse.SequentialState(
        nn.Conv2d(2, 6, 3, stride=2, dilation=1, bias=True),
        nn.AvgPool2d((2, 3), stride=(1, 2)),
        nn.BatchNorm2d(6),
        norse.LIFBoxCell(box()),
        nn.Flatten(),
        nn.Linear(6 * 4 * 2, 10, bias=False),
        nn.BatchNorm1d(10),
        norse.IAFCell(),
    ).double()
    randomize(model[2])
    randomize(model[6])
    model.eval()
    with torch.no_grad():
        model[0].weight.mul_(4)
    x = random_input(2, 11, 12).double()
    network = read_norse(model, (2, 11, 12))
    run = simulate(network, spikes_of(x), record=["3"])
    assert np.array_equal(run.output, per_step(model, x))
    assert run.rates["3"] > 0.01
    assert any("BatchNorm2d folded" in note for note in network.notes)
    assert network.parameters == 6 * 2 * 5 * 7 + 6 + 10 * 48 + 10


def test_pooling_in_front_of_neurons_becomes_a_map_that_is_not_compressed() -> None:
    model = norse.SequentialState(
        nn.AvgPool2d(2),
        norse.LIFBoxCell(box(v_th=scalar(0.2))),
        nn.Flatten(),
        nn.Linear(8, 3),
        norse.LICell(),
    )
    x = random_input(2, 4, 4)
    network = read_norse(model, (2, 4, 4))
    assert [p.compressible for p in network.projections] == [False, True]
    assert np.allclose(simulate(network, spikes_of(x)).output, per_step(model, x), atol=1e-6)


def test_all_offenders_are_listed_with_their_place() -> None:
    model = norse.SequentialState(
        nn.Conv2d(2, 4, 3, padding_mode="reflect", padding=1),
        nn.ReLU(),
        norse.LIFRefracCell(),
        norse.SequentialState(nn.LPPool2d(2, 2), nn.Flatten(start_dim=2)),
        nn.Linear(64, 5),
    )
    with pytest.raises(UnsupportedModelError) as caught:
        read_norse(model, (2, 8, 8))
    text = str(caught.value)
    for part in ("0: ", "reflect", "1: ReLU", "2: LIFRefracCell", "3.0: LPPool2d", "4: "):
        assert part in text
    assert len(caught.value.offenders) >= 5
    assert caught.value.exit_code == 3


@pytest.mark.parametrize(
    ("layers", "words"),
    [
        ([nn.Linear(4, 3)], "holds no neurons"),
        ([nn.Linear(4, 3), norse.LIFBoxCell(), nn.ReLU()], "the network ends in ReLU"),
        ([nn.Linear(4, 3), norse.LICell(), nn.Linear(3, 2), norse.LICell()], "sends potentials"),
        ([nn.Linear(4, 3), norse.LIFBoxCell(), nn.Linear(3, 2), norse.LI()], "mixes"),
        ([nn.Linear(4, 3), norse.LSNNCell()], "LSNNCell is not supported"),
        ([], "holds no neurons"),
        (
            [nn.Linear(4, 3), norse.LIFBoxCell(box(v_th=torch.ones(2)))],
            "does not broadcast",
        ),
    ],
)
def test_stacks_without_counterpart_are_refused(layers: list[nn.Module], words: str) -> None:
    with pytest.raises(UnsupportedModelError, match=words):
        read_norse(norse.SequentialState(*layers), (4,))


class Own(nn.Module):
    """A network as users write it; `style` says how its forward is called."""

    def __init__(self, style: str) -> None:
        super().__init__()
        self.style = style
        self.one, self.lif = nn.Linear(14, 9), norse.LIFBoxCell(box())
        self.two, self.out = nn.Linear(9, 4), norse.LICell()

    def step(self, x: torch.Tensor, state: Any) -> Any:
        a, b = state or (None, None)
        s, a = self.lif(self.one(x), a)
        v, b = self.out(self.two(s), b)
        return v, (a, b)

    def forward(self, x: torch.Tensor, state: Any = None) -> Any:
        if self.style == "step":
            return self.step(x, state)
        outputs = []
        for frame in x if self.style.startswith("time") else x.transpose(0, 1):
            v, state = self.step(frame, state)
            outputs.append(v)
        stacked = torch.stack(outputs)
        return stacked.max(0).values if self.style.endswith("max") else stacked


class Residual(Own):
    def step(self, x: torch.Tensor, state: Any) -> Any:
        v, state = super().step(x, state)
        return v + 0.1 * self.two(self.one(x)), state


@pytest.mark.parametrize("style", ["step", "time", "samples", "time max", "samples max"])
def test_modules_of_ones_own_are_read_and_verified(style: str) -> None:
    torch.manual_seed(2)
    model = Own(style).train()
    with torch.no_grad():
        model.one.weight.mul_(4)
    x = random_input(14)
    network = read_norse(model, (14,), samples=spikes_of(x))
    expected = per_step(Own.step.__get__(model), x)  # type: ignore[arg-type]
    assert np.array_equal(simulate(network, spikes_of(x)).output, expected)
    assert any("verified" in note for note in network.notes)
    assert model.training


@pytest.mark.parametrize("factory", [lambda: Residual("step"), lambda: Residual("time")])
def test_modules_that_compute_something_else_are_refused(factory: Any) -> None:
    torch.manual_seed(2)
    with pytest.raises(UnsupportedModelError, match="out: sends potentials, not spikes"):
        read_norse(factory(), (14,), samples=spikes_of(random_input(14)))
    with pytest.raises(UnsupportedModelError, match="Residual"):
        read_norse(factory(), (14,))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_neuron_parameters_that_are_no_numbers_are_refused(bad: float) -> None:
    model = norse.SequentialState(nn.Linear(4, 3), norse.LIFBoxCell(box(v_th=scalar(bad))))
    with pytest.raises(ArtefactError, match=r"1\.p\.v_th"):
        read_norse(model, (4,))


def test_an_unsupported_layer_is_one_offender() -> None:
    model = norse.SequentialState(
        nn.Bilinear(4, 4, 3), norse.LIFBoxCell(), nn.Linear(3, 2), norse.LICell()
    )
    with pytest.raises(UnsupportedModelError) as caught:
        read_norse(model, (4,))
    assert caught.value.offenders == ("0: Bilinear is not supported",)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_widened_and_said(dtype: torch.dtype) -> None:
    model = norse.SequentialState(nn.Linear(4, 3), norse.LICell()).to(dtype)
    network = read_norse(model, (4,))
    assert network.dtype == "float32"
    assert any("half-precision" in note for note in network.notes)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_refused(bad: float) -> None:
    model = norse.SequentialState(nn.Linear(4, 3), norse.LICell())
    with torch.no_grad():
        model[0].weight[1, 2] = bad
    with pytest.raises(ArtefactError, match=r"0\.weight"):
        read_norse(model, (4,))


def test_data_that_does_not_fit_the_first_layer_is_a_fault_of_the_data() -> None:
    with pytest.raises(ArtefactError, match=r"samples of shape \(3, 12, 11\)"):
        read_norse(conv_stack(), (3, 12, 11))


@pytest.mark.parametrize("kind", [ConvNet, ConvNet4])
def test_models_of_norses_own_are_looked_into(kind: Any) -> None:
    torch.manual_seed(2)
    model = kind(num_channels=2, feature_size=16)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(2)
    network = read_norse(model, (2, 16, 16), samples=spikes_of(random_input(2, 16, 16)))
    x = random_input(2, 16, 16)
    run = simulate(network, spikes_of(x), record=["lif0", "lif1", "lif2"])
    with torch.no_grad():
        expected = model(x).movedim(0, 1).numpy()
    assert all(run.rates[name] > 0.001 for name in ("lif0", "lif1", "lif2"))
    # A factor of 10 is folded into the second convolution, which rounds differently.
    assert np.abs(run.output - expected).max() <= 1e-5 * np.abs(expected).max()
