"""Which of several tensors that a model gives is its answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from osbc_deploy.arrays import InputArray
from osbc_deploy.deviations import Deviation
from osbc_deploy.modules.scene import exchanged
from osbc_deploy.modules.session import Session
from osbc_deploy.modules.weights import Weight

__all__ = ["answering"]

_SAMPLES = 8


def answering(
    session: Session, weights: Sequence[Weight], samples: InputArray
) -> tuple[Session, tuple[Deviation, ...]]:
    """Return a session that reads the part that depends on most weights, and say which that is.

    Models give recordings of their hidden layers beside their answer, before it or behind it. What
    changes without a weight depends on it: the answer on most, recordings on those before them.
    Of parts that depend on as many, the first is taken.

    Parameters
    ----------
    session : Session
    weights : sequence of Weight
    samples : ndarray (n, T, ...)
    """
    few = samples[:_SAMPLES]
    before = session.parts(few)
    if len(before) < 2:
        return session, ()
    depending = dict.fromkeys(before, 0)
    for weight in weights:
        nothing = np.zeros(tuple(weight.parameter.shape))
        with exchanged(session.module, dict.fromkeys(weight.names, nothing)):
            after = session.parts(few)
        for part, values in before.items():
            same = part in after and np.array_equal(values, after[part], equal_nan=True)
            depending[part] += not same
    part = max(depending, key=lambda number: depending[number])
    text = (
        f"part {part + 1} of {len(before)} that forward gives is read: it depends on "
        f"{depending[part]} of {len(weights)} weights"
    )
    return replace(session, part=part), (Deviation("compress", "answer", text),)
