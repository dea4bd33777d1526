"""Cores that differ, one layer on each: Speck against sinabs' counts and its documentation."""

from __future__ import annotations

import numpy as np

from chip_networks import network, population
from osbc_deploy.chip.mapping import map_network
from osbc_deploy.chip.target import load_target
from osbc_deploy.fixedpoint.network import FixedConv, FixedDense, FixedPointNetwork


class TestSpeck:
    TARGET = load_target("speck")

    def net(self, size: int = 28) -> FixedPointNetwork:
        return network(
            (2, size, size),
            (
                FixedConv(np.full((20, 2, 5, 5), 1), (1, 1), (1, 1), (1, 1), 1),
                population("a", (20, size - 2, size - 2)),
                8,
            ),
            (
                FixedDense(np.full((10, 20 * (size - 2) ** 2), 1)),
                population("b", (10,)),
                8,
            ),
        )

    def test_kernels_and_neurons_are_rounded_up_to_powers_of_two(self) -> None:
        mapping = map_network(self.net(16), self.TARGET)
        a, b = mapping.cores
        # Kernel: 2 channels, 25 positions in 5 bits, 20 features in 5. Neurons: 14 x 14 in 4 + 4.
        assert a.usage.used["kernel"] == 2 << (5 + 5)
        assert a.usage.used["neuron"] == 20 << (4 + 4)
        # The dense layer is a 14 x 14 kernel (196 positions in 8 bits) of 10 features in 4 bits.
        assert b.usage.used["kernel"] == 20 << (8 + 4)
        assert b.usage.used["neuron"] == 10
        assert mapping.word_bits == 8
        assert mapping.bytes == (2 << 10) + (20 << 12) + 2 * ((20 << 8) + 10)

    def test_layers_go_to_cores_that_hold_them_and_what_is_exceeded_is_named(self) -> None:
        # 81,920 kernel entries fit no core; the largest has 65,536.
        mapping = map_network(self.net(16), self.TARGET)
        assert not mapping.fits
        assert any("kernel 81920 exceeds" in line for line in mapping.excesses())
        small = network(
            (4, 8, 8),
            (
                FixedConv(np.full((64, 4, 3, 3), 1), (1, 1), (1, 1), (1, 1), 1),
                population("a", (64, 8, 8)),
                8,
            ),
            (
                FixedConv(np.full((64, 64, 2, 2), 1), (2, 2), (0, 0), (1, 1), 1),
                population("b", (64, 4, 4)),
                8,
            ),
            (
                FixedConv(np.full((60, 64, 4, 3), 1), (1, 1), (0, 0), (1, 1), 1),
                population("c", (60, 1, 2)),
                8,
            ),
        )
        mapping = map_network(small, self.TARGET)
        assert mapping.fits, mapping.excesses()
        # c needs 65,536 kernel entries: only cores 5 and 6 have them. b's 16,384 fit any core.
        assert next(c.index for c in mapping.cores if c.population == "c") in (5, 6)
        assert len({c.index for c in mapping.cores}) == 3

    def test_strides_there_are_not_and_too_many_layers_are_faults(self) -> None:
        conv = FixedConv(np.full((2, 2, 3, 3), 1), (3, 3), (0, 0), (1, 1), 1)
        mapping = map_network(
            network((2, 9, 9), (conv, population("a", (2, 3, 3)), 8)), self.TARGET
        )
        assert mapping.excesses() == ["layer to a: stride 3, 1, 2, 4, 8 are possible"]
        layers = [(FixedDense(np.eye(4)), population(f"p{i}", (4,)), 8) for i in range(11)]
        mapping = map_network(network((4,), *layers), self.TARGET)
        assert mapping.excesses() == ["chip: 11 cores needed, 9 available (2 over)"]
