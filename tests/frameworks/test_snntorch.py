"""The float network computes what snnTorch computes, bit for bit, or the model is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from osbc_deploy.errors import ArtefactError, UnsupportedModelError
from osbc_deploy.model.graph import Network
from osbc_deploy.model.simulate import simulate

snn = pytest.importorskip("snntorch")
from osbc_deploy.frameworks.snntorch.reading import read_snntorch  # noqa: E402 - after the import it needs

T, N = 20, 5
Bits = np.ndarray[Any, Any]


def per_step(model: nn.Module, x: torch.Tensor) -> Bits:
    """Run snnTorch itself, one time step at a time, and return its spikes (n, T, ...).

    Its spikes are of single precision whatever the model is; here they are widened for the next
    layer.
    """
    for cell in model.modules():
        if isinstance(cell, snn.SpikingNeuron):
            cell.reset_mem()
    outputs = []
    with torch.no_grad():
        for frame in x:
            value = frame
            for layer in model:
                value = layer(value)
                value = value[0] if isinstance(value, tuple) else value
                value = value.to(x.dtype)
            outputs.append(value)
    return torch.stack(outputs, 1).numpy()


def spikes_of(x: torch.Tensor) -> Bits:
    return x.movedim(0, 1).numpy().astype(np.uint8)


def random_input(seed: int, *shape: int, rate: float = 0.35) -> torch.Tensor:
    torch.manual_seed(seed)
    return (torch.rand(T, N, *shape) < rate).float()


def equal(model: nn.Module, shape: tuple[int, ...], x: torch.Tensor) -> Network:
    """Make sure that the float network gives snnTorch's bits, and return it."""
    expected = per_step(model, x)
    network = read_snntorch(model, shape)
    assert np.array_equal(simulate(network, spikes_of(x)).output, expected)
    return network


def parameter(data: st.DataObject, low: float, high: float, size: int) -> torch.Tensor:
    """Draw one number, or one for each neuron."""
    one = st.integers(round(low * 1000), round(high * 1000)).map(lambda number: number / 1000)
    if data.draw(st.booleans()):
        return torch.tensor(data.draw(one))
    return torch.tensor(data.draw(st.lists(one, min_size=size, max_size=size)))


def keeps_precision(v: torch.Tensor) -> torch.Tensor:
    """Fire as snnTorch's surrogates do, in the precision of the potential."""
    return (v > 0).to(v)


def cell(data: st.DataObject, size: int) -> nn.Module:
    """Draw a cell of any kind."""
    kind = data.draw(st.sampled_from(["Leaky", "Synaptic", "Lapicque", "RLeaky", "RSynaptic"]))
    common: dict[str, Any] = {
        "threshold": parameter(data, -0.2, 1.5, size),
        "reset_mechanism": data.draw(st.sampled_from(["subtract", "zero", "none"])),
        "learn_threshold": data.draw(st.booleans()),
        "init_hidden": True,
        "spike_grad": data.draw(st.sampled_from([None, keeps_precision])),
    }
    if kind == "Lapicque":
        if data.draw(st.booleans()):
            return snn.Lapicque(beta=data.draw(st.floats(0.1, 0.95)), **common)
        return snn.Lapicque(
            R=data.draw(st.integers(1, 7)), C=data.draw(st.floats(1.1, 9)), **common
        )
    common["beta"] = parameter(data, -0.2, 1.2, size)
    common["learn_beta"] = data.draw(st.booleans())
    if kind != "RSynaptic":
        common["reset_delay"] = data.draw(st.booleans())
    if "Synaptic" in kind:
        common["alpha"] = parameter(data, -0.1, 1.0, size)
    if kind.startswith("R"):
        if data.draw(st.booleans()):
            # snnTorch's own surrogates give single precision, which its own Linear then refuses.
            common |= {"linear_features": size, "spike_grad": keeps_precision}
        else:
            common |= {"all_to_all": False, "V": parameter(data, -1.0, 1.0, size)}
    return getattr(snn, kind)(**common)


@settings(max_examples=60, deadline=None)
@given(st.data(), st.integers(1, 9), st.integers(1, 9), st.booleans(), st.integers(0, 2**20))
def test_every_cell_gives_snntorch_bits(
    data: st.DataObject, n_in: int, n_out: int, wide: bool, seed: int
) -> None:
    x = random_input(seed, n_in)
    model = nn.Sequential(
        nn.Linear(n_in, n_out, bias=bool(seed % 2)),
        cell(data, n_out),
        nn.Linear(n_out, 3),
        snn.Leaky(beta=0.8, threshold=0.3, init_hidden=True),
    )
    with torch.no_grad():
        model[0].weight.mul_(3)
        model[2].weight.mul_(3)
    if wide:
        model, x = model.double(), x.double()
    equal(model, (n_in,), x)


