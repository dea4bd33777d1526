"""Weights of modules, compressed in their framework: codes, files, accuracy."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import norse.torch as norse
import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from spikingjelly.activation_based import functional, layer, neuron
from torch import nn

import osbc_deploy
from osbc_deploy.bundled import models
from osbc_deploy.bundled.digits import digits_events
from osbc_deploy.checkpoints import read_state
from osbc_deploy.compress import CompressionOptions, compress, sampling
from osbc_deploy.data.samples import check_samples
from osbc_deploy.errors import ArtefactError, UnsupportedModelError, UsageError
from osbc_deploy.frameworks.spikingjelly.reading import SPIKINGJELLY
from osbc_deploy.importing import import_network
from osbc_deploy.modules.scene import moments_of
from osbc_deploy.modules.session import session_of
from osbc_deploy.modules.weights import find_weights
from osbc_deploy.options import CompressOptions
from osbc_deploy.options.option import rows
from osbc_deploy.report.modules.build import compression_json_schema


def bundled(name: str) -> nn.Module:
    module: nn.Module = getattr(models, name)()
    module.load_state_dict(read_state(models.weights_path(name)))
    return module


def net(mode: str = "m") -> nn.Sequential:
    """Return a small network that fires, its convolution grouped and strided."""
    torch.manual_seed(3)
    stack = nn.Sequential(
        layer.Conv2d(2, 4, 3, stride=2, padding=1, groups=2, bias=False),
        layer.BatchNorm2d(4),
        neuron.LIFNode(tau=3.0),
        layer.Flatten(),
        layer.Linear(36, 5),
        neuron.IFNode(),
    )
    functional.set_step_mode(stack, mode)
    norm: Any = stack[1]
    with torch.no_grad():
        norm.running_mean.uniform_(-1, 0.1)
        norm.running_var.uniform_(0.01, 0.5)
    return stack.eval()


def spikes(n: int = 44, seed: int = 5) -> np.ndarray[Any, Any]:
    return (np.random.default_rng(seed).random((n, 7, 2, 6, 6)) < 0.3).astype(np.uint8)


def stacked() -> nn.Module:
    """Return a norse network, whose neurons have a synaptic current."""
    torch.manual_seed(1)
    stack = norse.SequentialState(
        nn.Flatten(), nn.Linear(72, 20), norse.LIFCell(), nn.Linear(20, 4), norse.LIFBoxCell()
    )
    with torch.no_grad():
        for parameter in stack.parameters():
            parameter.mul_(12)
    return stack


@pytest.mark.parametrize("make", [net, stacked])
@pytest.mark.parametrize("method", ["osbc", "obc", "magnitude"])
def test_a_plain_network_gets_the_codes_that_deploying_it_gives(make: Any, method: str) -> None:
    # As many samples as are run side by side, so that both round traces alike.
    samples = spikes(32)
    options: dict[str, Any] = {"sparsity": 0.7, "bits": 4, "method": method, "tune": False}
    done = osbc_deploy.compress_model(make(), samples, **options)
    network = import_network(make(), None, check_samples("x", samples))
    theirs = compress(network, samples, CompressionOptions(scale_groups=2**31, **options))
    assert len(done.weights) == 2
    for found in done.weights:
        other = theirs.projections[found.weight.name]
        assert found.layer.kept == other.kept
        assert (found.layer.codes == other.codes).all()
        assert found.layer.codes.any()
        # A BatchNorm is folded into weights in single precision there.
        assert found.layer.relative_loss == pytest.approx(other.relative_loss, rel=1e-5)


def test_the_hessian_is_that_of_a_hand_calculation() -> None:
    module, samples = net(), spikes(5)
    with torch.no_grad():
        session = session_of(module, SPIKINGJELLY, "m", samples, 2)
        weights = find_weights(session, samples).weights
        conv, dense = moments_of(session, weights, samples, CompressionOptions())
        functional.reset_net(module)
        x = torch.from_numpy(samples).float().transpose(0, 1)
        fired = module[:3](x).numpy()
        functional.reset_net(module)
    # LIFNode: v <- v + (x - v) / 3; IFNode: v <- v + x.
    v = np.zeros((5, 2, 6, 6))
    rows = []
    for t in range(7):
        v = v + (samples[:, t] - v) / 3
        patches = nn.functional.unfold(torch.from_numpy(v), 3, padding=1, stride=2).numpy()
        rows.append(patches.transpose(0, 2, 1).reshape(-1, 2, 9))
    seen = np.concatenate(rows)
    for group in range(2):
        wanted = 2 * seen[:, group].T @ seen[:, group] / len(seen)
        assert conv.hessian[group] == pytest.approx(wanted, abs=1e-5)
    summed = np.cumsum(fired, axis=0).reshape(-1, 36).astype(np.float64)
    assert dense.hessian[0] == pytest.approx(2 * summed.T @ summed / len(summed), rel=1e-4)
    assert fired.any()


def test_rows_of_convolutions_are_drawn_over_all_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    for bound in ("_FEW", "_EASY"):
        monkeypatch.setattr(sampling, bound, 0.0)
    module, samples = net(), spikes(40)
    with torch.no_grad():
        session = session_of(module, SPIKINGJELLY, "m", samples, 16)
        weights = find_weights(session, samples).weights
        every, few = (
            moments_of(session, weights, samples, CompressionOptions(), rows_per_input=each)
            for each in (10**6, 100)
        )
    functional.reset_net(module)
    conv, drawn = every[0], few[0]
    # 40 samples of 7 steps at 9 places; 100 for each of 9 inputs are used, a quarter as many held.
    assert (conv.rows, conv.held) == (2520, None)
    assert drawn.of == 2520
    assert drawn.rows == pytest.approx(900, abs=4)
    assert drawn.held is not None
    assert drawn.held.rows == pytest.approx(225, abs=4)
    error = np.linalg.norm(drawn.hessian - conv.hessian) / np.linalg.norm(conv.hessian)
    assert 0 < error < 0.1
    # Dense layers use all they hear.
    assert few[1].rows == 40 * 7


@pytest.mark.parametrize("tune", [False, True])
def test_steps_in_one_call_or_one_by_one_are_the_same(tune: bool, tmp_path: Path) -> None:
    files = []
    for mode in ("m", "s", "m"):
        done = osbc_deploy.compress_model(net(mode), spikes(), sparsity=0.6, bits=3, tune=tune)
        done.save(tmp_path / "w.safetensors")
        files.append((tmp_path / "w.safetensors").read_bytes())
    # The same run gives the same bytes, and how steps are taken does not matter.
    assert files[0] == files[1] == files[2]


def test_the_state_loads_into_the_unchanged_model_and_scores_as_reported(tmp_path: Path) -> None:
    data = digits_events("test")
    spiking, labels = data.spikes[:60], data.labels[:60]
    module = bundled("digits_conv")
    before = {name: value.clone() for name, value in module.state_dict().items()}
    done = osbc_deploy.compress_model(
        module,
        digits_events("calibration").spikes[:32],
        test=(spiking, labels),
        sparsity=0.8,
        tune=False,
    )
    for name, value in module.state_dict().items():
        assert value.equal(before[name])
    done.save(tmp_path / "w.safetensors")
    state = load_file(tmp_path / "w.safetensors")
    assert {n: (v.shape, v.dtype) for n, v in state.items()} == {
        n: (v.shape, v.dtype) for n, v in before.items()
    }
    fresh: Any = models.digits_conv().eval()
    fresh.load_state_dict(state)
    with torch.no_grad():
        total, hidden = torch.zeros(60, 10), None
        for frame in torch.tensor(spiking).float().transpose(0, 1):
            out, hidden = fresh(frame, hidden)
            total += out
    assert done.accuracy.compressed == np.mean(total.argmax(1).numpy() == labels)
    assert done.accuracy.compressed > 0.85
    # Codes of at most 4 bits, by the scales that the file holds.
    with safe_open(tmp_path / "w.safetensors", "np") as file:
        about = json.loads(file.metadata()["osbc-deploy"])
    assert set(about["layers"]) == {"0", "4", "10", "12"}
    for name, entry in about["layers"].items():
        weight = state[f"{name}.weight"].double()
        codes = weight / torch.tensor(entry["scale"]).reshape(-1, *(1,) * (weight.ndim - 1))
        assert (codes - codes.round()).abs().max() < 1e-4
        assert codes.abs().max() < 7.5
    assert done.sparsity >= 0.8
    report = done.report()
    jsonschema.validate(report, compression_json_schema())
    assert [entry["hessian"] for entry in report["layers"]] == ["membrane"] * 4
    assert "accuracy: before" in repr(done)
    assert len(done.to_pandas()) == 4


@pytest.mark.parametrize(
    ("bits", "options"),
    [(1, {}), (2, {}), (3, {"tune": False}), (5, {}), (2, {"method": "paper"}), (8, {})],
)
def test_a_file_holds_the_codes_that_are_documented(
    bits: int, options: dict[str, Any], tmp_path: Path
) -> None:
    done = osbc_deploy.compress_model(net(), spikes(), sparsity=0.2, bits=bits, **options)
    done.save(tmp_path / "w.safetensors")
    with safe_open(tmp_path / "w.safetensors", "numpy") as file:
        layers = json.loads(file.metadata()["osbc-deploy"])["layers"].values()
        assert layers
        for about in layers:
            weights = file.get_tensor(about["parameters"][0])
            found = weights.reshape(len(weights), -1) / np.array(about["scale"])[:, None]
            codes = np.rint(found)
            assert np.allclose(found, codes, atol=1e-4)
            lowest, highest = (-1, 1) if bits == 1 else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
            if bits > 4 or (bits > 1 and not options.get("tune", True)):
                lowest += 1
            assert lowest <= codes.min() < 0 < codes.max() <= highest
            if bits == 1:
                assert set(codes.ravel()) == {-1.0, 0.0, 1.0}
    assert next(r for r in rows(CompressOptions) if r.name == "bits").about.help.endswith(
        "1 is ternary: -1, 0 and 1."
    )


def test_a_run_goes_on_from_finished_layers(tmp_path: Path) -> None:
    options: dict[str, Any] = {"sparsity": 0.5, "resume": tmp_path / "state"}
    first = osbc_deploy.compress_model(net(), spikes(), **options)
    last = sorted((tmp_path / "state").glob("layer-*"))[-1]
    last.unlink()
    again = osbc_deploy.compress_model(net(), spikes(), **options)
    assert last.is_file()
    assert all(again.state[name].equal(value) for name, value in first.state.items())
    with pytest.raises(UsageError, match="changed since: options"):
        osbc_deploy.compress_model(net(), spikes(), bits=3, **options)


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = layer.Linear(6, 6), layer.Linear(6, 6)
        self.two.weight = self.one.weight
        self.first, self.second = neuron.IFNode(), neuron.IFNode()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(self.two(self.first(self.one(x))))


def test_a_tied_weight_is_compressed_once_for_both_of_its_uses() -> None:
    module = Tied()
    with torch.no_grad():
        module.one.weight.mul_(3)
    samples = (np.random.default_rng(0).random((10, 5, 6)) < 0.5).astype(np.uint8)
    done = osbc_deploy.compress_model(module, samples, sparsity=0.5, tune=False)
    (found,) = done.weights
    assert found.weight.names == ("one.weight", "two.weight")
    assert found.weight.neurons == ("first", "second")
    assert done.state["one.weight"].equal(done.state["two.weight"])
    assert not done.state["one.weight"].equal(module.one.weight)
    module.load_state_dict(done.state_dict())


def test_global_and_mixed_share_among_layers() -> None:
    done = osbc_deploy.compress_model(
        net(), spikes(12), sparsity=0.5, allocation="global", mixed=True, tune=False
    )
    assert done.sparsity >= 0.49
    kept = [w.layer.kept for w in done.weights]
    bits = [w.layer.bits for w in done.weights]
    assert sum(k * b for k, b in zip(kept, bits, strict=True)) <= 4 * sum(kept)


def silent() -> nn.Module:
    module = net()
    norm: Any = module[1]
    with torch.no_grad():
        norm.running_mean.fill_(9)
    return module


def test_a_layer_that_hears_nothing_is_rounded_as_it_is() -> None:
    done = osbc_deploy.compress_model(silent(), spikes(6), sparsity=0.5, bits=8, tune=False)
    assert done.weights[1].layer.nonzero > 0
    said = [d.message for d in done.deviations if d.subject == "4"]
    assert any("hears nothing" in message for message in said)


def broken() -> nn.Module:
    module = net()
    with torch.no_grad():
        module[4].weight[0, 0] = float("nan")
    return module


@pytest.mark.parametrize(
    ("module", "samples", "options", "kind", "said"),
    [
        (broken(), spikes(4), {}, ArtefactError, "NaN or infinite values in 4.weight"),
        (net(), spikes(4)[..., :4], {}, UnsupportedModelError, r"shape \(7, 2, 6, 4\)"),
        (net(), spikes(4), {"exclude": ["9"]}, UsageError, "no layer '9'. It has 0, 1, 4"),
        (net(), spikes(4), {"device": "nonsense"}, UsageError, "'nonsense' is not one of cpu"),
        (net(), spikes(4), {"solver_memory": 9}, UsageError, "2 layers need[^~]*- 0[^~]*- 4"),
        (object(), spikes(4), {}, UnsupportedModelError, "is a object, not a torch.nn.Module"),
        ("net.nir", spikes(4), {}, UnsupportedModelError, "holds a network, not a torch"),
        (net(), spikes(4), {"readout": "vote:2"}, UsageError, "does not divide the network's 5"),
    ],
)
def test_bad_input_is_one_clear_error(
    module: Any, samples: Any, options: dict[str, Any], kind: type[Exception], said: str
) -> None:
    with pytest.raises(kind, match=said):
        osbc_deploy.compress_model(module, samples, **options)


class Recorded(nn.Module):
    """Two layers, of which some spikes and potentials are given back."""

    def __init__(self, given: str) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.given = given.split()
        self.fc1, self.fc2 = nn.Linear(72, 20), nn.Linear(20, 4)
        self.l1, self.l2 = neuron.LIFNode(step_mode="m"), neuron.LIFNode(step_mode="m")
        with torch.no_grad():
            self.fc1.weight.mul_(6)
            self.fc2.weight.mul_(6)

    def forward(self, x: torch.Tensor) -> Any:
        functional.reset_net(self)
        hidden = self.l1(self.fc1(x.flatten(2)))
        spikes = self.l2(self.fc2(hidden))
        found = {"hidden": hidden, "rate": hidden.mean(0), "spikes": spikes, "sum": spikes.sum(0)}
        answer = tuple(found[name] for name in self.given)
        return answer[0] if len(answer) == 1 else answer


@pytest.mark.parametrize(
    ("given", "part"),
    [("spikes", 0), ("spikes hidden", 1), ("hidden spikes", 2), ("rate hidden sum", 3)],
)
def test_the_answer_is_what_hangs_on_most_weights(given: str, part: int) -> None:
    samples = spikes(40)
    alone = osbc_deploy.compress_model(Recorded("spikes").eval(), samples, sparsity=0.5, bits=4)
    done = osbc_deploy.compress_model(Recorded(given).eval(), samples, sparsity=0.5, bits=4)
    assert done.accuracy.agreement == alone.accuracy.agreement < 1.0
    assert done.state["fc1.weight"].equal(alone.state["fc1.weight"])
    said = [d.message for d in done.deviations if d.subject == "answer"]
    if not part:
        assert said == []
    else:
        assert said == [
            f"part {part} of {len(given.split())} that forward gives is read: it depends on 2 of 2 "
            "weights"
        ]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_single_and_said(dtype: torch.dtype) -> None:
    model = net().to(dtype)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    found = osbc_deploy.compress_model(model, spikes(), sparsity=0.4, bits=6)
    widened = osbc_deploy.compress_model(net().to(dtype).float(), spikes(), sparsity=0.4, bits=6)
    assert any("half precision" in warning for warning in found.warnings)
    assert not widened.warnings
    for name, value in found.state.items():
        assert value.dtype in (torch.float32, torch.int64)
        assert torch.equal(value, widened.state[name])
    assert all(torch.equal(before[n], v) for n, v in model.state_dict().items())
    assert next(model.parameters()).dtype == dtype
