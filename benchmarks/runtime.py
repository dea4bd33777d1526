"""The C runtime on networks it was not built for: bits, and hostile blobs.

    python benchmarks/runtime.py [--networks 60] [--hostile 20000]

One program, with every warning an error and the sanitizers for addresses and undefined behavior,
loads random networks of osbc_deploy.testing and the two bundled ones (400 samples); s, u and v of
every step are compared with the engine. Where gcc-arm-none-eabi and qemu-system-arm are installed,
one Cortex-M4 program runs them all in QEMU. Blobs with one to three changed places and right CRCs
must be refused, or run without leaving their memory.
"""

from __future__ import annotations

import argparse
import hashlib
import shutil
import subprocess
import sys
import tempfile
import time
import zlib
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from _bundled import bundled

from osbc_deploy.errors import ArtefactError
from osbc_deploy.firmware.layout import HEADER
from osbc_deploy.firmware.machine import FLAGS
from osbc_deploy.firmware.read import read_blob
from osbc_deploy.firmware.runtime import RuntimeExport, export_runtime
from osbc_deploy.testing import Case, random_networks
from osbc_deploy.testing.backends import engine_states

ROOT = Path(__file__).parents[1]
SANITIZE = ("-O1", "-g", "-fsanitize=undefined,address", "-fno-sanitize-recover=all")
SOURCES = ("osbc_runtime.c", "osbc_load.c", "osbc_telemetry.c")
QEMU = ("qemu-system-arm", "-M", "mps2-an386", "-nographic", "-semihosting", "-kernel")


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--networks", type=int, default=60)
    parser.add_argument("--hostile", type=int, default=20_000)
    given = parser.parse_args()
    arm = bool(shutil.which("arm-none-eabi-gcc") and shutil.which(QEMU[0]))
    cases = {f"random {n}": case for n, case in enumerate(random_networks(given.networks))}
    cases |= {m: Case(d.lowered.network, spikes, (m,)) for m, d, spikes in bundled()}
    seen: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as name:
        base = Path(name)
        exports = {n: export_runtime(c.network, base / n) for n, c in cases.items()}
        first = next(iter(exports.values())).folder
        build(first, "examples/host.c", *FLAGS, *SANITIZE)
        build(first, str(ROOT / "tests/firmware/loader.c"), "-I.", *SANITIZE)
        if arm:
            subprocess.run(["make", "-s", "m4"], cwd=first, check=True)
        for title, case in cases.items():
            found = compare(case, exports[title], first / "host")
            if arm:
                found["Cortex-M4 outputs that differ"] = on_m4(exports[title], first)
            seen += found
            if any(count for what, count in found.items() if what.endswith("differ")):
                print(f"{title} DIFFERS: {case.features} {found}", flush=True)
            if not title.startswith("random"):
                print(f"{title}: {len(exports[title].blob):,} B of flash, "
                      f"{exports[title].state_bytes:,} B of RAM, "
                      f"{len(case.spikes)} samples", flush=True)  # fmt: skip
        print(f"{len(cases)} networks by one program: " + ", ".join(
            f"{seen[f'{kind} compared']:,} {kind} compared, {seen[f'{kind} differ']} differ"
            for kind in ("outputs", "s", "u", "v")))  # fmt: skip
        print(f"Cortex-M4 in QEMU: {seen['Cortex-M4 outputs that differ']} networks differ"
              if arm else "Cortex-M4 in QEMU: not installed")  # fmt: skip
        blobs = [done.blob for done in exports.values() if len(done.blob) < 10_000]
        wrong = hostile(blobs, first / "loader", given.hostile)
    return int(wrong or any(n for what, n in seen.items() if what.endswith("differ")))


def build(folder: Path, main_source: str, *options: str) -> None:
    name = Path(main_source).stem
    command = ["gcc", *options, main_source, *SOURCES, "-o", name]
    subprocess.run(command, cwd=folder, check=True)


