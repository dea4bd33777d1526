"""The bundled networks deployed for firmware: 90 % sparsity, 4 bits, the whole test set."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from osbc_deploy import Deployment, deploy
from osbc_deploy.bundled.digits import calibration, digits_events
from osbc_deploy.bundled.models import weights_path
from osbc_deploy.data.samples import check_samples


def deployed(model: str, **options: Any) -> Deployment:
    """Deploy a bundled network from its calibration samples alone, without a backend."""
    return deploy(
        f"osbc_deploy.bundled.models:{model}", calibration().spikes,
        weights=weights_path(model), target="loihi2", backend_samples=0, **options,
    )  # fmt: skip


def bundled() -> Iterator[tuple[str, Deployment, np.ndarray]]:
    """Yield name, deployment and test spikes (n, T, *input_shape) of each network."""
    parts = [digits_events(split, seed=0) for split in ("calibration", "test")]
    typical, test = (
        check_samples(name, p.spikes, p.labels) for name, p in zip("ct", parts, strict=True)
    )
    for model in ("digits_conv", "digits_mlp"):
        done = deploy(
            f"osbc_deploy.bundled.models:{model}", typical, test=test,
            weights=weights_path(model), target="loihi2", backend_samples=0,
        )  # fmt: skip
        shape = done.lowered.network.input_shape
        yield model, done, np.asarray(test.spikes.reshape(*test.spikes.shape[:2], *shape))
