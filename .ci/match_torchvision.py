"""Make the torchvision of this environment fit its torch, and check that it can be imported.

Pins cannot tell builds apart: where pip finds torch for the CPU in one place and torchvision in
another, torchvision is built for CUDA, its operators do not load, and ``import torchvision`` ends
with "operator torchvision::nms does not exist". What needs it here is norse's declaration and
SpikingJelly's model zoo, and neither calls an operator.

First the build of torch's own label is asked for. Where pip finds none, torchvision stays and gets
the declarations that its missing operators would have brought: it can be imported then, and its
operators refuse to run, as torchvision means them to.
"""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

DECLARED = """

if not _has_ops():
    # Added by osbc-deploy's set-up (.ci/match_torchvision.py): this build's operators do not load.
    for _name in ("nms", "qnms"):
        torch.library.define(
            f"torchvision::{_name}", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
        )
"""


def python(*args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *args], capture_output=True, text=True, check=False)


def failure() -> str:
    """Return why torchvision cannot be imported, or nothing."""
    done = python("-c", "import torchvision")
    return "" if done.returncode == 0 else done.stderr.strip().rpartition("\n")[2]


def build() -> str:
    """Return the torchvision of torch's own build, such as ``torchvision==0.28.0+cpu``."""
    _, plus, label = version("torch").partition("+")
    return f"torchvision=={version('torchvision').partition('+')[0]}{plus}{label}"


def declare() -> None:
    """Add what a torchvision without its operators lacks."""
    found = find_spec("torchvision")
    if found is not None and found.origin is not None:
        path = Path(found.origin).with_name("extension.py")
        text = path.read_text()
        if DECLARED not in text:
            path.write_text(text + DECLARED)


def main() -> int:
    if not failure():
        return 0
    python("-m", "pip", "install", "--quiet", "--no-deps", "--force-reinstall", build())
    if failure():
        declare()
        print(f"{build()} is not to be had; torchvision stays, without operators")
    if said := failure():
        print(f"error: torchvision cannot be imported ({said}). Install the build of your torch.")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
