"""The child process that runs Lava: ``python -m osbc_backend_lava.worker FOLDER JOB...``.

Lava starts one operating-system process per Lava process, forks after threads may exist and can
wait for ever, so it gets a session of its own that the parent can end as a whole. Arrays come and
go as files in FOLDER/JOB; lines on stdout tell how many steps of which job are done, so that the
parent sees when nothing moves, and can read what is finished. When stdin closes, the parent is
gone and the whole session ends itself, and removes FOLDER if it is a temporary one.
"""

from __future__ import annotations

import contextlib
import json
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
from osbc_backend_lava.layout import INPUT, OPTIONS, PREFIX, SOURCE, Schedule, pieces, to_lava
from osbc_deploy.fixedpoint.network import FixedPointNetwork
from osbc_deploy.formats.folder import read_network

__all__ = ["run"]

_SLICE = 64
"""Steps between two signs of life."""


def run(
    network: FixedPointNetwork, spikes: Any, folder: Path, options: dict[str, Any], job: str = ""
) -> None:
    """Run samples one after the other, piece by piece of the network, with traces in `folder`.

    Parameters
    ----------
    network : FixedPointNetwork
    spikes : ndarray of uint8 or int32 (n, T, *input_shape)
    folder : Path
    options : dict
        ``states`` and ``sparse_below`` of :func:`osbc_backend_lava.build.build`.
    job : str
        What lines on stdout name.
    """
    prepare()
    n, steps = spikes.shape[:2]
    schedule = Schedule.of(network, steps)
    frames = np.zeros((n, schedule.period, int(np.prod(network.input_shape))), spikes.dtype)
    frames[:, :steps] = spikes.reshape(n, steps, -1)
    np.save(folder / SOURCE, to_lava(frames.reshape(n * schedule.period, -1), network.input_shape))
    cut = pieces(network, schedule)
    total = schedule.total(n)
    for number, piece in enumerate(cut):

        def say(done: int, number: int = number) -> None:
            # Only what the last piece has done answers samples.
            answered = done if number == len(cut) - 1 else 0
            _say(f"{job} {answered} {(number * total + done) // len(cut)}")

        _run_piece(network, piece, folder, schedule, n, options, say)


def _run_piece(
    network: FixedPointNetwork,
    piece: tuple[str, ...],
    folder: Path,
    schedule: Schedule,
    n: int,
    options: dict[str, Any],
    say: Callable[[int], None],
) -> None:
    """Run all samples through some populations in one Lava runtime."""
    from lava.magma.core.run_conditions import RunSteps
    from lava.magma.core.run_configs import Loihi2SimCfg

    from osbc_backend_lava.build import build

    layers, from_input = build(network, piece, folder, schedule, n, **options)
    config = Loihi2SimCfg(select_tag="fixed_pt", loglevel=logging.INFO)
    last = layers[-1].neurons

    last.create_runtime(run_cfg=config)
    # Lava has no public way to ask; its release is the last one, so this name stays.
    actors = last.runtime._messaging_infrastructure.actors
    done = 0

    def play(count: int) -> None:
        nonlocal done
        while count:
            part = min(count, _SLICE)
            try:
                last.run(condition=RunSteps(num_steps=part), run_cfg=config)
            except RuntimeError as error:
                # Lava's own message is how many failed, not why.
                raise RuntimeError("".join(map(_failure, actors)) or str(error)) from error
            done += part
            count -= part
            say(done)

    finished = threading.Event()
    watch = threading.Thread(target=_end_with_actors, args=(actors, finished), daemon=True)
    watch.start()
    if schedule.streaming:
        play(schedule.total(n))
    else:
        for sample in range(n):
            _play_paused(layers, from_input, schedule.period, play, first=sample == 0)
        play(schedule.depth)
    # Only now: after a failure, stopping waits for ever, and the parent ends the session anyway.
    # It joins the actors, and only one thread may wait for a process.
    finished.set()
    watch.join()
    last.stop()


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _play_paused(layers: Any, from_input: Any, period: int, play: Any, *, first: bool) -> None:
    """Run one sample; where neurons move on their own, pause to start each in its time."""
    if not first:
        for connection in from_input:
            buffer = getattr(connection, "a_buff", None) or connection.a_buf
            buffer.set(np.zeros(buffer.shape, np.int32))
        for layer in layers:
            layer.forget()
            _start(layer)
    done = 0
    if not all(layer.population.starts_silent for layer in layers):
        for depth in sorted({layer.depth for layer in layers}):
            play(depth - done)
            done = depth
            for layer in layers:
                # What is fired before a population's start must reach nobody, before or after it.
                if layer.depth >= depth:
                    layer.forget()
                if layer.depth == depth:
                    _start(layer)
    play(period - done)


def _start(layer: Any) -> None:
    """Set a population to its initial state."""
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
    """Run the jobs named on the command line, one after the other."""
    root = Path(sys.argv[1])
    threading.Thread(target=_end_with_parent, args=(root,), daemon=True).start()
    try:
        for job in sys.argv[2:]:
            folder = root / job
            network = read_network(folder)
            options = json.loads((folder / OPTIONS).read_text(encoding="utf-8"))
            with np.load(folder / INPUT, allow_pickle=False) as archive:
                spikes = archive["spikes"]
            run(network, spikes, folder, options, job)
            _say(f"{job} finished")
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
