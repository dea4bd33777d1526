"""Write a float network as a NIR graph (HDF5), for every framework that reads one.

A population becomes the NIR node of its equations, whatever framework they came from:
``v = d_v v + g x + b`` is a leaky integrator of ``tau = dt / (1 - d_v)``, ``r = g / (1 - d_v)`` and
``v_leak = b / (1 - d_v)``, or an integrator with ``r = g / dt`` where nothing leaks. NIR has no
place for time step, reset and precision; they are noted in the graph's metadata, where our own
import finds them.
"""

from __future__ import annotations

import io
import re
from functools import singledispatch
from pathlib import Path
from typing import Any

import numpy as np

from osbc_deploy._version import __version__
from osbc_deploy.arrays import FloatArray
from osbc_deploy.errors import UnsupportedModelError, UsageError
from osbc_deploy.formats.nir import neurons as families
from osbc_deploy.formats.nir.options import GENERATOR
from osbc_deploy.model.connections import Connection, Conv, Dense
from osbc_deploy.model.connections.base import no_such_kind
from osbc_deploy.model.graph import INPUT, Network, Population, Projection
from osbc_deploy.model.windows import Shape
from osbc_deploy.writing import check_file, write_whole

__all__ = ["DEFAULT_DT", "check_nir", "nir_graph", "write_nir"]

DEFAULT_DT = 1e-4
"""Seconds written for a step of networks that only count steps, as snnTorch and others do."""


_LEAKY = (families.LIF, families.LI, families.CubaLIF, families.CubaLI)


def write_nir(network: Network, path: str | Path, *, dt: float | None = None) -> None:
    """Write a network, whole or not at all; read back it gives the same spikes.

    Parameters
    ----------
    network : Network
    path : path
        Replaced if it is an HDF5 file.
    dt : float, optional
        Time step in seconds.

    Raises
    ------
    UnsupportedModelError
        With everything NIR cannot hold.
    UsageError
        When the path cannot be written, or holds something else.
    """
    import nir

    path = Path(path)
    check_nir(path)
    graph = nir_graph(network, dt=dt)
    content = io.BytesIO()
    nir.write(content, graph)
    write_whole(path, content.getvalue())


def check_nir(path: Path) -> None:
    """Make sure a NIR graph can be written there, before any work is done.

    Raises
    ------
    UsageError
        When the path does not end in .nir, is another kind of file, or cannot be written.
    """
    import h5py

    check_file(path, parents=True)
    if path.suffix != ".nir":
        raise UsageError(f"{path}: NIR files must end in .nir. Name it {path.name}.nir.")
    if path.exists() and not (path.is_file() and h5py.is_hdf5(path)):
        raise UsageError(f"{path}: exists and is not a NIR graph. Choose another name.")


def nir_graph(network: Network, *, dt: float | None = None) -> Any:
    """Return the ``nir.NIRGraph`` of a network.

    Parameters and errors are those of :func:`write_nir`.
    """
    import nir

    step = DEFAULT_DT if dt is None else dt
    if offenders := _offenders(network):
        raise UnsupportedModelError("network: cannot be written as NIR", offenders)
    nodes: dict[str, Any] = {INPUT: nir.Input(np.array(network.input_shape))}
    edges: list[tuple[str, str]] = []
    names = {INPUT: INPUT}
    for population in network.populations:
        names[population.name] = _free(population.name, nodes)
        nodes[names[population.name]] = _neurons(population, step, network.dtype)
    for projection in network.projections:
        way = names[projection.pre]
        for suffix, node in _operations(projection, network.shape_of(projection.pre), step):
            name = _free(projection.name + suffix, nodes)
            nodes[name] = node
            edges.append((way, name))
            way = name
        edges.append((way, names[projection.post]))
    end = _free("output", nodes)
    nodes[end] = nir.Output(np.array(network.output.shape))
    edges.append((names[network.output.name], end))
    metadata = {"generator": f"{GENERATOR} {__version__}", "dt": step, "dtype": network.dtype}
    resets = _resets(network)
    if resets:
        metadata["reset"] = resets[0]
    return nir.NIRGraph(nodes, edges, metadata, type_check=False)


def _resets(network: Network) -> list[str]:
    kinds = {p.neuron.reset_rule().kind for p in network.populations if _remembers(p)}
    return sorted(kinds - {"none"})


def _remembers(population: Population) -> bool:
    """Tell whether a reset makes a difference to what a population does later."""
    return population.neuron.spiking and not population.neuron.memoryless


def _offenders(network: Network) -> list[str]:
    lines = []
    if len(_resets(network)) > 1:
        lines.append("network: some neurons are set to v_reset, others lose the threshold")
    for population in network.populations:
        neuron, name = population.neuron, population.name
        dynamics, rule = neuron.dynamics(), neuron.reset_rule()
        if _remembers(population):
            threshold = neuron.parameters["v_threshold"]
            if rule.kind == "none":
                lines.append(f"{name}: a spike leaves the potential as it is; in NIR it resets")
            elif rule.differs:
                lines.append(f"{name}: {rule.differs}")
            elif rule.kind == "subtract" and np.any(rule.amount != threshold):
                lines.append(f"{name}: takes away something else than its threshold, at once")
        leaks = dynamics.decay_v < 1
        if leaks.any() != leaks.all() or (dynamics.decay_v < 0).any():
            lines.append(f"{name}: membrane decays of which only some are below 1")
        elif not leaks.any() and (dynamics.decay_u is not None or not neuron.spiking):
            lines.append(f"{name}: a membrane without leak that has a synaptic current or no reset")
        elif not leaks.any() and np.any(dynamics.drive):
            lines.append(f"{name}: a membrane without leak that is driven by a constant")
        if dynamics.decay_u is not None and (dynamics.decay_u >= 1).any():
            lines.append(f"{name}: a synaptic current that never decays")
        starts = dynamics.drive / (1 - dynamics.decay_v) if leaks.all() else neuron.v_init
        if _remembers(population) and not leaks.any():
            starts = neuron.parameters["v_reset"]
        if not np.allclose(neuron.v_init, starts, rtol=1e-6, atol=1e-12):
            lines.append(f"{name}: does not start at its resting potential")
    return lines


