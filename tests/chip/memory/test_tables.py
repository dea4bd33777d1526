"""Cores that differ, one layer on each: Speck against sinabs' counts and its documentation."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest

import chip_networks
from chip_networks import population
from osbc_deploy.chip.layers import Afferent, Layer
from osbc_deploy.chip.mapping import Mapping, map_network
from osbc_deploy.chip.target import load_target
from osbc_deploy.fixedpoint.network import (
    FixedConnection,
    FixedConv,
    FixedDense,
    FixedPointNetwork,
    Pooling,
)

network = partial(chip_networks.network, chip="speck")


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

    @pytest.mark.parametrize(
        ("source", "weights", "biased", "counted", "cores"),
        [
            # DynapcnnLayer.memory_summary and find_chip_layers of sinabs 3.1.3.
            ((3, 40, 24), (12, (5, 5), 2, 2, 1), True, (1536, 6144, 12), range(9)),
            # The weights are counted that a dilated kernel has, not the room it spans.
            ((6, 30, 30), (40, (3, 3), 1, 0, 3), False, (6144, 40_960, 0), range(3)),
            ((20, 5, 5), 33, True, (40_960, 33, 33), (5, 6)),
            # Beyond what the documentation allows, which sinabs does not check.
            ((1, 65, 1), (1, (1, 1), 1, 0, 1), True, (1, 128, 1), range(9)),
            ((64, 16, 16), (64, (4, 4), 4, 0, 1), False, (65_536, 1024, 0), (5, 6)),
            ((65, 16, 16), (64, (4, 4), 4, 0, 1), False, (66_560, 1024, 0), ()),
        ],
    )
    def test_entries_and_cores_as_sinabs_counts_them(
        self, source: Any, weights: Any, biased: bool, counted: Any, cores: Any
    ) -> None:
        connection: FixedConnection
        if isinstance(weights, int):
            connection = FixedDense(np.full((weights, int(np.prod(source))), 1))
        else:
            out, kernel, *pairs = weights
            weight = np.full((out, source[0], *kernel), 1)
            connection = FixedConv(weight, *((n, n) for n in pairs), 1)
        shape = connection.output_shape(source)
        sets = np.zeros(int(np.prod(shape)), int)
        layer = Layer(
            "a", shape, (Afferent("input", source, connection, 8),), sets, sets, sets, biased
        )
        rules = self.TARGET.memory
        usage = rules.cost(layer, layer.whole)
        assert tuple(usage.used[name] for name in ("kernel", "neuron", "bias")) == counted
        able = [core for core in range(9) if not usage.excess(rules.core_limits(core))]
        assert able == list(cores)

    def pooled(self, window: tuple[int, int], pooling: Pooling | None) -> Mapping:
        """Map 2 x 32 x 32 -> 8 x 32 x 32, pooled -> 16, pooled -> 10, with the poolings merged."""
        rng = np.random.default_rng(0)
        wide = np.ones((1, 1, *window), int)
        rows, columns = 32 // window[0], 32 // window[1]
        kernel = np.kron(2 * rng.integers(-9, 9, (16, 8, 3, 3)), wide)
        dense = 2 * rng.integers(-9, 9, (10, 16, rows // window[0], columns // window[1]))
        net = network(
            (2, 32, 32),
            (
                FixedConv(2 * rng.integers(-9, 9, (8, 2, 3, 3)), (1, 1), (1, 1), (1, 1), 1),
                population("a", (8, 32, 32)),
                8,
            ),
            (FixedConv(kernel, window, window, (1, 1), 1), population("b", (16, rows, columns)), 8),
            (FixedDense(np.kron(dense, wide).reshape(10, -1)), population("c", (10,)), 8),
        )
        first, *behind = net.projections
        return map_network(
            replace(net, projections=(first, *(replace(p, pooling=pooling) for p in behind))),
            self.TARGET,
        )

    def test_poolings_stay_on_the_core_and_take_no_memory(self) -> None:
        mapping = self.pooled((2, 2), Pooling((2, 2)))
        # 8 channels, 9 positions in 4 bits, 16 features in 4; 16 channels, 8 x 8 in 6, 10 in 4.
        kernels = [core.usage.used["kernel"] for core in mapping.cores]
        assert kernels == [2 << (4 + 3), 8 << (4 + 4), 16 << (6 + 4)]
        assert [core.usage.synapses for core in mapping.cores][1:] == [16 * 8 * 9, 10 * 16 * 64]
        assert mapping.fits
        assert not mapping.notes

    def test_poolings_that_a_file_does_not_tell_of_are_counted_and_said(self) -> None:
        mapping = self.pooled((2, 2), None)
        assert [core.usage.used["kernel"] for core in mapping.cores][1:] == [8192, 65_536]
        assert [note.split(":")[0] for note in mapping.notes] == ["layer to b", "layer to c"]
        assert all("2 x 2" in note for note in mapping.notes)

    def test_poolings_that_no_core_has_are_part_of_the_kernel(self) -> None:
        mapping = self.pooled((2, 4), Pooling((2, 4)))
        # 3 x 3 positions of 2 x 4 weights: 72 in 7 bits.
        assert mapping.cores[1].usage.used["kernel"] == 8 << (7 + 4)
        assert any("square" in line for line in mapping.excesses())
        assert all("2 x 4" in note for note in mapping.notes)

    def test_what_is_sent_is_measured_behind_the_pooling(self) -> None:
        def excesses(pooling: Pooling | None) -> list[str]:
            net = network(
                (1, 128, 128),
                (FixedConv(np.full((2, 1, 3, 3), 1), (1, 1), (1, 1), (1, 1), 1),
                 population("a", (2, 128, 128)), 8),
                (FixedConv(np.kron([[[[1, 2], [3, 4]]] * 2], np.ones((1, 1, 4, 4), int)),
                           (8, 8), (0, 0), (1, 1), 1),
                 population("b", (1, 16, 16)), 8),
            )  # fmt: skip
            first, second = net.projections
            net = replace(net, projections=(first, replace(second, pooling=pooling)))
            return map_network(net, self.TARGET).excesses()

        assert excesses(Pooling((4, 4))) == []
        assert excesses(None) == ["layer to a: an output of 128 pixels a side, 64 are possible"]

    @pytest.mark.parametrize(
        ("source", "geometry", "rule"),
        [
            ((2, 9, 9), {"stride": (3, 3)}, "stride 3, 1, 2, 4, 8 are possible"),
            ((2, 9, 9), {"kernel": (3, 2)}, "a kernel of 3 x 2, square ones are possible"),
            ((2, 20, 20), {"kernel": (17, 17)}, "a kernel of 17 pixels a side, 16 are possible"),
            ((2, 9, 9), {"padding": (8, 0)}, "a padding of 8 pixels a side, 7 are possible"),
            ((2, 9, 9), {"dilation": (1, 2)}, "dilation 2, 1 is possible; write the kernel out "
             "with the zeros between its weights"),
            ((2, 129, 9), {"stride": (8, 1)}, "an input of 129 pixels a side, 128 are possible"),
            ((1, 65, 9), {"padding": (1, 1)}, "an output of 65 pixels a side, 64 are possible"),
            ((1025, 3, 3), {}, "1025 channels, 1024 are possible"),
            ((4, 9, 9), {"groups": 2}, "a convolution in 2 groups, 1 is possible"),
        ],
    )  # fmt: skip
    def test_rules_of_the_documentation(self, source: Any, geometry: Any, rule: str) -> None:
        pairs = {"stride": (1, 1), "padding": (0, 0), "dilation": (1, 1), "groups": 1} | geometry
        kernel = pairs.pop("kernel", (3, 3))
        conv = FixedConv(np.full((2, source[0] // pairs["groups"], *kernel), 1), **pairs)
        net = network(source, (conv, population("a", conv.output_shape(source)), 8))
        assert map_network(net, self.TARGET).excesses() == [f"layer to a: {rule}"]

    def test_a_matrix_behind_a_map_that_is_not_square_is_no_kernel(self) -> None:
        net = network((2, 3, 5), (FixedDense(np.full((4, 30), 1)), population("a", (4,)), 8))
        (fault,) = map_network(net, self.TARGET).excesses()
        assert fault == "layer to a: a kernel of 3 x 5, square ones are possible"

    def test_a_layer_sends_to_two_others_and_hears_one(self) -> None:
        eye = FixedDense(np.eye(4, dtype=int))
        net = network((4,), *((eye, population(name, (4,)), 8) for name in "abcd"))
        extra = [replace(net.projections[0], name=f"skip {i}", pre="a", post=p) for i, p in
                 enumerate("cd")]  # fmt: skip
        late = FixedDense(np.eye(4, dtype=int), np.full((4, 4), 3))
        net = replace(
            net,
            projections=(*net.projections, *(replace(p, connection=late) for p in extra)),
        )
        assert map_network(net, self.TARGET).excesses() == [
            "layer to a: 3 destinations, 2 are possible",
            "layer to c: 2 projections into one layer, 1 is possible",
            "layer to c: synaptic delays, none are possible",
            "layer to d: 2 projections into one layer, 1 is possible",
            "layer to d: synaptic delays, none are possible",
        ]

    def test_scales_of_another_chip_are_not_different_neurons(self) -> None:
        # One threshold of 0.3 in units of 0.001, 0.0007 and 0.002, as rows of three scales have it.
        scale = np.repeat([0.001, 0.0007, 0.002], 2)
        one = replace(population("a", (6,)), vth=np.rint(0.3 / scale), v_scale=scale)
        eye = FixedDense(np.eye(6, dtype=int))
        assert map_network(network((6,), (eye, one, 8)), self.TARGET).fits
        three = replace(one, vth=np.rint(np.repeat([0.3, 0.4, 0.5], 2) / scale))
        two = replace(one, vth=np.array([300, 301] * 3), v_scale=np.full(6, 0.001))
        decays = replace(one, dv=np.array([0, 0, 0, 0, 0, 7]))
        for neurons, what in ((three, "3 thresholds"), (two, "2 thresholds"), (decays, "2 decays")):
            (fault,) = map_network(network((6,), (eye, neurons, 8)), self.TARGET).excesses()
            assert (
                fault == f"layer to a: different neurons in one layer ({what}), 1 kind is possible"
            )

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
                FixedConv(np.full((60, 64, 4, 4), 1), (1, 1), (0, 0), (1, 1), 1),
                population("c", (60, 1, 1)),
                8,
            ),
        )
        mapping = map_network(small, self.TARGET)
        assert mapping.fits, mapping.excesses()
        # c needs 65,536 kernel entries: only cores 5 and 6 have them. b's 16,384 fit any core.
        assert next(c.index for c in mapping.cores if c.population == "c") in (5, 6)
        assert len({c.index for c in mapping.cores}) == 3

    def test_more_layers_than_cores_do_not_fit(self) -> None:
        layers = [(FixedDense(np.eye(4)), population(f"p{i}", (4,)), 8) for i in range(11)]
        mapping = map_network(network((4,), *layers), self.TARGET)
        assert mapping.excesses() == ["chip: 11 cores needed, 9 available (2 over)"]
