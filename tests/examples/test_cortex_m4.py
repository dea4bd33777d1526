"""The example for a Cortex-M4: the self-test of a release runs on the runtime."""

from __future__ import annotations

import shutil
import subprocess
from importlib.resources import files
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from osbc_deploy.data.samples import check_samples
from osbc_deploy.firmware.runtime import export_runtime
from osbc_deploy.fixedpoint.formats import NumberFormats
from osbc_deploy.release.selftest import make_selftest
from osbc_deploy.release.signing import make_release
from osbc_deploy.testing import random_networks

MAKE = Path(__file__).parents[2] / "examples" / "cortex_m4" / "Makefile"


@pytest.mark.skipif(
    not (shutil.which("arm-none-eabi-gcc") and shutil.which("qemu-system-arm")),
    reason="gcc-arm-none-eabi and qemu-system-arm are not installed",
)
def test_a_release_is_tested_on_a_cortex_m4(formats: NumberFormats, tmp_path: Path) -> None:
    case = random_networks(1, formats, start=5)[0]
    blob = export_runtime(case.network, tmp_path / "rt").blob
    (tmp_path / "slots").mkdir()
    for name in ("osbc_slots.h", "osbc_slots.c"):
        source = files("osbc_deploy.release") / "c" / name
        (tmp_path / "slots" / name).write_bytes(source.read_bytes())
    samples = check_samples("case", case.spikes)
    tested = make_selftest(case.network, samples, 2).pack()
    changed = tested[:32] + bytes([tested[32] ^ 1]) + tested[33:]
    torn = blob[:-1] + bytes([blob[-1] ^ 1])
    for image, vectors, said in (
        (blob, tested, "self-test: passed"),
        (blob, changed, "self-test: failed"),
        (torn, tested, "the image is refused"),
    ):
        _, release = make_release(
            image, vectors, Ed25519PrivateKey.generate(), version=1, target="cam",
            trial_samples=9, silent_most=9, clipped_most=9,
        )  # fmt: skip
        (tmp_path / "release.osbr").write_bytes(release)
        done = subprocess.run(
            ["make", "-s", "-f", str(MAKE)], cwd=tmp_path, capture_output=True, text=True,
            timeout=1800, check=False,
        )  # fmt: skip
        assert said in done.stdout + done.stderr
        assert (done.returncode == 0) == (said == "self-test: passed")
