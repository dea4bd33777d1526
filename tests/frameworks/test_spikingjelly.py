"""The float network computes what SpikingJelly computes, bit for bit, or the model is refused."""

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

pytest.importorskip("spikingjelly")
from spikingjelly.activation_based import functional, layer, neuron, surrogate

from osbc_deploy.frameworks.spikingjelly.reading import read_spikingjelly

T, N = 20, 5
Bits = np.ndarray[Any, Any]


def spikes_of(x: torch.Tensor) -> Bits:
    return x.movedim(0, 1).numpy().astype(np.uint8)


def random_input(seed: int, *shape: int, rate: float = 0.35) -> torch.Tensor:
    torch.manual_seed(seed)
    return (torch.rand(T, N, *shape) < rate).float()


def own_forward(model: nn.Module, x: torch.Tensor, mode: str) -> Bits:
    """Run SpikingJelly itself and return its output (n, T, ...)."""
    functional.reset_net(model)
    with torch.no_grad():
        answer = model(x) if mode == "m" else torch.stack([model(frame) for frame in x])
    functional.reset_net(model)
    return answer.movedim(0, 1).numpy()


def equal(model: nn.Module, shape: tuple[int, ...], x: torch.Tensor, mode: str) -> Network:
    """Make sure that the float network gives SpikingJelly's bits, and return it."""
    expected = own_forward(model, x, mode)
    network = read_spikingjelly(model, shape, samples=spikes_of(x))
    assert np.array_equal(simulate(network, spikes_of(x)).output, expected)
    return network


def node(data: st.DataObject) -> nn.Module:
    """Draw a node of any kind."""
    simple = ["SimpleIFNode", "SimpleLIFNode"]
    kind = data.draw(
        st.sampled_from(["IFNode", "LIFNode", "ParametricLIFNode", "CUBALIFNode", *simple])
    )
    common: dict[str, Any] = {
        "v_threshold": data.draw(st.sampled_from([1.0, 0.3, 0.77, 2.0])),
        "v_reset": data.draw(st.sampled_from([None, 0.0, 0.1, -0.37])),
        "surrogate_function": data.draw(st.sampled_from([surrogate.Sigmoid(), surrogate.ATan()])),
        "detach_reset": data.draw(st.booleans()),
        "store_v_seq": data.draw(st.booleans()),
    }
    if kind == "CUBALIFNode":
        kept = [data.draw(st.integers(0, 1000)) / 1000 for _ in range(2)]
        threshold, v_reset = common["v_threshold"], common["v_reset"]
        return neuron.CUBALIFNode(*kept, threshold, v_reset, common["surrogate_function"])
    if kind in simple:
        # They start at 0 whatever they are reset to, and a leak takes the reset from them.
        either = data.draw(st.sampled_from([None, 0.0]))
        common["v_reset"] = 0.0 if kind == "SimpleLIFNode" else either
        del common["store_v_seq"]
    if "LIF" in kind:
        tau = data.draw(st.integers(1001, 20000)) / 1000
        common["init_tau" if kind == "ParametricLIFNode" else "tau"] = tau
        common["decay_input"] = data.draw(st.booleans())
    return getattr(neuron, kind)(**common)


@settings(max_examples=60, deadline=None)
@given(
    st.data(),
    st.integers(1, 9),
    st.integers(1, 9),
    st.booleans(),
    st.sampled_from("sm"),
    st.integers(0, 2**20),
)
def test_every_node_gives_spikingjelly_bits(
    data: st.DataObject, n_in: int, n_out: int, wide: bool, mode: str, seed: int
) -> None:
    x = random_input(seed, n_in)
    model = nn.Sequential(
        layer.Linear(n_in, n_out, bias=bool(seed % 2)),
        node(data),
        layer.Linear(n_out, 3),
        node(data),
    )
    with torch.no_grad():
        model[0].weight.mul_(3)
        model[2].weight.mul_(3)
    if wide:
        model, x = model.double(), x.double()
    functional.set_step_mode(model, mode)
    equal(model, (n_in,), x, mode)


