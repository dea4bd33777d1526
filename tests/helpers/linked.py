"""A program of the C runtime and one network's blob, linked for a processor as firmware is."""

from __future__ import annotations

import re
from pathlib import Path

from osbc_deploy.firmware.blob import write_blob
from osbc_deploy.firmware.machine import Machine, call
from osbc_deploy.firmware.runtime import render, runtime_sources, snippet
from osbc_deploy.firmware.tables import lay_out
from osbc_deploy.fixedpoint.network import FixedPointNetwork

# It is linked, never run: only the blob and the state have their sizes.
PROGRAM = """
#include "osbc_runtime.h"
{start}
extern const uint8_t blob[];
const uint8_t blob[] __attribute__((aligned(4))) = {{ {blob} }};
static int32_t state[{words}], output[1];
static uint8_t input[1];
static int64_t evidence[1];
volatile int result;
void m4_start(void)
{{
    osbc_network network;
    uint32_t found;
    result = osbc_load(&network, blob, sizeof blob);
    result = osbc_reset(&network, state, sizeof state);
    result = osbc_step(&network, state, input, output);
    result = osbc_run(&network, state, sizeof state, input, 1u, evidence, &found);
}}
__attribute__((section(".vectors"), used)) static const uintptr_t vectors[] = {{
    (uintptr_t)&m4_stack_top, (uintptr_t)&m4_start
}};
"""


def linked(machine: Machine, folder: Path, network: FixedPointNetwork) -> dict[str, int]:
    """Return the bytes of the code, tables and state of a linked program.

    Functions that nothing calls are left out; the code is that of the runtime alone.
    """
    tables = lay_out(network)
    sources = runtime_sources("osbc") | {"link.ld": render(machine.script, {})}
    sources["main.c"] = PROGRAM.format(
        start=snippet(machine.start),
        blob=",".join(map(str, write_blob(network, tables))),
        words=tables.state_words,
    )
    for name, text in sources.items():
        (folder / name).write_text(text)
    bare = ("-O2", "-ffreestanding", "-ffunction-sections", "-fdata-sections", "-nostdlib")
    units = [name for name in sources if name.endswith(".c")]
    call([machine.compiler, *machine.flags, *bare, *units, "-Wl,--gc-sections", "-T", "link.ld",
          "-lgcc", "-o", "program"], cwd=folder)  # fmt: skip
    tool = machine.compiler.removesuffix("gcc")
    symbols = {}
    for line in call([f"{tool}nm", "-S", "program"], cwd=folder).splitlines():
        if found := re.fullmatch(r"\w+ (\w+) \w (\S+)", line):
            symbols[found[2]] = int(found[1], 16)
    ours = ("m4_start", "blob", "vectors", "semihosting", "memset", "memcpy")
    # Constants within functions are merged into sections without symbols.
    total = 0
    for line in call([f"{tool}size", "-A", "program"], cwd=folder).splitlines():
        section, *rest = [*line.split(), ""]
        if section in (".text", ".rodata", ".data") and rest and rest[0].isdigit():
            total += int(rest[0])
    code = total - sum(symbols.get(name, 0) for name in ours)
    return {"code": code, "tables": symbols["blob"], "state": symbols["state"]}
