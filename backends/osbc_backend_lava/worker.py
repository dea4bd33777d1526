"""The child process that runs Lava: ``python -m osbc_backend_lava.worker FOLDER``.

Lava starts one operating-system process per Lava process, forks after threads may exist and can
wait for ever, so it gets a session of its own that the parent can end as a whole. Arrays come and
go as files in FOLDER; a line on stdout tells of each finished sample. When stdin closes, the
parent is gone and the whole session ends itself, and removes FOLDER if it is a temporary one.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from osbc_backend_lava.compatibility import prepare
from osbc_backend_lava.worker_files import INPUT, OUTPUT, PREFIX
from osbc_deploy.artefact import read_network
from osbc_deploy.fixedpoint.network import FixedPointNetwork

__all__ = ["run"]


def run(network: FixedPointNetwork, spikes: Any, folder: Path) -> dict[str, Any]:
    """Run samples one after the other in one Lava runtime.

    A projection delivers one step later, so population l (from 1) runs l steps behind the input.
    Where all neurons start at 0, samples follow each other directly and every population resets
    itself l steps after a sample began. Where they do not, each sample is followed by L steps of
    silence and states are set from outside while the runtime is paused.

    Parameters
    ----------
    network : FixedPointNetwork
    spikes : ndarray of uint8 (n, T, *input_shape)
    folder : Path
        For the files that hold the rasters.

    Returns
    -------
    dict of ndarray (n, T, size)
        Spikes (uint8) of each spiking population, potentials (int32) of a readout, by name.
    """
    prepare()
    from lava.magma.core.run_conditions import RunSteps
    from lava.magma.core.run_configs import Loihi2SimCfg

    from osbc_backend_lava.build import build, from_lava, to_lava

    n, steps = spikes.shape[:2]
    depth = len(network.populations)
    streaming = not any(p.u_init.any() or p.v_init.any() for p in network.populations)
    period = steps if streaming else steps + depth
    frames = np.zeros((n, period, int(np.prod(network.input_shape))), np.uint8)
    frames[:, :steps] = spikes.reshape(n, steps, -1)
    source = folder / "source.npy"
    np.save(source, to_lava(frames.reshape(n * period, -1), network.input_shape))
    total = n * period + depth
    layers = build(network, source, total, period if streaming else None)
    config = Loihi2SimCfg(select_tag="fixed_pt", loglevel=logging.INFO)
    last = layers[-1].neurons

    last.create_runtime(run_cfg=config)
    # Lava has no public way to ask; its release is the last one, so this name stays.
    actors = last.runtime._messaging_infrastructure.actors

    def play(count: int) -> None:
        try:
            last.run(condition=RunSteps(num_steps=count), run_cfg=config)
        except RuntimeError as error:
            # Lava's own message is how many failed, not why.
            raise RuntimeError("".join(map(_failure, actors)) or str(error)) from error

    results: dict[str, Any] = {}
    finished = threading.Event()
    watch = threading.Thread(target=_end_with_actors, args=(actors, finished), daemon=True)
    watch.start()
    for sample in range(n):
        if streaming:
            play(period)
        else:
            _play_paused(layers, period, play, first=sample == 0)
        sys.stdout.write("done\n")
        sys.stdout.flush()
    play(depth)
    for delay, layer in enumerate(layers, start=1):
        rows = np.load(layer.raster) if layer.raster else layer.probe.data.get()
        rows = rows if layer.raster else np.moveaxis(rows, -1, 0)
        own = from_lava(rows[delay : delay + n * period], layer.population.shape)
        kind = np.uint8 if layer.population.spiking else np.int32
        results[layer.population.name] = own.reshape(n, period, -1)[:, :steps].astype(kind)
    # Only now: after a failure, stopping waits for ever, and the parent ends the session anyway.
    # It joins the actors, and only one thread may wait for a process.
    finished.set()
    watch.join()
    last.stop()
    return results


def _play_paused(layers: Any, period: int, play: Callable[[int], None], *, first: bool) -> None:
    """Run one sample; pause to set each population that may move right before its first input."""
    if not first:
        for layer in layers:
            layer.buffer.set(np.zeros(layer.buffer.shape, np.int32))
            _start(layer)
    done = 0
    moving = False
    for delay, layer in enumerate(layers, start=1):
        # What a moving population fires before its start reaches the ones after it, so those
        # are not silent either.
        moving = moving or not layer.population.starts_silent
        if moving:
            play(delay - done)
            done = delay
            _start(layer)
    play(period - done)


def _start(layer: Any) -> None:
    """Set a population to its initial state."""
    from osbc_backend_lava.build import to_lava

    population = layer.population
    for variable, values in (
        (layer.neurons.u, population.u_init),
        (layer.neurons.v, population.v_init),
    ):
        variable.set(np.ascontiguousarray(to_lava(values.astype(np.int32), population.shape)))


def _end_with_actors(actors: Any, finished: threading.Event) -> None:
    """End the job when one of Lava's processes fails: the others may wait for it for ever."""
    while not finished.wait(0.2):
        for actor in list(actors):
            cause = _failure(actor)
            if cause:
                sys.stderr.write(cause)
                sys.stderr.flush()
                os._exit(1)


def _failure(actor: Any) -> str:
    """Return why one of Lava's processes failed, empty where it did not."""
    # Lava joins and closes its processes when one fails; a closed one has no exit code to ask for.
    with contextlib.suppress(ValueError, OSError):
        if actor.exception:
            return str(actor.exception[1])
        if actor.exitcode:
            return f"Error: one of Lava's processes ended with code {actor.exitcode}\n"
    return ""


def _end_with_parent(folder: Path) -> None:
    """Wait for the end of stdin, then remove the temporary folder and end the whole session."""
    # The bare descriptor: a lock of sys.stdin held here would stop every forked child, which
    # closes sys.stdin first thing.
    while os.read(0, 1):
        pass
    if folder.name.startswith(PREFIX):
        shutil.rmtree(folder, ignore_errors=True)
    # SIGTERM, which nothing here handles: it ends all but Python's resource tracker, which then
    # unlinks the shared memory of the others. SIGKILL would end that, too, and leave the memory.
    os.killpg(os.getpgrp(), signal.SIGTERM)


def main() -> int:
    """Run the job in the folder named on the command line."""
    folder = Path(sys.argv[1])
    threading.Thread(target=_end_with_parent, args=(folder,), daemon=True).start()
    try:
        network = read_network(folder)
        with np.load(folder / INPUT, allow_pickle=False) as archive:
            spikes = archive["spikes"]
        results = run(network, spikes, folder)
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
