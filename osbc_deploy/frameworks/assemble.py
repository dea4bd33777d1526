"""Build a float network from a graph of neurons and linear operations.

Frontends whose models are graphs translate their nodes and leave the rest to :func:`assemble`: it
takes what every population hears (:mod:`.walk`), makes each way one projection (:mod:`.terms`),
finds the order in which activity flows, and which projections lead back.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from osbc_deploy.arrays import IntArray
from osbc_deploy.errors import UnsupportedModelError
from osbc_deploy.frameworks.operations import Term
from osbc_deploy.frameworks.order import activity_order
from osbc_deploy.frameworks.terms import mapped, merged
from osbc_deploy.frameworks.walk import Cells, Graph, Node, Walk
from osbc_deploy.limits import Allowance
from osbc_deploy.model.graph import INPUT, Connection, Network, Population, Projection
from osbc_deploy.plain_text import many

__all__ = ["Cells", "Graph", "Node", "assemble"]


def assemble(
    graph: Graph,
    *,
    dtype: str,
    source: str,
    notes: Sequence[str] = (),
    faults: Sequence[str] = (),
    exact: bool = False,
) -> Network:
    """Turn a graph into a network, or list everything that has no exact counterpart.

    Feedback arrives one step late. A cycle through several populations takes as many steps on the
    chip as it has projections, so feedback over several gets the delay that makes up for them.

    Parameters
    ----------
    graph : Graph
    dtype : str
        "float32" or "float64": the precision of the model, and of the network's weights.
    source : str
        Where the model came from, for the report.
    notes : sequence of str
        What the frontend dropped or decided; what is folded here is added.
    faults : sequence of str
        What the frontend could not translate, to be listed with the rest.
    exact : bool
        Whether feedback that would arrive later than in the model is refused, and not only said.

    Returns
    -------
    Network
        Projections are named after their weighted node, populations after theirs.

    Raises
    ------
    UnsupportedModelError
        With every offender.
    """
    walk = Walk(graph, Allowance(source, remedy="Give a smaller network"))
    offenders = [*faults, *walk.faults]
    order: list[str] = []
    if not offenders:
        order = activity_order(list(walk.heard), walk.edges, INPUT, graph.output)
        offenders = _order_faults(graph, order, walk.edges)
    if offenders:
        raise _refusal(source, offenders)
    said = [*notes, *walk.notes]
    depth = {INPUT: 0}
    for name in order:
        depth[name] = 1 + max(
            depth[pre] for pre, post in walk.edges if post == name and pre in depth
        )
    populations, projections = [], []
    for name in order:
        signal = walk.heard[name]
        neuron = walk.cells[name].neuron
        populations.append(Population(name, signal.shape, neuron))
        # What leads back is added to what comes from before, as frameworks do it.
        terms = sorted(
            merged(signal.terms, said), key=lambda t: t.pre in order[order.index(name) :]
        )
        for term in terms:
            late, why = _lateness(term, name, order, depth)
            (offenders if exact else said).extend(why)
            alone = neuron.exact or len(terms) == 1
            connection, pool = mapped(term, signal.shape, alone=alone)
            trained = not neuron.exact and _is_trained(term, terms)
            title = term.name or f"{term.pre}-{name}"
            projections.append(
                Projection(title, term.pre, name, _cast(connection, dtype), pool, trained, late)
            )
            said += [note for note in term.folded if note not in said]
    if offenders:
        raise _refusal(source, offenders)
    return Network(
        graph.input_shape,
        tuple(populations),
        tuple(_uniquely_named(projections)),
        dtype,
        source,
        tuple(said),
    )


def _is_trained(term: Term, terms: Sequence[Term]) -> bool:
    """Tell whether a projection can be compressed: spikes as they are, together with others."""
    if term.connection is None:
        return len(terms) > 1
    return term.trained if term.layered else any(other.trained for other in terms)


def _refusal(source: str, offenders: Sequence[str]) -> UnsupportedModelError:
    return UnsupportedModelError(
        f"{source}: {many(len(offenders), 'part')} cannot be represented", offenders
    )


def _order_faults(
    graph: Graph, order: Sequence[str], edges: Sequence[tuple[str, str]]
) -> list[str]:
    """Return what no chip could run in this order."""
    faults = []
    place = {name: number for number, name in enumerate([INPUT, *order])}
    for name in order:
        node = graph.nodes[name]
        sends = any(pre == name for pre, _ in edges)
        if sends and isinstance(node, Cells) and not node.neuron.spiking:
            faults.append(
                f"{name}: sends potentials, not spikes; only an output that feeds nothing may"
            )
        if all(place[pre] >= place[name] for pre, post in edges if post == name):
            faults.append(f"{name}: only hears populations that it leads to, never the input")
    return faults


def _cast(connection: Connection, dtype: str) -> Connection:
    bias = connection.bias
    return replace(
        connection,
        weight=connection.weight.astype(dtype),
        bias=None if bias is None else bias.astype(dtype),
    )


def _lateness(
    term: Term, post: str, order: Sequence[str], depth: Mapping[str, int]
) -> tuple[IntArray | None, list[str]]:
    """Return the delay of a term, which for feedback is what the chip needs at least, and why."""
    feeds_back = term.pre != INPUT and order.index(term.pre) >= order.index(post)
    needed = depth[term.pre] - depth[post] if feeds_back else 0
    delay = np.zeros(math.prod(term.source), np.int64) if term.delay is None else term.delay
    why = []
    if needed > delay.min():
        why = [
            f"{term.name or term.pre}: feedback from {term.pre} reaches {post} {needed + 1} steps "
            f"late instead of {delay.min() + 1}; every projection of a cycle takes the chip a step"
        ]
        delay = np.maximum(delay, needed)
    return (delay if delay.any() else None), why


def _uniquely_named(projections: Sequence[Projection]) -> Iterator[Projection]:
    """Name the parts of a node that became several projections after their ends too."""
    counts = Counter(p.name for p in projections)
    for p in projections:
        if counts[p.name] == 1:
            yield p
        else:
            same = [q for q in projections if (q.name, q.pre, q.post) == (p.name, p.pre, p.post)]
            number = f"-{same.index(p) + 1}" if len(same) > 1 else ""
            yield replace(p, name=f"{p.name}:{p.pre}-{p.post}{number}")
