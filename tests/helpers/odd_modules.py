"""Random networks of each framework, with whatever may act on layers beside what they register.

``draw`` makes a network and does one odd thing to it; ``forward`` runs it as its framework does.
Neither knows how networks are imported; ``outcome`` imports one and compares.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import norse.torch as norse
import numpy as np
import snntorch as snn
import torch
from snntorch import utils
from spikingjelly.activation_based import functional, layer, neuron
from torch import nn
from torch.nn.utils import parametrizations, parametrize, prune

from osbc_deploy.data.samples import check_samples
from osbc_deploy.errors import UnsupportedModelError
from osbc_deploy.importing import import_network
from osbc_deploy.model.graph import Network
from osbc_deploy.model.simulate import simulate

__all__ = ["FRAMEWORKS", "KINDS", "LOADABLE", "Outcome", "outcome"]

FRAMEWORKS = ("norse", "snnTorch", "SpikingJelly")
LOADABLE = (
    "plain",
    "weight_norm",
    "weight_norm, parametrized",
    "spectral_norm",
    "spectral_norm, parametrized",
    "pruned",
    "parametrized",
    "rounded in a pre-hook",
    "pooling reused",
    "BatchNorm reused",
    "hook that only looks",
    "own forward",
    "own forward over time",
    "own order",
)
"""What has to be imported, not refused."""
KINDS = (
    *LOADABLE,
    "hook",
    "hook on a cell",
    "pre-hook",
    "hook of all modules",
    "forward replaced",
    "cell's forward replaced",
    "block reused",
    "start elsewhere",
    "clamp",
    "clamp, rare",
    "some samples",
    "later steps",
    "early exit",
    "in place",
    "batch",
    "random",
    "grows",
    "counts calls",
    "hook on the model",
)
STEPS = 12


@dataclass
class Case:
    """A network and how it is called."""

    framework: str
    kind: str
    module: nn.Module
    shape: tuple[int, ...]
    rate: float
    one_call: bool
    undo: list[Callable[[], None]] = field(default_factory=list)

    def close(self) -> None:
        """Take away what it has set outside of its module."""
        for step in self.undo:
            step()


def raster(case: Case, count: int, seed: int) -> np.ndarray[Any, Any]:
    """Draw samples (count, STEPS, *shape)."""
    rng = np.random.default_rng(seed)
    return (rng.random((count, STEPS, *case.shape)) < case.rate).astype(np.uint8)


def forward(case: Case, spikes: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Run the framework itself, in the precision of its weights, and return (n, T, ...)."""
    dtype = next(case.module.parameters()).dtype
    x = torch.from_numpy(np.moveaxis(spikes, 1, 0).copy()).to(dtype)
    case.module.eval()
    with torch.no_grad():
        answer = _run(case, x)
    return answer.movedim(0, 1).numpy()


def _run(case: Case, x: torch.Tensor) -> torch.Tensor:
    module = case.module
    if case.framework == "SpikingJelly":
        functional.reset_net(module)
    if case.framework == "snnTorch":
        utils.reset(module)
    if case.one_call:
        answer: torch.Tensor = module(x)
    elif case.framework == "norse":
        state, outputs = None, []
        for frame in x:
            output, state = module(frame, state)
            outputs.append(output)
        answer = torch.stack(outputs)
    else:
        outputs = [module(frame) for frame in x]
        outputs = [o[0] if isinstance(o, tuple) else o for o in outputs]
        answer = torch.stack(outputs)
    if case.framework == "SpikingJelly":
        functional.reset_net(module)
    if case.framework == "snnTorch":
        utils.reset(module)
    return answer


