"""The child process that runs Lava: ``python -m osbc_backend_lava.worker FOLDER``.

Lava starts one operating-system process per Lava process, forks after threads may exist and can
wait for ever, so it gets a session of its own that the parent can end as a whole. Arrays come and
go as files in FOLDER; a line on stdout tells of each finished sample. When stdin closes, the
parent is gone and the whole session ends itself.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import traceback
from pathlib import Path
from typing import Any

import numpy as np

from osbc_backend_lava.compatibility import prepare
from osbc_backend_lava.worker_files import INPUT, OUTPUT
from osbc_deploy.artefact import read_network
from osbc_deploy.fixedpoint.network import FixedPointNetwork

__all__ = ["run"]


def run(network: FixedPointNetwork, spikes: np.ndarray[Any, Any]) -> dict[str, Any]:
    """Run samples one after the other in one Lava runtime.

    A projection delivers one step later, so population l (from 1) runs l steps behind the input,
    and a sample of T steps takes T + L Lava steps. Between samples all states are set back;
    populations that would move before their first input are set again right before it.

    Parameters
    ----------
    network : FixedPointNetwork
    spikes : ndarray of uint8 (n, T, *input_shape)

    Returns
    -------
    dict of ndarray (n, T, size)
        Spikes (uint8) of each spiking population, potentials (int32) of a readout, by name.
    """
    prepare()
    from lava.magma.core.run_conditions import RunSteps
    from lava.magma.core.run_configs import Loihi2SimCfg

    from osbc_backend_lava.build import build

    n, steps = spikes.shape[:2]
    depth = len(network.populations)
    model = build(network, steps + depth)
    config = Loihi2SimCfg(select_tag="fixed_pt", loglevel=logging.INFO)
    results: dict[str, Any] = {
        p.name: np.zeros((n, steps, p.size), np.uint8 if p.spiking else np.int32)
        for p in network.populations
    }
    last = model.layers[-1].neurons
    try:
        # A first step with empty input starts the runtime, which the variables can then reach.
        last.run(condition=RunSteps(num_steps=steps + depth), run_cfg=config)
        for sample in range(n):
            _load(model, network, spikes[sample], depth)
            _play(model, steps, depth, last, RunSteps, config)
            _collect(model, results, sample, steps)
            sys.stdout.write("done\n")
            sys.stdout.flush()
    finally:
        last.stop()
    return results


def _load(model: Any, network: FixedPointNetwork, raster: Any, depth: int) -> None:
    """Put one sample into the source and set every state back."""
    from osbc_backend_lava.build import to_lava

    flat = raster.reshape(len(raster), -1).astype(np.int32)
    flat = np.concatenate([flat, np.zeros((depth, flat.shape[1]), np.int32)])
    laid_out = to_lava(flat, network.input_shape)
    model.source.data.set(np.ascontiguousarray(np.moveaxis(laid_out, 0, -1)))
    for layer in model.layers:
        layer.buffer.set(np.zeros(layer.buffer.shape, np.int32))
        _start(layer)


def _start(layer: Any) -> None:
    """Set a population to its initial state."""
    from osbc_backend_lava.build import to_lava

    population = layer.population
    for variable, values in (
        (layer.neurons.u, population.u_init),
        (layer.neurons.v, population.v_init),
    ):
        variable.set(np.ascontiguousarray(to_lava(values.astype(np.int32), population.shape)))


def _play(model: Any, steps: int, depth: int, last: Any, condition: Any, config: Any) -> None:
    """Run one sample; pause where a population has to be started."""
    done = 0
    for delay, layer in enumerate(model.layers, start=1):
        if not layer.population.starts_silent:
            last.run(condition=condition(num_steps=delay - done), run_cfg=config)
            done = delay
            _start(layer)
    last.run(condition=condition(num_steps=steps + depth - done), run_cfg=config)


def _collect(model: Any, results: dict[str, Any], sample: int, steps: int) -> None:
    from osbc_backend_lava.build import from_lava

    for delay, layer in enumerate(model.layers, start=1):
        population = layer.population
        recorder = layer.sink if population.spiking else layer.probe
        over_time = np.moveaxis(recorder.data.get(), -1, 0)[delay : delay + steps]
        results[population.name][sample] = from_lava(over_time, population.shape)


def _end_with_parent() -> None:
    """Wait for the end of stdin, then end the whole session."""
    # The bare descriptor: a lock of sys.stdin held here would stop every forked child, which
    # closes sys.stdin first thing.
    while os.read(0, 1):
        pass
    os.killpg(os.getpgrp(), signal.SIGKILL)


def main() -> int:
    """Run the job in the folder named on the command line."""
    folder = Path(sys.argv[1])
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        network = read_network(folder)
        with np.load(folder / INPUT, allow_pickle=False) as archive:
            spikes = archive["spikes"]
        results = run(network, spikes)
        names = [p.name for p in network.populations]
        partial = folder / "partial.npz"
        # Populations may be named anything, so arrays are stored by number.
        np.savez(partial, **{f"p{i}": results[name] for i, name in enumerate(names)})
        os.replace(partial, folder / OUTPUT)
    except BaseException:  # noqa: BLE001 - whatever it is, the parent reads it in the log
        traceback.print_exc()
        return 1
    return 0


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    # Lava's helper threads may still wait; everything is written, so leave at once.
    os._exit(code)
