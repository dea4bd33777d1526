"""Flash and RAM of a microcontroller are the bytes that an export writes."""

from __future__ import annotations

from dataclasses import replace

import pytest

from osbc_deploy.chip.mapping import layers_of, map_network
from osbc_deploy.chip.target import load_target, target_names
from osbc_deploy.firmware.blob import write_blob
from osbc_deploy.firmware.memory import RuntimeMemory
from osbc_deploy.firmware.tables import lay_out
from osbc_deploy.fixedpoint.formats import NumberFormats
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


def replace_memory(chip, memory):  # type: ignore[no-untyped-def]
    return chip.model_copy(update={"memory": memory})


@pytest.mark.parametrize("name", PROCESSORS)
def test_processors_compute_the_integers_of_loihi2(name: str, formats: NumberFormats) -> None:
    assert name in target_names()
    chip = load_target(name)
    assert chip.number_formats == formats
    assert chip.instructions is not None
    # Calibrated, not left out: what every step and event takes is there.
    costs = chip.instructions.costs
    assert all(getattr(costs, n).value > 0 for n in ("projection", "neuron", "listed", "apart"))