class _Draw:
    """Draws layers of one framework."""

    def __init__(self, framework: str, rng: np.random.Generator) -> None:
        self.framework, self.rng = framework, rng
        self.mode = str(rng.choice(["s", "m"])) if framework == "SpikingJelly" else "s"
        self.torch: Any = layer if framework == "SpikingJelly" else nn

    def cell(self) -> nn.Module:
        rng = self.rng
        threshold, leak = float(rng.uniform(0.3, 0.8)), float(rng.uniform(0.4, 0.95))
        if self.framework == "norse":
            inverse = torch.tensor(1000 * (1 - leak) + 100)
            if rng.random() < 0.5:
                box = norse.LIFBoxParameters(tau_mem_inv=inverse, v_th=torch.tensor(threshold))
                return norse.LIFBoxCell(box)
            cuba = norse.LIFParameters(tau_mem_inv=inverse, v_th=torch.tensor(threshold / 2))
            return norse.LIFCell(cuba)
        if self.framework == "snnTorch":
            reset = str(rng.choice(["subtract", "zero"]))
            if rng.random() < 0.5:
                return snn.Leaky(leak, threshold, init_hidden=True, reset_mechanism=reset)
            return snn.Synaptic(0.5, leak, threshold, init_hidden=True, reset_mechanism=reset)
        v_reset = None if rng.random() < 0.5 else 0.0
        if rng.random() < 0.5:
            return neuron.IFNode(threshold, v_reset)
        return neuron.LIFNode(1 / (1.05 - leak), bool(rng.integers(2)), threshold / 2, v_reset)

    def dense(self, *, norm: bool) -> tuple[list[nn.Module], tuple[int, ...]]:
        size = int(self.rng.integers(6, 12))
        layers: list[nn.Module] = []
        before = size
        for _ in range(int(self.rng.integers(2, 4))):
            after = int(self.rng.integers(6, 16))
            layers.append(self.torch.Linear(before, after, bias=bool(self.rng.integers(2))))
            layers += [self.torch.BatchNorm1d(after)] if norm and self.mode == "s" else []
            layers += [self.torch.Dropout(0.3)] if self.rng.random() < 0.3 else []
            layers.append(self.cell())
            before = after
        return layers, (size,)

    def conv(self, *, norm: bool, pooled: bool = True) -> tuple[list[nn.Module], tuple[int, ...]]:
        size = int(self.rng.choice([6, 8]))
        layers: list[nn.Module] = []
        for before, after in ((2, 4), (4, 4)):
            layers.append(self.torch.Conv2d(before, after, 3, padding=1))
            layers += [self.torch.BatchNorm2d(after)] if norm else []
            layers.append(self.cell())
        left = size
        if pooled:
            # Of currents, or of spikes.
            layers.insert(len(layers) - int(self.rng.integers(2)), self.torch.AvgPool2d(2))
            left = size // 2
        layers += [self.torch.Flatten(), self.torch.Linear(4 * left * left, 5), self.cell()]
        return layers, (2, size, size)

    def container(self, layers: list[nn.Module]) -> nn.Module:
        made: nn.Module = (norse.SequentialState if self.framework == "norse" else nn.Sequential)(
            *layers
        )
        return made


Between = Callable[[int, torch.Tensor, int], torch.Tensor]


class Own(nn.Module):
    """A network as users write it; `between` acts on what each layer gives, (layer, x, step)."""

    def __init__(self, layers: list[nn.Module], framework: str, between: Between) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.framework, self.between = framework, between

    def step(self, x: torch.Tensor, states: dict[int, Any], t: int) -> torch.Tensor:
        for number, made in enumerate(self.layers):
            if hasattr(made, "state_fallback"):
                x, states[number] = made(x, states.get(number))
            else:
                x = made(x)
            x = self.between(number, x, t)
        return x

    def forward(self, x: torch.Tensor, state: Any = None) -> Any:
        states = {} if state is None else state
        answer = self.step(x, states, 0)
        return (answer, states) if self.framework == "norse" else answer


class OverTime(Own):
    """The same with the loop over time in its forward."""

    stop = 0

    def forward(self, x: torch.Tensor, state: Any = None) -> Any:
        states: dict[int, Any] = {}
        answers = []
        for t, frame in enumerate(x):
            answers.append(self.step(frame, states, t))
            if self.stop and sum(a.sum() for a in answers) > self.stop * x.shape[1]:
                break
        answers += [torch.zeros_like(answers[0])] * (len(x) - len(answers))
        return torch.stack(answers)