def compare(case: Case, done: RuntimeExport, program: Path) -> Counter[str]:
    """Run a network on the host, and count what was compared and what differs."""
    network, counted = case.network, Counter[str]()
    width = next(w for w in (8, 16, 32) if network.input.bits <= w)
    kind = np.dtype(f"{'' if network.input.signed else 'u'}int{width}")
    n, steps = case.spikes.shape[:2]
    (done.folder / "rasters.bin").write_bytes(
        np.array([n, steps], np.uint32).tobytes() + case.spikes.astype(kind).tobytes()
    )
    names = ("network.bin", "rasters.bin", "expected.bin", "states.bin")
    subprocess.run([program, *names], cwd=done.folder, check=True)
    expected = engine_states(case)
    output = np.fromfile(done.folder / "expected.bin", np.int32).reshape(n, steps, -1)
    state = np.fromfile(done.folder / "states.bin", np.int32).reshape(n, steps, -1)
    (done.folder / "states.bin").unlink()
    pairs: list[tuple[str, Any, Any]] = [("outputs", output, expected.output)]
    for part, p in zip(read_blob(done.blob).populations, network.populations, strict=True):
        v = part.fields["state"] + p.size * part.fields["keeps_u"]
        if part.fields["keeps_u"]:
            pairs.append(("u", state[:, :, v - p.size : v], expected.u[p.name]))
        pairs.append(("v", state[:, :, v : v + p.size], expected.v[p.name]))
        if p.name in expected.spikes:
            bytes_of = np.ascontiguousarray(state[:, :, v + p.size : v + p.size - (-p.size // 4)])
            fired = bytes_of.view(np.uint8)[:, :, : p.size]
            pairs.append(("s", fired, expected.spikes[p.name]))
    for what, ours, theirs in pairs:
        counted[f"{what} compared"] += theirs.size
        counted[f"{what} differ"] += int(np.count_nonzero(ours != theirs))
    return counted


def on_m4(done: RuntimeExport, first: Path) -> int:
    """Return whether the Cortex-M4 program answers otherwise than the host's."""
    program = first / "osbc_m4.elf"
    subprocess.run([*QEMU, str(program)], cwd=done.folder, check=True, timeout=1800,
                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # fmt: skip
    answers = (done.folder / "outputs.bin").read_bytes()
    return int(answers != (done.folder / "expected.bin").read_bytes())


def hostile(blobs: list[bytes], loader: Path, count: int) -> int:
    """Load changed blobs whose CRCs are right; return how many C and Python see differently."""
    rng, start = np.random.default_rng(0), time.perf_counter()
    changed = []
    for number in range(count):
        data = bytearray(blobs[number % len(blobs)])
        for _ in range(rng.integers(1, 4)):
            end = len(data) if rng.random() < 0.2 else min(len(data), HEADER.size + 600)
            at = int(rng.integers(HEADER.size, end))
            special = rng.choice([0, 1, 2, 3, 4, 31, 32, 127, 128, 255])
            data[at] = special if rng.random() < 0.7 else rng.integers(0, 256)
        changed.append(sealed(bytes(data)))
    sent = b"".join(len(blob).to_bytes(4, "little") + blob for blob in changed)
    done = subprocess.run([loader], input=sent, check=True, capture_output=True)
    answers = np.frombuffer(done.stdout, np.int32) == 0
    ours = np.array([accepted(blob) for blob in changed])
    differ = int(np.count_nonzero(answers != ours))
    seconds = time.perf_counter() - start
    print(f"{count:,} hostile blobs: {np.count_nonzero(~answers):,} refused, the others ran inside "
          f"their memory, Python sees {differ} otherwise, {seconds:.0f} s")  # fmt: skip
    return differ


def sealed(data: bytes) -> bytes:
    """Return the same with an identity and CRCs that are right."""
    body = data[HEADER.size :]
    fields = HEADER.unpack(data) | {
        "identity": hashlib.sha256(body).digest()[:16],
        "body_crc": zlib.crc32(body),
    }
    fields["header_crc"] = zlib.crc32(HEADER.pack(fields)[:-4])
    return HEADER.pack(fields) + body


def accepted(blob: bytes) -> bool:
    try:
        read_blob(blob)
    except ArtefactError:
        return False
    return True


if __name__ == "__main__":
    sys.exit(main())
