"""NIR graphs: every node against its equations, real exporters, and files that lie."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nir
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

import nir_reference
from osbc_deploy.frontends.nir import read_nir
from osbc_deploy.network.graph import Network
from osbc_deploy.network.simulate import simulate

DT = 1e-3
KINDS = ("IF", "LIF", "CubaLIF", "Threshold")


def spikes(rng: np.random.Generator, *shape: int, rate: float = 0.3) -> np.ndarray:
    return (rng.random(shape) < rate).astype(np.uint8)


def neurons(rng: np.random.Generator, kind: str, shape: tuple[int, ...], *, reset: str) -> Any:
    """Return neurons with parameters of their own, or one for all."""

    def draw(low: float, high: float) -> np.ndarray:
        if rng.random() < 0.5:
            return np.full(shape, rng.uniform(low, high))
        return rng.uniform(low, high, shape)

    leak = np.zeros(shape) if rng.random() < 0.5 else draw(-0.1, 0.1)
    v_reset = np.zeros(shape) if reset == "subtract" else draw(-0.2, 0.1)
    fires = {"v_threshold": draw(0.3, 0.9), "v_reset": v_reset}
    tau = draw(DT, 20 * DT)
    if kind == "IF":
        r = np.ones(shape) if rng.random() < 0.3 else draw(200, 900)
        return nir.IF(r=r, **fires)
    if kind == "Threshold":
        return nir.Threshold(draw(0.1, 0.8))
    if kind in ("LIF", "LI"):
        node = {"tau": tau, "r": draw(1, 4), "v_leak": leak}
        return nir.LIF(**node, **fires) if kind == "LIF" else nir.LI(**node)
    node = {
        "tau_mem": tau, "tau_syn": draw(DT, 9 * DT), "r": draw(1, 4), "v_leak": leak,
        "w_in": draw(1, 3),
    }  # fmt: skip
    return nir.CubaLIF(**node, **fires) if kind == "CubaLIF" else nir.CubaLI(**node)


def linear(rng: np.random.Generator, post: int, pre: int) -> Any:
    weight = rng.normal(size=(post, pre)) * 2 / np.sqrt(pre)
    return nir.Linear(weight) if rng.random() < 0.5 else nir.Affine(weight, rng.normal(size=post))


def conv2d(rng: np.random.Generator, out: int, shape: tuple[int, ...]) -> Any:
    groups = int(rng.choice([g for g in (1, 2, 3) if out % g == shape[0] % g == 0]))
    kernel = tuple(int(rng.integers(1, min(3, side) + 1)) for side in shape[1:])
    padding: Any = tuple(int(p) for p in rng.integers(0, 2, 2))
    stride: Any = tuple(int(s) for s in rng.integers(1, 3, 2))
    if rng.random() < 0.3:
        kernel, padding, stride = (3 if shape[1] > 2 else 1, 1), "same", 1
    elif rng.random() < 0.2:
        padding = "valid"
    weight = rng.normal(size=(out, shape[0] // groups, *kernel)) * 1.2
    bias = rng.normal(size=out) * 0.3 * (rng.random() < 0.6)
    return nir.Conv2d(None, weight, stride, padding, 1, groups, bias)


def pooling(rng: np.random.Generator) -> Any:
    kind = nir.AvgPool2d if rng.random() < 0.5 else nir.SumPool2d
    return kind(np.array([2, 1]), np.array([2, 1]), np.array([0, 0]))


class Dense:
    """Draws a graph of dense layers, branches, self-recurrence, scales and delays."""

    def __init__(self, rng: np.random.Generator, reset: str) -> None:
        self.nodes: dict[str, Any] = {"input": nir.Input(np.array([5]))}
        self.edges: list[tuple[str, str]] = []
        self.late: dict[tuple[str, str], int] = {}
        sizes = {"input": 5}
        count = int(rng.integers(1, 4))
        for number in range(count):
            name, size = f"n{number}", int(rng.integers(3, 7))
            last = number == count - 1
            kinds = (*KINDS, "LI", "CubaLI") if last else KINDS
            kind = str(rng.choice(kinds))
            heard = list(rng.choice(list(sizes), int(rng.integers(1, 3))))
            # The one before is heard, so that the output hears all of them.
            heard = list(dict.fromkeys([list(sizes)[-1], *map(str, heard)]))
            if rng.random() < 0.5 and kind not in ("LI", "CubaLI"):
                heard.append(name)
                self.late[name, name] = 1
            sizes[name] = size
            self.nodes[name] = neurons(rng, kind, (size,), reset=reset)
            for pre in heard:
                self.way(rng, pre, name, sizes[pre], size)
        self.nodes["output"] = nir.Output(np.array([sizes[name]]))
        self.edges.append((name, "output"))

    def way(self, rng: np.random.Generator, pre: str, post: str, before: int, after: int) -> None:
        parts: list[Any] = []
        if rng.random() < 0.3:
            parts.append(nir.Delay(rng.integers(0, 4, before) * DT))
        if rng.random() < 0.3:
            parts.append(nir.Scale(rng.uniform(0.5, 1.5, before)))
        if before != after or rng.random() < 0.7:
            parts.append(linear(rng, after, before))
            if rng.random() < 0.3:
                parts.append(nir.Scale(rng.uniform(0.5, 1.5, after)))
        at = pre
        for number, part in enumerate(parts):
            name = f"{pre}_{post}_{number}"
            self.nodes[name] = part
            self.edges.append((at, name))
            at = name
        self.edges.append((at, post))


class Images:
    """Draws a graph of convolutions, poolings, skips and a dense end."""

    def __init__(self, rng: np.random.Generator, reset: str) -> None:
        shape = (int(rng.integers(1, 4)), 9, 8)
        self.nodes: dict[str, Any] = {"input": nir.Input(np.array(shape))}
        self.edges: list[tuple[str, str]] = []
        self.late: dict[tuple[str, str], int] = {}
        at = "input"

        def put(name: str, node: Any) -> None:
            nonlocal at
            self.nodes[name] = node
            self.edges.append((at, name))
            at = name

        for number in range(2):
            start = at
            if rng.random() < 0.3:
                put(
                    f"pre{number}",
                    nir.Scale(np.ones(shape) * rng.uniform(0.5, 2, (shape[0], 1, 1))),
                )
            if rng.random() < 0.4 and shape[1] > 1:
                put(f"pool{number}", pooling(rng))
                shape = (shape[0], shape[1] // 2, shape[2])
            skip = rng.random() < 0.4
            out = shape[0] if skip else int(rng.integers(1, 4))
            conv = conv2d(rng, out, shape)
            if skip:
                conv = nir.Conv2d(None, rng.normal(size=(out, out, 3, 3)), 1, 1, 1, 1, np.ones(out))
                start = at
            put(f"conv{number}", conv)
            shape = nir_reference._conv2d(conv, np.zeros(shape)).shape
            if not skip and rng.random() < 0.3 and shape[1] > 1:
                put(f"after{number}", pooling(rng))
                shape = (shape[0], shape[1] // 2, shape[2])
            if rng.random() < 0.3:
                put(f"scale{number}", nir.Scale(np.full(shape, rng.uniform(0.5, 2))))
            put(f"n{number}", neurons(rng, str(rng.choice(KINDS)), shape, reset=reset))
            if skip:
                self.edges.append((start, at))
        put("flat", nir.Flatten(None, 0, -1))
        put("fc", linear(rng, 4, int(np.prod(shape))))
        put("end", neurons(rng, str(rng.choice([*KINDS, "CubaLI"])), (4,), reset=reset))
        put("output", nir.Output(np.array([4])))


def check(nodes: Any, edges: Any, late: Any, seed: int, reset: str, tmp: Path | None) -> Network:
    """Run graph and import on the same spikes and compare all populations at all steps."""
    rng = np.random.default_rng(seed + 1)
    x = spikes(rng, 2, 14, *nodes["input"].input_type["input"])
    graph = nir.NIRGraph(nodes, edges, type_check=False)
    model: Any = graph
    if tmp is not None:
        model = tmp / "graph.nir"
        nir.write(str(model), graph)
    network = read_nir(model, dt=DT, reset=reset)
    names = [p.name for p in network.populations]
    run = simulate(network, x.reshape(2, 14, *network.input_shape), record=names)
    for number, sample in enumerate(x):
        expected = nir_reference.run(nodes, edges, sample, dt=DT, reset=reset, late=late)
        for name in names[:-1]:
            got = run.spikes[name][number].reshape(expected[name].shape)
            np.testing.assert_array_equal(got, expected[name], err_msg=name)
        end = run.output[number].reshape(expected[names[-1]].shape)
        np.testing.assert_allclose(end, expected[names[-1]], rtol=1e-9, atol=1e-12)
    return network


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), reset=st.sampled_from(["zero", "subtract"]))
def test_dense_graphs_give_the_spikes_of_nirs_equations(seed: int, reset: str) -> None:
    drawn = Dense(np.random.default_rng(seed), reset)
    check(drawn.nodes, drawn.edges, drawn.late, seed, reset, None)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), reset=st.sampled_from(["zero", "subtract"]))
def test_image_graphs_give_the_spikes_of_nirs_equations(seed: int, reset: str) -> None:
    drawn = Images(np.random.default_rng(seed), reset)
    check(drawn.nodes, drawn.edges, drawn.late, seed, reset, None)