class Ordered(nn.Module):
    """Registers its layers in another order than it calls them, and one pooling once for two."""

    def __init__(self, draw: _Draw) -> None:
        super().__init__()
        self.pool = draw.torch.AvgPool2d(2)
        self.out, self.two, self.one = draw.cell(), draw.cell(), draw.cell()
        self.fc = draw.torch.Linear(16, 5)
        self.conv2, self.conv1 = (draw.torch.Conv2d(n, 4, 3, padding=1) for n in (4, 2))
        self.flatten = draw.torch.Flatten()
        self.framework = draw.framework

    def forward(self, x: torch.Tensor, state: Any = None) -> Any:
        states = {} if state is None else state

        def fire(cell: nn.Module, x: torch.Tensor) -> torch.Tensor:
            if self.framework != "norse":
                fired: torch.Tensor = cell(x)
                return fired
            fired, states[id(cell)] = cell(x, states.get(id(cell)))
            return fired

        x = self.pool(fire(self.one, self.conv1(x)))
        x = self.pool(fire(self.two, self.conv2(x)))
        x = fire(self.out, self.fc(self.flatten(x)))
        return (x, states) if self.framework == "norse" else x


def _lively(module: nn.Module, rng: np.random.Generator) -> None:
    """Give weights that make neurons fire, and statistics to normalizations."""
    with torch.no_grad():
        for part in module.modules():
            if isinstance(part, nn.Conv2d | nn.Linear):
                scale = 2.2 / part.weight[0].numel() ** 0.5
                part.weight.copy_(scale * torch.randn(part.weight.shape) + 0.15 * scale)
            if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d):
                part.running_mean.uniform_(-0.3, 0.3)
                part.running_var.uniform_(0.4, 2.0)
                part.weight.uniform_(0.6, 1.5)
                part.bias.uniform_(-0.1, 0.4)


class _Standardized(nn.Module):
    """Has the weights of each output average 0."""

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        return weight - 0.5 * weight.flatten(1).mean(1).reshape(-1, *[1] * (weight.ndim - 1))


class _Counts:
    """Halves what a layer gives from its n-th call on."""

    def __init__(self, start: int) -> None:
        self.left = start

    def __call__(self, module: nn.Module, given: Any, answer: torch.Tensor) -> torch.Tensor:
        self.left -= 1
        return answer if self.left > 0 else 0.5 * answer


_REFRESHED = {
    "weight_norm": torch.nn.utils.weight_norm,
    "weight_norm, parametrized": parametrizations.weight_norm,
    "spectral_norm": torch.nn.utils.spectral_norm,
    "spectral_norm, parametrized": parametrizations.spectral_norm,
    "parametrized": lambda m: parametrize.register_parametrization(m, "weight", _Standardized()),
    "pruned": lambda m: prune.l1_unstructured(m, "weight", 0.4),
}


def draw(framework: str, kind: str, seed: int) -> Case:
    """Draw a network of a framework with something odd about it."""
    torch.manual_seed(seed)
    rng = np.random.default_rng([seed, FRAMEWORKS.index(framework)])
    drawing = _Draw(framework, rng)
    needs_conv = kind in ("pooling reused", "BatchNorm reused")
    by_step = ("own", "clamp", "some", "later", "early", "in place", "batch", "random", "block")
    if kind.startswith(by_step):
        drawing.mode = "s"
    norm = bool(rng.random() < 0.5) and kind != "BatchNorm reused"
    if needs_conv or rng.random() < 0.5:
        layers, shape = drawing.conv(norm=norm, pooled=kind != "pooling reused")
    else:
        layers, shape = drawing.dense(norm=norm)
    case = Case(framework, kind, nn.Identity(), shape, float(rng.uniform(0.2, 0.5)), False)
    _place(case, drawing, layers, rng)
    _lively(case.module, rng)
    if framework == "SpikingJelly":
        functional.set_step_mode(case.module, drawing.mode)
        case.one_call |= drawing.mode == "m"
    _act(case, rng)
    case.module.eval()
    return case


