"""The bytes of deployed networks under other kernels, processors and numbers of threads.

    python benchmarks/same_everywhere.py [--only TEXT] [--kernels "Haswell SkylakeX"] [--quick]

Each environment is a process of its own that deploys the bundled networks at several settings and
prints the SHA-256 of network.json and network.safetensors. What libraries take for the processor
is set by their own variables; a kernel that this processor cannot run is left out. Exits with 1
when anything differs.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

from _accuracy import table, write

SETTINGS: dict[str, dict[str, Any]] = {
    "90 %, 4 bit": {},
    "97 %": {"sparsity": 0.97, "bits": 8},
    "2 bit": {"sparsity": 0.0, "bits": 2},
    "not tuned": {"tune": False},
    "obc": {"method": "obc"},
    "2:4": {"pattern": "2:4"},
    "whole inputs": {"pattern": "inputs", "sparsity": 0.5},
    "global, mixed": {"allocation": "global", "mixed": True, "tune": False},
}
MODELS = ("digits_conv", "digits_mlp")

KERNELS = ("Prescott", "Nehalem", "Sandybridge", "Haswell", "Zen", "SkylakeX")
"""Of OpenBLAS, which NumPy and SciPy bring."""

_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def environments(kernels: tuple[str, ...]) -> dict[str, dict[str, str]]:
    one, two = (dict.fromkeys(_THREADS, count) for count in "12")
    # Threads that wait shall not spin where others need the cores.
    two["OMP_WAIT_POLICY"] = "PASSIVE"
    found = {f"OpenBLAS {k}": {**one, "OPENBLAS_CORETYPE": k} for k in kernels}
    return found | {
        "2 threads": two,
        "2 threads, OpenBLAS Haswell": {**two, "OPENBLAS_CORETYPE": "Haswell"},
        "NumPy without AVX": {**one, "NPY_DISABLE_CPU_FEATURES": _numpy_features()},
        "torch without AVX": {
            **one,
            "ATEN_CPU_CAPABILITY": "default",
            "ONEDNN_MAX_CPU_ISA": "SSE41",
            "MKL_CBWR": "COMPATIBLE",
        },
        "torch with AVX2": {
            **one,
            "ATEN_CPU_CAPABILITY": "avx2",
            "ONEDNN_MAX_CPU_ISA": "AVX2",
            "MKL_CBWR": "AVX2",
        },
        "numba for Nehalem": {**one, "NUMBA_CPU_NAME": "nehalem", "NUMBA_CPU_FEATURES": "+sse4.2"},
    }


def _numpy_features() -> str:
    import numpy as np

    return " ".join(np.show_config(mode="dicts")["SIMD Extensions"].get("found", []))


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--only", default="", help="environments whose name holds this")
    arguments.add_argument("--kernels", default=" ".join(KERNELS))
    arguments.add_argument("--quick", action="store_true", help="the first setting alone")
    arguments.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    given = arguments.parse_args()
    chosen = list(SETTINGS)[:1] if given.quick else list(SETTINGS)
    if given.child:
        print(json.dumps({"kernels": _kernels(), "digests": _digests(chosen)}))
        return
    digests: dict[str, dict[str, str]] = defaultdict(dict)
    kernels, seconds = {}, {}
    for name, changes in environments(tuple(given.kernels.split())).items():
        if given.only not in name:
            continue
        start = time.perf_counter()
        command = [sys.executable, __file__, "--child"] + ["--quick"] * given.quick
        done = subprocess.run(
            command, env={**os.environ, **changes}, capture_output=True, text=True, check=False
        )
        if done.returncode:
            print(f"{name}: left out ({(done.stderr.strip() or 'no message').splitlines()[-1]})")
            continue
        found = json.loads(done.stdout.splitlines()[-1])
        kernels[name], seconds[name] = found["kernels"], time.perf_counter() - start
        for setting, digest in found["digests"].items():
            digests[setting][name] = digest
        print(f"{name}: runs {found['kernels']}, {seconds[name]:.0f} s", flush=True)
        write("same_everywhere", {"kernels": kernels, "digests": digests})
    rows = []
    for setting, by_name in digests.items():
        different = sorted(set(by_name.values()))
        rows.append([setting, str(len(by_name)), str(len(different)), different[0][:16]])
    table(["network", "environments", "different bytes", "SHA-256"], rows)
    sys.exit(any(len(set(by_name.values())) > 1 for by_name in digests.values()))


def _kernels() -> str:
    """Return what OpenBLAS, torch and numba take the processor for."""
    import numba
    import scipy.linalg.blas  # noqa: F401
    import torch
    from threadpoolctl import threadpool_info

    blas = {i["architecture"] for i in threadpool_info() if i["internal_api"] == "openblas"}
    parts = [*sorted(blas), torch.backends.cpu.get_cpu_capability(), numba.config.CPU_NAME or ""]
    return ", ".join(part for part in parts if part)


def _digests(settings: list[str]) -> dict[str, str]:
    from _bundled import deployed

    found = {}
    for model in MODELS:
        for name in settings:
            done = deployed(model, **SETTINGS[name])
            with tempfile.TemporaryDirectory() as folder:
                done.save(Path(folder) / "image")
                files = [Path(folder, "image", f"network.{end}") for end in ("json", "safetensors")]
                digest = hashlib.sha256(b"".join(file.read_bytes() for file in files))
            found[f"{model}, {name}"] = digest.hexdigest()
    return found


if __name__ == "__main__":
    main()
