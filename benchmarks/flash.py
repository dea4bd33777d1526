"""Flash and RAM of six networks: what the targets estimate, and what the linker says.

    python benchmarks/flash.py

A program with the runtime and one network's blob in it, of the functions that check, reset and run
a network, is linked for each core without what nothing calls. Tables and state must be equal to the
byte, code within 5 %.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "helpers"))

from instructions import checked

from linked import linked
from osbc_deploy.chip.mapping import map_network
from osbc_deploy.chip.target import load_target
from osbc_deploy.firmware.machine import MACHINES

OUT = Path(__file__).parent / "results" / "flash.json"


def main() -> int:
    lines, wrong = [], 0
    networks = list(checked())
    for machine in MACHINES.values():
        if machine.missing or not machine.core:
            continue
        chip = load_target(machine.core)
        for title, network in networks:
            mapping = map_network(network, chip)
            used = {n: sum(c.usage.used[n] for c in mapping.cores) for n in ("flash", "ram")}
            with tempfile.TemporaryDirectory() as name:
                found = linked(machine, Path(name), network)
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