def _place(case: Case, drawing: _Draw, layers: list[nn.Module], rng: np.random.Generator) -> None:
    """Put layers into a container or a module of one's own."""
    kind = case.kind
    weighted = [n for n, m in enumerate(layers) if isinstance(m, nn.Linear | nn.Conv2d)]
    chosen = int(rng.choice(weighted))
    if kind == "pooling reused":
        pool = drawing.torch.AvgPool2d(3, 1, 1)
        places = [n for n, m in enumerate(layers) if isinstance(m, nn.Conv2d)]
        for n in reversed(places[1:]):
            layers.insert(n, pool)
        layers.insert(0, pool)
    elif kind == "BatchNorm reused":
        shared = drawing.torch.BatchNorm2d(4)
        for n in reversed([n for n, m in enumerate(layers) if isinstance(m, nn.Conv2d)]):
            layers.insert(n + 1, shared)
    elif kind == "block reused":
        size = layers[-2].out_features if isinstance(layers[-2], nn.Linear) else None
        last = next(m for m in reversed(layers) if isinstance(m, nn.Linear))
        size = last.out_features
        block = drawing.container([drawing.torch.Linear(size, size), drawing.cell()])
        layers += [block, block]
    if kind in _BETWEEN or kind.startswith("own forward") or kind == "early exit":
        late = kind in ("later steps", "own forward over time", "early exit")
        over = late or (rng.random() < 0.5)
        between = _BETWEEN.get(kind, _unchanged)(chosen, rng)
        made = (OverTime if over else Own)(layers, case.framework, between)
        if kind == "early exit":
            made.stop = int(rng.integers(2, 8))  # type: ignore[union-attr]
        case.module, case.one_call = made, over
    elif kind == "own order":
        case.module, case.shape = Ordered(drawing), (2, 8, 8)
    else:
        case.module = drawing.container(layers)


def _unchanged(chosen: int, rng: np.random.Generator) -> Between:
    return lambda number, x, t: x


def _clamped(low: float, high: float) -> Any:
    def make(chosen: int, rng: np.random.Generator) -> Between:
        level = float(rng.uniform(low, high))
        return lambda number, x, t: x.clamp(-level, level) if number == chosen else x

    return make


def _some_samples(chosen: int, rng: np.random.Generator) -> Between:
    def act(number: int, x: torch.Tensor, t: int) -> torch.Tensor:
        if number != chosen:
            return x
        strong = x.flatten(1).mean(1) > level
        return torch.where(strong.reshape(-1, *[1] * (x.ndim - 1)), 0.7 * x, x)

    level = float(rng.uniform(0.2, 1.0))
    return act


def _later(chosen: int, rng: np.random.Generator) -> Between:
    start = int(rng.integers(1, STEPS))
    return lambda number, x, t: 0.8 * x if number == chosen and t >= start else x


def _in_place(chosen: int, rng: np.random.Generator) -> Between:
    return lambda number, x, t: x.mul_(0.9) if number == chosen else x


def _batch(chosen: int, rng: np.random.Generator) -> Between:
    return lambda number, x, t: x - 0.1 * x.mean(0) if number == chosen else x


def _random(chosen: int, rng: np.random.Generator) -> Between:
    return lambda number, x, t: x + 0.2 * torch.randn_like(x) if number == chosen else x


_BETWEEN: dict[str, Any] = {
    "clamp": _clamped(0.2, 1.5),
    "clamp, rare": _clamped(2.0, 4.0),
    "some samples": _some_samples,
    "later steps": _later,
    "in place": _in_place,
    "batch": _batch,
    "random": _random,
}


