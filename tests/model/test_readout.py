"""Classes from output activity, against the frameworks' own layers and by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from osbc_deploy.errors import UsageError
from osbc_deploy.model.readout import NO_ANSWER, check_readout, classes_of, decode, evidence

SPIKES = np.array(
    [
        # Two steps of six outputs.
        [[1, 0, 0, 1, 0, 1], [0, 0, 0, 1, 1, 0]],
        [[0, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0]],
        [[0, 1, 1, 0, 0, 0], [0, 0, 0, 0, 1, 1]],
    ],
    np.uint8,
)


@pytest.mark.parametrize(
    ("readout", "counts", "classes"),
    [
        ("sum", [[1, 0, 0, 2, 1, 1], [0] * 6, [0, 1, 1, 0, 1, 1]], [3, NO_ANSWER, 1]),
        ("vote:2", [[1, 2, 2], [0] * 3, [1, 1, 2]], [1, NO_ANSWER, 2]),
        ("vote:3", [[1, 4], [0] * 2, [2, 2]], [1, NO_ANSWER, 0]),
        ("vote:6", [[5], [0], [4]], [0, NO_ANSWER, 0]),
    ],
)
def test_evidence_and_classes(readout: str, counts: list[list[int]], classes: list[int]) -> None:
    assert evidence(SPIKES, readout).tolist() == counts
    assert decode(SPIKES, readout, spiking=True).tolist() == classes


def test_a_vote_is_that_of_spikingjelly() -> None:
    layer = pytest.importorskip("spikingjelly.activation_based.layer")
    rng = np.random.default_rng(0)
    spikes = (rng.random((50, 7, 40)) < 0.2).astype(np.uint8)
    voting = layer.VotingLayer(5, step_mode="m")
    rates = voting(torch.tensor(spikes).float().moveaxis(1, 0)).mean(0)
    # Two classes that are ahead of all others with as many spikes are apart by rounding there.
    best = rates.topk(2).values
    clear = (best[:, 0] - best[:, 1] > 1e-5).numpy()
    assert clear.sum() > 25
    found = decode(spikes, "vote:5", spiking=True)
    assert np.array_equal(found[clear], rates.argmax(1).numpy()[clear])


def test_a_vote_is_the_population_code_of_snntorch() -> None:
    functional = pytest.importorskip("snntorch.functional")
    rng = np.random.default_rng(1)
    spikes = (rng.random((50, 7, 40)) < 0.2).astype(np.uint8)
    found = decode(spikes, "vote:4", spiking=True)
    theirs = functional.acc.accuracy_rate(
        torch.tensor(spikes).float().moveaxis(1, 0),
        torch.tensor(found),
        population_code=True,
        num_classes=classes_of("vote:4", 40),
    )
    assert theirs == 1.0


@pytest.mark.parametrize(
    ("readout", "words"),
    [
        ("vote:7", "vote:7 does not divide the network's 40 outputs"),
        ("vote:1", "2 or more"),
        ("vote:-2", "is not one of sum, last, max, or vote:N"),
        ("vote:", "is not one of"),
        ("vote:" + "9" * 5000, "is not one of"),
        ("mean", "is not one of"),
    ],
)
def test_bad_readouts(readout: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        check_readout(readout, 40)
