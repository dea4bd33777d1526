"""Fixtures and small builders shared by the tests."""

from __future__ import annotations

import signal

import numpy as np
import pytest
import torch

from osbc_deploy.chip.target import load_target
from osbc_deploy.fixedpoint.formats import NumberFormats

torch.set_num_threads(1)

# A suite in the background inherits ignored signals, and so would the programs that it interrupts.
for _number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, signal.SIG_DFL)

_LONG = ("fitting/test_fitting.py", "test_readme.py", "compress/test_same_everywhere.py",
         "test_typing.py", "backends/test_lava.py", "backends/test_conformance.py")  # fmt: skip
"""Files of few tests that take long: first, so that no core waits for the last of them."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: not item.nodeid.split("::")[0].endswith(_LONG))


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(7)


@pytest.fixture(scope="session")
def formats() -> NumberFormats:
    return load_target("loihi2").number_formats
