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


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(7)


@pytest.fixture(scope="session")
def formats() -> NumberFormats:
    return load_target("loihi2").number_formats
