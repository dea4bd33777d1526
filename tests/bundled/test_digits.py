"""The bundled data is what its description says, and the shipped weights are good."""

from __future__ import annotations

import numpy as np
import pytest

from osbc_deploy.bundled import digits
from osbc_deploy.bundled.digits import SENSOR, SPLITS, STEPS, digits_events
from osbc_deploy.bundled.models import digits_conv, digits_mlp, weights_path
from osbc_deploy.frameworks.norse.reading import read_norse
from osbc_deploy.model.readout import decode
from osbc_deploy.model.simulate import simulate
from osbc_deploy.references import load_weights


def test_splits_have_their_sizes_classes_and_no_sample_in_common() -> None:
    parts = {split: digits_events(split) for split in SPLITS}
    assert [len(parts[s].labels) for s in SPLITS] == [1197, 200, 400]
    for data in parts.values():
        assert data.spikes.shape[1:] == (STEPS, 2, *SENSOR)
        assert data.spikes.dtype == np.uint8
        assert data.spikes.max() == 1
        assert not data.spikes.flags.writeable
    assert np.bincount(parts["calibration"].labels).tolist() == [20] * 10
    assert np.bincount(parts["test"].labels).tolist() == [40] * 10
    rasters = [np.packbits(x).tobytes() for data in parts.values() for x in data.spikes]
    assert len(set(rasters)) == 1797


def test_events_are_those_of_the_seed() -> None:
    first = digits_events("calibration", seed=0)
    again = digits_events("calibration", seed=0)
    other = digits_events("calibration", seed=1)
    assert np.array_equal(first.spikes, again.spikes)
    assert not np.array_equal(first.spikes, other.spikes)
    assert np.array_equal(first.labels, other.labels)


def test_both_polarities_fire_along_the_edges_and_the_margin_is_nearly_silent() -> None:
    spikes = digits_events("calibration").spikes
    rates = spikes.mean(axis=(0, 1, 3, 4))
    assert 0.02 < rates.min() <= rates.max() < 0.3
    margin = spikes[..., 0, :].mean()
    assert 0 < 4 * margin < spikes.mean()


def test_an_unknown_split_names_the_known() -> None:
    with pytest.raises(ValueError, match="train, calibration, test"):
        digits_events("validation")


@pytest.mark.parametrize(("factory", "floor"), [(digits_conv, 0.95), (digits_mlp, 0.93)])
def test_shipped_weights_reach_their_accuracy_on_the_test_split(factory, floor) -> None:
    path = weights_path(factory.__name__)
    assert path.stat().st_size < 1_000_000
    model = factory()
    load_weights(model, path)
    data = digits.test()
    network = read_norse(model, data.spikes.shape[2:])
    run = simulate(network, data.spikes)
    found = decode(run.output, "sum", spiking=network.output.neuron.spiking)
    assert np.mean(found == data.labels) >= floor
    assert all(0.01 < rate < 0.3 for rate in run.rates.values())
