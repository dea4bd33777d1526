"""Run a model as its users do: which way it is called, on batches, from its initial state."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from osbc_deploy.arrays import FloatArray, InputArray
from osbc_deploy.errors import UnsupportedModelError, reason
from osbc_deploy.frameworks.calling import ONE_CALL, Call, described, stepped, stepped_with_state
from osbc_deploy.frameworks.comparing import as_input
from osbc_deploy.frameworks.framework import Framework, kind_of
from osbc_deploy.modules.listening import Heard, Listener

__all__ = ["PLAIN", "Session", "probes", "session_of"]

_TOLERANCE = 1e-4
"""Difference of answers that the order of a batch may make, as part of the largest."""


def _restart(module: nn.Module) -> None:
    """Bring neurons of the user's own to their initial state, as far as they have a reset()."""
    for part in module.modules():
        reset = getattr(part, "reset", None)
        if callable(reset) and kind_of(part).__module__.split(".")[0] != "torch":
            reset()


PLAIN = Framework(
    package="torch",
    title="torch",
    readers={},
    supported="",
    ends="",
    runs="forward() takes one time step, or all of them",
    timeless="",
    calls=(stepped, *ONE_CALL, stepped_with_state),
    reset=_restart,
)
"""Models without neurons of any framework."""


def probes(samples: InputArray) -> tuple[InputArray, ...]:
    """Return batches that show how a model runs on samples (n, T, ...).

    Of all of them the first two samples are the same. The second batch has another last sample, the
    third another last time step, the fourth runs backwards.
    """
    n, steps = samples.shape[:2]
    # As many samples as there are steps would not tell one axis from the other.
    count = 3 if steps != 3 else 4
    first = samples[np.resize([0, 0, n // 2], count)].copy()
    first[2:] = samples[n // 2]
    rng = np.random.default_rng(0)
    drawn = rng.permutation(samples.reshape(-1)[: 10**6])
    other, late = first.copy(), first.copy()
    other[-1] = np.resize(drawn, first.shape[1:])
    late[:, -1] = np.resize(drawn[::-1], first.shape[2:])
    return first, other, late, np.ascontiguousarray(first[:, ::-1])


@dataclass(frozen=True, eq=False)
class Session:
    """A model that can be run.

    Attributes
    ----------
    module : torch.nn.Module
        In evaluation mode; its weights may be exchanged between runs.
    framework : Framework
    call : Call
    source : str
        Its name, for a message.
    batch : int
        Samples run side by side.
    """

    module: nn.Module
    framework: Framework
    call: Call
    source: str
    batch: int

    def run(
        self,
        samples: InputArray,
        weights: Collection[int] = (),
        on_samples: Callable[[int], None] = lambda samples: None,
    ) -> Iterator[tuple[FloatArray, list[Heard]]]:
        """Yield what the model answers to batches (n, T, outputs), and what weights heard."""
        for start in range(0, len(samples), self.batch):
            part = samples[start : start + self.batch]
            answer, heard = self.once(part, weights)
            yield answer, heard
            on_samples(len(part))

    def once(
        self, samples: InputArray, weights: Collection[int] = ()
    ) -> tuple[FloatArray, list[Heard]]:
        """Return the same of one batch.

        Raises
        ------
        UnsupportedModelError
            When the model raises, or its answer does not say what sample it is for.
        """
        self.framework.reset(self.module)
        listener = Listener(self.module, weights, self.framework.neurons)
        # A model may draw random numbers: the same ones for the same samples, whatever its weights.
        torch.manual_seed(0)
        try:
            with listener:
                answer = self.call(self.module, as_input(self.module, samples))
        except (Exception, SystemExit) as error:
            raise UnsupportedModelError(
                f"{self.source}: cannot be run on samples of shape {samples.shape[1:]} "
                f"({described(self.call)})",
                [f"forward raises {type(error).__name__}: {reason(error)}"],
                "Give samples (n, T, ...) of the shape that forward() takes.",
            ) from error
        finally:
            self.framework.reset(self.module)
        return self._by_sample(answer, *samples.shape[:2]), listener.heard

    def answers(
        self, samples: InputArray, on_samples: Callable[[int], None] = lambda samples: None
    ) -> FloatArray:
        """Return what the model answers (n, T, outputs); T is 1 for one answer to all steps."""
        return np.concatenate([answer for answer, _ in self.run(samples, (), on_samples)])

    def _by_sample(self, answer: Any, n: int, steps: int) -> FloatArray:
        first = answer
        while isinstance(first, tuple | list) and len(first):
            first = first[0]
        if isinstance(first, torch.Tensor):
            values = first.detach().to("cpu", torch.float64).numpy()
            if values.ndim > 1 and values.shape[:2] == (steps, n):
                return np.moveaxis(values, 0, 1).reshape(n, steps, -1)
            if values.ndim > 1 and values.shape[:2] == (n, steps) and values.ndim > 2:
                return np.asarray(values.reshape(n, steps, -1))
            if values.ndim > 1 and len(values) == n:
                return np.asarray(values.reshape(n, 1, -1))
            shown = f"in shape {tuple(values.shape)}"
        else:
            shown = f"with a {type(first).__name__}"
        raise UnsupportedModelError(
            f"{self.source}: forward answers {shown} to {n} samples of {steps} steps "
            f"({described(self.call)})",
            remedy="Have it answer with (T, n, classes) or (n, classes), alone or first in a "
            "tuple.",
        )


def session_of(
    module: nn.Module, framework: Framework, source: str, samples: InputArray, batch: int
) -> Session:
    """Return a model with the way in which it is called.

    What a container of the framework's own does is known. A model of the user's own is called in
    every way the framework knows; the first one counts in which samples do not depend on each other
    and the order of time matters.

    Raises
    ------
    UnsupportedModelError
        When there is none.
    """
    usual = framework.usual(module)
    own = framework.own(module) or framework is PLAIN
    ways = [usual, *(c for c in framework.calls if c is not usual)] if own else [usual]
    said: list[str] = []
    apart: list[Session] = []
    first, other, _, backwards = probes(samples)
    for call in ways:
        session = Session(module, framework, call, source, batch)
        try:
            before, again, after, reversed_ = (
                session.once(batch)[0] for batch in (first, first, other, backwards)
            )
        except UnsupportedModelError as error:
            said.append(f"{described(call)}: {'; '.join(error.offenders) or error.summary}")
            continue
        if not np.array_equal(before, again, equal_nan=True):
            said.append(f"{described(call)}: answers otherwise when it is called again")
        elif not _same(before[:2], after[:2]):
            said.append(f"{described(call)}: the answer to a sample depends on the others")
        elif _same(before.sum(axis=1), reversed_.sum(axis=1)) and samples.shape[1] > 1:
            apart.append(session)
        else:
            return session
    if apart:
        return apart[0]
    raise UnsupportedModelError(
        f"{source}: cannot be run on samples of shape {samples.shape[1:]}",
        said,
        f"In {framework.title}, {framework.runs}. Neurons of your own need a reset() that brings "
        "them to their initial state.",
    )


def _same(one: FloatArray, other: FloatArray) -> bool:
    scale = float(np.abs(one).max(initial=0.0))
    return bool((np.abs(one - other) <= _TOLERANCE * scale).all())
