"""``osbc-deploy inspect MODEL``: what was understood of a model, before anything is done to it."""

from __future__ import annotations

import json
from typing import Any

import click

from osbc_deploy.cli.console import emit, say, table_console
from osbc_deploy.cli.options import config_option, json_option, takes
from osbc_deploy.cli.places import Command
from osbc_deploy.options import InspectOptions

__all__ = ["inspect_command"]


@click.command("inspect", cls=Command)
@click.argument("model")
@takes(options=InspectOptions)
@json_option
@config_option
def inspect_command(
    model: str,
    options: InspectOptions,
    as_json: bool,
) -> int:
    """Show what is understood of MODEL: its layers, its neurons' equations, what is folded.

    MODEL is what deploying takes. Exit code 3 when it cannot be imported, or when the chip lacks
    something that its neurons need, which is listed.
    """
    from osbc_deploy.inspection import inspect
    from osbc_deploy.job import seed_everything

    seed_everything(options.seed)
    found = inspect(
        model,
        options.calibration,
        shape=options.shape,
        weights=options.weights,
        dt=options.dt,
        reset=options.reset,
        substitute=options.substitute,
        host_prefix=options.host_prefix,
        repeat=options.repeat,
    ).report()
    if as_json:
        emit(json.dumps(found, indent=1))
    else:
        _show(found)
    for line in found["unsupported"]:
        say(f"the chip cannot run: {line}", err=True)
    return 3 if found["unsupported"] else 0


def _show(found: dict[str, Any]) -> None:
    from osbc_deploy.plain_text import terminal
    from osbc_deploy.report.deployment.terminal import print_warnings
    from osbc_deploy.report.tables import PlainTable

    console = table_console()
    print_warnings(found["warnings"], console)
    shape = _by(found["input_shape"])
    console.print(
        terminal(
            f"{found['source']}: input {shape}, {found['neurons']:,} neurons, "
            f"{found['weights']:,} weights, {found['parameters'] - found['weights']:,} biases, "
            f"{found['dtype']}"
        )
    )
    layers = PlainTable("Layers")
    for name in ("layer", "from", "to", "kind", "map", "weights", "biases", "steps late"):
        layers.add_column(name, justify="right" if name in ("weights", "biases") else "left")
    for p in found["projections"]:
        layers.add_row(
            p["name"],
            p["from"],
            p["to"],
            p["kind"] + ("" if p["compressible"] else ", fixed"),
            _map(p),
            f"{p['weights']:,}",
            f"{p['biases']:,}",
            _span(p["late"]) + (" (feedback)" if p["feedback"] else ""),
        )
    console.print(layers)
    neurons = PlainTable("Neurons")
    for name in ("population", "shape", "family", "equation", "decay u", "decay v", "gain",
                 "drive", "threshold", "after a spike"):  # fmt: skip
        neurons.add_column(name)
    for p in found["populations"]:
        neurons.add_row(
            p["name"],
            _by(p["shape"]),
            p["family"],
            p["equation"],
            "-" if p["decay_u"] is None else _span(p["decay_u"]),
            _span(p["decay_v"]),
            _span(p["gain"]),
            _span(p["drive"]),
            _span(p["parameters"]["v_threshold"]) if p["spiking"] else "-",
            _after(p),
        )
    console.print(neurons)
    for note in found["notes"]:
        say(f"note: {note}")


def _map(p: dict[str, Any]) -> str:
    """Return what a layer maps, as a chain: pooling, then kernel or matrix."""
    parts = []
    if p["pool"]:
        pool = p["pool"]
        sums = pool["divisor"] == 1
        parts.append(f"{'sum' if sums else 'mean'} of {_by(pool['kernel'])} step "
                     f"{_by(pool['stride'])}, then")  # fmt: skip
    if p["kind"] == "dense":
        parts.append(f"{p['weight_shape'][1]} to {p['weight_shape'][0]}")
    else:
        parts.append(f"{_by(p['kernel'])} to {p['weight_shape'][0]} channels")
        plain = {"stride": [1, 1], "padding": [0, 0], "dilation": [1, 1]}
        parts += [f"{key} {_by(p[key])}" for key, value in plain.items() if p[key] != value]
        if p["groups"] != 1:
            parts.append(f"groups {p['groups']}")
    return " ".join(parts)


def _after(p: dict[str, Any]) -> str:
    if not p["spiking"]:
        return "never fires"
    reset = p["reset"]
    value = "0" if reset["value"] is None else _span(reset["value"])
    how = {"subtract": f"v -= {value}", "zero": f"v = {value}", "none": "v stays"}[reset["kind"]]
    return how + (f" ({reset['differs']})" if reset["differs"] else "")


def _by(sizes: list[int]) -> str:
    return "x".join(str(s) for s in sizes)


def _span(value: Any) -> str:
    if isinstance(value, list):
        return f"{value[0]:.4g} to {value[1]:.4g}"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
