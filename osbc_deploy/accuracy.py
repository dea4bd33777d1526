"""How many samples a network classifies right, and what one should know before believing it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from osbc_deploy.arrays import IntArray
from osbc_deploy.compress.result import CompressedNetwork
from osbc_deploy.data.samples import Samples
from osbc_deploy.errors import DataError, UsageError
from osbc_deploy.fixedpoint.engine import EngineRun, run
from osbc_deploy.lower.lowering import Lowered
from osbc_deploy.model.readout import NO_ANSWER, decode, shared_answers
from osbc_deploy.model.simulate import simulate
from osbc_deploy.options.notation import Readout
from osbc_deploy.progress import SILENT, Progress

__all__ = ["Accuracy", "check_classes", "check_labels", "doubts", "evaluate", "lost_share"]

_LEVEL = 0.05
"""A network that always gives one class passes for better than that so often."""


@dataclass(frozen=True)
class Accuracy:
    """Share of samples classified right, in [0, 1]; None where the data has no labels.

    A sample without an answer (see :func:`osbc_deploy.model.readout.decode`) is wrong.

    Attributes
    ----------
    float_, compressed, fixed_point : float or None
        Of the float network, with compressed weights in floating point, and in integers.
    agreement : float or None
        Samples that get the same class in integers as in floating point, as a share of those that
        get one by either; None where none do.
    no_answer : dict of float
        Share of samples without an answer, by "float", "compressed" and "fixed_point".
    samples : int
    data : str
        Name of the samples.
    """

    float_: float | None
    compressed: float | None
    fixed_point: float | None
    agreement: float | None
    no_answer: Mapping[str, float]
    samples: int
    data: str


def evaluate(
    compressed: CompressedNetwork,
    lowered: Lowered,
    samples: Samples,
    readout: Readout,
    progress: Progress = SILENT,
    *,
    keep: int = 0,
) -> tuple[Accuracy, EngineRun]:
    """Classify samples in floating point, with compressed weights, and in integers.

    Of the first `keep` samples, the engine's run holds all spikes.
    """
    before = simulate(
        compressed.original, samples.spikes, exact=True, progress=progress, title="evaluate float"
    )
    after = simulate(
        compressed.network,
        samples.spikes,
        exact=True,
        progress=progress,
        title="evaluate compressed",
    )
    fixed = run(
        lowered.network,
        lowered.network.input.codes(samples.spikes),
        record=[p.name for p in lowered.network.populations],
        keep=keep,
        progress=progress,
        title="evaluate fixed point",
    )
    spiking = lowered.network.output.spiking
    classes = {
        name: decode(done.output, readout, spiking=spiking)
        for name, done in (("float", before), ("compressed", after), ("fixed_point", fixed))
    }
    right = {name: _share(c, samples.labels) for name, c in classes.items()}
    same, answered = shared_answers(classes["float"], classes["fixed_point"])
    accuracy = Accuracy(
        float_=right["float"],
        compressed=right["compressed"],
        fixed_point=right["fixed_point"],
        agreement=same / answered if answered else None,
        no_answer={name: float(np.mean(c == NO_ANSWER)) for name, c in classes.items()},
        samples=len(samples),
        data=samples.name,
    )
    return accuracy, fixed


def _share(classes: IntArray, labels: IntArray | None) -> float | None:
    return None if labels is None else float(np.mean(classes == labels))


def lost_share(before: IntArray, after: IntArray, labels: IntArray | None) -> float:
    """Return the share of samples (n,) lost; without labels, of answered ones that change class.

    Some must be answered.
    """
    if labels is None:
        same, answered = shared_answers(before, after)
        return 1.0 - same / answered
    return float(np.mean(before == labels) - np.mean(after == labels))


def check_classes(data: Sequence[Samples], outputs: int, classes: int | None = None) -> None:
    """Refuse labels and outputs that cannot be one and the same numbering of classes.

    Parameters
    ----------
    data : sequence of Samples
        All that share the numbering.
    outputs : int
        Of the network; the class is the number of one of them.
    classes : int, optional
        Classes there are, where the data hold only the first of them.

    Raises
    ------
    ArtefactError
        For labels that no output stands for, which would only count as wrong answers, and for two
        outputs and more for each class, of which the largest alone is not the network's answer.
    UsageError
        For a number of classes that is not that of outputs or labels.
    """
    highest = check_labels(data, outputs)
    seen = max((label for _, label in highest), default=-1) + 1
    if classes is not None and not max(seen, 1) <= classes <= outputs:
        raise UsageError(
            f"classes: {classes} is outside {max(seen, 1)} to {outputs}, what the labels and the "
            "network's outputs allow. Give the number of classes that the network tells apart."
        )
    known = classes or seen
    if known and outputs >= 2 * known:
        said = "classes" if classes else " and ".join(dict.fromkeys(name for name, _ in highest))
        told = "1 class is" if known == 1 else f"{known} classes are"
        remedy = (
            ""
            if classes
            else " If each output is a class of its own, and the data hold only the first ones, "
            f"say so with --classes {outputs}."
        )
        raise DataError(
            f"{said}: {told} told apart by {outputs} outputs, at most "
            f"{2 * known - 1} are allowed. The class is the largest output's number, which is "
            "wrong where several outputs vote for one class (a voting layer or population code "
            f"behind them): say how many with --readout vote:N.{remedy}"
        )


def check_labels(data: Sequence[Samples], outputs: int) -> list[tuple[str, int]]:
    """Return the highest label of each of the data that have any.

    Raises
    ------
    DataError
        For labels that no output stands for, which would only count as wrong answers.
    """
    highest = [(s.name, int(s.labels.max())) for s in data if s.labels is not None]
    for name, label in highest:
        if label >= outputs:
            raise DataError(
                f"{name}: labels go up to {label}, the network's {outputs} outputs stand for "
                f"0 to {outputs - 1}. Number the classes from 0, or give data of its classes."
            )
    return highest


def doubts(
    accuracy: Accuracy, labels: IntArray | None, outputs: int, classes: int | None = None
) -> Iterator[str]:
    """Yield what puts the accuracies in doubt, a line each.

    Parameters
    ----------
    accuracy : Accuracy
    labels : ndarray of int (n,) or None
        Of the samples evaluated.
    outputs, classes
        See :func:`check_classes`.
    """
    if labels is None or accuracy.float_ is None:
        return
    counts = np.bincount(labels)
    seen, often = int(np.count_nonzero(counts)), int(counts.max())
    if seen < outputs and classes is None:
        yield (
            f"labels: {accuracy.data} holds {seen} of the {outputs} classes that the network's "
            "outputs stand for; accuracy says nothing of the others"
        )
    from scipy.special import bdtrc  # as scipy.stats, which takes a second to import

    # The commonest class is never rarer than one in all classes.
    n, right = len(labels), round(accuracy.float_ * len(labels))
    p = float(bdtrc(right - 1, n, often / n))
    if p > _LEVEL:
        yield (
            f"accuracy: the float network is not above chance: {right} of {n} right "
            f"({right / n:.2%}), always class {int(counts.argmax())} would be {often} "
            f"({often / n:.2%}; one-sided binomial test, p = {p:.2g}). Are these its weights, "
            "data and labels?"
        )