def _free(name: str, taken: dict[str, Any]) -> str:
    """Return a name that HDF5 and the graph take."""
    plain = re.sub(r"[/\0]", "_", name)
    plain = "_" if plain in ("", ".") else plain
    while plain in taken:
        plain += "_"
    return plain


def _neurons(population: Population, dt: float, dtype: str) -> Any:
    """Return the NIR node of a population, its parameters spread to the population's shape."""
    import nir

    neuron, shape = population.neuron, population.shape
    p = {name: np.asarray(v, np.float64) for name, v in neuron.parameters.items()}

    def spread(value: FloatArray | float) -> FloatArray:
        return np.array(np.broadcast_to(np.asarray(value, np.float64), shape))

    if neuron.memoryless:
        return nir.Threshold(spread(_threshold(population, dtype)))
    dynamics = neuron.dynamics()
    leak = 1.0 - dynamics.decay_v
    fires = {}
    if neuron.spiking:
        fires = {
            "v_threshold": spread(_threshold(population, dtype)),
            "v_reset": spread(_reset_to(population)),
        }
    if (leak == 0).all():
        return nir.IF(r=spread(dynamics.gain / dt), **fires)
    # NIR's own parameters as they are: what is derived rounds once more.
    own = p if isinstance(neuron, _LEAKY) else {}
    v_leak = own.get("v_leak", dynamics.drive / leak)
    if dynamics.decay_u is None:
        membrane = {
            "tau": spread(dt / own.get("alpha_v", leak)),
            "r": spread(own.get("r", dynamics.gain / leak)),
            "v_leak": spread(v_leak),
        }
        return nir.LIF(**membrane, **fires) if neuron.spiking else nir.LI(**membrane)
    alpha_u = own.get("alpha_u", 1.0 - dynamics.decay_u)
    cuba = {
        "tau_syn": spread(dt / alpha_u),
        "tau_mem": spread(dt / own.get("alpha_v", leak)),
        "r": spread(own.get("r", dynamics.gain / leak)),
        "v_leak": spread(v_leak),
        "w_in": spread(own.get("w_in", 1.0 / alpha_u)),
    }
    return nir.CubaLIF(**cuba, **fires) if neuron.spiking else nir.CubaLI(**cuba)


def _threshold(population: Population, dtype: str) -> FloatArray:
    """Return the largest potential that does not fire, which is NIR's threshold."""
    threshold = population.neuron.parameters["v_threshold"].astype(dtype)
    if population.neuron.fires_at_threshold:
        return np.asarray(np.nextafter(threshold, np.array(-np.inf, dtype)))
    return threshold


def _reset_to(population: Population) -> FloatArray:
    if population.neuron.reset_rule().kind == "subtract":
        return np.zeros(())
    return population.neuron.parameters["v_reset"]


def _operations(projection: Projection, shape: Shape, dt: float) -> list[tuple[str, Any]]:
    """Return the nodes that a projection is, in order, with what their names end in."""
    import nir

    found: list[tuple[str, Any]] = []
    pool, connection = projection.pool, projection.connection
    if projection.delay is not None and projection.delay.any():
        delay = projection.delay.reshape(shape) * dt
        found.append((".delay", nir.Delay(delay)))
    if pool is not None:
        window = pool.kernel[0] * pool.kernel[1]
        kind = nir.AvgPool2d if pool.divisor == window else nir.SumPool2d
        found.append(
            (".pool", kind(*(np.array(x) for x in (pool.kernel, pool.stride, pool.padding))))
        )
        shape = pool.output_shape(shape)
        if pool.divisor not in (1, window):
            found.append((".scale", nir.Scale(np.full(shape, 1 / pool.divisor))))
    return found + _nodes(connection, shape)


@singledispatch
def _nodes(connection: Connection, shape: Shape) -> list[tuple[str, Any]]:
    """Return the nodes of a connection whose source has a shape."""
    raise no_such_kind(connection, "NIR")


@_nodes.register(Conv)
def _(conv: Conv, shape: Shape) -> list[tuple[str, Any]]:
    import nir

    bias = np.zeros(len(conv.weight), conv.weight.dtype) if conv.bias is None else conv.bias
    node = nir.Conv2d(
        (shape[1], shape[2]),
        np.array(conv.weight),
        conv.stride,
        conv.padding,
        conv.dilation,
        conv.groups,
        np.array(bias),
    )
    return [("", node)]


@_nodes.register(Dense)
def _(dense: Dense, shape: Shape) -> list[tuple[str, Any]]:
    import nir

    found: list[tuple[str, Any]] = []
    if len(shape) == 3:
        found.append((".flatten", nir.Flatten({"input": np.array(shape)}, 0, -1)))
    weight = np.array(dense.weight)
    if dense.bias is None:
        return [*found, ("", nir.Linear(weight))]
    return [*found, ("", nir.Affine(weight, np.array(dense.bias)))]
