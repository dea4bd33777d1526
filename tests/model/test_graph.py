"""The float network."""

from __future__ import annotations

import numpy as np

from osbc_deploy.frameworks.spikingjelly.neurons import IFNode
from osbc_deploy.model.connections import Dense
from osbc_deploy.model.graph import Network, Population, Projection


def test_a_fingerprint_stays_what_it_was_when_reports_were_written() -> None:
    """As version 0.1.0 printed it: reports, baselines and states of a run hold it."""
    dense = Dense(np.arange(6.0).reshape(2, 3), None)
    network = Network(
        (3,),
        (Population("1", (2,), IFNode(np.ones(()), np.zeros(()), "zero")),),
        (Projection("0", "input", "1", dense),),
        "float32",
        "model",
        (),
    )
    expected = "4b2e426088764d3ef559f740238e905de2237ad57139f376a358bc58ec0a9122"
    assert network.fingerprint() == expected
