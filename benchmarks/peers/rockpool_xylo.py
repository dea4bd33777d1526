"""Rockpool's XyloSim from exported configurations; run by ``benchmarks/xylo_rockpool.py``.

Runs in an interpreter of its own, with xylosim 0.1.3 and rockpool 3.1.0 installed without what it
declares (``pip install --no-deps rockpool==3.1.0``): simulating needs no driver of the chip, of
which the registry holds a stub only.
"""

import json
import sys
from importlib.metadata import version
from pathlib import Path
from unittest.mock import MagicMock

import numpy as np

for name in ("samna", *(f"samna.{chip}" for chip in ("xyloA1", "xyloA2", "xyloAudio3", "xyloImu"))):
    sys.modules |= {name: MagicMock(), f"{name}.configuration": MagicMock()}

from rockpool.devices.xylo.syns61201.xylo_sim import XyloSim  # noqa: E402

for path in sorted(Path(sys.argv[1]).glob("*.json")):
    given = json.loads(path.read_text())["specification"]
    given = {
        k: np.array(v) if isinstance(v, list) and k != "aliases" else v for k, v in given.items()
    }
    core = XyloSim.from_specification(**given)
    signal = np.load(path.with_suffix(".npy"))
    answers = []
    for sample in signal:
        core.reset_state()
        output, _, record = core.evolve(sample, record=True)
        answers.append(output)
    np.save(path.with_suffix(".out.npy"), np.stack(answers))
print(version("rockpool"))
