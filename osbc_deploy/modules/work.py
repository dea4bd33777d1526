"""Compress the weights of a model one by one, in the order in which they are called."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace

import numpy as np

from osbc_deploy.arrays import FloatArray, InputArray
from osbc_deploy.compress.guard import enough_rows, held_out_loss, held_out_note, more_rows
from osbc_deploy.compress.layer import Solver, nearest, prune_by_magnitude, split
from osbc_deploy.compress.moments import Moments
from osbc_deploy.compress.network import silent_outputs
from osbc_deploy.compress.options import CompressionOptions
from osbc_deploy.compress.patterns import Pattern
from osbc_deploy.compress.plan import shared_weights, shared_widths
from osbc_deploy.compress.problem import LayerProblem, stacked_weights
from osbc_deploy.compress.result import CompressedProjection
from osbc_deploy.compress.scene import HELD_OUT, MIN_HELD_OUT, Layer
from osbc_deploy.compress.shares import better_shares
from osbc_deploy.compress.solver_memory import check_needed, matrices_of
from osbc_deploy.compress.state import SolverState
from osbc_deploy.compress.tuning import tune
from osbc_deploy.deviations import Deviation
from osbc_deploy.limits import array_bytes, shown
from osbc_deploy.modules.scene import Scene, changed, judge, moments_of, problem_of, valued
from osbc_deploy.modules.session import Session
from osbc_deploy.modules.weights import Weight
from osbc_deploy.plain_text import many
from osbc_deploy.progress import Progress, task

__all__ = ["Work"]

_COPIES = 12
"""Copies of a weight's input of a batch: raw, filtered and rounded, of two networks."""

_COLLECTED = 3
"""Matrices of a weight whose moments are added up; as many stay while all layers are held."""


