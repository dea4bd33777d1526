"""Graphs of neurons and linear operations against the same graphs run node by node in torch."""

from __future__ import annotations

import itertools
import tracemalloc
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from osbc_deploy.errors import ArtefactError, UnsupportedModelError
from osbc_deploy.frameworks.assemble import Cells, Graph, assemble
from osbc_deploy.frameworks.norse.neurons import LI, LIF
from osbc_deploy.frameworks.operations import Add, Delay, Flatten, Scale, Shift
from osbc_deploy.model.graph import AvgPool, Conv, Dense, Network
from osbc_deploy.model.simulate import simulate

ONE, ZERO = np.ones(()), np.zeros(())
FIRES = Cells(LIF(0.5 * ONE, ZERO, 0.25 * ONE, ZERO))
READS = Cells(LI(0.5 * ONE, ZERO))


def by_torch(
    graph: Graph,
    x: np.ndarray,
    late: dict[tuple[str, str], int],
    shapes: dict[str, tuple[int, ...]],
) -> dict[str, Any]:
    """Return the activity (T, ...) of all neurons, in the order in which nodes are listed."""
    cells = [n for n, node in graph.nodes.items() if isinstance(node, Cells)]
    sent: dict[str, list[torch.Tensor]] = {name: [] for name in cells}
    state: dict[str, Any] = {}

    def value(name: str, t: int, to: str) -> Any:
        if name == "input":
            return torch.from_numpy(x[max(t, 0)]).double() * (t >= 0)
        node = graph.nodes[name]
        if isinstance(node, Cells):
            when = t - late.get((name, to), 0)
            return sent[name][when] if when >= 0 else torch.zeros(shapes[name]).double()
        if isinstance(node, Delay):
            steps = np.broadcast_to(node.steps, value_of(name, t, to).shape)
            parts = [value_of(name, t - int(d), to) * torch.tensor(steps == d)
                     for d in np.unique(steps)]  # fmt: skip
            return sum(parts)
        return _apply(node, value_of(name, t, to))

    def value_of(name: str, t: int, to: str) -> Any:
        return sum(value(pre, t, to) for pre, post in graph.edges if post == name)

    for t in range(len(x)):
        for name in cells:
            current = value_of(name, t, name)
            neuron = graph.nodes[name].neuron  # type: ignore[union-attr]
            p = {k: torch.tensor(np.array(v)) for k, v in neuron.parameters.items()}
            before = state.get(name, {"v": torch.zeros_like(current)})
            spikes, state[name] = neuron.step(p, before, current, torch.where)
            sent[name].append(spikes.double())
    return {name: torch.stack(values).numpy() for name, values in sent.items()}


def _apply(node: Any, x: torch.Tensor) -> torch.Tensor:
    def tensor(values: Any) -> Any:
        return None if values is None else torch.tensor(np.array(values))

    if isinstance(node, Dense):
        return functional.linear(x, tensor(node.weight), tensor(node.bias))
    if isinstance(node, Conv):
        return functional.conv2d(x[None], tensor(node.weight), tensor(node.bias), node.stride,
                                 node.padding, node.dilation, node.groups)[0]  # fmt: skip
    if isinstance(node, AvgPool):
        return functional.avg_pool2d(x[None], node.kernel, node.stride, node.padding,
                                     divisor_override=node.divisor)[0]  # fmt: skip
    if isinstance(node, Flatten):
        return x.flatten()
    if isinstance(node, Scale):
        return x * tensor(node.factor)
    return x + tensor(node.offset) if isinstance(node, Shift) else x


def check(
    nodes: dict[str, Any],
    edges: str,
    shape: tuple[int, ...],
    late: dict[tuple[str, str], int] | None = None,
) -> Network:
    """Assemble, run, and compare; edges as "a>b>c, b>d"; the last neurons are the output."""
    pairs = [
        pair
        for way in edges.split(",")
        for names in [[n.strip() for n in way.split(">")]]
        for pair in itertools.pairwise(names)
    ]
    output = [n for n, node in nodes.items() if isinstance(node, Cells)][-1]
    graph = Graph(shape, nodes, pairs, output)
    network = assemble(graph, dtype="float64", source="test")
    x = (np.random.default_rng(3).random((1, 16, *shape)) < 0.3).astype(np.uint8)
    names = [p.name for p in network.populations]
    run = simulate(network, x, record=names)
    expected = by_torch(graph, x[0], late or {}, {p.name: p.shape for p in network.populations})
    assert expected[output].any()
    for name in names[:-1]:
        np.testing.assert_array_equal(run.spikes[name][0], expected[name], err_msg=name)
    np.testing.assert_allclose(run.output[0], expected[output], rtol=1e-9, atol=1e-12)
    return network


