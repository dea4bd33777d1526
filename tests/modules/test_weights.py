"""Which weights are found, which neuron hears them, and how their inputs are taken apart."""

from __future__ import annotations

from typing import Any

import norse.torch as norse
import numpy as np
import pytest
import snntorch
import torch
from spikingjelly.activation_based import functional, layer, neuron
from torch import nn
from torch.nn.utils import prune

from osbc_deploy.errors import UnsupportedModelError, UsageError
from osbc_deploy.frameworks.calling import described
from osbc_deploy.frameworks.norse.reading import NORSE
from osbc_deploy.frameworks.snntorch.reading import SNNTORCH
from osbc_deploy.frameworks.spikingjelly.reading import SPIKINGJELLY
from osbc_deploy.modules.session import PLAIN, Session, session_of
from osbc_deploy.modules.weights import Weight, find_weights

STEPS = 6


def found(
    module: nn.Module, framework: Any, shape: tuple[int, ...]
) -> tuple[Session, list[Weight]]:
    module.eval()
    rng = np.random.default_rng(1)
    samples = (rng.random((9, STEPS, *shape)) < 0.5).astype(np.uint8)
    with torch.no_grad():
        session = session_of(module, framework, "m", samples, 4)
        return session, list(find_weights(session, samples).weights)


def lively(module: nn.Module) -> nn.Module:
    """Make neurons fire: with weights as they are built, they rarely do."""
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.ndim > 1:
                parameter.mul_(4).add_(0.1)
    return module


class Residual(nn.Module):
    """The shortcut of a block goes by its neurons; the sum is heard by the next ones."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = layer.Conv2d(1, 4, 3, padding=1)
        self.first = neuron.LIFNode(tau=2.0)
        self.block = nn.Sequential(layer.Conv2d(4, 4, 3, padding=1), layer.BatchNorm2d(4))
        self.pool = layer.MaxPool2d(2, 2)
        self.second = neuron.LIFNode(tau=4.0)
        self.head = layer.Linear(16, 3)
        functional.set_step_mode(self, "m")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        current = self.stem(x)
        current = self.block(self.first(current)) + current
        spikes = self.second(self.pool(current)).flatten(2)
        return self.head(spikes).mean(0)


def test_a_weight_belongs_to_the_neuron_that_it_reaches_first() -> None:
    _, weights = found(lively(Residual()), SPIKINGJELLY, (1, 4, 4))
    assert {w.name: w.neurons for w in weights} == {
        "stem": ("first",),
        "block.0": ("second",),
        "head": (),
    }
    assert [w.why for w in weights] == ["", "", "no neuron behind it"]
    kept = {w.name: w.uses[0].dynamics for w in weights}
    assert kept["stem"] is not None
    assert float(kept["stem"].decay_v) == 0.5
    assert float(kept["block.0"].decay_v) == 0.75


class Attention(nn.Module):
    """Integers are multiplied by integers, and what comes of it goes into neurons."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.v = (layer.Linear(6, 6) for _ in range(2))
        self.q_node, self.out_node = neuron.LIFNode(tau=2.0), neuron.LIFNode(tau=2.0)
        self.out = layer.Linear(6, 6)
        functional.set_step_mode(self, "m")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        tokens = x.flatten(0, 1).transpose(-1, -2).contiguous()
        q = self.q_node(self.q(tokens).reshape(*x.shape[:2], 5, 6))
        mixed = (q @ q.transpose(-1, -2)) @ self.v(tokens).reshape(q.shape)
        return self.out_node(self.out(mixed)).mean((0, 2))


def test_tokens_in_the_batch_are_taken_apart_and_products_of_signals_end_the_way() -> None:
    _, weights = found(lively(Attention()), SPIKINGJELLY, (6, 5))
    assert {w.name: (w.neurons, w.why) for w in weights} == {
        "q": (("q_node",), ""),
        "v": ((), "no neuron behind it"),
        "out": (("out_node",), ""),
    }
    assert {w.uses[0].layout.order for w in weights} == {"time first"}


