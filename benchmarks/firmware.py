"""The generated C on the whole bundled test set: plain, sanitized and under valgrind.

    python benchmarks/firmware.py

For both bundled networks at 90 % sparsity and 4 bits: compiled with every warning an error, run on
400 samples, and compared with the engine, number by number. Where they are installed, the Cortex-M4
program runs its golden vectors in QEMU.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np
from _bundled import bundled

from osbc_deploy.firmware.footprint import measure
from osbc_deploy.firmware.library import CExport, export_c
from osbc_deploy.firmware.machine import FLAGS
from osbc_deploy.fixedpoint import run

BUILDS = {
    "plain": (("-O2",), ()),
    "undefined behavior and addresses checked": (
        ("-O1", "-g", "-fsanitize=undefined,address", "-fno-sanitize-recover=all"),
        (),
    ),
    "valgrind": (("-O1", "-g"), ("valgrind", "-q", "--error-exitcode=9", "--leak-check=full")),
}


def main() -> None:
    for model, done, spikes in bundled():
        network = done.lowered.network
        expected = run(network, spikes).output
        with tempfile.TemporaryDirectory() as name:
            export = export_c(network, Path(name) / "c", name=model, samples=spikes[:2])
            print(f"\n{model}: {len(spikes)} samples of {spikes.shape[1]} steps, "
                  f"fixed point {done.accuracy.fixed_point:.2%}")  # fmt: skip
            for title, (options, before) in BUILDS.items():
                if before and not shutil.which(before[0]):
                    print(f"  {title}: not installed")
                    continue
                start = time.perf_counter()
                same = np.array_equal(outputs(export, spikes, options, before), expected)
                print(f"  {title}: {'equal' if same else 'DIFFERENT'}, {expected.size:,} outputs, "
                      f"{time.perf_counter() - start:.1f} s", flush=True)  # fmt: skip
            print(f"  estimated: tables {export.table_bytes:,} B, RAM {export.state_bytes:,} B")
            for compiler in ("gcc", "arm-none-eabi-gcc"):
                if not shutil.which(compiler):
                    print(f"  {compiler}: not installed")
                    continue
                found = measure(export, compiler)
                print(f"  {found.version}: flash {found.flash:,} B ({found.code:,} code, "
                      f"{found.tables:,} tables), RAM {found.ram:,} B")  # fmt: skip
            if shutil.which("arm-none-eabi-gcc") and shutil.which("qemu-system-arm"):
                answer = subprocess.run(
                    ["make", "-s", "qemu"], cwd=export.folder, capture_output=True, text=True,
                    check=False, timeout=600,
                )  # fmt: skip
                print(f"  Cortex-M4 in QEMU: {(answer.stdout + answer.stderr).strip()}")


def outputs(
    export: CExport, spikes: np.ndarray, options: tuple[str, ...], before: tuple[str, ...]
) -> np.ndarray:
    """Compile, run and read the answers back."""
    sources = [f"{export.name}{part}.c" for part in ("", "_weights", "_selftest")]
    subprocess.run(
        ["gcc", *FLAGS, *options, "examples/host.c", *sources, "-o", "host"],
        cwd=export.folder,
        check=True,
    )
    n, steps = spikes.shape[:2]
    rasters, answers = export.folder / "rasters", export.folder / "answers"
    rasters.write_bytes(np.array([n, steps], np.uint32).tobytes() + spikes.tobytes())
    subprocess.run([*before, "./host", str(rasters), str(answers)], cwd=export.folder, check=True)
    return np.fromfile(answers, np.int32).reshape(n, steps, -1)


if __name__ == "__main__":
    main()
