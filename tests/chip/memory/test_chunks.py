"""The memory of a Loihi 1 core: nengo-loihi's counts, synapse lists, hand calculations."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest

from chip_networks import network, population
from osbc_deploy.chip.layers import Afferent, Layer
from osbc_deploy.chip.mapping import map_network
from osbc_deploy.chip.partition import cut
from osbc_deploy.chip.target import load_target
from osbc_deploy.fixedpoint.network import FixedConv, FixedDense


def written_out(layer: Layer) -> int:
    """Return the synapse bits of a convolution from lists of every pixel's synapses.

    A pixel's axon points to the lowest of its neurons modulo 256; the synapses hold the rest.
    Pixels with the same lists share them.
    """
    (afferent,) = layer.afferents
    conv = afferent.connection
    assert isinstance(conv, FixedConv)
    out, height, width = layer.shape
    number = np.arange(layer.size).reshape(height, width, out)
    share, per_group = out // conv.groups, conv.weight.shape[1]
    heard: dict[tuple[int, int], list[tuple[int, int, int, int]]] = {}
    for y, x, i, j in product(*(range(n) for n in (height, width, *conv.weight.shape[2:]))):
        at = (
            y * conv.stride[0] - conv.padding[0] + i * conv.dilation[0],
            x * conv.stride[1] - conv.padding[1] + j * conv.dilation[1],
        )
        if 0 <= at[0] < afferent.pre_shape[1] and 0 <= at[1] < afferent.pre_shape[2]:
            heard.setdefault(at, []).append((y, x, i, j))
    lists = set()
    for taps in heard.values():
        lowest = min(number[y, x, 0] for y, x, _, _ in taps)
        lists.add(
            tuple(
                sorted(
                    (int(number[y, x, group * share + o] - lowest % 256), i, j, group, c)
                    for y, x, i, j in taps
                    for group in range(conv.groups)
                    for o in range(share)
                    for c in range(per_group)
                )
            )
        )
    largest = max(synapse[0] for found in lists for synapse in found)
    index = next(w for w in (0, 6, 7, 8, 9, 10, 11, 12) if 2**w > largest)
    return sum(TestLoihi1.by_chunks(len(found), afferent.bits + index) for found in lists)


class TestLoihi1:
    RULES = load_target("loihi1").memory

    @staticmethod
    def by_chunks(n: int, per_weight: int) -> int:
        """Count bit by bit what one axon takes, chunk after chunk of up to 64 synapses."""
        total = 0
        while n > 0:
            chunk = min(n, 64)
            bits = chunk * per_weight + 4 + 6
            while bits % 64:
                bits += 1
            total, n = total + bits, n - chunk
        return total

    @pytest.mark.parametrize("n", [1, 7, 63, 64, 65, 128, 200, 1024])
    @pytest.mark.parametrize(("bits", "index", "delay"), [(8, 0, 0), (8, 9, 0), (3, 12, 6)])
    def test_bits_per_axon(self, n: int, bits: int, index: int, delay: int) -> None:
        found = self.RULES.bits_per_axon(n, bits, index_bits=index, delay_bits=delay)
        assert found == self.by_chunks(n, bits + index + delay)

    def test_the_smallest_index_width_that_holds_the_largest_index_is_taken(self) -> None:
        indices = (0, 1, 63, 64, 999, 1023, 4095, 4096)
        assert [self.RULES.index_bits(n) for n in indices] == [0, 6, 6, 7, 10, 10, 12, 12]

    def test_a_dense_layer_is_cut_by_compartments_axons_and_words(self) -> None:
        sets = np.zeros(2000, int)
        weight = FixedDense(np.full((2000, 500), 2))
        layer = Layer(
            "a",
            (2000,),
            (Afferent("input", (500,), weight, 8),),
            sets,
            sets,
            sets,
        )
        usage = self.RULES.cost(layer, ((0, 200),))
        assert usage.used == {
            "neurons": 200,
            "axon_in": 500,
            "axon_out": 200,
            # 200 synapses: three chunks of 64 (522 bits in 9 words), one of 8 (74 bits in 2).
            "synapses": 500 * (3 * 9 + 2),
            "decay_profiles": 1,
            "vth_profiles": 1,
        }
        found = cut(layer, self.RULES)
        assert all(not u.excess(self.RULES.limits()) for _, u in found.slices)
        # A core's 16384 words hold 32 of an axon: three full chunks and 32 synapses more.
        assert max(u.neurons for _, u in found.slices) <= 3 * 64 + 38

    def test_a_convolution_stores_its_kernels_for_every_border_pattern_and_page(self) -> None:
        sets = np.zeros(4 * 6 * 6, int)
        kernel = FixedConv(np.full((4, 2, 3, 3), 2), (1, 1), (1, 1), (1, 1), 1)
        layer = Layer(
            "a", (4, 6, 6), (Afferent("input", (2, 6, 6), kernel, 8),), sets, sets, sets, False
        )
        usage = self.RULES.cost(layer, layer.whole)
        # Rows (and columns) of the source see the outputs {0, 1}, {0, 1, 2} or {4, 5}: 2 + 3 + 2
        # taps in 3 patterns each way, so 9 kernel sets of both channels, all on one page.
        assert usage.synapses == (2 + 3 + 2) ** 2 * 4 * 2
        assert usage.used["axon_in"] == 36
        assert usage.axons == 72

    @staticmethod
    def convolution(
        source: tuple[int, int, int], out: int, weight: tuple[int, int], **geometry: Any
    ) -> Layer:
        pair = {"stride": (1, 1), "padding": (0, 0), "dilation": (1, 1), "groups": 1} | geometry
        per_group = source[0] // pair["groups"]
        kernel = FixedConv(np.full((out, per_group, *weight), 2), **pair)
        shape = kernel.output_shape(source)
        sets = np.zeros(int(np.prod(shape)), int)
        return Layer("a", shape, (Afferent("input", source, kernel, 8),), sets, sets, sets)

    @pytest.mark.parametrize(
        ("source", "out", "kernel", "stride", "padding", "neurons", "axons", "bits"),
        [
            # LoihiBlock.utilization of nengo-loihi 1.1.0 (nengo 3.2.0) for nengo.Convolution.
            ((24, 7, 7), 24, (3, 3), (1, 1), (0, 0), 600, 49, 1_116_288),
            # 4,704 neurons on 19 pages: kernel sets are stored for every page they start in.
            ((2, 30, 30), 6, (3, 3), (1, 1), (0, 0), 4704, 900, 133_312),
            ((3, 9, 14), 5, (2, 3), (2, 3), (0, 0), 80, 126, 1536),
            ((4, 10, 10), 8, (3, 3), (1, 1), (1, 1), 800, 100, 55_424),
            # One weight of 8 bits behind a header of 10: an index up to 0 takes no bits.
            ((1, 1, 1), 1, (1, 1), (1, 1), (0, 0), 1, 1, 64),
            # 64 synapses with indices to 63, which take 6 bits: 896 bits behind a header of 10.
            ((1, 1, 1), 64, (1, 1), (1, 1), (0, 0), 64, 1, 64 * 15),
            # Two rows of three reach nothing, and are counted among the axons all the same.
            ((5, 11, 6), 7, (1, 5), (3, 1), (0, 0), 56, 66, 5376),
        ],
    )
    def test_convolutions_as_nengo_loihi_counts_them(
        self,
        source: tuple[int, int, int],
        out: int,
        kernel: tuple[int, int],
        stride: tuple[int, int],
        padding: tuple[int, int],
        neurons: int,
        axons: int,
        bits: int,
    ) -> None:
        layer = self.convolution(source, out, kernel, stride=stride, padding=padding)
        used = self.RULES.cost(layer, layer.whole).used
        assert (used["neurons"], used["axon_in"]) == (neurons, axons)
        assert used["synapses"] * 64 == bits

    def test_a_tile_as_nengo_loihi_counts_a_block_that_it_split(self) -> None:
        # split_blocks of nengo-loihi 1.1.0, BlockShape((5, 5, 6), (10, 10, 12)): 8 blocks alike.
        layer = self.convolution((3, 12, 12), 12, (3, 3))
        for ranges in product(((0, 6), (6, 12)), ((0, 5), (5, 10)), ((0, 5), (5, 10))):
            used = self.RULES.cost(layer, ranges).used
            assert (used["neurons"], used["axon_in"], used["synapses"]) == (150, 49, 23_616 // 64)

    def test_a_convolution_that_nengo_loihi_refuses_on_one_core_takes_two(self) -> None:
        # 1,116,288 bits exceed the 1,048,576 of a core there as here.
        layer = self.convolution((24, 7, 7), 24, (3, 3))
        found = cut(layer, self.RULES)
        assert len(found.slices) == 2
        assert not found.faults

    @pytest.mark.parametrize("seed", range(12))
    def test_kernel_sets_are_those_of_every_pixel_written_out(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        groups = int(rng.integers(1, 4))
        layer = self.convolution(
            (groups * int(rng.integers(1, 4)), *rng.integers(6, 15, 2).tolist()),
            groups * int(rng.integers(1, 9)),
            tuple(rng.integers(1, 4, 2).tolist()),
            **{name: tuple(rng.integers(1, 3, 2).tolist()) for name in ("stride", "dilation")},
            padding=tuple(rng.integers(0, 3, 2).tolist()),
            groups=groups,
        )
        usage = self.RULES.cost(layer, layer.whole)
        assert usage.used["synapses"] * 64 == written_out(layer)

    def test_only_what_sees_a_tile_is_an_axon_of_it(self) -> None:
        # A 2 x 2 tile of a 3 x 3 kernel receives input from 4 x 4 pixels.
        layer = self.convolution((2, 12, 12), 4, (3, 3))
        assert self.RULES.cost(layer, ((0, 4), (0, 2), (4, 6))).used["axon_in"] == 16

    def test_a_pixel_takes_two_output_axons_towards_a_convolution(self) -> None:
        # Population axons of 32 bits, whatever the channels (nengo-loihi: Axon.slots_per_axon).
        net = network(
            (2, 8, 8),
            (FixedConv(np.full((6, 2, 3, 3), 2), (1, 1), (1, 1), (1, 1), 1),
             population("a", (6, 8, 8)), 8),
            (FixedConv(np.full((4, 6, 3, 3), 2), (1, 1), (0, 0), (1, 1), 1),
             population("b", (4, 6, 6)), 8),
        )  # fmt: skip
        a, b = map_network(net, load_target("loihi1")).cores
        assert a.usage.used["axon_out"] == 2 * 64
        assert b.usage.used["axon_out"] == 4 * 36

    def test_a_pixel_goes_where_any_of_its_channels_goes(self) -> None:
        sets = np.zeros(2 * 1 * 3, int)
        kernel = FixedConv(np.full((2, 1, 1, 1), 2), (1, 1), (0, 0), (1, 1), 1)
        cores = np.array([[1, 3, 1], [2, 1, 1]])
        layer = Layer(
            "a", (2, 1, 3), (Afferent("input", (1, 1, 3), kernel, 8),), sets, sets, sets,
            to_convolution=True, fan_out=cores.ravel(),
        )  # fmt: skip
        assert self.RULES.cost(layer, layer.whole).used["axon_out"] == 2 * (2 + 3 + 1)
        assert self.RULES.cost(layer, ((1, 2), (0, 1), (0, 2))).used["axon_out"] == 2 * (2 + 1)

    def test_destinations_take_output_axons(self) -> None:
        net = network(
            (100,),
            (FixedDense(np.full((1000, 100), 2)), population("a", (1000,)), 1),
            (FixedDense(np.full((300, 1000), 2)), population("b", (300,)), 8),
        )
        mapping = map_network(net, load_target("loihi1"))
        a = [c for c in mapping.cores if c.population == "a"]
        b = [c for c in mapping.cores if c.population == "b"]
        assert mapping.fits
        assert len(b) > 1
        assert sum(c.usage.used["axon_out"] for c in a) == 1000 * len(b)