class Loop(nn.Module):
    """snnTorch's usual class: a loop over time, states passed along, one layer used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.lif1 = nn.Linear(7, 7), snntorch.Leaky(beta=0.8)
        self.lif2 = snntorch.Leaky(beta=0.5)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        mem1, mem2 = self.lif1.init_leaky(), self.lif2.init_leaky()
        spikes, potentials = [], []
        for frame in x:
            spk1, mem1 = self.lif1(self.fc1(frame), mem1)
            spk2, mem2 = self.lif2(self.fc1(spk1), mem2)
            spikes.append(spk2)
            potentials.append(mem2)
        return torch.stack(spikes), torch.stack(potentials)


def test_a_layer_used_twice_in_a_loop_over_time_has_two_uses() -> None:
    session, weights = found(lively(Loop()), SNNTORCH, (7,))
    assert described(session.call) == "one call, time first"
    (weight,) = weights
    assert weight.neurons == ("lif1", "lif2")
    assert [float(u.dynamics.decay_v) for u in weight.uses if u.dynamics] == pytest.approx(
        [0.8, 0.5]
    )
    assert [(u.layout.first, u.layout.stride) for u in weight.uses] == [(0, 2), (1, 2)]
    # What it hears first is the input.
    samples = (np.random.default_rng(2).random((3, STEPS, 7)) < 0.5).astype(np.uint8)
    with torch.no_grad():
        heard = session.heard(samples, [weight.key])
    calls = weight.heard(heard)
    assert (weight.inputs(weight.uses[0], calls, 3, STEPS) == samples).all()
    assert set(np.unique(weight.inputs(weight.uses[1], calls, 3, STEPS))) == {0, 1}


def test_weights_of_a_recurrent_cell_are_heard_by_it() -> None:
    cell = norse.SequentialState(norse.LIFRecurrentCell(5, 4), nn.Linear(4, 3), norse.LIFCell())
    _, weights = found(lively(cell), NORSE, (5,))
    assert {w.name: w.neurons for w in weights} == {
        "0.input_weights": ("0",),
        "0.recurrent_weights": ("0",),
        "1": ("2",),
    }


class Static(nn.Module):
    """Shows itself an image, or what a first layer makes of it, for some steps."""

    def __init__(self, *, loop: bool) -> None:
        super().__init__()
        self.once, self.each = nn.Linear(4, 6), nn.Linear(6, 6)
        self.first, self.second = neuron.LIFNode(tau=2.0), neuron.LIFNode(tau=2.0)
        self.loop = loop
        functional.set_step_mode(self, "s" if loop else "m")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        current = self.once(x)
        if self.loop:
            return sum(self.second(self.each(self.first(current))) for _ in range(5)) / 5
        return self.second(self.each(self.first(current.repeat(5, 1, 1)))).mean(0)


@pytest.mark.parametrize("loop", [False, True])
def test_steps_within_the_model_are_found_for_images_without_time(loop: bool) -> None:
    module = lively(Static(loop=loop)).eval()
    samples = np.random.default_rng(4).random((9, 1, 4), np.float32)
    with torch.no_grad():
        session = session_of(module, SPIKINGJELLY, "m", samples, 4)
        once, each = find_weights(session, samples).weights
        heard = session.heard(samples[:2], [each.key])
    assert session.steps == 5
    assert (once.neurons, once.why) == (("first",), "no time axis in its input")
    assert (each.neurons, each.why) == (("second",), "")
    seen = each.inputs(each.uses[0], each.heard(heard), 2, 5)
    # LIFNode: v <- v + (x - v) / 2, then 0 where it fired.
    v, wanted = np.zeros((2, 6)), []
    with torch.no_grad():
        current = module.once(torch.from_numpy(samples[:2, 0])).numpy()
    for _ in range(5):
        v = v + (current - v) / 2
        wanted.append(v >= 1)
        v = np.where(v >= 1, 0, v)
    assert (seen == np.stack(wanted, axis=1)).all()
    assert 0 < seen.mean() < 1


class SamplesFirst(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(layer.Linear(4, 5), neuron.LIFNode(tau=2.0), layer.Linear(5, 3))
        functional.set_step_mode(self, "m")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        frames = self.body[0](x).transpose(0, 1)
        return self.body[2](self.body[1](frames)).mean(0)


def test_samples_may_come_first() -> None:
    session, (before, after) = found(lively(SamplesFirst()), SPIKINGJELLY, (4,))
    assert described(session.call) == "one call, samples first"
    assert before.uses[0].layout.order == "samples first"
    assert after.uses[0].layout.order == "time first"


class Functional(nn.Module):
    """Weights that no layer holds; a padding of 'same' around an even kernel."""

    def __init__(self) -> None:
        super().__init__()
        self.kernel = nn.Parameter(torch.randn(3, 2, 4))
        self.node = neuron.IFNode(step_mode="m")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        current = nn.functional.conv1d(x.flatten(0, 1), self.kernel, padding="same")
        return self.node(current.unflatten(0, x.shape[:2])).flatten(2)


@pytest.mark.filterwarnings("ignore:Using padding='same'")
def test_functions_count_as_layers_with_their_padding() -> None:
    session, (weight,) = found(Functional(), SPIKINGJELLY, (2, 5))
    assert (weight.name, weight.neurons, weight.why) == ("kernel", ("node",), "")
    samples = (np.random.default_rng(3).random((3, STEPS, 2, 5)) < 0.5).astype(np.uint8)
    with torch.no_grad():
        heard = session.heard(samples, [weight.key])
    seen = weight.inputs(weight.uses[0], weight.heard(heard), 3, STEPS)
    wanted = np.pad(samples, [(0, 0), (0, 0), (0, 0), (1, 2)])
    assert (seen == wanted[:, :, :, None]).all()


class Ours(nn.Module):
    """A neuron of the user's own, which keeps its state and can forget it."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 3)
        self.v: Any = 0.0

    def reset(self) -> None:
        self.v = 0.0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.v = 0.5 * self.v + self.fc(x)
        spikes = (self.v >= 1).float()
        self.v = self.v * (1 - spikes)
        return spikes


