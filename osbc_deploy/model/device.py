"""What torch computes on: the CPU, or an accelerator that is asked for by name."""

from __future__ import annotations

import re

from osbc_deploy.errors import UsageError, reason

__all__ = ["check_device"]


def check_device(name: str | None) -> str | None:
    """Return the name of a device that can be used here.

    Raises
    ------
    UsageError
        When torch has none of that name, or one on which sums would be other than on the CPU.
    """
    if name is None:
        return None
    if not re.fullmatch(r"cpu|cuda(:[0-9]{1,3})?", name):
        raise UsageError(
            f"--device: {name!r} is not one of cpu, cuda and cuda:N. Give one of these."
        )
    import torch

    try:
        torch.empty(0, dtype=torch.float64, device=name)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise UsageError(
            f"--device: {name!r} cannot be used here ({reason(error)}). Leave --device out, or "
            "install a torch that is built for the GPU and a driver for it."
        ) from error
    return name
