"""What a NIR file does not say: the time step, and how neurons are reset.

Both are taken from the user, else from what gives an exporter away, which the notes then say:

- our own export writes ``dt`` and ``reset`` into the graph's metadata;
- snnTorch (``snntorch/export_nir.py``) and SpikingJelly (``nir_exchange/to_nir.py``) count time in
  steps and write them with ``dt = 1e-4``: ``r = tau_mem / dt``, ``w_in = tau_syn / dt``, or
  ``r = 1 / dt`` of an integrator;
- a ``v_reset`` that is not 0 only makes sense for neurons that are set to it.

IF nodes with ``r = 1`` need no time step: sinabs (``sinabs/nir.py``) and norse
(``norse/torch/utils/export_nir.py``) mean by it, and their readers take from it, that the whole
input is added in every step.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from osbc_deploy.errors import UsageError
from osbc_deploy.formats.nir.file import NirModel

__all__ = ["GENERATOR", "TimeStep", "choose", "own_metadata"]

GENERATOR = "osbc-deploy"
"""What the metadata of our own export name as their writer."""

_RESETS = ("zero", "subtract")
_CUSTOMARY = 1e-4
"""Seconds that frameworks which count in steps write for one."""
_LEAKY = ("LIF", "CubaLIF", "LI", "CubaLI")
_FIRING = ("IF", "LIF", "CubaLIF")


@dataclass(frozen=True)
class TimeStep:
    """How to step the neurons.

    Attributes
    ----------
    dt : float or None
        None where nothing depends on it.
    reset : str or None
        None where nothing is reset.
    notes : tuple of str
        Where they come from.
    """

    dt: float | None
    reset: str | None
    notes: tuple[str, ...]

    @property
    def step(self) -> float:
        """The time step, where something depends on it."""
        return 1.0 if self.dt is None else self.dt


def choose(model: NirModel, dt: float | None, reset: str | None, source: str) -> TimeStep:
    """Return what the user asked for, or else what the file tells.

    Raises
    ------
    UsageError
        When neither says what the network needs, or what was asked for is not valid.
    """
    if dt is not None and not (np.isfinite(dt) and dt > 0):
        raise UsageError(f"--dt: {dt:g} is not a time step; it must be more than 0.")
    if reset is not None and reset not in _RESETS:
        raise UsageError(f"--reset: {reset!r} is not one of {', '.join(_RESETS)}.")
    missing: list[str] = []
    notes: list[str] = []
    found_dt = _time_step(model, dt, notes, missing)
    found_reset = _reset(model, reset, notes, missing)
    if missing:
        raise UsageError(f"{source}: NIR does not say all that is needed.\n" + "\n".join(missing))
    return TimeStep(found_dt, found_reset, tuple(notes))


def own_metadata(model: NirModel) -> Mapping[str, Any]:
    """Return what our own export noted in a file; nothing for files of others."""
    ours = str(model.metadata.get("generator", "")).startswith(GENERATOR)
    return model.metadata if ours else {}


def _of(model: NirModel, kinds: tuple[str, ...]) -> dict[str, Any]:
    return {name: n for name, n in model.nodes.items() if type(n).__name__ in kinds}


def _time_step(
    model: NirModel, dt: float | None, notes: list[str], missing: list[str]
) -> float | None:
    users = list(_of(model, _LEAKY))
    users += [name for name, n in _of(model, ("IF",)).items() if not (np.asarray(n.r) == 1).all()]
    users += [name for name, n in _of(model, ("Delay",)).items() if np.any(n.delay)]
    if not users:
        if dt is not None:
            notes.append(f"dt = {dt:g} was given, but nothing in the model depends on it")
        return None
    own = own_metadata(model).get("dt")
    written = _written(model)
    if isinstance(own, int | float | np.number) and np.isfinite(own) and own > 0:
        told, why = float(own), "as our own export noted in the file"
    elif written is not None and abs(written / _CUSTOMARY - 1) < 1e-5:
        told, why = _CUSTOMARY, "r = tau / dt, as snnTorch and SpikingJelly write it"
    else:
        told, why = None, ""
    if dt is not None:
        notes.append(f"dt = {dt:g}, as asked for")
        if told is not None and abs(dt / told - 1) > 1e-6:
            notes.append(f"the file was written for dt = {told:g} ({why})")
        return dt
    if told is not None:
        notes.append(f"dt = {told:g} taken from the file ({why}); --dt overrides it")
        return told
    hint = ""
    if written is not None:
        hint = f" In this file r = tau / dt would hold for --dt {written:g}."
    missing.append(
        f"--dt: is missing; {', '.join(users[:4])}{' and others' if len(users) > 4 else ''} "
        f"depend{'s' if len(users) == 1 else ''} on the time step. Give the one the network was "
        f"trained with, in the unit of its time constants.{hint}"
    )
    return None


def _written(model: NirModel) -> float | None:
    """Return the time step at which neurons take their whole input, if there is one."""
    ratios: list[Any] = []
    for node in _of(model, (*_LEAKY, "IF")).values():
        kind = type(node).__name__
        with np.errstate(divide="ignore", invalid="ignore"):
            if kind == "IF":
                ratios.append(1.0 / np.asarray(node.r, np.float64))
            elif kind in ("LIF", "LI"):
                if (np.asarray(node.r) == 1).all():
                    # SpikingJelly's decayed input, and anybody's who has no resistance: no hint.
                    continue
                ratios.append(np.asarray(node.tau, np.float64) / node.r)
            else:
                ratios.append(np.asarray(node.tau_mem, np.float64) / node.r)
                ratios.append(np.asarray(node.tau_syn, np.float64) / node.w_in)
    values = np.concatenate([np.ravel(r) for r in ratios]) if ratios else np.zeros(0)
    if not values.size or not np.isfinite(values).all() or (values <= 0).any():
        return None
    first = float(values[0])
    return first if (np.abs(values / first - 1) < 1e-5).all() else None


def _reset(model: NirModel, reset: str | None, notes: list[str], missing: list[str]) -> str | None:
    firing = _of(model, _FIRING)
    if not firing:
        return None
    elsewhere = [name for name, n in firing.items() if np.any(n.v_reset)]
    own = own_metadata(model).get("reset")
    if reset == "subtract" and elsewhere:
        raise UsageError(
            "--reset: subtract takes the threshold away, but the v_reset of "
            f"{', '.join(elsewhere[:4])} is not 0. Use --reset zero, which sets neurons to it."
        )
    if reset is not None:
        notes.append(f"reset: {reset}, as asked for")
        if own in _RESETS and own != reset:
            notes.append(f"the file was written for reset: {own}")
        return reset
    if own in _RESETS:
        notes.append(f"reset: {own}, as our own export noted in the file; --reset overrides it")
        return str(own)
    if elsewhere:
        notes.append(
            f"reset: zero, since v_reset of {', '.join(elsewhere[:4])} is not 0; neurons are set "
            "to v_reset"
        )
        return "zero"
    missing.append(
        "--reset: is missing. Give 'subtract' where a spike takes the threshold away (the default "
        "of snnTorch and sinabs) or 'zero' where it sets the potential to v_reset (NIR's own "
        "equations, norse, and all that SpikingJelly exports)."
    )
    return None
