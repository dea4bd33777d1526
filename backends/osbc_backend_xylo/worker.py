"""The child process that runs xylosim: ``python -m osbc_backend_xylo.worker FOLDER``.

xylosim's layer keeps bare pointers to its synapse objects, so all of them stay referenced here as
long as it runs.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

from osbc_deploy.arrays import IntArray
from osbc_deploy.child import answer
from osbc_deploy.fixedpoint.network import FixedPointNetwork
from osbc_deploy.formats.xylo.specification import specification_of

__all__ = ["run"]


def run(network: FixedPointNetwork, spikes: IntArray) -> dict[str, IntArray]:
    """Run samples (n, T, *input_shape).

    Returns
    -------
    dict of ndarray (n, T, size)
        By "s", "u" or "v" and the number of the population.
    """
    from xylosim.v2 import XyloLayer, XyloSynapse

    given = specification_of(network)

    def synapses(weight: IntArray) -> list[list[Any]]:
        return [
            [XyloSynapse(int(post), 0, int(row[post])) for post in np.flatnonzero(row)]
            for row in weight
        ]

    kept = [synapses(given[f"weights_{name}"]) for name in ("in", "rec", "out")]
    layer = XyloLayer(
        synapses_in=kept[0],
        synapses_rec=kept[1],
        synapses_out=kept[2],
        aliases=given["aliases"],
        threshold=given["threshold"].tolist(),
        threshold_out=given["threshold_out"].tolist(),
        has_bias=bool(given["bias"].any() or given["bias_out"].any()),
        bias=given["bias"].tolist(),
        bias_out=given["bias_out"].tolist(),
        weight_shift_inp=given["weight_shift_in"],
        weight_shift_rec=given["weight_shift_rec"],
        weight_shift_out=given["weight_shift_out"],
        dash_mem=given["dash_mem"].tolist(),
        dash_mem_out=given["dash_mem_out"].tolist(),
        dash_syns=[[int(k)] for k in given["dash_syn"]],
        dash_syns_out=[[int(k)] for k in given["dash_syn_out"]],
        name="osbc",
    )
    n, steps = spikes.shape[:2]
    late = max(network.depth.values()) - 1
    signal = np.zeros((n, steps + late, given["weights_in"].shape[0]), np.uint8)
    signal[:, :steps] = spikes.reshape(n, steps, -1)
    rows: dict[str, list[IntArray]] = {}
    for sample in signal:
        layer.reset_all()
        output = np.array(layer.evolve(sample.tolist()))
        hidden = {
            "s": np.array(layer.rec_recurrent_spikes),
            "u": np.array(layer.rec_i_syn).T,
            "v": np.array(layer.rec_v_mem).T,
        }
        outputs = {
            "s": output,
            "u": np.array(layer.rec_i_syn_out).T,
            "v": np.array(layer.rec_v_mem_out).T,
        }
        start = 0
        for number, p in enumerate(network.populations):
            last = p is network.output
            own = slice(network.depth[p.name] - 1, network.depth[p.name] - 1 + steps)
            place = slice(0, p.size) if last else slice(start, start + p.size)
            start += p.size
            for what, found in (outputs if last else hidden).items():
                kind = np.uint8 if what == "s" else np.int32
                rows.setdefault(f"{what}{number}", []).append(found[own, place].astype(kind))
    # `kept` lives until here.
    return {name: np.stack(found) for name, found in rows.items() if kept}


if __name__ == "__main__":
    sys.exit(answer(run))
