"""When something was done: now, or as builds that must not vary say."""

from __future__ import annotations

import os
from datetime import datetime, timezone

from osbc_deploy.errors import UsageError

__all__ = ["VARIABLE", "now"]

VARIABLE = "SOURCE_DATE_EPOCH"
"""Seconds since 1970, in place of the time. NumPy reads it, too, and knows no error for it."""


def now() -> str:
    """Return the time in UTC, as ISO 8601.

    Raises
    ------
    UsageError
        When the environment gives what is no time.
    """
    epoch = os.environ.get(VARIABLE)
    try:
        utc = timezone.utc
        when = datetime.now(utc) if epoch is None else datetime.fromtimestamp(int(epoch), utc)
    except (ValueError, OverflowError, OSError) as error:
        raise UsageError(
            f"{VARIABLE}: {epoch!r} is not a time. Give seconds since 1970, or unset it."
        ) from error
    return when.replace(tzinfo=None).isoformat(timespec="seconds") + "Z"
