"""The kit for authors of frameworks: ours pass it, and it notices what it is for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import norse.torch as norse
import pytest
import torch
from torch import nn

from osbc_deploy.frameworks.norse.reading import read_norse
from osbc_deploy.frameworks.plugin import FRAMEWORKS
from osbc_deploy.testing import assert_framework_exact


def stacked(layers: Any) -> nn.Module:
    return norse.SequentialState(*layers)


def with_state(module: nn.Module, x: torch.Tensor) -> torch.Tensor:
    state, outputs = None, []
    for frame in x:
        output, state = module(frame, state)
        outputs.append(output)
    return torch.stack(outputs)


def test_norse() -> None:
    counted = assert_framework_exact(
        "norse",
        {"LIFBoxCell": norse.LIFBoxCell, "LIFCell": norse.LIFCell, "IAFCell": norse.IAFCell},
        readouts={"LICell": norse.LICell},
        stack=stacked,
        forward=with_state,
        n=12,
    )
    assert set(counted) == {"LIFBoxCell", "LIFCell", "IAFCell", "LICell"}
    assert min(counted.values()) > 0


def test_snntorch() -> None:
    snn = pytest.importorskip("snntorch")

    def forward(module: nn.Module, x: torch.Tensor) -> torch.Tensor:
        for cell in module.modules():
            if isinstance(cell, snn.SpikingNeuron):
                cell.reset_mem()
        return torch.stack([module(frame) for frame in x])

    def leaky(**options: Any) -> Callable[[], nn.Module]:
        return lambda: snn.Leaky(0.8, init_hidden=True, **options)

    assert_framework_exact(
        "snntorch",
        {
            "Leaky": leaky(),
            "Leaky, zero": leaky(reset_mechanism="zero"),
            "Leaky, at once": leaky(reset_delay=False),
            "Synaptic": lambda: snn.Synaptic(0.6, 0.9, init_hidden=True),
        },
        forward=forward,
        dtypes=[torch.float32],  # surrogates give single precision, which no double layer takes
        n=8,
    )


def test_spikingjelly() -> None:
    pytest.importorskip("spikingjelly")
    from spikingjelly.activation_based import functional, neuron

    def forward(module: nn.Module, x: torch.Tensor) -> torch.Tensor:
        functional.reset_net(module)
        return torch.stack([module(frame) for frame in x])

    assert_framework_exact(
        "spikingjelly",
        {
            "IFNode": neuron.IFNode,
            "LIFNode": lambda: neuron.LIFNode(3.0),
            "LIFNode, soft": lambda: neuron.LIFNode(2.0, v_reset=None),
            "ParametricLIFNode": neuron.ParametricLIFNode,
        },
        forward=forward,
        n=8,
    )


def check(read: Any, **options: Any) -> None:
    given: dict[str, Any] = {"stack": stacked, "forward": with_state, "n": 2, **options}
    assert_framework_exact(read, {"LIFBoxCell": norse.LIFBoxCell}, **given)


def other_threshold(module: nn.Module, shape: Any, **options: Any) -> Any:
    network = read_norse(module, shape, **options)
    last = network.populations[-1]
    changed = replace(last, neuron=last.neuron.with_threshold(1.3))
    return replace(network, populations=(*network.populations[:-1], changed))


def test_the_first_wrong_output_is_shown_with_its_place() -> None:
    with pytest.raises(AssertionError) as error:
        check(other_threshold)
    said = str(error.value)
    assert said.startswith("LIFBoxCell, module 0 of start 0 (")
    assert "outputs are not the framework's: first in sample" in said
    assert said.endswith("where the framework gives 1.0 and what was read 0.0")


def test_an_import_that_is_not_held_against_the_forward_is_noticed() -> None:
    def trusting(module: nn.Module, shape: Any, *, source: str, samples: Any) -> Any:
        return read_norse(module, shape, source=source)

    with pytest.raises(AssertionError, match="a hook that changes .* goes unnoticed"):
        check(trusting)


def test_a_module_that_is_changed_is_noticed() -> None:
    def spoiling(module: nn.Module, shape: Any, **options: Any) -> Any:
        network = read_norse(module, shape, **options)
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.mul_(-1)
        return network

    with pytest.raises(AssertionError, match="after it was read, the module itself gives another"):
        check(spoiling)


def test_other_faults_are_named() -> None:
    with pytest.raises(AssertionError, match="was read as a NoneType"):
        check(lambda *given, **options: None)
    with pytest.raises(AssertionError, match=r"forward: answers \(.*\) to input of"):
        check(read_norse, forward=lambda module, x: with_state(module, x)[1:])
    with pytest.raises(AssertionError, match="its output is silent whatever its weights"):
        check(read_norse, forward=lambda module, x: 0 * with_state(module, x))

    class Own(nn.Module):
        def forward(self, x: torch.Tensor, state: Any = None) -> Any:
            return (x > 0).to(x.dtype), None

    with pytest.raises(AssertionError, match=r"(?s)was refused: .*1: gt is not supported"):
        assert_framework_exact(
            FRAMEWORKS.load("norse"), {"Own": Own}, stack=stacked, forward=with_state, n=1
        )
