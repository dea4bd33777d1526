"""Rounding in single precision that grows from layer to layer, told from a wrong network."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import norse.torch as norse
import numpy as np
import pytest
import torch
from torch import nn

from osbc_deploy.data.samples import check_samples
from osbc_deploy.errors import UnsupportedModelError
from osbc_deploy.frameworks import proof
from osbc_deploy.importing import import_network
from osbc_deploy.model.graph import Network

ONES = check_samples("ones", np.ones((2, 12, 1), np.uint8))


def fires(threshold: torch.Tensor) -> nn.Module:
    return norse.IAFCell(norse.IAFParameters(v_th=threshold, v_reset=torch.tensor(0.0)))


def deep() -> nn.Module:
    """Layers that make many differences of few; 20 of the first 2000 neurons hang on rounding."""
    torch.manual_seed(0)
    linear, norm = nn.Linear(1, 2000, bias=False), nn.BatchNorm1d(2000)
    with torch.no_grad():
        norm.running_mean.uniform_(-0.3, 0.3)
        norm.running_var.uniform_(0.4, 2.0)
        current = norm.eval()(linear(torch.ones(1, 1)))[0]
        reached = current + current + current
        reached[20:] *= 1.5
        parts = [linear, norm, fires(reached)]
        for before in (2000, 60, 60, 60, 60, 60):
            parts += [nn.Linear(before, 60, bias=False), fires(torch.ones(60))]
            parts[-2].weight *= 6
    return norse.SequentialState(*parts).eval()


def test_rounding_that_grows_is_warned_of_and_not_refused() -> None:
    network = import_network(deep(), None, ONES)
    (said,) = network.warnings
    found = re.search(
        r"grows .*, to ([0-9.]+)% of the spikes of .*no more than ([0-9.e-]+) of", said
    )
    assert found is not None
    assert float(found[1]) > 1
    # At most 20 of 2000 neurons of the first layer can differ, and none of any other.
    assert 0 < float(found[2]) <= 0.01
    assert network.dtype == "float32"


@pytest.mark.parametrize("layer", [0, 4, 6])
def test_wrong_weights_are_refused_where_rounding_moves_more(
    layer: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = proof.read_call

    def wrong(*args: Any, **kwargs: Any) -> Any:
        reading = right(*args, **kwargs)
        return replace(reading, network=tampered(reading.network, layer))

    monkeypatch.setattr(proof, "read_call", wrong)
    with pytest.raises(UnsupportedModelError, match="does not compute what norse's own") as error:
        import_network(deep(), None, ONES)
    assert error.value.offenders[0].startswith(f"{2 if layer == 0 else 2 * layer + 2}: ")


def tampered(network: Network, layer: int) -> Network:
    """Return a network in which the weights of a layer are off by a ten-thousandth."""
    projections = list(network.projections)
    connection = projections[layer].connection
    wrong = replace(connection, weight=connection.weight * 1.0001)
    projections[layer] = replace(projections[layer], connection=wrong)
    return replace(network, projections=tuple(projections))
