"""Run a model as its users do: which way it is called, on batches, from its initial state."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import nn

from osbc_deploy.arrays import FloatArray, InputArray
from osbc_deploy.errors import UnsupportedModelError, reason
from osbc_deploy.frameworks.calling import (
    ONE_CALL,
    TIME_BEHIND,
    Call,
    described,
    stepped,
    stepped_with_state,
)
from osbc_deploy.frameworks.comparing import as_input
from osbc_deploy.frameworks.framework import Framework, kind_of
from osbc_deploy.modules.layouts import same
from osbc_deploy.modules.listening import Heard, HeardEnough, Listener
from osbc_deploy.plain_text import many

__all__ = ["PLAIN", "Session", "probes", "session_of"]

_MORE = 4
"""Pairs of samples that a model is shown where the first ones do not tell how it is called."""


def _restart(module: nn.Module) -> None:
    """Bring the user's own neurons to their initial state, if they have a reset()."""
    for part in module.modules():
        reset = getattr(part, "reset", None)
        if callable(reset) and kind_of(part).__module__.split(".")[0] != "torch":
            with suppress(TypeError):
                # One that takes arguments is not for us to call.
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


def probes(samples: InputArray, steps: int) -> tuple[InputArray, ...]:
    """Return batches that show how a model runs on samples (n, T, ...).

    Of all of them the first two samples are the same. The second batch has another last sample, the
    third another last time step, the fourth runs backwards.

    Parameters
    ----------
    samples : ndarray
    steps : int
        Time steps of the model; as many samples would not tell one axis from the other.
    """
    count = 3 if steps != 3 else 4
    first = samples[np.resize([0, 0, len(samples) // 2], count)].copy()
    first[2:] = samples[len(samples) // 2]
    rng = np.random.default_rng(0)
    drawn = rng.permutation(samples.reshape(-1)[: 10**6])
    other, late = first.copy(), first.copy()
    other[-1] = np.resize(drawn, first.shape[1:])
    late[:, -1] = np.resize(drawn[::-1], first.shape[2:])
    return first, other, late, first[:, ::-1].copy()


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
    steps : int
        Time steps of the model: those of the samples, or those for which it shows itself a static
        image.
    part : int
        Which part of a tuple is its answer.
    others : tuple of Call
        Ways to call it that nothing told from `call`.
    """

    module: nn.Module
    framework: Framework
    call: Call
    source: str
    batch: int
    steps: int
    part: int = 0
    others: tuple[Call, ...] = ()

    def answers(self, samples: InputArray) -> FloatArray:
        """Return what the model answers (n, T, outputs); T is 1 for one answer to all steps.

        Raises
        ------
        UnsupportedModelError
            When the model raises, or its answer does not say what sample it is for.
        """
        found = []
        for start in range(0, len(samples), self.batch):
            part = samples[start : start + self.batch]
            found.append(self._by_sample(self._called(part), *part.shape[:2]))
        return np.concatenate(found)

    def parts(self, samples: InputArray) -> dict[int, FloatArray]:
        """Return the parts of a tuple that could be the answer to one batch, (n, T, outputs)."""
        answer = self._called(samples)
        found = {}
        for number, part in enumerate(answer if isinstance(answer, tuple | list) else (answer,)):
            if isinstance(part, torch.Tensor):
                with suppress(UnsupportedModelError):
                    found[number] = self._by_sample(part, *samples.shape[:2])
        return found

    def doubts(self) -> Iterator[str]:
        """Say where nothing showed how the model is called."""
        if self.others:
            also = " or ".join(described(call) for call in self.others)
            yield (
                f"call: {described(self.call)} is taken, but could be {also}: in any of them the "
                "order of time steps makes no difference to what is answered. Give samples that "
                "make its outputs fire"
            )

    def heard(
        self, samples: InputArray, weights: Collection[int], calls: int | None = None
    ) -> list[Heard]:
        """Return what weights are multiplied with in one batch.

        Parameters
        ----------
        samples : ndarray (n, T, ...)
        weights : collection of int
            Identities of the parameters.
        calls : int, optional
            After this many the rest of the forward is left out.
        """
        with Listener(self.module, weights, self.framework.neurons, calls) as listener:
            self._called(samples)
        return listener.heard

    def _called(self, samples: InputArray) -> Any:
        self.framework.reset(self.module)
        # A model may draw random numbers: the same ones for the same samples, whatever its weights.
        torch.manual_seed(0)
        try:
            return self.call(self.module, as_input(self.module, samples))
        except HeardEnough:
            return None
        except (Exception, SystemExit) as error:
            raise UnsupportedModelError(
                f"{self.source}: cannot be run on samples of shape {samples.shape[1:]} "
                f"({described(self.call)})",
                [f"forward raises {type(error).__name__}: {reason(error)}"],
                "Give samples (n, T, ...) of the shape that forward() takes.",
            ) from error
        finally:
            self.framework.reset(self.module)

    def _by_sample(self, answer: Any, n: int, steps: int) -> FloatArray:
        first = answer
        if isinstance(first, tuple | list) and self.part < len(first):
            first = first[self.part]
        while isinstance(first, tuple | list) and len(first):
            first = first[0]
        if isinstance(first, torch.Tensor):
            values = first.detach().to("cpu", torch.float64).numpy()
            if values.ndim > 1 and values.shape[:2] == (steps, n):
                return np.moveaxis(values, 0, 1).reshape(n, steps, -1)
            if values.ndim > 1 and values.shape[:2] == (n, steps) and values.ndim > 2:
                return np.asarray(values.reshape(n, steps, -1))
            if values.ndim == 3 and (len(values), values.shape[-1]) == (n, steps) and steps > 1:
                # Classes that steps were stacked behind.
                return np.ascontiguousarray(np.moveaxis(values, -1, 1))
            if values.ndim > 1 and len(values) == n:
                return np.asarray(values.reshape(n, 1, -1))
            shown = f"in shape {tuple(values.shape)}"
        else:
            shown = f"with a {type(first).__name__}"
        raise UnsupportedModelError(
            f"{self.source}: forward answers {shown} to {many(n, 'sample')} of "
            f"{many(steps, 'step')} "
            f"({described(self.call)})",
            remedy="Have it answer with (T, n, classes), (n, T, classes), (n, classes, T) or "
            "(n, classes), alone or in a tuple.",
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
    sessions = [Session(module, framework, call, source, batch, samples.shape[1]) for call in ways]
    behind = [replace(sessions[0], call=call) for call in TIME_BEHIND if own]
    apart: list[Session] = []
    said: list[str] = []
    for shown in _shown(samples) if len(ways) > 1 else (samples,):
        apart, said = [], []
        for session in sessions:
            try:
                ordered = _keeps_order(session, shown)
            except UnsupportedModelError as error:
                why = "; ".join(error.offenders) or error.summary
                said.append(f"{described(session.call)}: {why}")
                continue
            if samples.shape[1] == 1:
                return replace(session, steps=_inner_steps(session, samples))
            if ordered:
                return session
            apart.append(session)
        if not apart:
            break
    if not apart:
        apart = list(_that_run(behind, samples))
    if apart:
        # Nothing tells them apart, and no other sample would if there is only one.
        others = tuple(session.call for session in apart[1:])
        return replace(apart[0], others=others)
    raise UnsupportedModelError(
        f"{source}: cannot be run on samples of shape {samples.shape[1:]}",
        said,
        f"In {framework.title}, {framework.runs}. Neurons of your own need a reset() that brings "
        "them to their initial state.",
    )


def _that_run(sessions: Sequence[Session], samples: InputArray) -> Iterator[Session]:
    """Yield the sessions in which a model can be called, where samples are apart."""
    for session in sessions:
        with suppress(UnsupportedModelError):
            _keeps_order(session, samples)
            yield session


def _shown(samples: InputArray) -> Iterator[InputArray]:
    """Yield samples to probe a model with: as they come, then the ones with most input.

    A model that answers them with silence, forwards and backwards, does not show how it is called.
    """
    yield samples
    busy = np.argsort(-samples.reshape(len(samples), -1).sum(axis=1, dtype=float), kind="stable")
    for start in range(0, min(len(samples) - 1, 2 * _MORE), 2):
        yield samples[busy[start : start + 2]]


def _keeps_order(session: Session, samples: InputArray) -> bool:
    """Tell whether the order of time steps matters to a model's answers.

    Raises
    ------
    UnsupportedModelError
        When it cannot be called in this way, or samples depend on each other.
    """
    first, other, _, backwards = probes(samples, session.steps)
    before, again, after, reversed_ = (
        session.answers(batch) for batch in (first, first, other, backwards)
    )
    if not np.array_equal(before, again, equal_nan=True):
        raise UnsupportedModelError("gives another answer when it is called again")
    # The first two samples are equal, and so must be the answers to them.
    if not (same(before[:2], after[:2]) and same(before[0], before[1])):
        raise UnsupportedModelError("the answer to a sample depends on the others")
    return session.steps > 1 and not same(before.sum(axis=1), reversed_.sum(axis=1))


def _inner_steps(session: Session, samples: InputArray) -> int:
    """Return for how many steps a model shows itself samples of one time step."""
    seen: dict[nn.Module, list[tuple[int, ...]]] = {}

    def note(cell: nn.Module, given: tuple[Any, ...]) -> None:
        if given and isinstance(given[0], torch.Tensor):
            seen.setdefault(cell, []).append(tuple(given[0].shape))

    cells = [m for m in session.module.modules() if isinstance(m, session.framework.neurons)]
    hooks = [cell.register_forward_pre_hook(note) for cell in cells]
    count = 7
    try:
        # All in one batch, of a size that tells samples from steps.
        replace(session, batch=count).answers(samples[np.resize(np.arange(len(samples)), count)])
    finally:
        for hook in hooks:
            hook.remove()
    # A loop over time, or all steps in one call.
    each = [
        shapes[0][0] if len(shapes) == 1 and shapes[0][1:2] == (count,) else len(shapes)
        for shapes in seen.values()
    ]
    return max(set(each), key=each.count, default=1)
