"""Flash and RAM of a microcontroller are the bytes that an export writes."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from linked import linked
from osbc_deploy.chip.mapping import layers_of, map_network
from osbc_deploy.chip.target import load_target, target_names
from osbc_deploy.firmware.blob import write_blob
from osbc_deploy.firmware.machine import MACHINES
from osbc_deploy.firmware.memory import RuntimeMemory
from osbc_deploy.firmware.read import read_blob
from osbc_deploy.firmware.tables import FirmwareTables, lay_out
from osbc_deploy.fixedpoint.formats import NumberFormats
from osbc_deploy.fixedpoint.network import (
    FixedDense,
    FixedPointNetwork,
    FixedPopulation,
    FixedProjection,
)
from osbc_deploy.testing import random_networks

PROCESSORS = ["cortex-m0plus", "cortex-m4", "cortex-m7", "rv32imac"]


def test_tables_and_state_are_exact(formats: NumberFormats) -> None:
    chip = load_target("cortex-m4")
    code, stack = chip.memory.code.value, chip.memory.stack.value  # type: ignore[attr-defined]
    for case in random_networks(24, formats, start=300):
        mapping = map_network(case.network, chip)
        tables = lay_out(case.network)
        flash, ram = (sum(c.usage.used[name] for c in mapping.cores) for name in ("flash", "ram"))
        assert flash == code + len(write_blob(case.network, tables)), case.features
        assert ram == stack + 4 * tables.state_words, case.features
        assert (mapping.cores_used, mapping.bytes, mapping.fits) == (1, flash, True)
        assert any(f"{code:,} B" in note for note in mapping.notes)


def _laid_out(network: FixedPointNetwork) -> tuple[FixedPointNetwork, FirmwareTables]:
    return network, lay_out(network)


@pytest.mark.parametrize(("shift", "direct"), [(2, True), (3, False)])
def test_a_state_without_sums_is_where_they_cannot_wrap(
    shift: int, direct: bool, formats: NumberFormats
) -> None:
    """255 inputs of 126, at 2^shift, times 2^6 in the state of 24 bits: below and above 2^23."""
    one = np.ones(6, np.int64)
    neurons = FixedPopulation(
        "a", (6,), du=4095 * one, dv=0 * one, vth=one, bias_mant=0 * one, bias_exp=0 * one,
        u_init=0 * one, v_init=0 * one, spiking=True, v_scale=1.0 * one, v_offset=0.0 * one,
    )  # fmt: skip
    heard = FixedDense(np.full((6, 255), 126))
    into = FixedProjection("p", "input", "a", heard, 8, shift)
    network = FixedPointNetwork((255,), (neurons,), (into,), formats, "sum")
    tables = lay_out(network)
    # The step, 6 potentials, 6 bytes of spikes; then 6 sums.
    assert tables.state_words == 1 + 6 + 2 + 6 * (not direct)
    assert [part.direct for part in tables.projections] == [direct]
    twice = replace(network, projections=(into, replace(into, name="q")))
    assert not any(part.direct for part in lay_out(twice).projections)
    wide = replace(network, formats=replace(formats, state_bits=29))
    assert lay_out(wide).projections[0].direct
    # Weights of 0 do not make 2^(shift + 29) fit 32 bits.
    zero = replace(into, connection=FixedDense(np.zeros((6, 255), np.int64)))
    far = replace(formats, state_bits=31, state_shift=29, vth_bits=1)
    read_blob(write_blob(*_laid_out(replace(network, projections=(zero,), formats=far))))


def test_a_network_that_is_too_large_says_by_how_much(formats: NumberFormats) -> None:
    network = random_networks(1, formats)[0].network
    chip = load_target("cortex-m4")
    small = chip.memory.model_dump()
    for name in ("flash", "ram"):
        small["caps"][name]["value"] = 100
    tiny = replace_memory(chip, RuntimeMemory.model_validate(small))
    lines = map_network(network, tiny).excesses()
    assert [line.split(": ")[1].split()[0] for line in lines] == ["flash", "ram"]
    assert all("exceeds 100 (" in line for line in lines)
    layer = replace(layers_of(network)[0], population=None)
    with pytest.raises(ValueError, match="numbers are not known"):
        chip.memory.cost(layer, layer.whole)


def test_the_linker_takes_what_is_estimated(formats: NumberFormats, tmp_path: Path) -> None:
    """The short version of ``benchmarks/flash.py``."""
    machine = MACHINES["qemu-m4"]
    if not shutil.which(machine.compiler):
        pytest.skip(f"{machine.compiler} is not installed")
    network = random_networks(1, formats, start=301)[0].network
    chip = load_target("cortex-m4")
    used = map_network(network, chip).cores
    flash, ram = (sum(core.usage.used[name] for core in used) for name in ("flash", "ram"))
    memory: Any = chip.memory
    found = linked(machine, tmp_path, network)
    assert found["tables"] == flash - memory.code.value
    assert found["state"] == ram - memory.stack.value
    assert found["code"] == pytest.approx(memory.code.value, rel=0.05)


def replace_memory(chip, memory):  # type: ignore[no-untyped-def]
    return chip.model_copy(update={"memory": memory})


@pytest.mark.parametrize("name", PROCESSORS)
def test_processors_compute_the_integers_of_loihi2_in_wider_states(
    name: str, formats: NumberFormats
) -> None:
    assert name in target_names()
    chip = load_target(name)
    assert chip.number_formats == replace(formats, state_bits=29)
    assert chip.instructions is not None
    # Calibrated, not left out: what every step and event takes is there.
    costs = chip.instructions.costs
    assert all(getattr(costs, n).value > 0 for n in ("block", "neuron", "listed", "apart"))