@settings(max_examples=80, deadline=None)
@given(st.data(), st.integers(1, 9), st.booleans(), st.integers(0, 2**20))
def test_every_state_is_snntorchs_to_the_last_bit(
    data: st.DataObject, size: int, wide: bool, seed: int
) -> None:
    drawn = cell(data, size)
    model = nn.Sequential(nn.Linear(2, size), drawn, nn.Linear(size, 1), snn.Leaky(0.5))
    torch.manual_seed(seed)
    dtype = torch.float64 if wide else torch.float32
    model.to(dtype)
    with torch.no_grad():
        # A threshold trained in double precision, which single precision does not hold.
        drawn.threshold.mul_(1 + 1e-9)
    neuron = read_snntorch(model, (2,)).populations[0].neuron
    p = {name: torch.tensor(np.array(v), dtype=dtype) for name, v in neuron.parameters.items()}
    state: Any = dict.fromkeys(neuron.states, torch.zeros(N, size, dtype=dtype))
    heard = torch.zeros(N, size, dtype=dtype)
    with torch.no_grad():
        for _ in range(T):
            current = torch.randn(N, size, dtype=dtype)
            if neuron.feedback_apart:
                fired, state = neuron.step(p, state, (current, drawn.recurrent(heard)), torch.where)
            else:
                fired, state = neuron.step(p, state, current, torch.where)
            heard = drawn(current)
            assert torch.equal(fired, heard.bool())
            assert torch.equal(state["v"], drawn.mem)
            assert "u" not in state or torch.equal(state["u"], drawn.syn)


def test_convolutions_with_feedback_and_poolings() -> None:
    torch.manual_seed(3)
    model = nn.Sequential(
        nn.Conv2d(2, 6, 3, padding=1),
        snn.RLeaky(
            beta=0.7, conv2d_channels=6, kernel_size=(3, 5), threshold=0.4, init_hidden=True
        ),
        nn.AvgPool2d(2),
        nn.Conv2d(6, 5, 3),
        snn.RSynaptic(
            alpha=0.4,
            beta=torch.linspace(0.1, 0.9, 5).reshape(5, 1, 1),
            all_to_all=False,
            V=torch.linspace(-0.5, 0.5, 5).reshape(5, 1, 1),
            threshold=0.3,
            init_hidden=True,
        ),
        nn.Dropout(0.5),
        nn.Flatten(),
        nn.Linear(45, 4),
        snn.Synaptic(alpha=0.5, beta=0.9, init_hidden=True, output=True, reset_mechanism="zero"),
    ).eval()
    with torch.no_grad():
        for layer in (model[0], model[3], model[7]):
            layer.weight.mul_(3)
    x = random_input(4, 2, 10, 10)
    network = equal(model, (2, 10, 10), x)
    feedback = [p.name for p in network.projections if network.is_feedback(p)]
    assert feedback == ["1.recurrent", "4.recurrent"]
    assert min(simulate(network, spikes_of(x)).rates.values()) > 0.01


@pytest.mark.parametrize(
    "last",
    [
        lambda: snn.Leaky(beta=0.8, reset_mechanism="none", init_hidden=True, output=True),
        lambda: snn.Leaky(beta=0.8, threshold=1e10, init_hidden=True, output=True),
        lambda: snn.Synaptic(0.5, 0.8, reset_mechanism="none", init_hidden=True, output=True),
    ],
)
def test_a_last_cell_that_never_resets_answers_with_its_potential(last: Any) -> None:
    torch.manual_seed(3)
    first = snn.Leaky(beta=0.8, threshold=0.2, init_hidden=True)
    model = nn.Sequential(nn.Linear(14, 9), first, nn.Linear(9, 4), last())
    x = random_input(5, 14)
    with torch.no_grad():
        potentials = torch.stack([model(frame)[-1] for frame in x], 1).numpy()
    network = read_snntorch(model, (14,))
    assert not network.output.neuron.spiking
    assert np.array_equal(simulate(network, spikes_of(x)).output, potentials)
    assert any("potential is the network's answer" in note for note in network.notes)


def test_a_hidden_cell_that_never_resets_sends_spikes() -> None:
    torch.manual_seed(3)
    model = nn.Sequential(
        nn.Linear(14, 9),
        snn.Leaky(beta=0.8, reset_mechanism="none", threshold=0.3, init_hidden=True),
        nn.Linear(9, 4),
        snn.Leaky(beta=0.8, threshold=0.1, init_hidden=True),
    )
    network = equal(model, (14,), random_input(5, 14))
    assert network.populations[0].neuron.reset_rule().kind == "none"


