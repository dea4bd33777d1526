"""Watch what the neurons of a framework's module do while its forward runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import torch
from torch import nn
from typing_extensions import Self

from osbc_deploy.arrays import FloatArray

__all__ = ["MiscountedError", "Recorder", "Seen"]


class MiscountedError(Exception):
    """A cell was called neither once for each time step nor once for all, but `off` as often."""

    def __init__(self, said: str, off: int = 0) -> None:
        super().__init__(said)
        self.off = off


@dataclass(frozen=True, eq=False)
class Seen:
    """What a population did in the framework.

    Attributes
    ----------
    answer : ndarray (n, T, neurons)
        Its spikes.
    v : ndarray (n, T, neurons) or (n, 1, neurons), or None
        Its membrane potential after each step, or after the last one; None where it cannot be seen.
    """

    answer: FloatArray
    v: FloatArray | None


class Recorder:
    """Hooks on the cells of a module; to be used as a context.

    Parameters
    ----------
    module : torch.nn.Module
    cells : mapping of str to torch.nn.Module
        The cell that each population was read from; those that are no module's are left out.
    potential : callable
        Returns a cell's potential after a call that gave an answer, or None.
    """

    def __init__(
        self,
        module: nn.Module,
        cells: Mapping[str, nn.Module],
        potential: Callable[[nn.Module, Any], torch.Tensor | None],
    ) -> None:
        self._module = module
        self._cells = cells
        self._potential = potential
        self._calls: dict[int, list[tuple[torch.Tensor, torch.Tensor | None]]] = {}
        self._times = 0
        self._hooks: list[Any] = []

    def __enter__(self) -> Self:
        self._hooks = [self._module.register_forward_pre_hook(self._count)]
        for key, cell in {id(cell): cell for cell in self._cells.values()}.items():
            self._calls[key] = []
            # The last one registered is the last one called, so it sees what others made of it.
            self._hooks.append(cell.register_forward_hook(self._keep))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for hook in self._hooks:
            hook.remove()

    def seen(self, name: str, n: int, steps: int) -> Seen | None:
        """Return what a population did, or None where no cell's calls say it.

        Raises
        ------
        MiscountedError
            When its cell was not called as often as there are time steps, or once.
        """
        cell = self._cells.get(name)
        if cell is None:
            return None
        calls = self._calls[id(cell)]
        sharing = [place for place, other in self._cells.items() if other is cell]
        turn, turns = sharing.index(name), len(sharing)
        if not calls:
            # Its forward was called without the module around it.
            return None
        if len(calls) == turns:
            mine = [calls[turn]]
        elif len(calls) == turns * steps:
            if turns > 1 and self._times != steps:
                # Whether its turns come step by step or one after the other is not known.
                return None
            mine = calls[turn::turns]
        else:
            due = steps * turns
            raise MiscountedError(f"called {len(calls)} times in {due} steps", len(calls) - due)
        answer = _joined([a for a, _ in mine], n, steps)
        if answer is None:
            raise MiscountedError(
                f"answers in shape {tuple(mine[0][0].shape)} to {n} samples of {steps} steps"
            )
        potentials = [v for _, v in mine if v is not None]
        if len(potentials) < len(mine):
            return Seen(answer, None)
        # One call may give the potential after each step, or after the last.
        all_steps = len(mine) == steps or potentials[0].numel() == mine[0][0].numel()
        return Seen(answer, _joined(potentials, n, steps if all_steps else 1))

    def _count(self, module: nn.Module, given: Any) -> None:
        self._times += 1

    def _keep(self, cell: nn.Module, given: Any, answer: Any) -> None:
        first = answer[0] if isinstance(answer, tuple | list) and len(answer) else answer
        if isinstance(first, torch.Tensor):
            v = self._potential(cell, answer)
            # Whatever follows may change them in place.
            self._calls[id(cell)].append((first.clone(), None if v is None else v.clone()))


def _joined(parts: list[torch.Tensor], n: int, steps: int) -> FloatArray | None:
    """Return what calls gave as (n, steps, neurons); None where the sizes do not allow that."""
    whole = parts[0] if len(parts) == 1 else torch.stack(parts)
    if whole.numel() % (n * steps):
        return None
    found: FloatArray = whole.detach().cpu().reshape(steps, n, -1).transpose(0, 1).numpy()
    return found
