"""Random networks in Xylo's arithmetic: everything that engine and xylosim must agree on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from osbc_deploy.arrays import IntArray
from osbc_deploy.chip.target import load_target
from osbc_deploy.fixedpoint.formats import NumberFormats
from osbc_deploy.fixedpoint.network import (
    INPUT,
    FixedDense,
    FixedPointNetwork,
    FixedPopulation,
    FixedProjection,
    InputFormat,
)
from osbc_deploy.fixedpoint.xylo import MOST_SPIKES
from osbc_deploy.testing.networks import Case

__all__ = ["xylo_cases"]

_STEPS = 60
_SAMPLES = 2


def xylo_cases(count: int, *, start: int = 0) -> Iterator[Case]:
    """Draw networks of up to 16 inputs, 48 hidden neurons and 8 outputs, the same for a seed."""
    formats = load_target("xylo-audio2").number_formats
    for number in range(start, start + count):
        yield _case(np.random.default_rng(number), formats)


def _case(rng: Any, formats: NumberFormats) -> Case:
    strong, biased, deep, recurrent, counts = (bool(rng.integers(2)) for _ in range(5))
    sizes = [int(rng.integers(1, 25)) for _ in range(1 + deep)] + [int(rng.integers(1, 9))]
    inputs = int(rng.integers(1, 17))
    names = [*(f"hidden {n}" for n in range(1 + deep)), "output"]
    # The largest shifts saturate at once; biases alone do where decays are slow.
    top = formats.weight_exp_max if strong else formats.weight_exp_min + 2
    shift = {m: int(rng.integers(formats.weight_exp_min, top + 1)) for m in ("in", "rec", "out")}
    spread = rng.choice([5, 30, 100])

    def connect(name: str, pre: int, post: int, memory: str) -> FixedProjection:
        before = inputs if pre < 0 else sizes[pre]
        return FixedProjection(
            name,
            INPUT if pre < 0 else names[pre],
            names[post],
            FixedDense(_weights(rng, (sizes[post], before), spread, formats)),
            formats.weight_bits[-1],
            shift[memory],
            graded=counts and pre < 0,
        )

    projections = [connect("in", -1, 0, "in")]
    if deep:
        projections.append(connect("between", 0, 1, "rec"))
    if recurrent:
        projections += [connect(f"{n} to itself", n, n, "rec") for n in range(1 + deep)]
    projections.append(connect("out", deep, deep + 1, "out"))
    populations = tuple(
        _population(rng, name, size, formats, strong=strong, biased=biased)
        for name, size in zip(names, sizes, strict=True)
    )
    kind = InputFormat("integers", MOST_SPIKES["input"].bit_length()) if counts else None
    network = FixedPointNetwork(
        (inputs,), populations, tuple(projections), formats, "sum", kind  # type: ignore[arg-type]
    )  # fmt: skip
    signal = rng.poisson(rng.choice([0.1, 1.0, 5.0]), (_SAMPLES, _STEPS, inputs))
    most = MOST_SPIKES["input"] if counts else 1
    spikes = signal.clip(0, most).astype(np.int32 if counts else np.uint8)
    words = ("strong" if strong else "calm", "two hidden" if deep else "one hidden")
    flags = {"biases": biased, "recurrent": recurrent, "input counts": counts}
    return Case(network, spikes, (*words, *(name for name, there in flags.items() if there)))


def _weights(rng: Any, shape: tuple[int, int], spread: float, formats: NumberFormats) -> IntArray:
    top = 1 << (formats.weight_bits[-1] - 1)
    weight = np.clip(np.rint(rng.normal(0, spread, shape)), -top, top - 1).astype(np.int64)
    weight[rng.random(shape) < 0.01] = -top
    return np.asarray(weight << formats.weight_shift(formats.weight_bits[-1]))


def _population(
    rng: Any, name: str, size: int, formats: NumberFormats, *, strong: bool, biased: bool
) -> FixedPopulation:
    zero = np.zeros(size, np.int64)
    largest = formats.vth_max if strong else 2000
    bias = rng.integers(-1 - formats.bias_mant_max, formats.bias_mant_max + 1, size)
    return FixedPopulation(
        name=name,
        shape=(size,),
        du=rng.integers(0, formats.decay_max + 1, size),
        dv=rng.integers(0, formats.decay_max + 1, size),
        vth=rng.integers(1, largest + 1, size),
        bias_mant=(bias if strong else bias >> 6) if biased else zero,
        bias_exp=zero,
        u_init=zero,
        v_init=zero,
        spiking=True,
        v_scale=np.ones(size),
        v_offset=np.zeros(size),
        reset="subtract",
    )