def normal(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).normal(size=shape)


def conv(out: int, width: int, k: int = 3, *, bias: bool = True, **more: Any) -> Conv:
    more.setdefault("padding", (k // 2, k // 2))
    return Conv(normal(out, width, k, k), normal(out) * 0.3 if bias else None, **more)


D = Dense(normal(4, 4))


def test_a_residual_block() -> None:
    network = check(
        {"c1": conv(3, 2), "a": FIRES, "c2": conv(3, 3), "add": Add(), "b": FIRES,
         "flat": Flatten(), "fc": Dense(normal(4, 192), normal(4)), "out": READS},
        "input>c1>a>c2>add>b>flat>fc>out, a>add",
        (2, 8, 8),
    )  # fmt: skip
    skip = next(p for p in network.projections if p.name == "a-b")
    # A full convolution of ones on the diagonal, so that it can be compressed with its neighbor.
    assert skip.compressible
    assert skip.connection.weight.shape == (3, 3, 1, 1)
    assert skip.connection.weight[..., 0, 0].tolist() == np.eye(3).tolist()


def test_a_map_of_a_sum_hears_every_population_and_adds_its_bias_once() -> None:
    network = check(
        {"wa": Dense(normal(6, 5)), "a": FIRES, "wb": Dense(normal(6, 6)), "b": FIRES,
         "add": Add(), "half": Scale(0.5 * ONE), "fc": Dense(normal(3, 6), normal(3)),
         "out": READS},
        "input>wa>a>wb>b>add>half>fc>out, a>add",
        (5,),
    )  # fmt: skip
    parts = [p for p in network.projections if p.post == "out"]
    assert sorted(p.name for p in parts) == ["fc:a-out", "fc:b-out"]
    assert sum(p.connection.bias is not None for p in parts) == 1
    np.testing.assert_array_equal(parts[0].connection.weight, parts[1].connection.weight)


def test_parallel_ways_become_one_where_that_is_exact_and_two_where_not() -> None:
    nodes = {
        "w1": conv(3, 2), "w2": conv(3, 2), "a": FIRES,
        "pool": AvgPool((2, 2), (2, 2)), "c1": conv(3, 3, stride=(2, 2)), "c2": conv(3, 3, 1),
        "b": FIRES, "flat": Flatten(), "fc": Dense(normal(4, 48)), "out": READS,
    }  # fmt: skip
    network = check(nodes, "input>w1>a>c1>b>flat>fc>out, input>w2>a>pool>c2>b", (2, 8, 8))
    assert [p.name for p in network.afferents("a")] == ["w1"]
    assert any(note.startswith("w2: added to w1") for note in network.notes)
    assert {p.name for p in network.afferents("b")} == {"c1", "c2"}


def test_poolings_scales_and_shifts_are_folded() -> None:
    factor = np.array([0.5, 2.0, 1.5]).reshape(3, 1, 1)
    network = check(
        {"c1": conv(3, 2), "p1": AvgPool((2, 2), (2, 2)), "s1": Scale(factor),
         "o1": Shift(0.1 * factor), "a": FIRES, "p2": AvgPool((2, 1), (2, 1), divisor=1),
         "p3": AvgPool((1, 2), (1, 2)), "s2": Scale(factor),
         "c2": conv(6, 1, padding=(1, 0), groups=3), "b": FIRES, "p4": AvgPool((2, 1), (1, 1)),
         "flat": Flatten(), "s3": Scale(normal(18) ** 2), "f1": Dense(normal(7, 18), normal(7)),
         "f2": Dense(normal(4, 7), normal(4)), "s4": Scale(normal(4)), "out": READS},
        "input>c1>p1>s1>o1>a>p2>p3>s2>c2>b>p4>flat>s3>f1>f2>s4>out",
        (2, 16, 12),
    )  # fmt: skip
    assert [p.name for p in network.projections] == ["c1", "c2", "f2"]
    assert network.projections[1].pool == AvgPool((2, 2), (2, 2), divisor=2)
    for folded in ("p1: pooling folded into", "s1: scale folded into c1", "f1: multiplied into f2"):
        assert any(note.startswith(folded) for note in network.notes)


def test_poolings_and_spikes_that_feed_neurons_as_they_are() -> None:
    network = check(
        {"p": AvgPool((2, 2), (2, 2), divisor=1), "a": FIRES, "s": Scale(0.9 * ONE), "b": FIRES,
         "flat": Flatten(), "out": FIRES},
        "input>p>a>s>b>flat>out",
        (2, 8, 8),
    )  # fmt: skip
    assert not any(p.compressible for p in network.projections)
    first = network.projections[0].connection
    assert isinstance(first, Conv)
    assert first.groups == 2
    assert first.weight.shape == (2, 1, 2, 2)


def test_what_several_populations_send_is_convolved_with_each() -> None:
    network = check(
        {"c1": conv(4, 2), "a": FIRES, "c2": conv(4, 4, bias=False), "b": FIRES,
         "add": Add(), "late": Delay(np.array(1)), "dw": conv(4, 1, groups=4),
         "s": Scale(0.8 * ONE), "pw": conv(6, 4, 1, stride=(2, 2)), "c": FIRES, "flat": Flatten(),
         "fc": Dense(normal(4, 96)), "out": READS},
        "input>c1>a>c2>b>add>dw>s>pw>c>flat>fc>out, a>late>add",
        (2, 8, 8),
    )  # fmt: skip
    parts = network.afferents("c")
    assert sorted(p.name for p in parts) == ["pw:a-c", "pw:b-c"]
    # Of both constants each is added once.
    assert sum(p.connection.bias is not None for p in parts) == 1
    assert parts[0].connection.geometry == parts[1].connection.geometry


def test_a_constant_is_convolved_where_nothing_is_padded() -> None:
    check(
        {"c1": conv(3, 2), "a": FIRES, "s": Shift(normal(3, 1, 1)),
         "c2": conv(6, 1, padding=(0, 0), groups=3), "c3": conv(4, 6, padding=(0, 0)), "b": FIRES,
         "flat": Flatten(), "fc": Dense(normal(4, 64)), "out": READS},
        "input>c1>a>s>c2>c3>b>flat>fc>out",
        (2, 8, 8),
    )  # fmt: skip


def test_a_pooling_that_pads_moves_in_front_of_what_adds_nothing() -> None:
    network = check(
        {"x": conv(3, 2, 1, bias=False), "p": AvgPool((2, 2), (2, 2), (1, 1)),
         "s": Scale(6 * ONE), "a": FIRES, "flat": Flatten(), "fc": Dense(normal(4, 75)),
         "out": READS},
        "input>x>p>s>a>flat>fc>out",
        (2, 8, 8),
    )  # fmt: skip
    assert "p: pooling moved in front of x" in network.notes


def test_a_convolution_in_front_of_a_matrix_is_multiplied_into_it() -> None:
    network = check(
        {"p": AvgPool((2, 2), (2, 2)), "c": conv(4, 1, groups=2), "s": Scale(normal(4, 1, 1)),
         "c2": conv(6, 2, 2, groups=2, padding=(0, 0), bias=False), "flat": Flatten(),
         "fc": Dense(normal(5, 54), normal(5)), "a": FIRES, "end": Dense(normal(3, 5)),
         "out": READS},
        "input>p>c>s>c2>flat>fc>a>end>out",
        (2, 8, 8),
    )  # fmt: skip
    (projection,) = network.afferents("a")
    assert (projection.name, projection.connection.weight.shape) == ("fc", (5, 32))
    assert projection.pool is not None
    assert "c2: multiplied into fc, as no neurons lie between them" in network.notes


def test_delays_of_every_kind() -> None:
    network = check(
        {"d1": Delay(np.arange(5) % 3), "w1": Dense(normal(6, 5)), "d2": Delay(np.array(2)),
         "a": FIRES, "d3": Delay(np.ones(6, int)), "w2": Dense(normal(3, 6)), "out": READS},
        "input>d1>w1>d2>a>d3>w2>out",
        (5,),
    )  # fmt: skip
    assert network.projections[0].delay.tolist() == [2, 3, 4, 2, 3]  # type: ignore[union-attr]


def test_feedback_over_several_populations_and_its_delay() -> None:
    nodes = {
        "wa": Dense(normal(6, 5)), "a": FIRES, "wb": Dense(normal(6, 6)), "b": FIRES,
        "back": Dense(normal(6, 6) * 0.5), "self": Dense(normal(6, 6) * 0.3),
        "late": Delay(np.array(4)), "wo": Dense(normal(3, 6)), "out": READS,
    }  # fmt: skip
    network = check(
        nodes, "input>wa>a>wb>b>wo>out, b>back>a, b>self>b", (5,), {("b", "a"): 2, ("b", "b"): 1}
    )
    assert [p.name for p in network.populations] == ["a", "b", "out"]
    assert any("2 steps late instead of 1" in note for note in network.notes)
    # A delay that is long enough stays what it is: one step for the feedback, four of its own.
    network = check(nodes, "input>wa>a>wb>b>wo>out, b>late>back>a", (5,), {("b", "a"): 1})
    assert not any("instead of" in note for note in network.notes)


def test_populations_are_ordered_by_activity_whatever_order_they_are_listed_in() -> None:
    w = Dense(normal(4, 4))
    names = "dbcae"
    nodes: dict[str, Any] = dict.fromkeys(names, FIRES) | {f"w{n}": w for n in names}
    edges = [("input", "wa"), ("a", "wb"), ("b", "wc"), ("a", "wd"), ("c", "we"), ("d", "we"),
             ("d", "wb"), *((f"w{n}", n) for n in names)]  # fmt: skip
    network = assemble(Graph((4,), nodes, edges, "e"), dtype="float32", source="test")
    assert [p.name for p in network.populations] == ["a", "d", "b", "c", "e"]
    assert not any(network.is_feedback(p) for p in network.projections)


def test_what_the_output_does_not_hear_is_left_out() -> None:
    w = Dense(normal(4, 4))
    nodes: dict[str, Any] = {"w": w, "a": FIRES, "probe": READS, "end": FIRES, "wp": w, "we": w}
    edges = [("input", "w"), ("w", "a"), ("a", "wp"), ("wp", "probe"), ("a", "we"), ("we", "end")]
    network = assemble(Graph((4,), nodes, edges, "end"), dtype="float32", source="test")
    assert [p.name for p in network.populations] == ["a", "end"]
    assert network.notes == ("left out, as the output does not hear it: probe",)


@pytest.mark.parametrize(
    ("fixed", "name", "trained"),
    [
        # Such as what sums what a trained layer gives.
        ({"e"}, "d", True),
        ({"d"}, "e", True),
        ((), "e", True),
        ({"d", "e"}, "e", False),
    ],
)
def test_a_projection_is_trained_where_any_layer_multiplied_into_it_is(
    fixed: set[str], name: str, trained: bool
) -> None:
    nodes: dict[str, Any] = {"d": D, "e": D, "a": FIRES}
    edges = [("input", "d"), ("d", "e"), ("e", "a")]
    network = assemble(Graph((4,), nodes, edges, "a", fixed), dtype="float32", source="test")
    (projection,) = network.projections
    assert (projection.name, projection.compressible) == (name, trained)
    other = {"d": "e", "e": "d"}[name]
    assert network.notes == (f"{other}: multiplied into {name}, as no neurons lie between them",)


def thin(out: int, into: int) -> Dense:
    return Dense(np.ones((out, into), np.float32))


def doubled(stages: int) -> tuple[dict[str, Any], list[tuple[str, str]]]:
    """Two ways side by side, many times one after the other: 2^stages ways to the end."""
    nodes: dict[str, Any] = {"out": READS}
    edges, last = [], "input"
    for k in range(stages):
        nodes |= {f"{k}a": Scale(np.ones(())), f"{k}b": Scale(np.ones(())), f"{k}": Add()}
        edges += [(last, f"{k}a"), (last, f"{k}b"), (f"{k}a", f"{k}"), (f"{k}b", f"{k}")]
        last = f"{k}"
    return nodes, [*edges, (last, "out")]


@pytest.mark.parametrize(
    ("inputs", "nodes", "edges", "where"),
    [
        # Spikes as they are: a matrix of every neuron with every other.
        ((50_000,), {"out": READS}, [("input", "out")], "out"),
        # 300 kB of weights, multiplied.
        (
            (40_000,),
            {"a": thin(1, 40_000), "b": thin(40_000, 1), "out": READS},
            [("input", "a"), ("a", "b"), ("b", "out")],
            "b",
        ),
        # The same of convolutions, whose kernels grow, too.
        (
            (4, 30, 30),
            {"a": Conv(np.ones((4, 4, 20, 20))), "b": Conv(np.ones((900, 4, 9, 9))), "out": READS},
            [("input", "a"), ("a", "b"), ("b", "out")],
            "b",
        ),
        # An average pooling behind a convolution makes its kernels as large as its windows.
        (
            (8, 130, 130),
            {"a": Conv(np.ones((32, 8, 3, 3))), "p": AvgPool((128, 128), (128, 128)), "out": READS},
            [("input", "a"), ("a", "p"), ("p", "out")],
            "p",
        ),
        # More neurons than there are inputs, by padding alone.
        (
            (1, 1, 1),
            {"a": Conv(np.ones((1, 1, 1, 1)), padding=(9999, 9999)), "out": READS},
            [("input", "a"), ("a", "out")],
            "out",
        ),
        ((4,), *doubled(40), ""),
    ],
)
def test_small_models_of_large_networks_are_refused_before_memory_is_taken(
    inputs: tuple[int, ...], nodes: dict[str, Any], edges: list[tuple[str, str]], where: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setenv("OSBC_DEPLOY_MEMORY", "64M")
    tracemalloc.start()
    try:
        with pytest.raises(ArtefactError, match=rf"^test: {where}.*needs .* of memory, the limit"):
            assemble(Graph(inputs, nodes, edges, "out"), dtype="float32", source="test")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 64 * 2**20


@pytest.mark.parametrize(
    ("nodes", "edges", "shape", "said"),
    [
        ({"x": conv(3, 2, bias=False), "y": conv(3, 3)}, "input>x>y>o", (2, 8, 8),
         "y: follows x with no neurons between, .*: it pads with zeros where .* would give more"),
        ({"x": conv(3, 2, 1), "y": conv(3, 3)}, "input>x>y>o", (2, 8, 8),
         r"y: follows x .*: the constant added in front of it \(bias, BatchNorm\) is missing"),
        ({"x": conv(3, 2), "f": Flatten()}, "input>x>f>o", (2, 8, 8), "o: hears .* x flattened"),
        (
            {"x": conv(3, 2), "p": AvgPool((2, 2), (2, 2), (1, 1))},
            "input>x>p>o", (2, 8, 8), "p: a pooling with padding after x",
        ),
        (
            {"x": conv(3, 2, 1), "p": AvgPool((2, 2), (2, 2), (1, 1))},
            "input>x>p>o", (2, 8, 8), "p: a pooling with padding after x",
        ),
        (
            {"p": AvgPool((3, 3), (1, 1)), "q": AvgPool((2, 2), (2, 2))},
            "input>p>q>o", (2, 8, 8), "q: two poolings in a row",
        ),
        (
            {"s": Scale(normal(2, 8, 8)), "x": conv(3, 2)},
            "input>s>x>o", (2, 8, 8), "x: values that differ within a channel",
        ),
        ({"s": Shift(ONE), "x": conv(3, 2)}, "input>s>x>o", (2, 8, 8), "x: takes spikes with a"),
        (
            {"p": AvgPool((2, 2), (2, 2)), "d": Delay(np.arange(32).reshape(2, 4, 4))},
            "input>p>d>o", (2, 8, 8), "d: delays that differ, after",
        ),
        (
            {"d": Dense(normal(4, 4), normal(4)), "l": Delay(np.array(1))},
            "input>d>l>o", (4,), "l: delays a constant",
        ),
        ({"d": Dense(normal(3, 4)), "a": Add(), "e": Dense(normal(5, 4))},
         "input>d>a>o, input>e>a", (4,), r"a: adds signals of different shapes \(\(3,\) from d"),
        ({"d": D, "e": D}, "input>d>e>o, e>d", (4,), "a loop without neurons"),
        ({"d": D, "e": D, "a": FIRES}, "input>d>o, a>e>a, a>o", (4,), "e: the input does not lead"),
        ({"d": D, "a": READS, "e": D}, "input>d>a>e>o", (4,), "a: sends potentials"),
        ({"d": D, "e": D, "a": FIRES}, "input>d>o, o>e>a>d", (4,), "a: only hears populations"),
        ({"d": D, "s": Scale(np.ones(3))}, "input>d>s>o", (4,), r"s: its factor of shape \(3,\)"),
        ({"x": conv(3, 2, 9, padding=(0, 0))}, "input>x>o", (2, 8, 8), "x: its window is larger"),
        (
            {"d": D, "o": Cells(LIF(np.ones(3), ZERO, ONE, ZERO))},
            "input>d>o", (4,), r"o: alpha_v of shape \(3,\)",
        ),
    ],
)  # fmt: skip
def test_what_has_no_exact_counterpart(
    nodes: dict[str, Any], edges: str, shape: tuple[int, ...], said: str
) -> None:
    with pytest.raises(UnsupportedModelError, match=said):
        check({**nodes, "o": nodes.get("o", FIRES)}, edges, shape)
