"""A new arithmetic is one object and one entry point."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from osbc_deploy.errors import TargetError, UsageError
from osbc_deploy.fixedpoint.arithmetics import arithmetic_names, arithmetic_of
from osbc_deploy.fixedpoint.engine import run
from osbc_deploy.formats.folder import read_network, write_network
from osbc_deploy.testing import random_networks
from plugged import install

TOY = """
from dataclasses import replace
from osbc_deploy.fixedpoint.plain import ARITHMETIC as LOIHI

def silent(network, signal, traces, *, strict):
    seen = LOIHI.run_plain(network, signal, traces, strict=strict)
    for raster in traces.spikes.values():
        raster[:] = 0
    return seen

ARITHMETIC = replace(LOIHI, name="toy", run_plain=silent)
WRONG = LOIHI
"""
ENTRIES = {"toy": "toy_arithmetic:ARITHMETIC", "other": "toy_arithmetic:WRONG"}


def test_a_package_adds_an_arithmetic(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = install(
        tmp_path / "path", "toy-arithmetic", {"toy_arithmetic.py": TOY},
        {"osbc_deploy.arithmetics": ENTRIES},
    )  # fmt: skip
    monkeypatch.syspath_prepend(str(folder))
    assert arithmetic_names() == ["loihi", "xylo", "speck", "other", "toy"]
    case = next(c for c in random_networks(20) if c.network.output.spiking)
    plain = run(case.network, case.spikes, kernels="plain")
    assert plain.output.any()
    toy = replace(case.network, formats=replace(case.network.formats, arithmetic="toy"))
    assert not run(toy, case.spikes, kernels="plain").output.any()
    # What it does not replace stays: the compiled engine.
    assert np.array_equal(run(toy, case.spikes).output, plain.output)
    (tmp_path / "folder").mkdir()
    write_network(toy, tmp_path / "folder")
    assert read_network(tmp_path / "folder").formats.arithmetic == "toy"
    with pytest.raises(TargetError, match="its name is 'loihi', its entry point's 'other'"):
        arithmetic_of(replace(toy.formats, arithmetic="other"))
    with pytest.raises(UsageError, match="arithmetic 'none': is not installed"):
        arithmetic_of(replace(toy.formats, arithmetic="none"))