@pytest.mark.parametrize("kind", ["subtract", "zero"])
def test_a_late_reset_is_one_right_after_the_spike(kind: str) -> None:
    cell = snn.Leaky(beta=0.75, threshold=0.5, reset_mechanism=kind, init_hidden=True)
    model = nn.Sequential(nn.Linear(6, 8), cell).double()
    with torch.no_grad():
        model[0].weight.mul_(4)
    x = random_input(2, 6).double()
    expected = per_step(model, x)
    rule = read_snntorch(model, (6,)).populations[0].neuron.reset_rule()
    assert rule.differs == ""
    v, fired = np.zeros((N, 8)), []
    for current in model[0](x).detach().numpy():
        v = v + current
        fired.append(v > 0.5)
        # The reset right after the spike, as a chip does it, and the decay after that.
        v = 0.75 * np.where(fired[-1], v - rule.amount if kind == "subtract" else 0.0, v)
    assert np.array_equal(np.stack(fired, 1), expected.astype(bool))
    assert expected.any()


@pytest.mark.parametrize(
    ("make", "word"),
    [
        (lambda: snn.Leaky(0.9, reset_delay=False), "still above the threshold"),
        (lambda: snn.Synaptic(0.5, 0.9, reset_mechanism="zero"), "loses the input"),
        (lambda: snn.Lapicque(0.9, reset_mechanism="zero"), "loses the input"),
        (lambda: snn.Leaky(0.0), "beta is 0"),
        (lambda: snn.Leaky(0.9, reset_delay=False, reset_mechanism="zero"), ""),
    ],
)
def test_what_a_chip_cannot_do_exactly_is_said(make: Any, word: str) -> None:
    network = read_snntorch(nn.Sequential(nn.Linear(4, 3), make()), (4,))
    differs = network.output.neuron.reset_rule().differs
    assert word in differs
    assert bool(differs) == bool(word)


def with_warning(**options: Any) -> nn.Module:
    with pytest.warns(UserWarning, match="unstable"):
        return snn.Leaky(0.9, **options)


def changed() -> nn.Module:
    cell = snn.Leaky(0.9)
    cell.reset_mechanism = "zero"
    return cell


@pytest.mark.parametrize(
    ("layers", "words"),
    [
        ([nn.Linear(4, 3), snn.Leaky(0.9, init_hidden=True), nn.ReLU()], "network ends in ReLU"),
        (
            [nn.Linear(4, 3), nn.MaxPool2d(2), snn.Leaky(0.9)],
            "MaxPool2d takes the largest of several currents",
        ),
        ([nn.Linear(4, 3), snn.Alpha(0.9, 0.8)], "Alpha is not supported"),
        ([nn.Linear(4, 3), snn.Leaky(0.9, state_quant=torch.round)], "state_quant"),
        ([nn.Linear(4, 3), snn.Leaky(0.9, graded_spikes_factor=2.0)], "graded_spikes_factor"),
        ([nn.Linear(4, 3), snn.Leaky(0.9, spike_grad=lambda v: (v >= 0) * 1.0)], "spike_grad"),
        ([nn.Linear(4, 3), changed()], "built with reset_mechanism='subtract'"),
        (
            [nn.Linear(4, 3), snn.RSynaptic(0.5, 0.9, linear_features=3, reset_delay=False)],
            "reset_delay=False has no effect",
        ),
        ([nn.Linear(4, 3), snn.RLeaky(0.9, linear_features=5)], "5 features"),
        ([nn.Linear(4, 3), snn.Leaky(torch.ones(2))], "does not broadcast"),
        ([nn.Linear(4, 3), snn.RLeaky(0.9, all_to_all=False, V=torch.ones(2))], "V of shape"),
    ],
)
def test_cells_without_counterpart_are_refused(layers: list[nn.Module], words: str) -> None:
    with pytest.raises(UnsupportedModelError) as caught:
        read_snntorch(nn.Sequential(*layers), (4,))
    assert any(words in line for line in caught.value.offenders)