class Work:
    """The weights of a model, from their input to what they become.

    Parameters
    ----------
    session : Session
    weights : sequence of Weight
        In the order of their calls.
    samples : ndarray (n, T, ...)
        For calibration.
    options : CompressionOptions
    progress : Progress

    Raises
    ------
    UsageError
        When the Hessians of a layer do not fit into the solver's memory.
    """

    def __init__(
        self,
        session: Session,
        weights: Sequence[Weight],
        samples: InputArray,
        options: CompressionOptions,
        progress: Progress,
    ) -> None:
        seen = max(weight.seen for weight in weights)
        room = options.solver_memory // (_COPIES * max(1, seen))
        self.session = replace(session, batch=min(session.batch, max(1, room)))
        self.weights, self.samples = weights, samples
        self.options, self.progress = options, progress
        self.deviations: list[Deviation] = []
        self._space = options.space()
        self._by_size = options.method == "magnitude"
        self._tuned = (
            options.tries and not self._by_size and len(samples) >= HELD_OUT * MIN_HELD_OUT
        )
        self._together = options.joint
        self._check_memory()
        if options.tries and not self._tuned and not self._by_size:
            text = (
                f"{len(samples)} calibration samples are too few to hold some out "
                f"({HELD_OUT * MIN_HELD_OUT} are needed), so no variant was tried"
            )
            self.deviations.append(Deviation("compress", "calibration", text))

    def values(self, layers: Sequence[CompressedProjection]) -> dict[str, FloatArray]:
        """Return the parameters that the first layers change, by name."""
        found: dict[str, FloatArray] = {}
        for weight, layer in zip(self.weights, layers, strict=False):
            found |= changed(self.session, weight, layer)
        return found

    def run(self, store: SolverState | None = None) -> list[CompressedProjection]:
        """Return the compressed weights, in order; `store` holds finished ones."""
        keep, bits = self._plan(store)
        held = self.samples[HELD_OUT - 1 :: HELD_OUT]
        wanted = self.session.answers(held).sum(axis=1) if self._tuned else np.zeros((1, 1))
        dense = iter(()) if self._tuned or self._by_size else self._moments(self.samples)
        done: list[CompressedProjection] = []
        for weight in self.weights:
            name = weight.name
            moments = next(dense, None)
            found = store.load(name, [weight.projection()]) if store else None
            if found is None:
                with task(self.progress, f"compress {name}", len(self.samples)):
                    found = self._compressed(weight, keep[name], bits[name], moments, done, wanted)
                if store:
                    store.save(name, *found)
            (result,), notes = found
            done.append(result)
            self.deviations += [*notes, *silent_outputs({name: result})]
        return done

    def _compressed(
        self,
        weight: Weight,
        keep: int,
        bits: int,
        moments: Moments | None,
        done: Sequence[CompressedProjection],
        wanted: FloatArray,
    ) -> tuple[Layer, tuple[Deviation, ...]]:
        groups, pattern = self.options.scale_groups, self._pattern(weight)
        if self._by_size:
            pruned = prune_by_magnitude(stacked_weights([weight.projection()]), keep)
            codes = nearest(pruned, bits, groups)
            return split([weight.projection()], pruned, bits, *codes), ()

        solve = Solver(keep, bits, groups, pattern, self._space)
        scene = Scene(
            self.session,
            weight,
            self.samples,
            self.values(done),
            wanted,
            self.options,
            on_samples=self.progress.advance,
        )
        while True:
            if self._tuned:
                layer, problem = tune(scene, solve)
            else:
                moments = moments or scene.moments(cross=False, part=slice(None))
                problem = problem_of(weight, moments, self.options)
                layer = solve(problem)
            held = held_out_loss(problem, layer)
            if enough_rows(held, layer):
                return layer, problem.deviations + held_out_note(held, problem.moments, layer)
            scene = replace(scene, rows_per_input=more_rows(problem, scene.rows_per_input))
            moments = None

    def _plan(self, store: SolverState | None) -> tuple[dict[str, int], dict[str, int]]:
        """Return how many weights and bits every layer gets."""
        known = store.load_plan() if store else None
        if known is not None:
            self.deviations += [Deviation(**said) for said in known.get("deviations", [])]
            return known["keep"], known["bits"]
        keep: dict[str, int] = {}
        said: list[Deviation] = []
        if self.options.allocation == "auto" and self.options.sparsity and len(self.weights) > 1:
            if why := self._why_untried():
                text = f"LAMPS; the global one was not tried, as {why}"
            else:
                keep, text = self._better_shares()
            said.append(Deviation("compress", "allocation", text))
        problems = self._problems(self.samples) if self._together else {}
        values = {w.name: w.projection().connection.weight.ravel() for w in self.weights}
        keep = keep or shared_weights(values, problems, self.options)
        bits = dict.fromkeys(values, self.options.bits)
        if self.options.mixed:
            patterns = {weight.name: self._pattern(weight) for weight in self.weights}
            bits = shared_widths(problems, keep, patterns, self.options, self.progress)
        if store:
            plain = [asdict(deviation) for deviation in said]
            store.save_plan({"keep": keep, "bits": bits, "deviations": plain})
        self.deviations += said
        return keep, bits

    def _problems(self, samples: InputArray) -> dict[str, LayerProblem]:
        """Return what every weight's problem is in the float network."""
        pairs = zip(self.weights, self._moments(samples), strict=True)
        return {w.name: problem_of(w, m, self.options) for w, m in pairs}

    def _why_untried(self) -> str:
        """Return why the global allocation is not tried; empty where it is."""
        options = self.options
        if self._by_size:
            return "magnitude has no Hessians"
        if options.pattern != "weights":
            return f"it ranks single weights, the pattern is {options.pattern}"
        if not self._tuned:
            return "no samples are held out" if options.tries else "no variants are"
        needed = max(self._needed(tuned=False, together=True).values())
        if needed > options.solver_memory:
            return f"all Hessians together need {shown(needed)}"
        return ""

    def _better_shares(self) -> tuple[dict[str, int], str]:
        """Return how many weights every layer keeps, and what was tried."""
        judging = np.arange(len(self.samples)) % HELD_OUT == HELD_OUT - 1
        held = self.samples[judging]
        errors = judge(self.session, held, self.session.answers(held).sum(axis=1))

        def errors_of(pruned: Mapping[str, FloatArray]) -> FloatArray:
            return errors({w.names[0]: valued(w, pruned[w.name]) for w in self.weights})

        problems = self._problems(self.samples[~judging])
        return better_shares(problems, self.options.sparsity, errors_of, self._space)

    def _pattern(self, weight: Weight) -> Pattern:
        pattern = Pattern.parse(self.options.pattern)
        # A layer that feeds no neuron may hold the classes: none of them may be removed.
        return Pattern() if pattern.kind == "outputs" and not weight.neurons else pattern

    def _moments(self, samples: InputArray) -> Iterator[Moments]:
        """Yield every weight's moments in the float network; as many in one run as fit."""
        group: list[Weight] = []
        taken = 0
        for weight in self.weights:
            size = _matrices(weight, _COLLECTED) + _COPIES * self.session.batch * weight.seen
            if group and taken + size > self.options.solver_memory:
                yield from self._collected(group, samples)
                group, taken = [], 0
            group.append(weight)
            taken += size
        yield from self._collected(group, samples)

    def _collected(self, group: Sequence[Weight], samples: InputArray) -> list[Moments]:
        title = f"Hessians of {many(len(group), 'layer')}"
        with task(self.progress, title, len(samples)):
            return moments_of(
                self.session,
                group,
                samples,
                self.options,
                on_samples=self.progress.advance,
            )

    def _check_memory(self) -> None:
        if self._by_size and not self._together:
            return
        check_needed(
            self._needed(tuned=self._tuned, together=self._together),
            self._needed(tuned=False, together=self._together),
            {w.name: (w.name, w.parameter[0].numel()) for w in self.weights},
            self.options,
        )

    def _needed(self, *, tuned: bool, together: bool) -> dict[str, int]:
        """Return the bytes that each layer takes, with all others' Hessians or without."""
        held = sum(_matrices(w, _COLLECTED) for w in self.weights) if together else 0
        matrices, batch = matrices_of(self.options, tuned=tuned), self.session.batch
        return {
            w.name: held + _matrices(w, matrices) + _COPIES * batch * w.seen for w in self.weights
        }


def _matrices(weight: Weight, count: int) -> int:
    """Return what square matrices of a weight's inputs take."""
    fan_in = weight.parameter[0].numel()
    return count * array_bytes((weight.uses[0].geometry.groups, fan_in, fan_in), 8)
