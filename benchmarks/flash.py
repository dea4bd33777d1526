"""Flash and RAM of six networks: what the targets estimate, and what the linker says.

    python benchmarks/flash.py

A program with the runtime and one network's blob in it, of the functions that check, reset and run
a network, is linked for each core without what nothing calls. Tables and state must be equal to the
byte, code within 5 %.
"""

from __future__ import annotations

import json
import re
import sys
import tempfile
from pathlib import Path

from instructions import checked

from osbc_deploy.chip.mapping import map_network
from osbc_deploy.chip.target import load_target
from osbc_deploy.firmware.blob import write_blob
from osbc_deploy.firmware.machine import MACHINES, Machine, call
from osbc_deploy.firmware.runtime import render, runtime_sources, snippet
from osbc_deploy.firmware.tables import lay_out

OUT = Path(__file__).parent / "results" / "flash.json"
MAIN = """
#include "osbc_runtime.h"
{start}
extern const uint8_t blob[];
const uint8_t blob[] __attribute__((aligned(4))) = {{ {blob} }};
static int32_t state[{words}], output[{outputs}];
static uint8_t input[{inputs}];
static int64_t evidence[{outputs}];
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


def linked(machine: Machine, folder: Path, blob: bytes, words: int, facts: dict) -> dict[str, int]:
    """Return the bytes of code, tables and state of a linked program."""
    sources = runtime_sources("osbc")
    sources["main.c"] = MAIN.format(
        start=snippet(machine.start), blob=",".join(map(str, blob)), words=words, **facts
    )
    sources["link.ld"] = render(machine.script, {})
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


def main() -> int:
    lines, wrong = [], 0
    networks = list(checked())
    for machine in MACHINES.values():
        if machine.missing or not machine.core:
            continue
        chip = load_target(machine.core)
        for title, network in networks:
            tables, mapping = lay_out(network), map_network(network, chip)
            used = {n: sum(c.usage.used[n] for c in mapping.cores) for n in ("flash", "ram")}
            facts = {"inputs": 4, "outputs": network.output.size}
            with tempfile.TemporaryDirectory() as name:
                found = linked(
                    machine, Path(name), write_blob(network, tables), tables.state_words, facts
                )
            memory = chip.memory
            ours = {"code": memory.code.value, "tables": used["flash"] - memory.code.value,
                    "state": used["ram"] - memory.stack.value}  # fmt: skip
            off = ours["code"] / found["code"] - 1
            bad = abs(off) > 0.05 or any(ours[n] != found[n] for n in ("tables", "state"))
            wrong += bad
            lines.append({"core": machine.core, "network": title, "estimated": ours,
                          "linked": found, "code_off": round(off, 4)})  # fmt: skip
            print(f"{machine.core} {title}: tables {found['tables']:,} B, state "
                  f"{found['state']:,} B, code {found['code']:,} B linked, {ours['code']:,} B "
                  f"estimated ({off:+.1%}){' WRONG' if bad else ''}")  # fmt: skip
    OUT.write_text(json.dumps(lines, indent=1) + "\n")
    print(f"{len(lines)} programs, {wrong} beyond the limits")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
