"""Average pooling for max pooling of currents: what is fitted, what it costs, what stays."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

pytest.importorskip("snntorch")
import snntorch as snn
from snntorch import utils

from osbc_deploy.data.samples import Samples
from osbc_deploy.errors import UnsupportedModelError, UsageError
from osbc_deploy.importing import import_network
from osbc_deploy.model.readout import decode
from osbc_deploy.model.simulate import simulate
from osbc_deploy.pipeline import deploy


def data(*shape: int) -> Samples:
    rng = np.random.default_rng(0)
    spikes = (rng.random((24, 8, *shape)) < 0.25).astype(np.uint8)
    return Samples(name="d", spikes=spikes, labels=rng.integers(0, 4, 24))


def leaky(**more: Any) -> nn.Module:
    made: nn.Module = snn.Leaky(0.8, init_hidden=True, **more)
    return made


def model(*, shared: bool = False) -> nn.Module:
    """Return max pooling of a convolution, of a BatchNorm, and of spikes."""
    torch.manual_seed(1)
    pools = [nn.MaxPool2d(2) for _ in range(3)]
    if shared:
        pools[1] = pools[0]
    made = nn.Sequential(
        *(nn.Conv2d(2, 6, 3, padding=1, bias=False), pools[0], leaky()),
        *(nn.Conv2d(6, 6, 3, padding=1), nn.BatchNorm2d(6), pools[1], leaky(), pools[2]),
        *(nn.Flatten(), nn.Linear(24, 4), leaky(output=True)),
    ).eval()
    with torch.no_grad():
        for layer in made:
            if isinstance(layer, nn.Conv2d | nn.Linear):
                layer.weight.mul_(3)
    return made


def answers(network: nn.Module, spikes: np.ndarray) -> np.ndarray:
    utils.reset(network)
    with torch.no_grad():
        steps = [network(frame)[0] for frame in torch.from_numpy(spikes).float().transpose(0, 1)]
    utils.reset(network)
    return torch.stack(steps, 1).numpy()


@pytest.mark.parametrize("shared", [False, True])
def test_currents_are_averaged_spikes_are_not_and_the_module_stays(shared: bool) -> None:
    found, samples = model(shared=shared), data(2, 16, 16)
    before = copy.deepcopy(found.state_dict())
    layers = list(found)
    network = import_network(found, None, samples, substitute="maxpool=avg")
    assert [p.name for p in network.populations if p.neuron.exact] == ["7"]
    assert any("verified against snnTorch" in note for note in network.notes)
    exchanged, cost = network.warnings
    assert exchanged.startswith("1: average" if shared else "1, 5: average")
    assert "weights and biases of 0, 4 refitted" in exchanged
    # What it costs, from the module as it is, and from the import alone.
    wanted = decode(answers(found, samples.spikes), "sum", spiking=True)
    got = decode(simulate(network, samples.spikes).output, "sum", spiking=True)
    assert samples.labels is not None
    right = [f"{np.mean(c == samples.labels):.2%}" for c in (wanted, got)]
    assert f"accuracy {right[0]} to {right[1]}; {np.sum(wanted != got)} of 24 get another" in cost
    assert list(found) == layers
    after = found.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(value, after[name]) for name, value in before.items())


def test_averages_of_a_channel_are_fitted_to_the_largest() -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(2, 3, 3, padding=1)
    found = nn.Sequential(
        conv, nn.MaxPool2d(2), leaky(), nn.Flatten(), nn.Linear(48, 4), leaky(output=True)
    ).eval()
    samples = data(2, 8, 8)
    network = import_network(found, None, samples, substitute="maxpool=avg")
    with torch.no_grad():
        currents = conv(torch.from_numpy(samples.spikes).float().flatten(0, 1)).double()
    windows = currents.unfold(2, 2, 2).unfold(3, 2, 2).movedim(1, 0).flatten(1, 3).flatten(2)
    fitted: Any = network.projections[0].connection
    exchanged = network.warnings[0]
    for channel, values in enumerate(windows.numpy()):
        mean, largest = values.mean(axis=1), values.max(axis=1)
        scale, shift = np.polyfit(mean, largest, 1)
        if "equal variance" in exchanged:
            scale = largest.std() / mean.std()
            shift = largest.mean() - scale * mean.mean()
        # A pooling that is merged into a kernel of 3 makes one of 4 that adds up to the same.
        sums = conv.weight[channel].sum().item()
        assert np.isclose(fitted.weight[channel].sum(), scale * sums, rtol=1e-4)
        bias = conv.bias
        assert bias is not None
        assert np.isclose(fitted.bias[channel], scale * bias[channel].item() + shift, rtol=1e-3)


class Recording(nn.Module):
    """A window of sensors for each step, as NeuroBench's recognition of activity takes it."""

    def __init__(self, *, layers: bool = True) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.layers = layers
        self.conv1, self.max1 = nn.Conv1d(2, 6, 3, padding=1), nn.MaxPool1d(2)
        self.conv2, self.norm, self.max2 = nn.Conv1d(6, 6, 3), nn.BatchNorm1d(6), nn.MaxPool1d(2)
        self.one, self.two, self.end = leaky(), leaky(), leaky(output=True)
        self.fc = nn.Linear(18, 4)
        with torch.no_grad():
            for part in (self.conv1, self.conv2, self.fc):
                part.weight.mul_(4)

    def forward(self, x: torch.Tensor) -> Any:
        y = self.conv1(x)
        y = self.max1(y) if self.layers else nn.functional.max_pool1d(y, 2)
        y = self.max2(self.norm(self.conv2(self.one(y))))
        return self.end(self.fc(self.two(y).flatten(1)))