@settings(max_examples=80, deadline=None)
@given(st.data(), st.integers(1, 9), st.booleans(), st.integers(0, 2**20))
def test_every_state_is_spikingjellys_to_the_last_bit(
    data: st.DataObject, size: int, wide: bool, seed: int
) -> None:
    torch.manual_seed(seed)
    dtype = torch.float64 if wide else torch.float32
    drawn = node(data)
    family = read_spikingjelly(nn.Sequential(nn.Linear(2, size), drawn).to(dtype), (2,))
    neuron_ = family.populations[0].neuron
    p = {name: torch.tensor(np.array(v), dtype=dtype) for name, v in neuron_.parameters.items()}
    state: Any = {name: torch.zeros((N, size), dtype=dtype) for name in neuron_.states}
    state["v"] += float(neuron_.v_init)
    with torch.no_grad():
        for _ in range(T):
            # Steps of a quarter reach thresholds exactly, where SpikingJelly fires.
            current = torch.randn(N, size, dtype=dtype)
            current = torch.where(torch.rand(N, size) < 0.3, (4 * current).round() / 4, current)
            fired, state = neuron_.step(p, state, current, torch.where)
            assert torch.equal(fired, drawn(current).bool())
            assert torch.equal(state["v"], drawn.v)


def test_a_node_fires_exactly_at_its_threshold() -> None:
    model = nn.Sequential(layer.Linear(1, 2, bias=False), neuron.IFNode(1.0))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[0.5], [0.25]]))
    network = equal(model, (1,), torch.ones(T, N, 1), "s")
    output = simulate(network, np.ones((1, 4, 1), np.uint8)).output[0]
    assert output.T.tolist() == [[0, 1, 0, 1], [0, 0, 0, 1]]


@settings(max_examples=25, deadline=None)
@given(st.data(), st.booleans(), st.sampled_from("sm"), st.integers(0, 2**20))
def test_convolutions_of_every_shape_give_spikingjelly_bits(
    data: st.DataObject, wide: bool, mode: str, seed: int
) -> None:
    def draw(low: int, high: int) -> int:
        return data.draw(st.integers(low, high))

    groups = draw(1, 2)
    n_in, n_out = groups * draw(1, 2), groups * draw(1, 3)
    kernel, stride = (draw(1, 3), draw(1, 3)), (draw(1, 2), draw(1, 2))
    padding, dilation = (draw(0, 2), draw(0, 2)), (draw(1, 2), draw(1, 2))
    shape = (n_in, draw(6, 9), draw(6, 9))
    conv = layer.Conv2d(n_in, n_out, kernel, stride, padding, dilation, groups, bool(draw(0, 1)))
    torch.manual_seed(seed)
    with torch.no_grad():
        conv.weight.normal_()
    model = nn.Sequential(conv, node(data))
    x = random_input(seed, *shape)
    if wide:
        model, x = model.double(), x.double()
    functional.set_step_mode(model, mode)
    equal(model, shape, x, mode)