class Recorded(nn.Module):
    """A loop over time that answers with potentials, or with spikes beside them."""

    def __init__(self, reset: str, *, spikes: bool) -> None:
        super().__init__()
        self.fc, self.spikes = nn.Linear(6, 3), spikes
        self.lif = snn.Leaky(0.9, threshold=0.2, reset_mechanism=reset)

    def forward(self, x: torch.Tensor) -> Any:
        mem, spk_rec, mem_rec = self.lif.init_leaky(), [], []
        for frame in x:
            spk, mem = self.lif(self.fc(frame), mem)
            spk_rec.append(spk)
            mem_rec.append(mem)
        return (torch.stack(spk_rec), torch.stack(mem_rec)) if self.spikes else sum(mem_rec)


def test_potentials_of_neurons_that_reset_are_no_answer() -> None:
    x = (np.random.default_rng(0).random((4, 5, 6)) < 0.5).astype(np.uint8)
    for reset in ("subtract", "zero"):
        with pytest.raises(UnsupportedModelError) as caught:
            read_snntorch(Recorded(reset, spikes=False), (6,), samples=x)
        (line,) = caught.value.offenders
        assert line.startswith("lif: forward answers with its potentials, which are reset")
        assert "reset_mechanism='none'" in line
    assert not read_snntorch(Recorded("none", spikes=False), (6,), samples=x).output.neuron.spiking
    both = read_snntorch(Recorded("subtract", spikes=True), (6,), samples=x)
    assert both.output.neuron.spiking


def test_all_faults_of_a_network_are_listed() -> None:
    quantized = snn.Leaky(0.9, state_quant=torch.round, graded_spikes_factor=2.0, init_hidden=True)
    model = nn.Sequential(
        nn.Linear(4, 3),
        quantized,
        nn.Linear(3, 2),
        with_warning(inhibition=True, init_hidden=True),
        nn.ReLU(),
    )
    with pytest.raises(UnsupportedModelError) as caught:
        read_snntorch(model, (4,))
    text = "\n".join(caught.value.offenders)
    for words in ("1: Leaky: state_quant", "1: Leaky: graded", "3: Leaky: inhibition", "4: ReLU"):
        assert words in text


class Own(nn.Module):
    """A network as users write it; `style` says how its forward is called."""

    def __init__(self, style: str) -> None:
        super().__init__()
        self.style = style
        self.fc1 = nn.Linear(14, 9)
        self.lif1 = snn.RLeaky(beta=0.8, linear_features=9, threshold=0.3)
        self.fc2 = nn.Linear(9, 4)
        self.lif2 = snn.Leaky(beta=0.9, threshold=0.2, learn_beta=True)

    def forward(self, x: torch.Tensor, *states: Any) -> Any:
        if self.style == "states":
            return self.step(x, *(states or (None, None, None)))
        if self.style == "hidden":
            return self.fire(x)
        states, records = (None, None, None), []
        for frame in x if self.style == "time" else x.transpose(0, 1):
            spikes, *states = self.step(frame, *states)
            records.append((spikes, states[2]))
        return tuple(torch.stack(record) for record in zip(*records, strict=True))

    def step(self, x: torch.Tensor, spk1: Any, mem1: Any, mem2: Any) -> Any:
        spk1, mem1 = self.lif1(self.fc1(x), spk1, mem1)
        spk2, mem2 = self.lif2(self.fc2(spk1), mem2)
        return spk2, spk1, mem1, mem2

    def fire(self, x: torch.Tensor) -> Any:
        spikes, _ = self.lif1(self.fc1(x))
        return self.lif2(self.fc2(spikes))


class Inverted(Own):
    """Computes something else than its layers in order."""

    def forward(self, x: torch.Tensor, *states: Any) -> Any:
        return super().forward(1.0 - x, *states)


class Sorted(Own):
    """Computes what no layer does."""

    def forward(self, x: torch.Tensor, *states: Any) -> Any:
        return super().forward(x.sort(-1).values, *states)


@pytest.mark.parametrize("style", ["states", "hidden", "time", "samples"])
def test_modules_of_ones_own_are_read_and_verified(style: str) -> None:
    torch.manual_seed(2)
    model = Own(style).train()
    x = random_input(3, 14)
    network = read_snntorch(model, (14,), samples=spikes_of(x))
    expected = per_step(nn.Sequential(model.fc1, model.lif1, model.fc2, model.lif2), x)
    assert np.array_equal(simulate(network, spikes_of(x)).output, expected)
    assert expected.any()
    assert any("verified" in note for note in network.notes)
    assert model.training
    torch.manual_seed(2)
    other = Inverted(style)
    network = read_snntorch(other, (14,), samples=spikes_of(x))
    expected = per_step(nn.Sequential(other.fc1, other.lif1, other.fc2, other.lif2), 1.0 - x)
    assert np.array_equal(simulate(network, spikes_of(x)).output, expected)
    with pytest.raises(UnsupportedModelError, match="forward: sort is not supported"):
        read_snntorch(Sorted(style), (14,), samples=spikes_of(x))


