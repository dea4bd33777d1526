"""Compressed weights as a file: a state dict in safetensors, and how it came about."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors.torch import save

from osbc_deploy._version import __version__
from osbc_deploy.options import CompressionRequest
from osbc_deploy.options.option import rows
from osbc_deploy.writing import write_whole

if TYPE_CHECKING:
    from osbc_deploy.modules.result import CompressedModel

__all__ = ["METADATA", "weights_digest", "write_weights"]

METADATA = "osbc-deploy"
"""Key of the header's metadata that holds the JSON."""

FORMAT = "osbc-deploy/weights/1"


def weights_digest(state: Mapping[str, torch.Tensor]) -> str:
    """Return a SHA-256 of the names, types, shapes and values of a state dict."""
    digest = hashlib.sha256()
    for name, tensor in sorted(state.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        # NumPy lacks some of torch's types.
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def write_weights(result: CompressedModel, path: Path) -> None:
    """Write the state dict, whole or not at all; the same result gives the same bytes.

    A row's weights are whole numbers from ``-2^(bits - 1)`` to ``2^(bits - 1) - 1`` (-1 to 1 for
    one bit) times its scale, rounded to the parameter's type; the metadata holds the scales.

    Raises
    ------
    UsageError
        When it cannot be written.
    """
    about = {
        "format": FORMAT,
        "tool": __version__,
        "model_sha256": result.fingerprint,
        "options": {r.name: getattr(result.options, r.name) for r in rows(CompressionRequest)},
        "layers": {
            w.weight.name: {
                "parameters": list(w.weight.names),
                "bits": w.layer.bits,
                "scale": (w.layer.scale / w.weight.gain).tolist(),
            }
            for w in result.weights
        },
    }
    write_whole(path, save(result.state_dict(), {METADATA: json.dumps(about)}))
