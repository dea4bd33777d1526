"""LAMPS's shares or the global ones, in a module of any framework."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from spikingjelly.activation_based import functional, layer, neuron
from torch import nn

import osbc_deploy
from osbc_deploy.compress.shares import _taken


def unlike(seed: int) -> nn.Module:
    """Return layers of unlike sizes in front of potentials."""
    torch.manual_seed(seed)
    stack = nn.Sequential(
        layer.Linear(40, 24, bias=False),
        neuron.IFNode(),
        layer.Linear(24, 16, bias=False),
        neuron.IFNode(),
        layer.Linear(16, 6),
    )
    functional.set_step_mode(stack, "m")
    with torch.no_grad():
        stack[2].weight.mul_(4)  # type: ignore[operator]
        stack[0].weight.mul_(4)  # type: ignore[operator]
        stack[0].weight[:, 20:].mul_(6)  # type: ignore[index, operator]
    return stack.eval()


def spikes(seed: int, rare: float, n: int = 60) -> np.ndarray[Any, Any]:
    rates = np.where(np.arange(40) < 20, 0.3, rare)
    return (np.random.default_rng(seed).random((n, 5, 40)) < rates).astype(np.uint8)


@pytest.mark.parametrize(
    ("errors", "taken"),
    [
        ([0.79, 0.79, 0.79, 0.79], "global"),
        # Sure, and less than a fifth.
        ([0.81, 0.81, 0.81, 0.81], "LAMPS"),
        # A mean of 0.7, and a standard error of 0.36.
        ([-0.2, 0.4, 1.2, 1.4], "LAMPS"),
        ([1.0, 1.0, 1.0, 1.0], "LAMPS"),
    ],
)
def test_lamps_stays_unless_much_is_surely_gained(errors: list[float], taken: str) -> None:
    assert _taken({"LAMPS": np.ones(4), "global": np.array(errors)}) == taken


def answers(module: nn.Module, samples: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    functional.reset_net(module)
    with torch.no_grad():
        found = module(torch.from_numpy(samples).float().transpose(0, 1)).sum(0).double()
    return np.asarray(found.numpy())


@pytest.mark.parametrize(("seed", "rare", "taken"), [(0, 0.01, "lamps"), (2, 0.3, "global")])
def test_the_shares_are_those_that_serve_samples_held_out_better(
    seed: int, rare: float, taken: str, tmp_path: Path
) -> None:
    samples = spikes(seed, rare)
    held = np.arange(60) % 5 == 4
    wanted = answers(unlike(seed), samples[held])
    # Both from end to end, on the samples that do not judge.
    errors, kept = {}, {}
    for allocation in ("lamps", "global"):
        done = osbc_deploy.compress_model(
            unlike(seed), samples[~held], sparsity=0.8, bits=8, tune=False, allocation=allocation
        )
        module = unlike(seed)
        module.load_state_dict(done.state_dict())
        squares = ((answers(module, samples[held]) - wanted) ** 2).sum(axis=1)
        errors[allocation] = squares / (wanted**2).sum(axis=1).mean()
        kept[allocation] = [w.layer.kept for w in done.weights]
    gain = errors["lamps"] - errors["global"]
    sure = gain.mean() > gain.std(ddof=1) / np.sqrt(12)
    much = errors["global"].mean() < 0.8 * errors["lamps"].mean()
    assert ("global" if sure and much else "lamps") == taken
    assert kept["lamps"] != kept["global"]

    options: dict[str, Any] = {"sparsity": 0.8, "bits": 8, "resume": tmp_path / "state"}
    for _ in range(2):
        auto = osbc_deploy.compress_model(unlike(seed), samples, **options)
        assert [w.layer.kept for w in auto.weights] == kept[taken]
        (said,) = (d.message for d in auto.deviations if d.subject == "allocation")
        assert said.casefold().startswith(f"{taken}: the output's error on 12 held-out samples is ")
        told = [float(number) for number in re.findall(r"\d\.\d{4}", said)]
        assert told == pytest.approx([errors[name].mean() for name in errors], rel=0.05)


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"tune": False}, "no variants are"),
        ({"method": "magnitude"}, "magnitude has no Hessians"),
        ({"pattern": "2:4"}, "it ranks single weights, the pattern is 2:4"),
    ],
)
def test_lamps_stays_where_nothing_can_be_tried(options: dict[str, Any], why: str) -> None:
    done = osbc_deploy.compress_model(unlike(0), spikes(0, 0.3), sparsity=0.5, **options)
    (said,) = (d.message for d in done.deviations if d.subject == "allocation")
    assert said == f"LAMPS; the global one was not tried, as {why}"


def test_lamps_stays_where_samples_or_memory_are_few() -> None:
    few = osbc_deploy.compress_model(unlike(0), spikes(0, 0.3, 39), sparsity=0.5)
    assert "not tried, as no samples are held out" in few.deviations[1].message
    torch.manual_seed(0)
    deep = nn.Sequential(
        *(part for _ in range(8) for part in (layer.Linear(40, 40), neuron.IFNode()))
    )
    functional.set_step_mode(deep, "m")
    # What 16 matrices of one layer take fits, three of all eight and six of one do not.
    done = osbc_deploy.compress_model(
        deep.eval(), spikes(0, 0.3), sparsity=0.5, solver_memory=850_000
    )
    (said,) = (d.message for d in done.deviations if d.subject == "allocation")
    assert "not tried, as all Hessians together need" in said
    named = osbc_deploy.compress_model(unlike(0), spikes(0, 0.3), sparsity=0.5, allocation="lamps")
    assert not [d for d in named.deviations if d.subject == "allocation"]


def test_layers_that_hear_nothing_take_no_share_from_others() -> None:
    module = unlike(0)
    with torch.no_grad():
        module[0].weight.abs_().neg_()  # type: ignore[operator]
    done = osbc_deploy.compress_model(
        module, spikes(0, 0.3), sparsity=0.5, allocation="global", tune=False
    )
    # Half of all 1440; a layer keeps one at least.
    assert [w.layer.kept for w in done.weights] == [718, 1, 1]