def _act(case: Case, rng: np.random.Generator) -> None:
    """Do to a finished network what its kind says."""
    module, kind = case.module, case.kind
    weighted = [m for m in module.modules() if isinstance(m, nn.Linear | nn.Conv2d)]
    cells = [m for m in module.modules() if _is_cell(m)]
    target: Any = weighted[int(rng.integers(len(weighted)))]
    cell: Any = cells[int(rng.integers(len(cells)))]
    factor = float(rng.uniform(0.4, 0.95))
    if kind in _REFRESHED:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for part in weighted:
                _REFRESHED[kind](part)
        _load_others(module)
    elif kind == "rounded in a pre-hook":
        target.register_buffer("exact", target.weight.detach().clone())
        target.register_forward_pre_hook(_rounded)
    elif kind == "hook that only looks":
        seen: list[torch.Tensor] = []
        target.register_forward_hook(lambda m, x, y: seen.append(y.mean()))
    elif kind == "hook":
        target.register_forward_hook(lambda m, x, y: factor * y)
    elif kind == "hook on a cell":
        cell.register_forward_hook(lambda m, x, y: _first_of(y, lambda s: s * (s.mean() < factor)))
    elif kind == "pre-hook":
        target.register_forward_pre_hook(lambda m, x: (factor * x[0],))
    elif kind == "hook of all modules":
        handle = nn.modules.module.register_module_forward_hook(
            lambda m, x, y: y.clamp(max=1.0) if isinstance(m, nn.Linear | nn.Conv2d) else None
        )
        case.undo.append(handle.remove)
    elif kind == "forward replaced":
        before = target.forward
        target.forward = lambda x: torch.relu(before(x))
    elif kind == "cell's forward replaced":
        inner = cell.forward
        cell.forward = lambda x, *state: inner(factor * x, *state)
        if case.framework == "norse":
            cell.forward = lambda x, state=None: inner(factor * x, state)
    elif kind == "start elsewhere":
        _start_elsewhere(case, cell, factor)
    elif kind == "counts calls":
        target.register_forward_hook(_Counts(int(rng.integers(1, 2 * STEPS))))
    elif kind == "hook on the model":
        module.register_forward_pre_hook(lambda m, x: (x[0] * factor, *x[1:]))
    elif kind == "grows":
        target.register_forward_pre_hook(lambda m, x: m.weight.data.mul_(1.01) and None)


def _is_cell(module: nn.Module) -> bool:
    return isinstance(module, snn.SpikingNeuron | neuron.BaseNode) or hasattr(
        module, "state_fallback"
    )


def _rounded(module: Any, given: Any) -> None:
    with torch.no_grad():
        module.weight.copy_((module.exact.to(module.weight) * 8).round() / 8)


def _first_of(answer: Any, change: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    return (change(answer[0]), *answer[1:]) if isinstance(answer, tuple) else change(answer)


def _load_others(module: nn.Module) -> None:
    """Load weights of the same architecture, after which derived ones are out of date."""
    state = {
        name: value * 1.2 if value.is_floating_point() and name.endswith(("_g", "original0"))
        else value
        for name, value in module.state_dict().items()
    }  # fmt: skip
    module.load_state_dict(state)


def _start_elsewhere(case: Case, cell: Any, level: float) -> None:
    if case.framework == "norse":
        first = cell.state_fallback
        cell.state_fallback = lambda x: first(x)._replace(v=torch.full_like(x, 0.5 * level))
    elif case.framework == "SpikingJelly":
        cell.set_reset_value("v", 0.2 * level)
    else:
        # Before the first step its potential has no shape.
        before = cell.forward

        def started(x: torch.Tensor) -> Any:
            if cell.mem.shape != x.shape or not cell.mem.any():
                cell.mem = torch.full_like(x, 0.2 * level)
            return before(x)

        cell.forward = started


@dataclass(frozen=True)
class Outcome:
    """What became of a network, and what was said.

    It is equal, equal in double precision, refused, refused since its output is silent, or wrong.
    """

    what: str
    said: str


def outcome(framework: str, kind: str, seed: int) -> Outcome:
    """Import a network and compare it with its framework on samples that the import never saw."""
    case = draw(framework, kind, seed)
    try:
        network = import_network(case.module, None, check_samples("cal", raster(case, 64, seed)))
        differ = _differ(case, network, raster(case, 64, seed + 10**6))
    except UnsupportedModelError as error:
        return Outcome("silent" if "is silent" in str(error) else "refused", str(error))
    finally:
        case.close()
    said = f"{differ} values differ; " + "; ".join(network.notes)
    if not differ:
        return Outcome("equal", said)
    case = draw(framework, kind, seed)
    case.module.double()
    for cell in case.module.modules():
        if isinstance(cell, snn.SpikingNeuron):
            # Its surrogates fire in single precision, which no layer of double precision takes.
            cell.register_forward_hook(lambda m, x, y: _first_of(y, torch.Tensor.double))
    try:
        network = import_network(case.module, None, check_samples("cal", raster(case, 64, seed)))
        differ = _differ(case, network, raster(case, 64, seed + 10**6))
    finally:
        case.close()
    return Outcome("wrong" if differ else "equal in double", said)


def _differ(case: Case, network: Network, spikes: np.ndarray[Any, Any]) -> int:
    expected = forward(case, spikes)
    return int(np.count_nonzero(simulate(network, spikes).output != expected))
