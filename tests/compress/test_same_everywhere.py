"""The same bytes whatever the libraries take the processor for; in full in ``benchmarks/``."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np

_TAKE_DIGESTS = """
import hashlib
import numpy as np
from osbc_deploy.bundled import digits
from osbc_deploy.bundled.models import digits_mlp, weights_path
from osbc_deploy.compress import CompressionOptions, compress
from osbc_deploy.frameworks.norse.reading import read_norse
from osbc_deploy.references import load_weights

spikes = digits.calibration().spikes
print(hashlib.sha256(np.concatenate([spikes, digits.test().spikes]).tobytes()).hexdigest())
model = digits_mlp()
load_weights(model, weights_path("digits_mlp"))
network = read_norse(model, spikes.shape[2:])
for options in (
    CompressionOptions(sparsity=0.8, bits=3, tune=True),
    CompressionOptions(pattern="2:4", bits=3, tune=False),
):
    done = compress(network, spikes[:24], options)
    parts = [x.tobytes() for p in done.projections.values() for x in (p.codes, p.scale)]
    told = [(p.chosen, p.threshold, p.tried, p.curve) for p in done.projections.values()]
    print(hashlib.sha256(b"".join(parts) + repr(told).encode()).hexdigest())
"""

_DATA = "824168c7ce3054ce97880bcf0def825428a1d82c86911540694ca68e9cdb8390"


def digests(**environment: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", _TAKE_DIGESTS],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=1800,
        check=True,
    )
    return done.stdout.split()


def test_kernels_and_threads_do_not_change_what_is_decided() -> None:
    features = np.show_config(mode="dicts")["SIMD Extensions"].get("found", [])  # type: ignore[call-overload]
    plain = digests(
        OPENBLAS_CORETYPE="Prescott",
        NPY_DISABLE_CPU_FEATURES=" ".join(features),
        ATEN_CPU_CAPABILITY="default",
        ONEDNN_MAX_CPU_ISA="SSE41",
        MKL_CBWR="COMPATIBLE",
        OMP_NUM_THREADS="1",
    )
    wide = digests(OPENBLAS_CORETYPE="Haswell", OMP_NUM_THREADS="2")
    assert plain == wide
    # Of the bundled samples, as every machine makes them.
    assert plain[0] == _DATA
