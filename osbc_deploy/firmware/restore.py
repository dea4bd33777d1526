"""The network that a blob holds, for the engine: the same bits from what a device really has."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NoReturn

import numpy as np

from osbc_deploy.arrays import IntArray
from osbc_deploy.firmware.about import About
from osbc_deploy.firmware.blob import INPUT_KINDS
from osbc_deploy.firmware.layout import KINDS, READOUTS
from osbc_deploy.firmware.read import Blob, BlobError, Part
from osbc_deploy.fixedpoint.connections.base import FixedConnection, widest_sum
from osbc_deploy.fixedpoint.formats import RANGES, NumberFormats
from osbc_deploy.fixedpoint.network import (
    INPUT,
    FixedConv,
    FixedDense,
    FixedPointNetwork,
    FixedPopulation,
    FixedProjection,
    InputFormat,
)
from osbc_deploy.limits import Allowance
from osbc_deploy.model.windows import Pair, Shape

__all__ = ["network_of"]

_WEIGHT_BITS = RANGES["weight_bits"][1]
_LONGEST_DELAY = 255


def network_of(blob: Blob, about: About | None = None) -> FixedPointNetwork:
    """Return a network that computes what a blob does.

    It is for running: its widths of weights and scales are not those it was deployed with.

    Parameters
    ----------
    blob : Blob
    about : About, optional
        Its names and the shape of its input.

    Raises
    ------
    BlobError
        For a blob that the runtime takes and that no network is written as.
    """
    try:
        return _Restoring(blob, about).network()
    except (ValueError, OverflowError) as error:
        _refuse(str(error))


def _refuse(what: str) -> NoReturn:
    raise BlobError(f"blob: holds what no export writes ({what}). Export the network again.")


@dataclass
class _Restoring:
    blob: Blob
    about: About | None

    def network(self) -> FixedPointNetwork:
        blob, facts = self.blob, self.blob.facts
        self.names = [INPUT, *self._names()]
        self.depth = self._depth()
        self.shapes = self._shapes()
        self.formats = NumberFormats(
            weight_bits=(_WEIGHT_BITS,), weight_mantissa_bits=_WEIGHT_BITS,
            weight_exp_min=RANGES["weight_exp_min"][0], weight_exp_max=RANGES["weight_exp_max"][1],
            vth_bits=facts["state_bits"] - 1 - facts["state_shift"],
            decay_bits=facts["decay_bits"], state_bits=facts["state_bits"],
            bias_mant_bits=RANGES["bias_mant_bits"][1], bias_exp_min=0, bias_exp_max=0,
            state_shift=facts["state_shift"], decay_u_offset=0,
        )  # fmt: skip
        votes = int(facts["votes"])
        return FixedPointNetwork(
            self.shapes[0],
            tuple(self._population(n, part) for n, part in enumerate(blob.populations)),
            tuple(self._projection(n, part) for n, part in enumerate(blob.projections)),
            self.formats,
            f"vote:{votes}" if votes > 1 else READOUTS[facts["readout"]],
            InputFormat(
                INPUT_KINDS[facts["input_kind"]],  # type: ignore[arg-type]
                facts["input_bits"], bool(facts["input_signed"]), facts["input_scale"],
            ),
        )  # fmt: skip

    def _names(self) -> list[str]:
        if self.about is None:
            return [f"population {n}" for n in range(len(self.blob.populations))]
        return [p.name for p in self.about.populations]

    def _depth(self) -> list[int]:
        """Return :attr:`.FixedPointNetwork.depth`, by number."""
        depth = [0]
        for n in range(len(self.blob.populations)):
            fed = [p.fields["pre"] for p in self.blob.projections if p.fields["post"] == n]
            depth.append(1 + max((depth[pre] for pre in fed if pre <= n), default=0))
        return depth

    def _shapes(self) -> list[Shape]:
        """Return the shapes that convolutions ask for; everything else is flat."""
        blob = self.blob
        sizes = [int(blob.facts["inputs"]), *(q.fields["size"] for q in blob.populations)]
        shapes: list[Shape] = [(size,) for size in sizes]
        if self.about is not None:
            shapes[0] = tuple(self.about.input.shape)
        for p in blob.projections:
            if g := p.geometry:
                shapes[p.fields["pre"]] = (g["c_in"], g["height"], g["width"])
                shapes[p.fields["post"] + 1] = (g["c_out"], g["rows"], g["columns"])
        return shapes

    def _population(self, number: int, part: Part) -> FixedPopulation:
        q, tables, size = part.fields, part.tables, part.fields["size"]
        unity, shift = self.formats.decay_unity, self.formats.state_shift
        threshold, taken = tables["threshold"], tables["threshold"] + tables["drop"]
        if ((threshold | taken) & ((1 << shift) - 1)).any():
            _refuse(f"population {number}: thresholds between the chip's")
        # Only the unit of margins follows from the scale.
        unit = 2.0 ** -(self.blob.facts["margin_unit"] + 3)
        return FixedPopulation(
            self.names[number + 1], self.shapes[number + 1],
            du=unity - tables["kept_u"], dv=unity - tables["kept_v"], vth=threshold >> shift,
            bias_mant=tables["bias"], bias_exp=np.zeros(size, np.int64),
            u_init=tables["u_init"], v_init=tables["v_init"], spiking=bool(q["spiking"]),
            v_scale=np.full(size, unit), v_offset=np.zeros(size),
            reset="subtract" if q["subtract"] else "zero",
            reset_interval=q["reset_interval"], reset_offset=q["reset_offset"],
            drop=taken >> shift if q["subtract"] else None,
        )  # fmt: skip

    def _projection(self, number: int, part: Part) -> FixedProjection:
        p = part.fields
        pre, post = p["pre"], p["post"] + 1
        if p["shift"] and p["right"]:
            _refuse(f"projection {number}: shifts both ways")
        # Steps beyond those that every projection between the two takes.
        late = p["latency"] - (1 + self.depth[pre] - self.depth[post])
        if part.geometry:
            late -= 0 if pre else self.depth[post] - 1
            if late:
                _refuse(f"projection {number}: a convolution with delays")
            connection: FixedConnection = _conv(part)
        else:
            connection = self._dense(number, part, late)
        widest = widest_sum(connection.weight) << p["shift"]
        if bool(p["wraps"]) != (connection.wraps and widest >= self.formats.state_limit):
            _refuse(f"projection {number}: wraps a sum otherwise than networks do")
        if p["direct"] and widest << self.formats.state_shift >= self.formats.state_limit:
            _refuse(f"projection {number}: its sums may wrap, and it has no place for them")
        return FixedProjection(
            self._layer(number), self.names[pre], self.names[post], connection, _WEIGHT_BITS,
            p["shift"] - p["right"], graded=bool(p["graded"]),
        )  # fmt: skip

    def _layer(self, number: int) -> str:
        """Return the name of a projection: of the first into a population that of its layer."""
        post = self.blob.projections[number].fields["post"]
        place = number - self.blob.populations[post].fields["first"]
        name = f"population {post}" if self.about is None else self.about.populations[post].layer
        return f"{name} ({place})" if place else name

    def _dense(self, number: int, part: Part, late: int) -> FixedDense:
        p, tables = part.fields, part.tables
        before = int(np.prod(self.shapes[p["pre"]]))
        after = self.blob.populations[p["post"]].fields["size"]
        if KINDS[p["kind"]] == "dense":
            weight = tables["codes"].reshape(before, after).T
            return FixedDense(weight, _delays(number, late, np.full(weight.shape, late)))
        Allowance("blob", error=BlobError, remedy="Run it on the device").take(
            10 * before * after, 10 * before * after
        )
        source = np.repeat(np.arange(before), np.diff(tables["start"]))
        if len(np.unique(tables["target"] * before + source)) < len(source):
            _refuse(f"projection {number}: two synapses between the same neurons")
        weight, delay = np.zeros((after, before), np.int64), np.full((after, before), late)
        weight[tables["target"], source] = tables["codes"]
        delay[tables["target"], source] = late + tables["delay"]
        return FixedDense(weight, _delays(number, late, delay))


def _delays(number: int, late: int, delay: IntArray) -> IntArray | None:
    if late < 0 or delay.max(initial=0) > _LONGEST_DELAY:
        _refuse(f"projection {number}: delays from {late} to {delay.max(initial=0)}")
    return delay if delay.any() else None


def _conv(part: Part) -> FixedConv:
    g = part.geometry
    groups, share = g["groups"], g["c_out"] // g["groups"]
    per_group = g["c_in"] // groups
    # The other way round than Convolution.by_input.
    codes = part.tables["codes"].reshape(groups, per_group, g["kh"], g["kw"], share)
    weight = codes.transpose(0, 4, 1, 2, 3).reshape(-1, per_group, g["kh"], g["kw"])

    def pair(name: str) -> Pair:
        return g[f"{name}_y"], g[f"{name}_x"]

    return FixedConv(weight, pair("stride"), pair("padding"), pair("dilation"), groups)
