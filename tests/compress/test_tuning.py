"""A variant has to be better than chance explains."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import float_networks as nets
from osbc_deploy.compress import CompressionOptions, compress
from osbc_deploy.compress.quantize import quantize_rows
from osbc_deploy.compress.tuning import _best, _Variant

PLAIN, CROSS, FREE = _Variant(), _Variant(cross=True), _Variant(free_bias=True)


@pytest.mark.parametrize(
    ("gains", "better"),
    [
        # Means of 0.5; the standard error of the mean of n numbers is that of one by sqrt(n).
        ([0.5, 0.5, 0.5, 0.5], True),
        ([0.0, 1.0, 0.0, 1.0], True),  # sqrt(1/3) / 2 = 0.289
        ([-0.4, 1.4, -0.4, 1.4], False),  # 1.039 / 2 = 0.520
        ([-0.36, 1.36, -0.36, 1.36], True),  # 0.993 / 2 = 0.497
        ([-0.5, -0.5, -0.5, -0.5], False),
    ],
)
def test_a_gain_beyond_its_standard_error_wins(gains: list[float], better: bool) -> None:
    errors = np.full(4, 2.0)
    assert _best({PLAIN: errors, CROSS: errors - gains}) == (CROSS if better else PLAIN)


def test_each_is_held_against_the_best_so_far() -> None:
    errors = {PLAIN: 3.0, CROSS: 1.0, FREE: 2.0}
    assert _best({variant: np.full(4, error) for variant, error in errors.items()}) == CROSS


@pytest.mark.parametrize("bits", [2, 3])
def test_the_code_that_only_one_sign_has_is_tried_and_has_to_help(bits: int) -> None:
    net = nets.mlp(sizes=(20, 16, 6, 4))
    x = nets.spikes(6, 60, 10, 20)
    options = CompressionOptions(sparsity=0.0, bits=bits)
    for projection in compress(net, x, options).projections.values():
        chosen = "full range" in projection.chosen
        assert any("full range" in name for name in projection.tried)
        full = min(e for name, e in projection.tried.items() if "full range" in name)
        others = min(e for name, e in projection.tried.items() if "full range" not in name)
        # Beyond chance: a tie or a loss never wins.
        assert not chosen or full < others
        assert projection.codes.max() <= 2 ** (bits - 1) - 1
        assert chosen or projection.codes.min() > -(2 ** (bits - 1))
    wide = compress(net, x, replace(options, bits=4))
    assert not any("full range" in n for p in wide.projections.values() for n in p.tried)


def test_one_more_code_loses_no_more() -> None:
    rng = np.random.default_rng(3)
    W, A = rng.normal(size=(24, 12)), rng.normal(size=(60, 12))
    H = A.T @ A
    for bits in (2, 3):
        scale = np.abs(W).max(axis=1) / 2 ** (bits - 1)
        lost = {}
        for full in (False, True):
            (codes,), (found,) = quantize_rows(
                W, H, np.ones(W.shape, bool), [scale], [bits], full=full
            )
            change = W - codes * scale[:, None]
            assert np.allclose(found, np.einsum("ri,ij,rj->r", change, H, change))
            low = -(2 ** (bits - 1)) if full else 1 - 2 ** (bits - 1)
            assert codes.min() == low
            lost[full] = found.sum()
        assert lost[True] < lost[False]
