"""A network as the arguments of Rockpool's ``from_specification``.

Source of names and shapes: synsense/rockpool, ``rockpool/devices/xylo/syns61201/xylo_sim.py``,
``XyloSim.from_specification``, which ``config_from_specification`` takes as well. All is in the
order of the core: hidden neurons of all populations in a row.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from osbc_deploy.arrays import IntArray
from osbc_deploy.fixedpoint.network import FixedPointNetwork
from osbc_deploy.fixedpoint.xylo import MEMORIES, role
from osbc_deploy.formats.format import Exported
from osbc_deploy.writing import write_whole

__all__ = ["specification_of", "write_specification"]

FORMAT = "osbc-deploy/xylo/1"


def specification_of(network: FixedPointNetwork) -> dict[str, Any]:
    """Return the arguments, arrays as ndarray of int64.

    ``weights_in`` (inputs, hidden), ``weights_rec`` (hidden, hidden), ``weights_out`` (hidden,
    outputs) hold 8-bit weights, which ``weight_shift_in``, ``weight_shift_rec`` and
    ``weight_shift_out`` shift to the left; ``dash_syn``, ``dash_mem``, ``threshold`` and ``bias``
    (hidden,) and the same with ``_out`` (outputs,) are the neurons' registers. Synapse 2 and
    aliases are not used.
    """
    output = network.output
    hidden = [p for p in network.populations if p is not output]
    places, start = {}, 0
    for p in hidden:
        places[p.name] = slice(start, start + p.size)
        start += p.size
    inputs = int(np.prod(network.input_shape))
    everything = slice(None)
    weights = {
        "in": np.zeros((inputs, start), np.int64),
        "rec": np.zeros((start, start), np.int64),
        "out": np.zeros((start, output.size), np.int64),
    }
    # A signed weight of all the register's bits lies so far from its lowest.
    own = network.formats.weight_shift(network.formats.weight_bits[-1])
    shifts = dict.fromkeys(weights, 0)
    for projection in network.projections:
        memory = MEMORIES[role(network, projection)]
        rows, columns = (places.get(name, everything) for name in (projection.pre, projection.post))
        weights[memory][rows, columns] = projection.connection.weight.T.astype(np.int64) >> own
        shifts[memory] = projection.weight_exp + own

    def registers(name: str) -> IntArray:
        found = [getattr(p, name) for p in hidden]
        return np.concatenate([np.zeros(0, np.int64), *found]).astype(np.int64)

    names = {"dash_syn": "du", "dash_mem": "dv", "threshold": "vth", "bias": "bias_mant"}
    return {
        **{f"weights_{memory}": weight for memory, weight in weights.items()},
        **{ours: registers(theirs) for ours, theirs in names.items()},
        **{
            f"{ours}_out": getattr(output, theirs).astype(np.int64)
            for ours, theirs in names.items()
        },
        **{f"weight_shift_{memory}": shift for memory, shift in shifts.items()},
        "aliases": [[] for _ in range(start)],
    }


def write_specification(network: FixedPointNetwork, path: Path) -> Exported:
    """Write a JSON file with the arguments under ``specification``."""
    given = {
        name: value.tolist() if isinstance(value, np.ndarray) else value
        for name, value in specification_of(network).items()
    }
    populations = [
        {"name": p.name, "size": p.size, "steps_behind_the_input": network.depth[p.name] - 1}
        for p in network.populations
    ]
    whole = {
        "format": FORMAT,
        "readout": network.readout,
        "populations": populations,
        "specification": given,
    }
    data = (json.dumps(whole) + "\n").encode()
    write_whole(path, data)
    inputs, outputs = len(given["weights_in"]), len(given["threshold_out"])
    hidden = len(given["threshold"])
    return Exported(
        {"bytes": len(data), "inputs": inputs, "hidden": hidden, "outputs": outputs},
        [f"Xylo configuration: {inputs} inputs, {hidden} hidden and {outputs} output neurons"],
    )
