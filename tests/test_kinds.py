"""Kinds of connection and neuron are asked what they can do, not what they are."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

import pytest

from osbc_deploy.fixedpoint.connections import KINDS, FixedConnection
from osbc_deploy.model.connections import Connection
from osbc_deploy.model.neurons import Neuron

ROOT = Path(__file__).parent.parent
OWN = ("model/connections/", "fixedpoint/connections/", "model/neurons.py")
ALLOWED = {
    # Parameters that NIR itself has are written as they are; what is derived rounds once more.
    "osbc_deploy/formats/nir/write.py": 1,
}
"""How often a module may ask, and why."""


FRAMEWORKS = ("nn", "nir", "norse", "snn", "neuron", "nir.ir")


@cache
def families() -> set[str]:
    """The names of all kinds, and of the tuples and unions of them."""
    found = {"Dense", "Conv"} | {kind.__name__ for kind in KINDS.values()}
    trees = [ast.parse(path.read_text()) for path in (ROOT / "osbc_deploy").rglob("*.py")]
    for tree in trees:
        found |= {
            node.name
            for node in ast.walk(tree)
            if isinstance(node, ast.ClassDef)
            and any(isinstance(b, ast.Name) and b.id == "Neuron" for b in node.bases)
        }
    assigned = [n for tree in trees for n in tree.body if isinstance(n, ast.Assign)]
    for node in assigned:
        if isinstance(node.value, ast.Tuple | ast.BinOp) and names(node.value) & found:
            found |= {t.id for t in node.targets if isinstance(t, ast.Name)}
    return found


def names(node: ast.AST) -> set[str]:
    """Names in an expression, but for those of frameworks, which have neurons called alike."""
    attributes = [n for n in ast.walk(node) if isinstance(n, ast.Attribute)]
    ours = {n.attr for n in attributes if ast.unparse(n.value) not in FRAMEWORKS}
    return ours | {n.id for n in ast.walk(node) if isinstance(n, ast.Name)}


def asks(node: ast.AST) -> set[str]:
    """What a node asks the kind of something for: isinstance, type(x) is, match."""
    if isinstance(node, ast.Call) and ast.unparse(node.func) in ("isinstance", "issubclass"):
        return names(node.args[1])
    if isinstance(node, ast.Compare):
        parts = [node.left, *node.comparators]
        if any(isinstance(p, ast.Call) and names(p.func) == {"type"} for p in parts):
            return set().union(*(names(p) for p in parts))
    if isinstance(node, ast.MatchClass):
        return names(node.cls)
    return set()


def questions(source: str, kinds: set[str]) -> int:
    return sum(1 for node in ast.walk(ast.parse(source)) if asks(node) & kinds)


@pytest.mark.parametrize(
    "source",
    [
        "isinstance(c, Conv)",
        "isinstance(c, graph.Conv | Other)",
        "issubclass(c, (Dense, Other))",
        "type(c) is FixedDense",
        "x = FixedConv == type(c)",
        "match c:\n    case Conv():\n        pass",
    ],
)
def test_every_way_of_asking_is_found(source: str) -> None:
    assert questions(source, families()) == 1
    assert questions(source.replace("Dense", "X").replace("Conv", "X"), families()) == 0


def test_nothing_asks_for_a_kind_without_a_reason() -> None:
    kinds = families()
    assert {"Dense", "FixedConv", "LIF", "Threshold", "_LEAKY"} <= kinds
    found = {}
    for path in [*(ROOT / "osbc_deploy").rglob("*.py"), *(ROOT / "backends").rglob("*.py")]:
        place = path.relative_to(ROOT).as_posix()
        if not any(own in place for own in OWN):
            count = questions(path.read_text(), kinds)
            found |= {place: count} if count else {}
    assert found == ALLOWED
    assert sum(found.values()) <= 6


def test_every_kind_says_what_it_is() -> None:
    kinds = {kind.kind: kind for kind in Connection.__subclasses__()}
    assert kinds.keys() == KINDS.keys() == {"dense", "conv"}
    for name, kind in kinds.items():
        assert issubclass(KINDS[name], FixedConnection)
        assert KINDS[name].convolutional == kind.convolutional
        assert ("delay" in KINDS[name].held) == kind.delayed
    assert not Neuron.memoryless