def lively(model: nn.Module, seed: int) -> nn.Module:
    """Give a model weights that make its neurons fire, and statistics to its normalizations."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                module.weight.normal_(0.0, 1.7 / module.weight[0].numel() ** 0.5)
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.uniform_(-0.2, 0.2)
                module.running_var.uniform_(0.4, 1.5)
                module.weight.uniform_(0.6, 1.4)
                module.bias.uniform_(0.0, 0.4)
    return model.eval()


@pytest.mark.parametrize("mode", ["s", "m"])
def test_convolutions_poolings_and_nesting(mode: str) -> None:
    model = nn.Sequential(
        layer.Conv2d(2, 6, (3, 2), stride=(1, 2), padding=(1, 1)),
        neuron.LIFNode(v_threshold=0.5),
        layer.AvgPool2d(2),
        nn.Sequential(layer.Conv2d(6, 8, 3, padding=2, dilation=2, groups=2, bias=False)),
        neuron.IFNode(v_threshold=0.4, v_reset=None),
        layer.Dropout(0.5),
        layer.AdaptiveAvgPool2d((3, 1)),
        layer.Flatten(),
        layer.Linear(24, 7),
        neuron.ParametricLIFNode(v_threshold=0.2, decay_input=False),
    )
    functional.set_step_mode(lively(model, 1), mode)
    x = random_input(3, 2, 12, 11)
    network = equal(model, (2, 12, 11), x, mode)
    rates = simulate(network, spikes_of(x)).rates
    assert min(rates.values()) > 0.01
    assert [p.name for p in network.populations] == ["1", "4", "9"]


def test_batch_norm_is_folded() -> None:
    # Folding rounds differently, so this is shown in float64 where no spike hangs on it.
    model = nn.Sequential(
        layer.Conv2d(2, 6, 3, bias=False),
        layer.BatchNorm2d(6),
        neuron.LIFNode(decay_input=False),
        layer.SeqToANNContainer(nn.Flatten(), nn.Linear(96, 10)),
        neuron.LIFNode(decay_input=False, v_threshold=0.6),
    )
    functional.set_step_mode(lively(model, 2).double(), "m")
    network = equal(model, (2, 6, 6), random_input(4, 2, 6, 6).double(), "m")
    assert any("folded" in note for note in network.notes)


def conv3(n_in: int, n_out: int, stride: int = 1) -> nn.Module:
    return layer.Conv2d(n_in, n_out, 3, stride=stride, padding=1, bias=False)


class Block(nn.Module):
    """A spike-element-wise residual block (arXiv:2102.04159, figure 1c)."""

    def __init__(self, n_in: int, n_out: int, stride: int, connect: str) -> None:
        super().__init__()
        self.conv1, self.bn1 = conv3(n_in, n_out, stride), layer.BatchNorm2d(n_out)
        self.conv2, self.bn2 = conv3(n_out, n_out), layer.BatchNorm2d(n_out)
        self.sn1, self.sn2 = neuron.IFNode(), neuron.LIFNode(v_threshold=0.4)
        self.connect = connect
        self.down = None
        if stride > 1:
            self.down = nn.Sequential(
                layer.Conv2d(n_in, n_out, 1, stride=stride, bias=False), layer.BatchNorm2d(n_out)
            )
            self.down_sn = neuron.IFNode()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.sn2(self.bn2(self.conv2(self.sn1(self.bn1(self.conv1(x))))))
        if self.down is not None:
            x = self.down_sn(self.down(x))
        if self.connect == "ADD":
            return torch.add(x, y)
        return x * y if self.connect == "AND" else x * (1.0 - y)


class Residual(nn.Module):
    """A small SEW network; `pool` and `head` are what the large ones have that chips lack."""

    def __init__(
        self, connect: str = "ADD", pool: nn.Module | None = None, *, head: bool = True
    ) -> None:
        super().__init__()
        self.conv1, self.bn1, self.sn1 = conv3(2, 4), layer.BatchNorm2d(4), neuron.IFNode()
        self.pool = pool or nn.Identity()
        self.blocks = nn.Sequential(
            Block(4, 4, 1, connect), Block(4, 4, 1, connect), Block(4, 6, 2, connect)
        )
        self.average = layer.AdaptiveAvgPool2d((1, 1))
        self.fc = layer.Linear(6, 5)
        self.out = neuron.LIFNode(v_threshold=0.05) if head else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.ndim not in (4, 5):
            raise ValueError("expected (T, N, C, H, W) or (N, C, H, W)")
        x = self.average(self.blocks(self.pool(self.sn1(self.bn1(self.conv1(x))))))
        x = torch.flatten(x, 2) if self.average.step_mode == "m" else torch.flatten(x, 1)
        return self.out(self.fc(x))


@pytest.mark.parametrize("mode", ["s", "m"])
def test_a_residual_network_is_imported_and_gives_the_same_spikes(mode: str) -> None:
    model = lively(Residual(pool=layer.AvgPool2d(2)), 5).double()
    functional.set_step_mode(model, mode)
    x = random_input(6, 2, 12, 12).double()
    network = equal(model, (2, 12, 12), x, mode)
    assert min(simulate(network, spikes_of(x)).rates.values()) > 0.01
    # What hears the sum of two blocks' spikes hears each of the three populations behind it.
    heard = {p.pre for p in network.afferents("blocks.2.sn1")}
    assert heard == {"sn1", "blocks.0.sn2", "blocks.1.sn2"}
    weights = [p.connection.weight for p in network.afferents("blocks.2.sn1")]
    assert all(np.array_equal(w, weights[0]) for w in weights)
    assert any("verified" in note for note in network.notes)


class CurrentBlock(nn.Module):
    """A residual block that adds in front of its neurons, and scales what it adds."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv, self.bn = conv3(channels, channels), layer.BatchNorm2d(channels)
        self.sn = neuron.LIFNode(v_threshold=0.7)

    def forward(self, x: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        current = self.bn(self.conv(x))
        if mask is not None:
            current = current * mask
        current += 0.5 * x
        return self.sn(current)


def test_currents_are_added_in_front_of_neurons() -> None:
    first = nn.Sequential(conv3(2, 4), neuron.IFNode())
    model = nn.Sequential(first, CurrentBlock(4), CurrentBlock(4)).double()
    functional.set_step_mode(lively(model, 4), "m")
    x = random_input(6, 2, 7, 7).double()
    network = equal(model, (2, 7, 7), x, "m")
    assert {p.pre for p in network.afferents("1.sn")} == {"0.1"}
    assert min(simulate(network, spikes_of(x)).rates.values()) > 0.01


def test_a_residual_network_in_single_precision_is_imported_too() -> None:
    model = lively(Residual(), 5)
    functional.set_step_mode(model, "m")
    x = random_input(6, 2, 8, 8)
    network = read_spikingjelly(model, (2, 8, 8), samples=spikes_of(x))
    assert network.dtype == "float32"
    same = simulate(network, spikes_of(x)).output == own_forward(model, x, "m")
    assert same.mean() > 0.98


def offenders(model: nn.Module, shape: tuple[int, ...], mode: str = "m") -> tuple[str, ...]:
    functional.set_step_mode(model.eval(), mode)
    with pytest.raises(UnsupportedModelError) as caught:
        read_spikingjelly(model, shape, samples=spikes_of(random_input(1, *shape)))
    return caught.value.offenders


@pytest.mark.parametrize("connect", ["AND", "IAND"])
def test_a_residual_network_of_gates_ends_in_its_linear_layer(connect: str) -> None:
    model = lively(Residual(connect, layer.MaxPool2d(2), head=False), 5).double()
    functional.set_step_mode(model, "m")
    x = random_input(6, 2, 12, 12).double()
    network = read_spikingjelly(model, (2, 12, 12), samples=spikes_of(x))
    total = own_forward(model, x, "m").sum(1)
    assert np.allclose(simulate(network, spikes_of(x)).output[:, -1], total, rtol=1e-9)
    assert np.ptp(total, axis=0).min() > 0


class Attention(nn.Module):
    """A block of a spiking transformer: spikes times spikes, then neurons."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.q, self.k, self.v = (layer.Linear(size, size) for _ in range(3))
        self.q_sn, self.k_sn, self.v_sn, self.sn, self.out = (neuron.LIFNode() for _ in range(5))
        self.project = layer.Linear(size, size)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = self.q_sn(self.q(x)), self.k_sn(self.k(x)), self.v_sn(self.v(x))
        attended = self.sn((q @ k.transpose(-2, -1)) @ v * 0.125)
        return self.out(self.project(attended)) + x


def test_attention_is_refused_for_its_products() -> None:
    found = offenders(nn.Sequential(Attention(6)), (4, 6))
    products = [line for line in found if "matmul is not supported: it multiplies integers" in line]
    assert len(products) == 2
    assert all(line.startswith("0:") for line in products)


@pytest.mark.parametrize(
    ("layers", "mode", "words"),
    [
        ([layer.Linear(4, 3)], "s", "holds no neurons"),
        ([layer.Linear(4, 3), neuron.IFNode(), nn.ReLU()], "s", "the network ends in ReLU"),
        ([layer.Linear(4, 3), neuron.QIFNode()], "s", "QIFNode is not supported"),
        (
            [
                layer.Linear(4, 3),
                neuron.IFNode(surrogate_function=surrogate.Sigmoid(spiking=False)),
            ],
            "s",
            "spiking=True",
        ),
        ([nn.Linear(4, 3), nn.BatchNorm1d(3), neuron.IFNode()], "m", "layer.BatchNorm1d"),
    ],
)
def test_stacks_without_counterpart_are_refused(
    layers: list[nn.Module], mode: str, words: str
) -> None:
    assert any(words in line for line in offenders(nn.Sequential(*layers), (4,), mode))


def test_one_fault_is_one_offender() -> None:
    model = nn.Sequential(layer.Linear(4, 3), neuron.KLIFNode())
    assert offenders(model, (4,)) == (
        "1: KLIFNode is not supported: its membrane does not follow the linear equation of the "
        "chip's neurons",
    )
    (found,) = offenders(Voting(model), (4,), "m")
    assert found.startswith("body.1: KLIFNode")


def test_step_modes_that_differ_are_refused() -> None:
    model = nn.Sequential(
        layer.Linear(4, 3, step_mode="m"),
        neuron.IFNode(step_mode="m"),
        layer.Linear(3, 2, step_mode="m"),
        neuron.IFNode(step_mode="s"),
    )
    for module in (model, Voting(model)):
        with pytest.raises(UnsupportedModelError, match=r"3: IFNode: has step_mode 's'"):
            read_spikingjelly(module, (4,))


class Looped(nn.Module):
    """A network as users write it: the loop over time in its forward, the rate its answer."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(layer.Linear(14, 9), neuron.LIFNode(), layer.Linear(9, 4))
        self.out = neuron.IFNode()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        rate = 0
        for frame in x:
            rate = rate + self.out(self.net(frame))
        return rate / len(x)


class Swapped(Looped):
    """Hears pauses in place of spikes."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(1.0 - x)


def test_a_loop_over_time_is_read_and_verified() -> None:
    model = lively(Looped(), 3)
    x = random_input(8, 14)
    network = read_spikingjelly(model, (14,), samples=spikes_of(x))
    rate = own_forward(model, x, "m")
    ours = simulate(network, spikes_of(x)).output.mean(1)
    assert np.allclose(ours, np.moveaxis(rate, -1, 0), atol=1e-6)
    swapped = lively(Swapped(), 3)
    network = read_spikingjelly(swapped, (14,), samples=spikes_of(x))
    rate = own_forward(swapped, x, "m")
    ours = simulate(network, spikes_of(x)).output.mean(1)
    assert np.allclose(ours, np.moveaxis(rate, -1, 0), atol=1e-6)
    assert rate.any()


def test_a_network_is_left_in_its_initial_state() -> None:
    model = lively(Residual(), 5).train()
    model.bn1.eval()
    modes = [part.training for part in model.modules()]
    functional.set_step_mode(model, "m")
    read_spikingjelly(model, (2, 8, 8), samples=spikes_of(random_input(1, 2, 8, 8)))
    assert [part.training for part in model.modules()] == modes
    assert all(m.v == 0.0 for m in model.modules() if isinstance(m, neuron.BaseNode))


def test_parameters_that_are_no_numbers_are_refused() -> None:
    model = nn.Sequential(layer.Linear(4, 3), neuron.IFNode(v_threshold=float("nan")))
    with pytest.raises(ArtefactError, match=r"1\.v_threshold"):
        read_spikingjelly(model, (4,))
    with torch.no_grad():
        model[0].weight[0, 0] = float("inf")
    model[1].v_threshold = 1.0
    with pytest.raises(ArtefactError, match=r"0\.weight"):
        read_spikingjelly(model, (4,))


class Voting(nn.Module):
    """Answers with a rate; `again` has a layer hear that rate."""

    def __init__(self, body: nn.Module, again: nn.Module | None = None) -> None:
        super().__init__()
        self.body, self.again = body, again

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        rate = self.body(x).sum(0) / x.shape[0]
        return rate if self.again is None else self.again(rate)


def contained(container: type) -> nn.Module:
    inner = nn.Sequential(nn.Conv2d(2, 4, 3, bias=False), nn.BatchNorm2d(4))
    first = layer.SeqToANNContainer(inner, nn.AvgPool2d(2))
    last = container(nn.Flatten(), nn.Linear(36, 5), neuron.IFNode(0.5))
    model = lively(nn.Sequential(first, neuron.IFNode(0.5), last).double(), 7)
    functional.set_step_mode(model, "m")
    functional.set_step_mode(last, "s")
    return model


@pytest.mark.parametrize("own", [False, True])
def test_containers_keep_the_time_axis_from_torchs_layers(own: bool) -> None:
    model = contained(layer.MultiStepContainer)
    x = random_input(9, 2, 8, 8).double()
    rates = own_forward(model, x, "m").mean(1)
    module = Voting(model) if own else model
    network = read_spikingjelly(module, (2, 8, 8), samples=spikes_of(x))
    output = simulate(network, spikes_of(x)).output
    assert np.array_equal(output.mean(1), rates)
    assert rates.any()
    assert any("Voting verified" in note for note in network.notes) == own


@pytest.mark.parametrize("own", [False, True])
def test_a_node_that_takes_all_steps_at_once_is_refused(own: bool) -> None:
    model = contained(layer.SeqToANNContainer)
    with pytest.raises(UnsupportedModelError, match="takes all time steps at once"):
        read_spikingjelly(Voting(model) if own else model, (2, 8, 8))


def test_neurons_that_hear_a_rate_are_refused() -> None:
    again = nn.Sequential(nn.Linear(5, 2), neuron.IFNode()).double()
    model = Voting(contained(layer.MultiStepContainer), again)
    with pytest.raises(UnsupportedModelError, match=r"again\.1: IFNode hears a mean over time"):
        read_spikingjelly(model, (2, 8, 8))