class Convolutional(nn.Module):
    """Flattens between two layers without saying so in a layer."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.lif1 = nn.Conv2d(2, 4, 3), snn.Leaky(0.7, 0.3)
        self.fc, self.lif2 = nn.Linear(64, 5), snn.Leaky(0.8, 0.3)

    def forward(self, x: torch.Tensor) -> Any:
        self.lif1.reset_mem()
        self.lif2.reset_mem()
        records = []
        for frame in x:
            spikes, _ = self.lif1(self.conv(frame))
            records.append(self.lif2(self.fc(spikes.view(spikes.size(0), -1))))
        return tuple(torch.stack(record) for record in zip(*records, strict=True))


def test_a_forward_may_flatten() -> None:
    torch.manual_seed(4)
    model = Convolutional()
    x = random_input(3, 2, 6, 6)
    network = read_snntorch(model, (2, 6, 6), samples=spikes_of(x))
    with torch.no_grad():
        expected = model(x)[0].transpose(0, 1).numpy()
    assert np.array_equal(simulate(network, spikes_of(x)).output, expected)
    assert expected.any()
    for cell in (model.lif1, model.lif2):
        cell.init_hidden = True
    with pytest.raises(UnsupportedModelError, match="put a Flatten before it"):
        read_snntorch(nn.Sequential(model.conv, model.lif1, model.fc, model.lif2), (2, 6, 6))


def test_states_do_not_outlive_the_verification() -> None:
    torch.manual_seed(2)
    model = Own("hidden")
    x = random_input(3, 14)
    model(x[0])
    read_snntorch(model, (14,), samples=spikes_of(x))
    assert not model.lif1.mem.any()
    assert not model.lif2.mem.any()


@pytest.mark.parametrize(
    ("model", "found"),
    [
        (nn.Sequential(nn.Linear(4, 3), snn.Alpha(0.9, 0.8)), "1: Alpha is not supported"),
        (nn.Sequential(nn.Softmax(1), snn.Leaky(0.9)), "0: Softmax is not supported"),
    ],
)
def test_one_fault_is_one_offender(model: nn.Module, found: str) -> None:
    with pytest.raises(UnsupportedModelError) as caught:
        read_snntorch(model, (4,))
    (line,) = caught.value.offenders
    assert line.startswith(found + ": it")


def test_a_lazy_layer_without_weights_is_refused() -> None:
    model = nn.Sequential(nn.LazyLinear(3), snn.Leaky(0.9))
    with pytest.raises(ArtefactError, match=r"0\.weight, 0\.bias have no values yet"):
        read_snntorch(model, (4,))


def test_parameters_that_are_no_numbers_are_refused() -> None:
    model = nn.Sequential(nn.Linear(4, 3), snn.Leaky(0.9, threshold=float("nan")))
    with pytest.raises(ArtefactError, match=r"1\.threshold"):
        read_snntorch(model, (4,))


class Listed(nn.Module):
    """Keeps its layers in lists."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList()
        for n_in, n_out in ((14, 9), (9, 4)):
            self.layers += [nn.Linear(n_in, n_out), snn.Leaky(0.9, 0.2, init_hidden=True)]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            x = layer(x)
        return x


def test_layers_may_be_in_lists() -> None:
    torch.manual_seed(6)
    model = Listed()
    x = random_input(3, 14)
    network = read_snntorch(model, (14,), samples=spikes_of(x))
    assert np.array_equal(
        simulate(network, spikes_of(x)).output, per_step(nn.Sequential(*model.layers), x)
    )
    assert [p.name for p in network.projections] == ["layers.0", "layers.2"]


class Demanding(Listed):
    """Wants to be told how long to run."""

    def forward(self, x: torch.Tensor, *, steps: int) -> torch.Tensor:  # type: ignore[override]
        raise AssertionError("never called")


def test_why_a_module_could_not_be_verified_is_said() -> None:
    x = spikes_of(random_input(3, 14))
    with pytest.raises(UnsupportedModelError) as caught:
        read_snntorch(Demanding(), (14,), samples=x)
    assert any("one call, time first: raises TypeError" in line for line in caught.value.offenders)
    assert any("'steps'" in line for line in caught.value.offenders)
    mute = Listed()
    mute.layers[3].threshold.fill_(100.0)
    with pytest.raises(UnsupportedModelError, match="silent"):
        read_snntorch(mute, (14,), samples=x)