def test_poolings_of_one_dimension_are_exchanged_as_well() -> None:
    found, samples = Recording().eval(), data(2, 16)
    network = import_network(found, None, samples, substitute="maxpool=avg")
    exchanged, cost = network.warnings[-2:]
    assert exchanged.startswith("max1, max2: average")
    assert "weights and biases of conv1, norm refitted" in exchanged
    wanted = decode(answers(found, samples.spikes), "sum", spiking=True)
    spikes = samples.spikes.reshape(*samples.spikes.shape[:2], *network.input_shape)
    got = decode(simulate(network, spikes).output, "sum", spiking=True)
    assert f"{np.sum(wanted != got)} of 24 get another" in cost


def test_what_is_no_layer_is_told_to_be_one() -> None:
    with pytest.raises(UnsupportedModelError) as caught:
        import_network(Recording(layers=False).eval(), None, data(2, 16), substitute="maxpool=avg")
    (line,) = caught.value.offenders
    assert line.startswith("forward: MaxPool1d takes the largest")
    assert "call it as a layer, nn.MaxPool1d, and ask for --substitute maxpool=avg" in line


def test_spikingjelly_keeps_its_time_axis() -> None:
    pytest.importorskip("spikingjelly")
    from spikingjelly.activation_based import functional, layer, neuron

    torch.manual_seed(0)
    found = nn.Sequential(
        *(layer.Conv2d(2, 4, 3, padding=1), layer.MaxPool2d(2), neuron.IFNode(0.3)),
        *(layer.Flatten(), layer.Linear(64, 4), neuron.IFNode(0.2)),
    ).eval()
    functional.set_step_mode(found, "m")
    network = import_network(found, None, data(2, 8, 8), substitute="maxpool=avg")
    assert len(network.populations) == 2
    assert len(network.warnings) == 2


def test_what_cannot_be_exchanged_is_said(tmp_path: Path) -> None:
    pool = nn.MaxPool2d(2)
    end = (nn.Flatten(), nn.Linear(4, 4), leaky(output=True))
    both = nn.Sequential(nn.Conv2d(2, 4, 3), pool, leaky(), pool, *end).eval()
    other = nn.Sequential(nn.Conv2d(2, 4, 3), nn.Tanh(), pool, leaky(output=True)).eval()
    with pytest.raises(UsageError, match="'maxpool=sum' is not one of maxpool=avg"):
        import_network(both, None, data(2, 8, 8), substitute="maxpool=sum")
    with pytest.raises(UsageError, match="not a module whose layers could be exchanged"):
        import_network(str(tmp_path / "a.nir"), None, None, substitute="maxpool=avg")
    with pytest.raises(UnsupportedModelError, match="1: takes spikes, or what no convol"):
        import_network(both, None, data(2, 8, 8), substitute="maxpool=avg")
    with pytest.raises(UnsupportedModelError, match="1: Tanh is not supported"):
        import_network(other, None, data(2, 8, 8), substitute="maxpool=avg")


def test_a_report_says_first_that_another_network_was_deployed() -> None:
    done = deploy(
        model(),
        data(2, 16, 16),
        target="loihi2",
        substitute="maxpool=avg",
        tune=False,
        backend_samples=0,
    )
    assert "1, 5: average pooling in the place of max pooling" in done.warnings[0]
    assert done.warnings[1].startswith("maxpool=avg costs")
    assert done.provenance["options"]["substitute"] == "maxpool=avg"
