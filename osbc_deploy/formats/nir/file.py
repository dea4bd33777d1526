"""Read the nodes and edges of a NIR graph, from a file (HDF5) that is not trusted or from memory.

The file is walked with h5py before the ``nir`` package sees any of it: links out of the file,
external and virtual storage and Python objects are never followed, and node types are looked up in
a list. ``nir`` itself then makes each node from plain arrays and text, and fills in what older
versions of the format did not write. Graphs within the graph are taken apart into one.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from osbc_deploy.data.tensors import as_array
from osbc_deploy.errors import (
    ArtefactError,
    NotFoundError,
    UnsupportedModelError,
    reason,
)
from osbc_deploy.formats.hdf5 import Hdf5, open_hdf5
from osbc_deploy.limits import is_there
from osbc_deploy.plain_text import many

__all__ = ["NirModel", "read_model", "take_apart"]

_BESIDE = 28
"""Bytes that are made of each number while nodes become a network."""


@dataclass(frozen=True, eq=False)
class NirModel:
    """The nodes of a graph, those of graphs within it included.

    Attributes
    ----------
    nodes : dict of nir.NIRNode
        By name; a node `b` of a graph `a` is ``a.b``.
    edges : tuple of (str, str)
    metadata : dict
        Of the outermost graph.
    inputs, outputs : tuple of str
        Of the outermost graph; those of graphs within it are mere passages.
    notes : tuple of str
    """

    nodes: Mapping[str, Any]
    edges: tuple[tuple[str, str], ...]
    metadata: Mapping[str, Any]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    notes: tuple[str, ...] = ()


def read_model(path: Path) -> NirModel:
    """Read and check a file.

    Raises
    ------
    UsageError
        When the file does not exist, or the ``nir`` package does not.
    ArtefactError
        When it is not a NIR file, damaged, or holds what is not finite.
    UnsupportedModelError
        With every node of a type that NIR does not have.
    """
    if not is_there(path):
        raise NotFoundError(f"{path}: no such file. Give a NIR graph as written by nir.write.")
    try:
        with open_hdf5(path) as hdf5:
            tree = _group(hdf5, hdf5.member(hdf5.file, "node"))
    except (OSError, RuntimeError, KeyError, ValueError, TypeError, IndexError, AttributeError,
            OverflowError, MemoryError) as error:  # fmt: skip
        # h5py raises any of these for a damaged file.
        raise ArtefactError(
            f"{path}: is not a NIR graph ({reason(error)}). Write it again with nir.write."
        ) from error
    return take_apart(_Nodes(str(path)).graph(tree), str(path))


def _group(hdf5: Hdf5, group: Any) -> dict[str, Any]:
    """Turn a group into a dict of text, arrays, and dicts of them."""
    if not hasattr(group, "keys"):
        raise TypeError(f"{group.name} is not a group")
    found: dict[str, Any] = {}
    for key in group:
        item = hdf5.member(group, key)
        found[key] = _group(hdf5, item) if hasattr(item, "keys") else _value(hdf5, item)
    return found


def _value(hdf5: Hdf5, dataset: Any) -> Any:
    if dataset.dtype.kind in "OS":
        texts = hdf5.texts(dataset)
        return texts if texts.ndim else texts[()]
    return hdf5.numbers(dataset, _BESIDE)[()]


class _Nodes:
    """Lets ``nir`` make nodes of what a file holds, and collects what it cannot."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.unknown: list[str] = []
        self.faults: list[str] = []

    def graph(self, tree: dict[str, Any]) -> Any:
        found = self.node(tree, "")
        if self.unknown:
            raise UnsupportedModelError(
                f"{self.source}: {many(len(self.unknown), 'node')} of types that NIR does not have",
                self.unknown,
                "Write the file again with a framework's NIR export.",
            )
        if self.faults:
            raise _damaged(self.source, self.faults)
        if not hasattr(found, "nodes"):
            raise ArtefactError(f"{self.source}: holds a single node, not a graph. Export a graph.")
        return found

    def node(self, tree: Any, name: str) -> Any:
        import nir

        kind = tree.get("type") if isinstance(tree, dict) else None
        where = name or "the file"
        if not isinstance(kind, str):
            self.faults.append(f"{where}: has no type")
            return None
        if kind not in nir.ir.__all__ or kind in ("NIRNode", "str2NIRNode", "dict2NIRNode"):
            self.unknown.append(f"{where}: {kind[:60]}")
            return None
        if kind == "NIRGraph":
            return self.subgraph(tree, name)
        bad = [k for k, v in tree.items() if _is_bad(v)]
        if bad:
            self.faults.append(f"{where}: NaN or infinite values in {', '.join(bad)}")
            return None
        fields = dict(tree)
        if kind in ("Conv1d", "Conv2d"):
            # Left out by exporters that do not know it; the graph tells.
            fields.setdefault("input_shape", None)
        if kind in ("Conv2d", "Conv1d") and isinstance(fields.get("padding"), np.ndarray):
            fields["padding"] = tuple(int(x) for x in np.atleast_1d(fields["padding"]))
        try:
            return nir.dict2NIRNode(fields)
        except Exception as error:  # noqa: BLE001 - nir checks with asserts and any other error
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            self.faults.append(f"{where}: is not a {kind} ({reason[:160]})")
            return None

    def subgraph(self, tree: dict[str, Any], name: str) -> Any:
        import nir

        nodes, edges = tree.get("nodes"), tree.get("edges")
        if not isinstance(nodes, dict):
            self.faults.append(f"{name or 'the graph'}: has no nodes")
            return None
        pairs = np.asarray([] if edges is None else edges, object)
        if pairs.size and (pairs.ndim != 2 or pairs.shape[1] != 2):
            self.faults.append(f"{name or 'the graph'}: its edges are not pairs of names")
            return None
        made = {k: self.node(v, f"{name}.{k}" if name else k) for k, v in nodes.items()}
        metadata = tree.get("metadata")
        return nir.NIRGraph(
            {k: v for k, v in made.items() if v is not None},
            [(str(a), str(b)) for a, b in pairs.reshape(-1, 2)],
            metadata if isinstance(metadata, dict) else {},
            type_check=False,
        )


