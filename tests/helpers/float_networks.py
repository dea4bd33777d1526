"""Small float networks of every structure, and the potentials they have without spiking."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np

from osbc_deploy.frameworks.norse.neurons import IF, LI, LIF, CubaLIF
from osbc_deploy.model.gates import Gate
from osbc_deploy.model.graph import (
    AvgPool,
    Connection,
    Conv,
    Dense,
    Network,
    Population,
    Projection,
)
from osbc_deploy.model.neurons import Neuron
from osbc_deploy.model.simulate import simulate

ONE, ZERO = np.ones(()), np.zeros(())

NEURONS: dict[str, Neuron] = {
    "LIF": LIF(0.3 * ONE, ZERO, 0.2 * ONE, ZERO),
    "CUBA": CubaLIF(0.4 * ONE, 0.25 * ONE, ZERO, 0.4 * ONE, ZERO),
    "IF": IF(ONE, ZERO),
    "LI": LI(0.2 * ONE, ZERO),
}


def dense(seed: int, post: int, pre: int, *, bias: bool = False) -> Dense:
    rng = np.random.default_rng(seed)
    return Dense(
        rng.normal(size=(post, pre)).astype(np.float32) * (1.5 / np.sqrt(pre)),
        rng.normal(size=post).astype(np.float32) * 0.1 if bias else None,
    )


def network(shape: tuple[int, ...], *layers: tuple[Connection, Neuron], **more: object) -> Network:
    """Return a chain of layers."""
    populations, projections, pre = [], [], "input"
    for number, (connection, neuron) in enumerate(layers):
        name = f"p{number}"
        shape = connection.output_shape(shape)
        populations.append(Population(name, shape, neuron))
        projections.append(Projection(f"w{number}", pre, name, connection))
        pre = name
    first = int_input(projections[0], more.get("input_shape"))
    return Network(first, tuple(populations), tuple(projections), dtype="float64")


def int_input(projection: Projection, shape: object) -> tuple[int, ...]:
    return tuple(shape) if shape else (projection.connection.fan_in,)  # type: ignore[arg-type]


def mlp(seed: int = 0, *, bias: bool = False, sizes: tuple[int, ...] = (24, 40, 20, 5)) -> Network:
    layers = [
        (dense(seed + i, post, pre, bias=bias), NEURONS["LIF"])
        for i, (pre, post) in enumerate(itertools.pairwise(sizes))
    ]
    return network((sizes[0],), *layers)


def convolutions(seed: int = 0) -> Network:
    """Return strides, padding, dilation, groups, a depthwise layer and a pooling."""
    rng = np.random.default_rng(seed)
    neuron = NEURONS["LIF"]
    convs = [
        Conv(rng.normal(size=(6, 2, 3, 3)), None, (1, 2), (1, 0)),
        Conv(rng.normal(size=(6, 1, 3, 2)), None, (1, 1), (1, 1), (2, 1), groups=6),
        Conv(rng.normal(size=(8, 3, 2, 2)), None, groups=2),
    ]
    made = network(
        (2, 9, 9),
        *[(replace(c, weight=c.weight * 0.6), neuron) for c in convs],
        input_shape=(2, 9, 9),
    )
    pool = AvgPool((2, 2), (2, 2))
    size = int(np.prod(pool.output_shape(made.output.shape)))
    read = Projection("read", "p2", "out", Dense(rng.normal(size=(4, size))), pool)
    return replace(
        made,
        populations=(*made.populations, Population("out", (4,), NEURONS["LI"])),
        projections=(*made.projections, read),
    )


def recurrent(seed: int = 0) -> Network:
    rng = np.random.default_rng(seed)
    return Network(
        (12,),
        (Population("h", (16,), NEURONS["CUBA"]), Population("out", (4,), NEURONS["LI"])),
        (
            Projection("in", "input", "h", dense(seed, 16, 12)),
            Projection("rec", "h", "h", Dense(rng.normal(size=(16, 16)) * 0.2)),
            Projection("read", "h", "out", dense(seed + 1, 4, 16)),
        ),
        dtype="float64",
    )


def residual(seed: int = 0) -> Network:
    return Network(
        (12,),
        (
            Population("a", (16,), NEURONS["LIF"]),
            Population("b", (16,), NEURONS["LIF"]),
            Population("out", (4,), NEURONS["LIF"]),
        ),
        (
            Projection("in", "input", "a", dense(seed, 16, 12)),
            Projection("on", "a", "b", dense(seed + 1, 16, 16)),
            Projection("skip", "input", "b", dense(seed + 2, 16, 12)),
            Projection("read", "b", "out", dense(seed + 3, 4, 16)),
        ),
        dtype="float64",
    )


def kernel(seed: int, *shape: int) -> Conv:
    rng = np.random.default_rng(seed)
    return Conv(rng.normal(size=shape) * 0.4, None, padding=(1, 1))


def conv_residual(pool: AvgPool | None = None) -> Network:
    """Return convolutions whose input and first population both skip one."""
    lif = LIF(0.4 * ONE, ZERO, 0.15 * ONE, ZERO)
    shape = (3, 8, 8)
    last = (4, 4, 4) if pool else (*shape[:1], 8, 8)
    skip = Conv(np.random.default_rng(7).normal(size=(last[0], 3, 1, 1)) * 0.5)
    main = kernel(5, last[0], 3, 3, 3)
    if pool:
        main = replace(main, stride=(2, 2))
    return Network(
        (2, 8, 8),
        (
            Population("a", shape, lif),
            Population("b", shape, lif),
            Population("c", last, lif),
        ),
        (
            Projection("to a", "input", "a", kernel(1, 3, 2, 3, 3)),
            Projection("to b", "a", "b", kernel(2, 3, 3, 3, 3)),
            Projection("input to b", "input", "b", kernel(3, 3, 2, 3, 3)),
            Projection("to c", "b", "c", main),
            Projection("a to c", "a", "c", skip, pool),
        ),
        dtype="float64",
    )


def loop(seed: int = 0) -> Network:
    """Return two populations that feed back to each other, with delays."""
    return Network(
        (12,),
        (
            Population("a", (16,), NEURONS["LIF"]),
            Population("b", (16,), NEURONS["CUBA"]),
            Population("out", (4,), NEURONS["LI"]),
        ),
        (
            Projection("in", "input", "a", dense(seed, 16, 12), delay=np.arange(12) % 3),
            Projection("back", "b", "a", dense(seed + 1, 16, 16), delay=np.ones(16, int)),
            Projection("on", "a", "b", dense(seed + 2, 16, 16)),
            Projection("read", "b", "out", dense(seed + 3, 4, 16), delay=np.arange(16) % 2),
        ),
        dtype="float64",
    )


def spikes(seed: int, *shape: int, rate: float = 0.3) -> np.ndarray:
    return (np.random.default_rng(seed).random(shape) < rate).astype(np.uint8)


def potentials(
    net: Network, name: str, x: np.ndarray, weights: dict[str, np.ndarray]
) -> np.ndarray:
    """Return a population's potentials without spiking, for the spikes of the float network.

    A recurrent projection hears the float network's spikes too: its population is split in two.
    """
    run = simulate(net, x, record={p.pre for p in net.projections})
    known = {k: v for k, v in run.spikes.items() if k != "input"}
    parts = []
    for projection in net.afferents(name):
        source = known.get(projection.pre, x)
        if net.is_feedback(projection):
            source = np.concatenate([np.zeros_like(source[:, :1]), source[:, :-1]], axis=1)
        connection = replace(projection.connection, weight=weights[projection.name], bias=None)
        population = next(p for p in net.populations if p.name == name)
        neuron = population.neuron
        if neuron.spiking:
            neuron = replace(neuron, v_threshold=np.full((), np.inf))
        alone = Network(
            source.shape[2:],
            (Population("x", population.shape, _Shown(neuron)),),
            (Projection("w", "input", "x", connection, projection.pool, delay=projection.delay),),
            dtype="float64",
        )
        parts.append(simulate(alone, source).output)
    return np.sum(parts, axis=0)


class _Shown:
    """A neuron that shows its potential instead of its spikes."""

    spiking = False

    def __init__(self, neuron: Neuron) -> None:
        self._neuron = neuron

    def __getattr__(self, name: str) -> object:
        return getattr(self._neuron, name)

    def step(self, p, state, x, where):  # type: ignore[no-untyped-def]
        _, state = self._neuron.step(p, state, x, where)
        return state["v"], state


def gated() -> Network:
    """Return convolutions with a pooling by maximum, a mask of two, and one that excludes."""
    lif = LIF(0.4 * ONE, ZERO, 0.12 * ONE, ZERO)

    def window(weight: float, size: int = 1, stride: int = 1) -> Conv:
        return Conv(
            np.full((3, 1, size, size), weight), None, (stride, stride), (size // 2,) * 2, groups=3
        )

    def heard(pre: str, post: str, connection: Connection) -> Projection:
        return Projection(f"{pre} to {post}", pre, post, connection, compressible=False)

    return Network(
        (2, 8, 8),
        (
            Population("a", (3, 8, 8), lif),
            Population("pool", (3, 4, 4), Gate(ONE)),
            Population("b", (3, 4, 4), lif),
            Population("and", (3, 4, 4), Gate(2 * ONE)),
            Population("but", (3, 4, 4), Gate(ONE)),
            Population("out", (5,), lif),
        ),
        (
            Projection("to a", "input", "a", kernel(1, 3, 2, 3, 3)),
            heard("a", "pool", window(1.0, 3, 2)),
            Projection("to b", "pool", "b", kernel(2, 3, 3, 3, 3)),
            heard("pool", "and", window(1.0)),
            heard("b", "and", window(1.0)),
            heard("pool", "but", window(1.0)),
            heard("and", "but", window(-1.0)),
            Projection("read and", "and", "out", dense(3, 5, 48)),
            Projection("read but", "but", "out", dense(4, 5, 48)),
        ),
        dtype="float64",
    )
