"""Codes of weights on a coarser grid, the error of each made up for by the others of its output."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from osbc_deploy.arrays import InputArray, IntArray
from osbc_deploy.compress.damping import damp
from osbc_deploy.compress.hessian import membrane_moments
from osbc_deploy.compress.quantize import quantize_rows
from osbc_deploy.compress.result import CompressedProjection
from osbc_deploy.lower.scaling import held
from osbc_deploy.model.delivery import delivered
from osbc_deploy.model.graph import Network, Population, Projection

__all__ = ["Recoding"]


class Recoding:
    """Finds coarser codes of weights that hear the input alone, as compression rounds weights.

    Parameters
    ----------
    network : Network
    population : Population
        That they lead to.
    weights : Mapping of CompressedProjection
    calibration : ndarray (n, T, *input_shape)
    """

    def __init__(
        self,
        network: Network,
        population: Population,
        weights: Mapping[str, CompressedProjection],
        calibration: InputArray,
    ) -> None:
        self._afferents: Sequence[Projection] = network.afferents(population.name)
        self._given = [weights[a.name] for a in self._afferents]
        heard = [delivered(network, a, calibration) for a in self._afferents]
        moments = membrane_moments(self._afferents, population.neuron.dynamics(), heard)
        self._damped = [damp(H) for H in moments.hessian]

    def coarser(self, bits: IntArray) -> dict[str, CompressedProjection]:
        """Return weights in codes that are coarser by powers of two (n_post or c_out,)."""
        found = [held(each, bits) for each in self._given]
        groups, rows = len(self._damped), len(bits) // len(self._damped)
        widths = [each.codes.size // len(bits) for each in found]
        W, codes = (
            np.concatenate([x.astype(np.float64).reshape(groups, rows, -1) for x in each], axis=2)
            for each in ([g.weight for g in self._given], [f.codes for f in found])
        )
        scale = found[0].scale.reshape(groups, rows)
        width = max(2, *(each.bits for each in found))
        for g, d in enumerate(self._damped):
            moved = np.flatnonzero(bits.reshape(groups, rows)[g])
            here = np.ix_(moved, d.live)
            walked, _ = quantize_rows(W[g][here], d.H, W[g][here] != 0, [scale[g, moved]], [width])
            codes[g][here] = walked[0]
        parts = np.split(codes, np.cumsum(widths)[:-1], axis=2)
        return {
            each.name: replace(each, codes=part.reshape(each.codes.shape))
            for each, part in zip(found, parts, strict=True)
        }