def test_neurons_of_ones_own_are_run_but_not_known() -> None:
    session, (weight,) = found(lively(Ours()), PLAIN, (4,))
    assert described(session.call) == "one call per time step, its state kept inside"
    assert (weight.neurons, weight.why) == ((), "no neuron behind it")


def test_a_batchnorm_behind_scales_rows_and_takes_the_bias() -> None:
    stack = nn.Sequential(nn.Conv2d(1, 3, 3, bias=False), nn.BatchNorm2d(3), neuron.LIFNode())
    norm: Any = stack[1]
    norm.running_var = torch.tensor([0.25, 4.0, 1.0]) - norm.eps
    norm.weight.data = torch.tensor([1.0, -3.0, 0.0])
    _, (weight,) = found(stack, SPIKINGJELLY, (1, 4, 4))
    # The third channel is constant, and has no scale.
    assert weight.gain == pytest.approx([2.0, 1.5, 1.0])
    assert weight.slot is not None
    assert weight.slot.name == "1.bias"
    assert list(weight.slot.factor) == [1.0, -1.0, 0.0]


def parametrized() -> nn.Module:
    stack = nn.Sequential(nn.Linear(4, 3), neuron.LIFNode(), nn.Linear(3, 3), neuron.LIFNode())
    nn.utils.parametrizations.weight_norm(stack[0])
    prune.l1_unstructured(stack[2], "weight", 0.5)
    return stack


class Rounded(nn.Linear):
    """Computes with other weights than it keeps."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.linear(x, (self.weight * 8).round() / 8, self.bias)


class Unused(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc, self.node, self.spare = nn.Linear(4, 3), neuron.LIFNode(), nn.Linear(9, 9)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.node(self.fc(x))


class Mixing(nn.Module):
    """Samples of a batch are not apart."""

    def __init__(self) -> None:
        super().__init__()
        self.fc, self.node = nn.Linear(4, 3), neuron.LIFNode()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.node(self.fc(x)) + x.mean()


@pytest.mark.parametrize(
    ("module", "said"),
    [
        (nn.Sequential(neuron.LIFNode()), "no linear or convolutional layer"),
        (parametrized(), r"computed from other tensors[^~]*- 0\n[^~]*- 2\n"),
        (
            nn.Sequential(Rounded(4, 3), neuron.LIFNode()),
            r"computed from other tensors[^~]*- 0\n[^~]*put what it computes into a plain Linear",
        ),
        (Unused(), r"never run[^~]*- spare\n"),
        (lively(Mixing()), "depends on the others"),
        (nn.Sequential(nn.Linear(5, 3), neuron.LIFNode()), r"shape \(6, 4\)[^~]*cannot be mult"),
    ],
)
def test_what_cannot_be_compressed_is_refused(module: nn.Module, said: str) -> None:
    with pytest.raises(UnsupportedModelError, match=said):
        found(module, SPIKINGJELLY, (4,))


def test_parameters_that_share_memory_must_be_one() -> None:
    stack = nn.Sequential(nn.Linear(4, 4), neuron.LIFNode(), nn.Linear(4, 4), neuron.LIFNode())
    stack[2].weight.data = stack[0].weight.data
    with pytest.raises(UnsupportedModelError, match="without being one\n  - 0 and 2"):
        found(stack, SPIKINGJELLY, (4,))


def test_what_is_excluded_stays_and_must_be_there() -> None:
    module = Unused().eval()
    samples = np.ones((4, STEPS, 4), np.uint8)
    with torch.no_grad():
        session = session_of(module, SPIKINGJELLY, "m", samples, 4)
        done = find_weights(session, samples, ["spare"])
        assert [w.name for w in done.weights] == ["fc"]
        with pytest.raises(UsageError, match=r"no layer 'head', 'x'\. It has fc, spare"):
            find_weights(session, samples, ["head", "spare", "x"])


class Seldom(nn.Module):
    """snnTorch's usual loop over time, whose outputs need much input to fire."""

    def __init__(self, threshold: float) -> None:
        super().__init__()
        self.fc, self.node = nn.Linear(12, 4, bias=False), neuron.LIFNode(v_threshold=threshold)
        with torch.no_grad():
            self.fc.weight.copy_(torch.arange(48).reshape(4, 12) % 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        functional.reset_net(self)
        return torch.stack([self.node(self.fc(frame)) for frame in x])


@pytest.mark.parametrize("fires", [True, False])
def test_samples_that_leave_the_outputs_silent_do_not_tell_how_a_model_is_called(
    fires: bool,
) -> None:
    samples = np.zeros((9, STEPS, 12), np.uint8)
    samples[:, 0, 0] = 1
    if fires:
        samples[3:, 0] = np.random.default_rng(0).random((6, 12)) < 0.7
    with torch.no_grad():
        session = session_of(Seldom(3.0 if fires else 1e6).eval(), SPIKINGJELLY, "m", samples, 4)
    said = list(session.doubts())
    if fires:
        assert described(session.call) == "one call, time first"
        assert said == []
    else:
        (text,) = said
        assert "in any of them the order of time steps makes no difference" in text