def _is_bad(value: Any) -> bool:
    kind = "f" if isinstance(value, float) else getattr(getattr(value, "dtype", None), "kind", "")
    return kind == "f" and not bool(np.isfinite(value).all())


def _damaged(source: str, faults: list[str]) -> ArtefactError:
    listed = "\n".join(f"  - {fault}" for fault in faults)
    return ArtefactError(f"{source}: is a damaged NIR graph:\n{listed}\nExport it again.")


def take_apart(graph: Any, source: str) -> NirModel:
    """Return the nodes of a ``nir.NIRGraph`` and of all graphs in it.

    Raises
    ------
    ArtefactError
        When an edge leads from or to a node that is not there, or a graph within the graph has not
        exactly one input and output.
    """
    parts = _Parts()
    parts.take(graph, "")
    if parts.faults:
        raise _damaged(source, parts.faults)
    unique = tuple(dict.fromkeys(parts.edges))
    notes = ("edges that are there twice are taken once",) if len(unique) < len(parts.edges) else ()
    return NirModel(
        parts.nodes, unique, dict(graph.metadata), tuple(graph.inputs), tuple(graph.outputs), notes
    )


def _with_arrays(name: str, node: Any) -> Any:
    """Return a node with arrays for its tensors, which graphs made in memory hold."""
    tensors = {key: value for key, value in vars(node).items() if hasattr(value, "detach")}
    if not tensors:
        return node
    found = copy.copy(node)
    for key, value in tensors.items():
        setattr(found, key, as_array(f"{name}: {key}", value))
    return found


@dataclass
class _Parts:
    nodes: dict[str, Any] = field(default_factory=dict)
    edges: list[tuple[str, str]] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    def take(self, graph: Any, prefix: str) -> None:
        doors: dict[str, tuple[str, str]] = {}
        for name, node in graph.nodes.items():
            path = prefix + name
            if not hasattr(node, "nodes"):
                found = _with_arrays(path, node)
                if bad := [key for key, value in vars(found).items() if _is_bad(value)]:
                    self.faults.append(f"{path}: NaN or infinite values in {', '.join(bad)}")
                self.nodes[path] = found
                continue
            if len(node.inputs) != 1 or len(node.outputs) != 1:
                self.faults.append(
                    f"{path}: a graph within the graph has {len(node.inputs)} inputs and "
                    f"{len(node.outputs)} outputs; edges tell one of each apart"
                )
                continue
            doors[name] = (
                f"{path}.{next(iter(node.inputs))}",
                f"{path}.{next(iter(node.outputs))}",
            )
            self.take(node, f"{path}.")
        for edge in graph.edges:
            missing = [end for end in edge if end not in graph.nodes]
            if missing:
                self.faults.append(
                    f"{prefix}{edge[0]} -> {prefix}{edge[1]}: there is no node {missing[0]!r}"
                )
                continue
            pre, post = edge
            self.edges.append(
                (
                    doors[pre][1] if pre in doors else prefix + pre,
                    doors[post][0] if post in doors else prefix + post,
                )
            )
