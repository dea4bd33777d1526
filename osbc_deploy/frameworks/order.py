"""Find the order in which activity flows through a graph of populations."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

__all__ = ["activity_order", "ancestors"]


def ancestors(edges: Iterable[tuple[str, str]], last: str) -> set[str]:
    """Return `last` and all names from which edges (pre, post) lead to it."""
    before: dict[str, list[str]] = {}
    for pre, post in edges:
        before.setdefault(post, []).append(pre)
    found, waiting = {last}, [last]
    while waiting:
        new = [pre for pre in before.get(waiting.pop(), ()) if pre not in found]
        found.update(new)
        waiting += new
    return found


def activity_order(
    names: Sequence[str], edges: Iterable[tuple[str, str]], first: str, last: str
) -> list[str]:
    """Return names in an order in which as little as possible leads back.

    Edges that close a cycle, seen from `first`, are those that lead back in the result; so is all
    that leaves `last`, which always ends the order. What the order leaves open, that of `names`
    decides.

    Parameters
    ----------
    names : sequence of str
        Without `first`.
    edges : iterable of (pre, post)
    first, last : str
        Where activity comes from, and where it ends.
    """
    place = {name: number for number, name in enumerate(names)}
    ends = sorted({(pre, post) for pre, post in edges if pre not in (last, post)}, key=str)
    after: dict[str, list[str]] = {name: [] for name in (first, *names)}
    # Who is visited last ends up in front.
    for pre, post in sorted(ends, key=lambda edge: place[edge[1]], reverse=True):
        after[pre].append(post)
    # Depth first, in reverse order of leaving: of every cycle only the edge back to a node that is
    # still open is turned around.
    left: list[str] = []
    seen: set[str] = set()
    for start in (first, *names):
        if start in seen:
            continue
        seen.add(start)
        stack = [(start, iter(after[start]))]
        while stack:
            name, following = stack[-1]
            step = next((n for n in following if n not in seen), None)
            if step is None:
                left.append(name)
                stack.pop()
            else:
                seen.add(step)
                stack.append((step, iter(after[step])))
    order = [name for name in reversed(left) if name not in (first, last)]
    return [*order, last]
