"""Poolings that are kept apart give the sums that torch gives, and Lava the engine's bits."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import avg_pool2d, conv2d, linear

from osbc_deploy import FitBudget, fit
from osbc_deploy.backends import load_backend
from osbc_deploy.chip.pooling import counted_poolings
from osbc_deploy.chip.target import load_target
from osbc_deploy.compress.network import compress
from osbc_deploy.compress.options import CompressionOptions
from osbc_deploy.errors import UnsupportedModelError
from osbc_deploy.fixedpoint.engine import run
from osbc_deploy.formats.nir.neurons import LIF
from osbc_deploy.lower.counting import kept_apart
from osbc_deploy.lower.lowering import lower
from osbc_deploy.model.graph import AvgPool, Conv, Dense, Network, Population, Projection
from osbc_deploy.progress import SILENT

FORMATS = load_target("loihi2").number_formats
NONE, ONE = np.zeros(()), np.ones(())
OVERLAPPING = AvgPool((3, 3), (2, 2), (1, 1))
TILES = AvgPool((2, 2), (2, 2))
WHOLE = AvgPool((4, 4), (4, 4))


def drawn(seed: int, *shape: int) -> Any:
    return np.random.default_rng(seed).normal(0.1, 1.0, shape)


def network(fans: int = 150) -> Network:
    """A convolution that hears windows of two kinds, and a matrix behind a pooling of the whole."""
    lif = LIF(0.4 * ONE, ONE, NONE, 0.15 * ONE, NONE)
    padded = Conv(drawn(2, 4, 3, 3, 3), drawn(5, 4) * 0.1, padding=(1, 1))
    return Network(
        (2, 8, 8),
        (
            Population("a", (3, 8, 8), lif),
            Population("c", (4, 4, 4), lif),
            Population("d", (fans,), lif),
        ),
        (
            Projection("to a", "input", "a", Conv(drawn(1, 3, 2, 3, 3), padding=(1, 1))),
            Projection("to c", "a", "c", padded, OVERLAPPING),
            Projection("beside", "a", "c", Conv(drawn(3, 4, 3, 1, 1)), TILES),
            Projection("to d", "c", "d", Dense(drawn(4, fans, 4)), WHOLE),
        ),
        dtype="float64",
    )


def spikes(*shape: int) -> Any:
    return (np.random.default_rng(0).random((6, 8, *shape)) < 0.2).astype(np.uint8)


def lowered(net: Network, x: Any) -> Any:
    compressed = compress(net, x, CompressionOptions(sparsity=0.2, bits=4, tune=False))
    return compressed, lower(compressed, x, FORMATS, counted=["to d"])


def in_proportion(ours: Any, theirs: Any) -> bool:
    """Tell whether whole numbers are the same multiple of others everywhere."""
    at = np.unravel_index(np.abs(theirs).argmax(), theirs.shape)
    return np.array_equal(ours * theirs[at], theirs * ours[at]) and theirs[at] != 0


def test_sums_are_torchs_and_bits_are_lavas() -> None:
    net, x = network(), spikes(2, 8, 8)
    compressed, found = lowered(net, x)
    names = [p.name for p in found.network.populations]
    assert sum("digit" in name for name in names) == 4 + 5
    done = run(found.network, x, record=names, states=names)
    frames = len(x) * x.shape[1]
    a, c = (
        torch.from_numpy(done.spikes[name].reshape(frames, *net.shape_of(name))).double()
        for name in ("a", "c")
    )
    codes = {n: torch.from_numpy(p.codes.astype(float)) for n, p in compressed.projections.items()}
    # Sums of 9 and of 4, of which the averages have 36 in common.
    expected = 4 * conv2d(avg_pool2d(a, 3, 2, 1, divisor_override=1), codes["to c"], padding=1)
    expected += 9 * conv2d(avg_pool2d(a, 2, divisor_override=1), codes["beside"])
    assert in_proportion(done.u["c"].reshape(expected.shape), expected.numpy().astype(np.int64))
    expected = linear(avg_pool2d(c, 4, divisor_override=1).flatten(1), codes["to d"])
    assert in_proportion(done.u["d"].reshape(expected.shape), expected.numpy().astype(np.int64))
    assert all(0.02 < done.spikes[name].mean() < 0.9 for name in ("a", "c", "d"))
    theirs = load_backend("lava").run(
        found.network, x[:1], states=names, time_limit=120.0, progress=SILENT
    )
    for kind in ("spikes", "u", "v"):
        for name, values in getattr(theirs, kind).items():
            assert np.array_equal(values, getattr(done, kind)[name][:1]), (kind, name)
    said = {d.subject: d.message for d in found.deviations if "kept apart" in d.message}
    assert said == {
        "to c": "the pooling before it is kept apart: 432 gates count the spikes of its windows, "
        "192 send them in 4 binary digits; two more steps on the chip",
        "to d": "the pooling before it is kept apart: 64 gates count the spikes of its windows, "
        "20 send them in 5 binary digits; two more steps on the chip",
    }


def test_what_can_be_merged_is_kept_apart_where_asked() -> None:
    assert kept_apart(network()).digits.keys() == {"to c"}
    assert kept_apart(network(), ["to d", "beside"]).digits.keys() == {"to c", "to d", "beside"}


def test_sums_beyond_the_exponents_of_the_chip_are_refused() -> None:
    """Ten binary digits of codes of 8 bits, the highest worth 2^9 of the lowest."""
    lif = LIF(0.4 * ONE, ONE, NONE, 0.15 * ONE, NONE)
    pool = AvgPool((32, 32), (32, 32))
    net = Network(
        (1, 32, 32),
        (Population("a", (1, 32, 32), lif), Population("d", (3,), lif)),
        (
            Projection("to a", "input", "a", Conv(np.ones((1, 1, 1, 1)))),
            Projection("to d", "a", "d", Dense(drawn(4, 3, 1)), pool),
        ),
    )
    x = spikes(1, 32, 32)
    done = compress(net, x, CompressionOptions(sparsity=0.0, bits=8, tune=False))
    with pytest.raises(UnsupportedModelError, match="to d: needs a weight exponent of 9, the chip"):
        lower(done, x, FORMATS, counted=["to d"])
    assert counted_poolings(net, load_target("loihi2"), done.options) == set()


@pytest.mark.parametrize(
    ("size", "pool", "padding", "merged"),
    [
        (10, AvgPool((3, 3), (2, 2)), 1, False),
        (11, AvgPool((3, 3), (2, 2)), 1, False),
        (11, AvgPool((3, 3), (2, 2)), 0, True),
        # Behind 11 of 11 rows in pairs one is left over, where the convolution pads with zeros.
        (11, TILES, 1, False),
        (10, AvgPool((2, 2), (2, 2), (1, 1)), 1, True),
        (10, OVERLAPPING, 1, False),
        (9, OVERLAPPING, 1, True),
        (9, AvgPool((3, 3), (1, 1), (1, 1)), 1, False),
    ],
)
def test_windows_before_a_padded_convolution(
    size: int, pool: AvgPool, padding: int, merged: bool
) -> None:
    lif = LIF(0.4 * ONE, ONE, NONE, 0.15 * ONE, NONE)
    inner = pool.output_shape((3, size, size))
    conv = Conv(drawn(2, 4, 3, 3, 3), padding=(padding, padding))
    net = Network(
        (3, size, size),
        (
            Population("a", (3, size, size), lif),
            Population("c", conv.output_shape(inner), lif),
        ),
        (
            Projection("to a", "input", "a", Conv(2 * np.ones((3, 1, 1, 1)), groups=3)),
            Projection("to c", "a", "c", conv, pool),
        ),
        dtype="float64",
    )
    x = spikes(3, size, size)
    compressed, found = lowered(net, x)
    done = run(found.network, x, record=["a"], states=["c"])
    a = torch.from_numpy(done.spikes["a"].reshape(-1, 3, size, size)).double()
    codes = torch.from_numpy(compressed.projections["to c"].codes.astype(float))
    sums = avg_pool2d(a, pool.kernel, pool.stride, pool.padding, divisor_override=1)
    expected = conv2d(sums, codes, padding=padding).numpy().astype(np.int64)
    assert in_proportion(done.u["c"].reshape(expected.shape), expected)
    assert any("digit" in p.name for p in found.network.populations) != merged


def test_windows_of_a_graded_input_are_not_counted() -> None:
    net = network()
    heard = replace(
        net.projections[1], pre="input", connection=Conv(drawn(2, 4, 2, 3, 3), padding=(1, 1))
    )
    net = replace(net, projections=(net.projections[0], heard, *net.projections[2:]))
    counts = spikes(2, 8, 8).astype(np.int32) * 3
    with pytest.raises(UnsupportedModelError, match="input counted:"):
        lowered(net, counts)


def test_fit_counts_what_is_built() -> None:
    budget = FitBudget(cores=120)
    net = network()
    # Windows of 4 beside those of 9 make codes of 8 bits too wide.
    net = replace(net, projections=tuple(p for p in net.projections if p.name != "beside"))
    found = fit(
        net, spikes(2, 8, 8), target="loihi2-sim", budget=budget, bits=[4], backend="engine"
    )
    assert found.as_predicted
    assert any("digit" in p.name for p in found.deployment.lowered.network.populations)


def test_what_can_be_neither_merged_nor_counted_is_refused() -> None:
    net = network()
    # More than the 1024 spikes that gates count exactly.
    wide = replace(net.projections[1], pool=AvgPool((33, 33), (2, 2), (16, 16)))
    net = replace(net, projections=(net.projections[0], wide, *net.projections[2:]))
    with pytest.raises(UnsupportedModelError, match="cannot be merged"):
        lowered(net, spikes(2, 8, 8))


def test_a_pooling_within_a_loop_is_not_counted() -> None:
    net = network()
    back = Projection("back", "d", "a", Dense(drawn(6, 192, 60)))
    assert kept_apart(net).digits
    assert not kept_apart(replace(net, projections=(*net.projections, back))).digits
