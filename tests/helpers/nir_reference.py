"""NIR graphs run node by node, as NIR's equations read: the independent reference of the import.

Nothing is composed or folded here: every node is evaluated at every step, currents are looked up
by walking back along the edges, and neurons are stepped by forward Euler in double precision.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.signal import correlate2d


def run(
    nodes: dict[str, Any],
    edges: list[tuple[str, str]],
    x: np.ndarray,
    *,
    dt: float,
    reset: str = "zero",
    late: dict[tuple[str, str], int] | None = None,
) -> dict[str, np.ndarray]:
    """Return spikes or potentials (T, ...) of every neuron node for input (T, ...).

    `nodes` holds neurons in the order they are to be stepped; `late` says how many steps the spikes
    of one reach another late.
    """
    late = late or {}
    before: dict[str, list[str]] = {name: [] for name in nodes}
    for pre, post in edges:
        before[post].append(pre)
    neurons = [n for n, node in nodes.items() if type(node).__name__ in _STEPS]
    fired: dict[str, list[np.ndarray]] = {n: [] for n in neurons}
    state: dict[str, dict[str, np.ndarray]] = {n: {} for n in neurons}

    def sent(name: str, t: int, to: str) -> np.ndarray | float:
        if t < 0:
            return 0.0
        node = nodes[name]
        kind = type(node).__name__
        if kind == "Input":
            return x[t].astype(float)
        if name in fired:
            when = t - late.get((name, to), 0)
            return fired[name][when] if when >= 0 else np.zeros_like(_rest(node))
        if kind == "Delay":
            steps = np.rint(np.asarray(node.delay) / dt).astype(int)
            now = arriving(name, t, to)
            result = np.zeros_like(now)
            for d in np.unique(steps):
                value = arriving(name, t - int(d), to) if t >= d else np.zeros_like(now)
                result = np.where(np.broadcast_to(steps, now.shape) == d, value, result)
            return result
        return _OPERATIONS[kind](node, arriving(name, t, to))

    def arriving(name: str, t: int, to: str) -> Any:
        return sum(sent(pre, t, to) for pre in before[name])

    for t in range(len(x)):
        for name in neurons:
            current = arriving(name, t, name)
            step = _STEPS[type(nodes[name]).__name__]
            fired[name].append(step(nodes[name], state[name], current, dt, reset))
    return {name: np.array(values) for name, values in fired.items()}


def _rest(node: Any) -> np.ndarray:
    kind = type(node).__name__
    return np.asarray(
        node.v_reset if kind == "IF" else node.threshold if kind == "Threshold" else node.v_leak,
        float,
    )


def _fire(node: Any, state: dict[str, np.ndarray], v: np.ndarray, reset: str) -> np.ndarray:
    s = v > node.v_threshold
    state["v"] = np.where(s, v - node.v_threshold if reset == "subtract" else node.v_reset, v)
    return s.astype(float)


def _if(node: Any, state: Any, x: Any, dt: float, reset: str) -> np.ndarray:
    whole = (np.asarray(node.r) == 1).all()
    v = state.get("v", _rest(node)) + (x if whole else dt * node.r * x)
    return _fire(node, state, v, reset)


def _membrane(node: Any, state: Any, u: Any, tau: Any, dt: float) -> np.ndarray:
    v = state.get("v", _rest(node))
    return v + dt / tau * ((node.v_leak - v) + node.r * u)


def _synapse(node: Any, state: Any, x: Any, dt: float) -> np.ndarray:
    u = state.get("u", 0.0)
    state["u"] = u + dt / node.tau_syn * (node.w_in * x - u)
    return state["u"]


def _lif(node: Any, state: Any, x: Any, dt: float, reset: str) -> np.ndarray:
    return _fire(node, state, _membrane(node, state, x, node.tau, dt), reset)


def _cuba_lif(node: Any, state: Any, x: Any, dt: float, reset: str) -> np.ndarray:
    u = _synapse(node, state, x, dt)
    return _fire(node, state, _membrane(node, state, u, node.tau_mem, dt), reset)


def _li(node: Any, state: Any, x: Any, dt: float, reset: str) -> np.ndarray:
    state["v"] = _membrane(node, state, x, node.tau, dt)
    return state["v"]


def _cuba_li(node: Any, state: Any, x: Any, dt: float, reset: str) -> np.ndarray:
    u = _synapse(node, state, x, dt)
    state["v"] = _membrane(node, state, u, node.tau_mem, dt)
    return state["v"]


def _threshold(node: Any, state: Any, x: Any, dt: float, reset: str) -> np.ndarray:
    return (x > node.threshold).astype(float)


_STEPS = {
    "IF": _if,
    "LIF": _lif,
    "CubaLIF": _cuba_lif,
    "LI": _li,
    "CubaLI": _cuba_li,
    "Threshold": _threshold,
}


def _pair(value: Any) -> tuple[int, int]:
    numbers = np.atleast_1d(value)
    return int(numbers[0]), int(numbers[-1])


def _conv2d(node: Any, x: np.ndarray) -> np.ndarray:
    weight, (sy, sx), (dy, dx) = node.weight, _pair(node.stride), _pair(node.dilation)
    out, width, kh, kw = weight.shape
    spread = np.zeros((out, width, dy * (kh - 1) + 1, dx * (kw - 1) + 1))
    spread[:, :, ::dy, ::dx] = weight
    if node.padding == "same":
        py, px = (spread.shape[2] - 1) // 2, (spread.shape[3] - 1) // 2
    else:
        py, px = (0, 0) if node.padding == "valid" else _pair(node.padding)
    padded = np.pad(x, ((0, 0), (py, py), (px, px)))
    per_group = out // int(node.groups)
    maps = []
    for o in range(out):
        start = o // per_group * width
        seen = padded[start : start + width]
        maps.append(sum(correlate2d(seen[c], spread[o, c], "valid") for c in range(width)))
    return np.array(maps)[:, ::sy, ::sx] + np.asarray(node.bias)[:, None, None]


def _conv1d(node: Any, x: np.ndarray) -> np.ndarray:
    stride, dilation = int(np.ravel(node.stride)[0]), int(np.ravel(node.dilation)[0])
    padding = 0 if node.padding == "valid" else int(np.ravel(node.padding)[0])
    padded = np.pad(x, ((0, 0), (padding, padding)))
    out, width, k = node.weight.shape
    length = (padded.shape[1] - dilation * (k - 1) - 1) // stride + 1
    per_group = out // int(node.groups)
    result = np.zeros((out, length))
    for o in range(out):
        start = o // per_group * width
        for i in range(length):
            taps = padded[start : start + width, i * stride : i * stride + dilation * (k - 1) + 1]
            result[o, i] = (taps[:, ::dilation] * node.weight[o]).sum() + node.bias[o]
    return result


def _pool(node: Any, x: np.ndarray, divisor: float) -> np.ndarray:
    (kh, kw), (sy, sx), (py, px) = (_pair(v) for v in (node.kernel_size, node.stride, node.padding))
    padded = np.pad(x, ((0, 0), (py, py), (px, px)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (kh, kw), axis=(1, 2))
    return windows[:, ::sy, ::sx].sum(axis=(3, 4)) / divisor


_OPERATIONS = {
    "Linear": lambda node, x: node.weight @ x,
    "Affine": lambda node, x: node.weight @ x + node.bias,
    "Conv1d": _conv1d,
    "Conv2d": _conv2d,
    "Scale": lambda node, x: x * node.scale,
    "SumPool2d": lambda node, x: _pool(node, x, 1.0),
    "AvgPool2d": lambda node, x: _pool(node, x, float(np.prod(_pair(node.kernel_size)))),
    "Flatten": lambda node, x: np.ravel(x),
    "Output": lambda node, x: x,
}
