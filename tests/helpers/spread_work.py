"""Work for other processes, which find it by its name."""

from __future__ import annotations

import os
import time


def squared(common: int, item: int, threads: int) -> int:
    return common + item * item


def deadly(common: int, item: int, threads: int) -> int:
    """End the process that meets the item which all share."""
    if item == common:
        os._exit(9)
    return item


def slow(common: float, item: int, threads: int) -> int:
    time.sleep(common)
    return item
